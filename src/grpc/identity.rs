//! The identity of every call of [`IdentifiedSignal`]: read from the head of the HTTP request, handed to the method in an extension.
//!
//! A method must not read it from its metadata. tonic adds the client's trailers to the metadata of a unary call, and a proxy
//! that sets the claim header does not remove the client's own claim from trailers.

use std::sync::Arc;

use http::Request;
use tonic::{
    Status,
    codegen::{Body, Context, Poll, Service, StdError},
    server::NamedService,
};

use super::{SignalMethods, proto::signal_server::SignalServer};
use crate::{
    auth::{Auth, Credentials},
    error::Error,
    serve::Peer,
};

/// The service as tonic serves it, with the identity of each call.
#[derive(Clone)]
pub struct IdentifiedSignal {
    server: SignalServer<SignalMethods>,
    auth: Arc<Auth>,
}

impl IdentifiedSignal {
    pub(super) fn new(server: SignalServer<SignalMethods>, auth: Arc<Auth>) -> Self {
        Self { server, auth }
    }
}

impl NamedService for IdentifiedSignal {
    const NAME: &'static str = SignalServer::<SignalMethods>::NAME;
}

impl<B> Service<Request<B>> for IdentifiedSignal
where
    B: Body<Error: Into<StdError> + Send> + Send + 'static,
{
    type Response = <SignalServer<SignalMethods> as Service<Request<B>>>::Response;
    type Error = <SignalServer<SignalMethods> as Service<Request<B>>>::Error;
    type Future = <SignalServer<SignalMethods> as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<B>>::poll_ready(&mut self.server, cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(Peer(peer)) = request.extensions().get().copied() {
            let credentials = Credentials { headers: request.headers(), uri: request.uri(), peer };
            if request.uri().path().ends_with("/Subscribe") {
                let subscriber = self.auth.subscriber(&credentials, None);
                request.extensions_mut().insert(subscriber);
            } else {
                let caller = self.auth.caller(&credentials);
                request.extensions_mut().insert(caller);
            }
        }
        self.server.call(request)
    }
}

/// The identity of a call: a `Caller`, or a `Subscriber` for `Subscribe`.
pub(super) fn of<I, T>(request: &tonic::Request<T>) -> Result<I, Status>
where
    I: Clone + Send + Sync + 'static,
{
    let identity = request.extensions().get::<Result<I, Error>>();
    identity.cloned().unwrap_or(Err(Error::Internal)).map_err(Status::from)
}
