//! The gRPC service `signal.v1.Signal`: the same steps as the HTTP API, in the same order, with the same names.

mod codec;
mod convert;
mod deadline;
mod foreign;
mod send_stream;
mod status;
mod stream;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{Method, Version, header};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{self, Service as _, StdError},
    service::Routes,
};
use tonic_health::{pb::health_server::Health, pb::health_server::HealthServer, server::HealthReporter};

pub use self::{deadline::within_deadline, foreign::supervise};
use self::{
    proto::{
        BroadcastRequest, BroadcastResponse, ListDevicesRequest, ListDevicesResponse, SendRequest, SendResponse,
        SendStreamRequest, SubscribeRequest, SubscribeResponse, WatchDevicesRequest, WatchDevicesResponse,
        signal_server::{self, SignalServer},
    },
    send_stream::{Answers, Sender},
    stream::{Responses, Step},
};
use crate::{
    auth::{Auth, Caller, Subscriber},
    drain::Drain,
    error::{Error, Unproven},
    hub::{Event, Hub, Opening, Subscription, Watch, WatchEvent},
    model::{Start, UserId},
    serve::Peer,
    telemetry::Metrics,
    wall_clock,
};

/// The generated messages, client and server of `proto/signal/v1/signal.proto`.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; the proto is the manual"
)]
pub mod proto {
    tonic::include_proto!("signal.v1");

    /// The descriptors of all of it, for reflection.
    pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/signal.bin"));
}

/// What the methods share.
#[derive(Clone)]
pub struct Service {
    /// The one hub.
    pub hub: Hub,
    /// Who may be believed.
    pub auth: Arc<Auth>,
    /// What operators see.
    pub metrics: Metrics,
    /// The silence after which a stream gets a ping.
    pub heartbeat: Duration,
    /// What ends the calls that would go on as long as their clients.
    pub drain: Drain,
}

/// The service as tonic serves it.
pub type Signal = SignalServer<Service>;

/// Makes a server of the service; `limit` is in bytes of a message.
#[must_use]
pub fn signal(service: Service, limit: usize) -> Signal {
    SignalServer::new(service).max_decoding_message_size(limit)
}

/// The service, health and both versions of reflection as routes.
///
/// # Errors
/// When the descriptors cannot be read, which the build has just written.
pub fn routes(signal: Signal, health: HealthServer<impl Health>) -> Result<Routes, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::default()
        .add_service(signal)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}

/// Tells health checks whether the service takes work.
pub async fn report(health: &HealthReporter, serving: bool) {
    if serving {
        health.set_serving::<Signal>().await;
    } else {
        health.set_not_serving::<Signal>().await;
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    }
}

/// Whether a call is one of ours. Others need [`supervise`].
#[must_use]
pub fn is_ours<B>(request: &http::Request<B>) -> bool {
    request.uri().path().starts_with(ROUTE.trim_end_matches("{*rest}"))
}

/// The pattern of the paths of [`Signal`].
pub const ROUTE: &str = "/signal.v1.Signal/{*rest}";

/// What a call of [`Signal`] is called in metrics and spans: the path of its method, or [`ROUTE`] for a method that does not exist, so
/// that a peer cannot make names.
#[must_use]
pub fn method(path: &str) -> &'static str {
    METHODS.into_iter().find(|method| *method == path).unwrap_or(ROUTE)
}

/// Whether a request is a call of `Send` and not over gRPC-Web: it comes once for every message, so it is worth finding without
/// the router.
#[must_use]
pub fn is_send<B>(request: &http::Request<B>) -> bool {
    let native = kind(request).is_some_and(|kind| !kind.starts_with(b"-"));
    native && request.method() == Method::POST && request.version() == Version::HTTP_2 && request.uri().path() == SEND
}

/// What the router would do with such a call.
pub async fn send<B>(signal: &Signal, request: http::Request<B>) -> http::Response<Body>
where
    B: codegen::Body<Error: Into<StdError> + Send> + Send + 'static,
{
    let call = async |request| {
        let Ok(response) = signal.clone().call(request).await;
        response
    };
    within_deadline(request, call, Body::new).await
}

/// The path of `Send`.
pub const SEND: &str = "/signal.v1.Signal/Send";

const METHODS: [&str; 6] = [
    SEND,
    "/signal.v1.Signal/SendStream",
    "/signal.v1.Signal/Broadcast",
    "/signal.v1.Signal/Subscribe",
    "/signal.v1.Signal/ListDevices",
    "/signal.v1.Signal/WatchDevices",
];

/// Whether a path is that of a health check, which is answered also when there is no place for a connection.
#[must_use]
pub fn is_health(path: &str) -> bool {
    path == "/grpc.health.v1.Health/Check"
}

/// Whether a request is a call, natively or over gRPC-Web.
#[must_use]
pub fn is_call<B>(request: &http::Request<B>) -> bool {
    kind(request).is_some()
}

/// What follows `application/grpc` in the type of a call.
fn kind<B>(request: &http::Request<B>) -> Option<&[u8]> {
    let kind = request.headers().get(header::CONTENT_TYPE)?.as_bytes().strip_prefix(b"application/grpc")?;
    matches!(kind.first(), None | Some(b'+' | b'-' | b';')).then_some(kind)
}

/// The answer to a call that comes to no method.
#[must_use]
pub fn refuse(error: Error) -> Status {
    status::from(error)
}

/// The answer to a gRPC request for a service that is not there.
#[must_use]
pub fn no_service() -> Status {
    Status::unimplemented("unknown service")
}

/// The answer to a call that took too long.
#[must_use]
pub fn too_late() -> Status {
    Status::deadline_exceeded("the deadline of the call is over")
}

#[tonic::async_trait]
impl signal_server::Signal for Service {
    type SubscribeStream = Responses<Subscription, SubscribeResponse>;
    type SendStreamStream = Answers;
    type WatchDevicesStream = Responses<Watch, WatchDevicesResponse>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let subscriber = self.subscriber(&request)?;
        let start = Start::parse(Some(&request.get_ref().cursor));
        let opening = Opening { start, heartbeat: self.heartbeat };
        let (ready, subscription) = self.hub.subscribe(&subscriber, &opening).map_err(status::from)?;
        let ready = convert::ready(&ready, self.heartbeat);
        let convert = |event| {
            let end = if let Event::End(reason) = event { Some(reason) } else { None };
            Step { responses: vec![convert::event(&event, wall_clock::now())], end }
        };
        Ok(Response::new(Responses::new(Some(ready), subscription, convert)))
    }

    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let caller = self.caller(&request)?;
        let (to, draft) = convert::send(request.into_inner()).map_err(status::from)?;
        let outcome = self.hub.send(&caller, &to, draft).await.map_err(status::from)?;
        Ok(Response::new(convert::sent(outcome)))
    }

    async fn send_stream(
        &self,
        request: Request<Streaming<SendStreamRequest>>,
    ) -> Result<Response<Self::SendStreamStream>, Status> {
        let sender = Sender { hub: self.hub.clone(), caller: self.caller(&request)? };
        Ok(Response::new(Answers::new(sender, request.into_inner(), &self.drain)))
    }

    async fn broadcast(&self, request: Request<BroadcastRequest>) -> Result<Response<BroadcastResponse>, Status> {
        let caller = self.caller(&request)?;
        let (user, draft) = convert::broadcast(request.into_inner()).map_err(status::from)?;
        let delivered = self.hub.broadcast(&caller, &user, draft).await.map_err(status::from)?;
        Ok(Response::new(BroadcastResponse { delivered: convert::names(&delivered) }))
    }

    async fn list_devices(
        &self,
        request: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        let caller = self.caller(&request)?;
        let user = UserId::new(&request.get_ref().user).map_err(|part| status::from(part.into()))?;
        let devices = self.hub.devices(&caller, &user).await.map_err(status::from)?;
        Ok(Response::new(ListDevicesResponse { devices: convert::names(&devices) }))
    }

    async fn watch_devices(
        &self,
        request: Request<WatchDevicesRequest>,
    ) -> Result<Response<Self::WatchDevicesStream>, Status> {
        let caller = self.caller(&request)?;
        let user = UserId::new(&request.get_ref().user).map_err(|part| status::from(part.into()))?;
        let watch = self.hub.watch(&caller, &user, self.heartbeat).map_err(status::from)?;
        let convert = |sighting| {
            let end = if let WatchEvent::End(reason) = sighting { Some(reason) } else { None };
            Step { responses: convert::sighting(&sighting), end }
        };
        Ok(Response::new(Responses::new(None, watch, convert)))
    }
}

impl Service {
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let peer = peer(request).map_err(status::from)?;
        self.auth.caller(request.metadata().as_ref(), peer).map_err(|error| self.refuse(error))
    }

    fn subscriber<T>(&self, request: &Request<T>) -> Result<Subscriber, Status> {
        let peer = peer(request).map_err(status::from)?;
        self.auth.subscriber(request.metadata().as_ref(), peer, None).map_err(|error| self.refuse(error))
    }

    fn refuse(&self, error: Error) -> Status {
        if matches!(error, Error::Unauthenticated(fault) if fault != Unproven::Absent) {
            self.metrics.identity_refused();
        }
        status::from(error)
    }
}

fn peer<T>(request: &Request<T>) -> Result<IpAddr, Error> {
    request.extensions().get::<Peer>().map(|peer| peer.0).ok_or(Error::Internal)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn every_method_of_the_service_has_a_label_of_its_own() {
        let set = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).expect("the build wrote it");
        let services = set.file.iter().flat_map(|file| {
            file.service.iter().map(move |service| (format!("{}.{}", file.package(), service.name()), service))
        });
        let mut paths: Vec<_> = services
            .flat_map(|(name, service)| service.method.iter().map(move |method| format!("/{name}/{}", method.name())))
            .collect();
        let mut methods = METHODS.to_vec();
        paths.sort();
        methods.sort_unstable();
        assert_eq!(methods, paths);
    }
}
