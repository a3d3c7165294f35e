//! The one router of both protocols: the routes of all rooms, and the answer when there is no route.

use std::time::SystemTime;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use http::{Extensions, HeaderMap, Uri};
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;

use super::{cross_site::AllowedOrigins, dispatch::Dispatch, failed_identities::FailedIdentities, start_report};
use crate::{
    admin::{self, Admin},
    auth::{Auth, Credentials},
    config::ServeOptions,
    drain::Drain,
    error::Error,
    grpc::{self, CallType, SignalService, WebBody},
    limits::ClientAddresses,
    rest::{self, Api, Problem},
    serve::Peer,
    web::{self, Console},
};

pub(super) fn join(
    api: Api,
    signal: SignalService,
    grpc: Routes,
    admin: Admin,
    options: &ServeOptions,
    addresses: ClientAddresses,
    failed: FailedIdentities,
) -> Dispatch {
    // `reset_fallback`, because axum cannot merge two routers with a fallback. `route_layer`, because with `layer` the gRPC-Web
    // layer would also answer requests for unknown paths.
    let grpc = grpc
        .into_axum_router()
        .reset_fallback()
        .route_layer(from_fn_with_state((admin.drain.clone(), api.clone()), limit_call))
        .route_layer(GrpcWebLayer::new())
        .route_layer(from_fn(only_grpc));
    let console = options.console.then(|| Console { identity: start_report::identity(options) });
    let routes = rest::routes(api.clone())
        .merge(admin::routes(admin))
        .merge(web::routes(console))
        .merge(grpc)
        .fallback(no_route)
        .method_not_allowed_fallback(async || Problem::from(Error::MethodNotAllowed));
    let allowed_origins = AllowedOrigins::new(&options.cors_origins, options.dev);
    Dispatch::new(routes, api, signal, &options.cors_origins, allowed_origins, addresses, failed)
}

/// Refuses what is not a gRPC call that this server can read. tonic accepts any content type, so a page of another site could call a
/// method with a POST of `text/plain`, which needs no CORS preflight.
async fn only_grpc(mut request: Request, next: Next) -> Response {
    match CallType::of(&request) {
        None => Problem::from(Error::UnsupportedMedia).into_response(),
        Some(call) if !grpc::is_protobuf(&request) => call.respond(grpc::no_codec()),
        Some(call) => {
            call.normalize(request.headers_mut());
            next.run(if call == CallType::Native { request } else { WebBody::wrap(request).map(Body::new) }).await
        }
    }
}

/// Ends a call at its deadlines (`grpc/deadline.rs`). A call of health or reflection also ends when the daemon drains.
async fn limit_call(State((drain, api)): State<(Drain, Api)>, request: Request, next: Next) -> Response {
    let call = async |request| {
        if grpc::is_signal(&request) {
            return next.run(request).await;
        }
        let (headers, uri, extensions) = (request.headers(), request.uri(), request.extensions());
        let expires = match reflection_expires(&api.auth, headers, uri, extensions).await {
            Ok(expires) => expires,
            Err(error) => return grpc::refusal(&api.auth, error).map(Body::new),
        };
        let run = |request: http::Request<_>| next.run(request.map(Body::new));
        grpc::end_on_drain(request, &drain, api.settings.body_limit, expires, run, Body::new).await
    };
    grpc::within_deadline(request, call, Body::new).await
}

/// When the token of a reflection call expires, which ends the call. Health needs no token.
async fn reflection_expires(
    auth: &Auth,
    headers: &HeaderMap,
    uri: &Uri,
    extensions: &Extensions,
) -> Result<Option<SystemTime>, Error> {
    if !auth.guards_reflection() || grpc::is_health(uri.path()) {
        return Ok(None);
    }
    let Peer { tcp: peer, client } = extensions.get().copied().ok_or(Error::Internal)?;
    let certificate = extensions.get();
    let credentials = Credentials { headers, uri, is_stream_request: false, lasts: true, peer, client, certificate };
    let identify = || auth.caller(&credentials);
    Ok(auth.with_new_keys(identify(), identify).await?.expires())
}

async fn no_route(request: Request) -> Response {
    match CallType::of(&request) {
        Some(call) => call.respond(grpc::no_service()),
        None => Problem::from(Error::NoRoute).into_response(),
    }
}
