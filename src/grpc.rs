//! The gRPC service `backend_signal.v1.Signal`. Its methods take the same steps as the HTTP API, in the same order.

mod call_type;
mod codec;
mod convert;
mod deadline;
mod end_on_drain;
mod health;
mod identity;
mod request_frames;
mod send_stream;
mod status;
mod web_body;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use hyper::body::Bytes;
use tokio_stream::Stream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{self, Service as _, StdError},
    service::Routes,
};
use tonic_health::{pb::health_server::Health, pb::health_server::HealthServer, server::HealthReporter};

pub use self::{
    call_type::{CallType, is_protobuf, is_send},
    deadline::within_deadline,
    end_on_drain::{end_on_drain, is_health},
    health::health_service,
    identity::{SignalService, refusal},
    web_body::WebBody,
};
use self::{
    identity::Identity,
    proto::{
        BroadcastRequest, BroadcastResponse, GetIceServersRequest, GetIceServersResponse, ListDevicesRequest,
        ListDevicesResponse, SendRequest, SendResponse, SendStreamRequest, SubscribeRequest, SubscribeResponse,
        WatchDevicesRequest, WatchDevicesResponse,
        signal_server::{self, SignalServer},
    },
    send_stream::SendResponses,
};
use crate::{
    auth::{Auth, Caller, Subscriber},
    drain::Drain,
    flat_map::FlatMap,
    hub::{Hub, Opening, StreamItem, Subscription, Watch, WatchItem, chosen_heartbeat},
    ice::IceServers,
    model::{EndReason, Outcome, Start},
    wall_clock,
};

/// The messages, the client and the server, generated from `proto/backend_signal/v1/signal.proto`. After a change of that file:
/// `cargo check --features generate`.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; the comments of the proto document it"
)]
pub mod proto {
    include!("../proto/generated/backend_signal.v1.rs");

    /// The descriptors of the whole file, for reflection.
    pub(super) const DESCRIPTORS: &[u8] = include_bytes!("../proto/generated/signal.bin");
}

/// The state that the methods share.
#[derive(Clone)]
pub struct SignalMethods {
    /// The hub of this process.
    pub hub: Hub,
    /// The STUN and TURN servers.
    pub ice: Arc<IceServers>,
    /// How long a stream may be silent before it gets a ping.
    pub heartbeat: Duration,
    /// Ends `SendStream` calls on a drain. The hub ends the other streams.
    pub drain: Drain,
}

/// The gRPC service, which identifies the caller of each call. A request message has at most `limit` bytes.
#[must_use]
pub fn signal_service(methods: SignalMethods, auth: Arc<Auth>, limit: usize) -> SignalService {
    SignalService::new(SignalServer::new(methods).max_decoding_message_size(limit), auth, limit)
}

/// The routes of the service, of health checks, and of both versions of reflection.
///
/// # Errors
/// When the descriptors that the build embeds cannot be decoded.
pub fn routes(
    signal: SignalService,
    health: HealthServer<impl Health>,
) -> Result<Routes, tonic_reflection::server::Error> {
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

/// Sets what health checks say about the service, and on a drain about `""`, the whole server. At the start tonic-health sets `""`.
pub async fn set_health(health: &HealthReporter, serving: bool) {
    if serving {
        health.set_serving::<SignalService>().await;
    } else {
        health.set_not_serving::<SignalService>().await;
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    }
}

/// Whether a call is for `Signal`, which ends its own streams on a drain. All other calls need [`end_on_drain()`].
#[must_use]
pub fn is_signal<B>(request: &http::Request<B>) -> bool {
    request.uri().path().starts_with(ROUTE.trim_end_matches("{*rest}"))
}

/// The route of all methods of `Signal`.
pub const ROUTE: &str = "/backend_signal.v1.Signal/{*rest}";

/// The label of a call of `Signal` in metrics and spans: the path of its method, or [`ROUTE`] for a method that does not exist, so
/// that a peer cannot create labels.
#[must_use]
pub fn method(path: &str) -> &'static str {
    METHODS.iter().find(|(method, _)| *method == path).map_or(ROUTE, |(method, _)| method)
}

fn needed_identity(path: &str) -> Option<Identity> {
    METHODS.iter().find(|(method, _)| *method == path).map(|(_, identity)| *identity)
}

/// Handles a native call of `Send`. The response is the one that the router would give.
pub async fn send<B>(signal: &SignalService, request: http::Request<B>) -> http::Response<Body>
where
    B: codegen::Body<Data = Bytes, Error: Into<StdError> + Send> + Unpin + Send + 'static,
{
    let call = async |request| {
        let Ok(response) = signal.clone().call(request).await;
        response
    };
    within_deadline(request, call, Body::new).await
}

/// The path of `Send`.
pub const SEND: &str = "/backend_signal.v1.Signal/Send";

/// The only method whose requests are a stream.
const SEND_STREAM: &str = "/backend_signal.v1.Signal/SendStream";

/// The path of each method of `Signal`, and the identity that the method needs.
const METHODS: [(&str, Identity); 7] = [
    (SEND, Identity::Caller),
    (SEND_STREAM, Identity::StreamCaller),
    ("/backend_signal.v1.Signal/Broadcast", Identity::Caller),
    ("/backend_signal.v1.Signal/Subscribe", Identity::Subscriber),
    ("/backend_signal.v1.Signal/ListDevices", Identity::Caller),
    ("/backend_signal.v1.Signal/WatchDevices", Identity::StreamCaller),
    ("/backend_signal.v1.Signal/GetIceServers", Identity::IceCaller),
];

/// Whether a path is that of the gRPC health check, which a connection over the limit may still call.
#[must_use]
pub fn is_health_path(path: &str) -> bool {
    path == "/grpc.health.v1.Health/Check"
}

/// The status of a call whose messages are not protobuf.
#[must_use]
pub fn no_codec() -> Status {
    Status::unimplemented(
        "This server reads only protobuf: application/grpc, application/grpc-web, application/grpc-web-text.",
    )
}

/// The status of a call of a service that does not exist.
#[must_use]
pub fn no_service() -> Status {
    Status::unimplemented("This server does not have this service.")
}

/// The responses of a streaming method: a stream of the hub, converted.
pub type ResponseStream<S, T> = FlatMap<S, Result<T, Status>, fn(&mut S, <S as Stream>::Item) -> Responses<T>>;

/// Responses, and the status that ends the call if it is not OK.
type Responses<T> = VecDeque<Result<T, Status>>;

#[tonic::async_trait]
impl signal_server::Signal for SignalMethods {
    type SubscribeStream = ResponseStream<Subscription, SubscribeResponse>;
    type SendStreamStream = SendResponses;
    type WatchDevicesStream = ResponseStream<Watch, WatchDevicesResponse>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let subscriber: Subscriber = identity::of(&request)?;
        let SubscribeRequest { cursor, heartbeat } = request.get_ref();
        let heartbeat = chosen_heartbeat(convert::heartbeat(*heartbeat), self.heartbeat);
        let opening = Opening { start: Start::parse(Some(cursor)), heartbeat };
        let (ready, subscription) = self.hub.subscribe(&subscriber, &opening).await?;
        let ready = convert::ready(&ready, heartbeat);
        let to_responses = |_: &mut Subscription, event| {
            let end = if let StreamItem::End(reason) = event { Some(reason) } else { None };
            with_end([convert::event(&event, wall_clock::now())], end)
        };
        Ok(Response::new(FlatMap::new([Ok(ready)].into(), subscription, to_responses)))
    }

    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let caller: Caller = identity::of(&request)?;
        let (to, draft) = convert::send_request(request.into_inner())?;
        let ttl = self.hub.hold_time(draft.ttl);
        let outcome = self.hub.send(&caller, &to, draft).await?;
        let mut response = Response::new(convert::send_response(outcome));
        if outcome == Outcome::Held {
            response.metadata_mut().insert("ttl", ttl.as_secs().into());
        }
        Ok(response)
    }

    async fn send_stream(
        &self,
        request: Request<Streaming<SendStreamRequest>>,
    ) -> Result<Response<Self::SendStreamStream>, Status> {
        let caller: Caller = identity::of(&request)?;
        Ok(Response::new(SendResponses::new(self.hub.clone(), caller, request.into_inner(), &self.drain)))
    }

    async fn broadcast(&self, request: Request<BroadcastRequest>) -> Result<Response<BroadcastResponse>, Status> {
        let caller: Caller = identity::of(&request)?;
        let (user, draft) = convert::broadcast_request(request.into_inner())?;
        let delivered = self.hub.broadcast(&caller, &user, draft).await?;
        Ok(Response::new(BroadcastResponse { delivered: convert::ids(&delivered) }))
    }

    async fn list_devices(
        &self,
        request: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        let caller: Caller = identity::of(&request)?;
        let user = convert::user(&request.get_ref().user)?;
        let devices = self.hub.devices(&caller, &user).await?;
        Ok(Response::new(ListDevicesResponse { devices: convert::ids(&devices) }))
    }

    async fn watch_devices(
        &self,
        request: Request<WatchDevicesRequest>,
    ) -> Result<Response<Self::WatchDevicesStream>, Status> {
        let caller: Caller = identity::of(&request)?;
        let WatchDevicesRequest { users, heartbeat } = request.get_ref();
        let heartbeat = chosen_heartbeat(convert::heartbeat(*heartbeat), self.heartbeat);
        let watch = self.hub.watch(&caller, &convert::users(users)?, heartbeat).await?;
        let to_responses = |_: &mut Watch, item| {
            let end = if let WatchItem::End(reason) = item { Some(reason) } else { None };
            with_end(convert::watch_item(&item, wall_clock::now()), end)
        };
        Ok(Response::new(FlatMap::new(VecDeque::new(), watch, to_responses)))
    }

    async fn get_ice_servers(
        &self,
        request: Request<GetIceServersRequest>,
    ) -> Result<Response<GetIceServersResponse>, Status> {
        let caller: Caller = identity::of(&request)?;
        let configuration = self.ice.for_caller(&caller, wall_clock::now())?;
        Ok(Response::new(convert::ice_configuration(configuration)))
    }
}

/// The responses for one event of the hub, then the status of the call if the event ends the stream.
fn with_end<T>(responses: impl IntoIterator<Item = T>, end: Option<EndReason>) -> Responses<T> {
    let status = end.and_then(status::at_end).map(Err);
    responses.into_iter().map(Ok).chain(status).collect()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::MethodDescriptorProto;

    use super::*;

    #[test]
    fn the_list_of_methods_is_that_of_the_proto() {
        let set = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).expect("the build wrote it");
        let services = set.file.iter().flat_map(|file| {
            file.service.iter().map(move |service| (format!("{}.{}", file.package(), service.name()), service))
        });
        let mut paths: Vec<_> = services
            .flat_map(|(name, service)| service.method.iter().map(move |method| format!("/{name}/{}", method.name())))
            .collect();
        let streams = set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
        let streams: Vec<_> =
            streams.filter(|method| method.client_streaming()).map(MethodDescriptorProto::name).collect();
        assert_eq!(streams, ["SendStream"], "the only method of which `RequestFrames` expects any number of messages");
        let mut methods = METHODS.map(|(path, _)| path);
        paths.sort();
        methods.sort_unstable();
        assert_eq!(methods[..], paths);
    }
}
