//! The one router of both protocols: the routes of all rooms, and the answer when there is no route.

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use http::HeaderValue;
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;

use super::{dispatch::Dispatch, failed_identities::FailedIdentities};
use crate::{
    admin::{self, Admin},
    drain::Drain,
    error::Error,
    grpc::{self, CallType, SignalService},
    limits::ClientAddresses,
    rest::{self, Api, Problem},
};

pub(super) fn join(
    api: Api,
    signal: SignalService,
    grpc: Routes,
    admin: Admin,
    origins: &[HeaderValue],
    addresses: ClientAddresses,
    failed: FailedIdentities,
) -> Dispatch {
    // `reset_fallback`, because axum cannot merge two routers with a fallback. `route_layer`, because with `layer` the gRPC-Web
    // layer would also answer requests for unknown paths.
    let grpc = grpc
        .into_axum_router()
        .reset_fallback()
        .route_layer(from_fn_with_state((admin.drain.clone(), api.settings.body_limit), limit_call))
        .route_layer(GrpcWebLayer::new())
        .route_layer(from_fn(only_grpc));
    let routes = rest::routes(api.clone())
        .merge(admin::routes(admin))
        .merge(grpc)
        .fallback(no_route)
        .method_not_allowed_fallback(async || Problem::from(Error::MethodNotAllowed));
    Dispatch::new(routes, api, signal, origins, addresses, failed)
}

/// Refuses what is not a gRPC call that this server can read. tonic accepts any content type, so a page of another site could call a
/// method with a POST of `text/plain`, which needs no CORS preflight.
async fn only_grpc(mut request: Request, next: Next) -> Response {
    match CallType::of(&request) {
        None => Problem::from(Error::UnsupportedMedia).into_response(),
        Some(call) if !grpc::is_protobuf(&request) => call.respond(grpc::no_codec()),
        Some(call) => {
            call.normalize(request.headers_mut());
            next.run(request).await
        }
    }
}

/// Ends a call at its deadlines (`grpc/deadline.rs`). A call of health or reflection also ends when the daemon drains.
async fn limit_call(State((drain, limit)): State<(Drain, usize)>, request: Request, next: Next) -> Response {
    let call = async |request| {
        if grpc::is_signal(&request) {
            return next.run(request).await;
        }
        let run = |request: http::Request<_>| next.run(request.map(Body::new));
        grpc::end_on_drain(request, &drain, limit, run, Body::new).await
    };
    grpc::within_deadline(request, call, Body::new).await
}

async fn no_route(request: Request) -> Response {
    match CallType::of(&request) {
        Some(call) => call.respond(grpc::no_service()),
        None => Problem::from(Error::NoRoute).into_response(),
    }
}
