//! Reads the identity of every call of `Signal` from the head of the HTTP request, before the message is decoded. Then has the frames
//! of the request checked.
//!
//! A method takes the identity from an extension, not from its metadata: tonic adds the client's trailers to the metadata of a
//! unary call, and a proxy that sets the claim header does not remove the client's own claim from trailers.

use std::sync::Arc;

use http::Request;
use hyper::body::Bytes;
use tonic::{
    Status,
    codegen::{Body, Context, Poll, Service, StdError},
    server::NamedService,
};

use super::{
    SEND_STREAM, SignalMethods, needed_identity, proto::signal_server::SignalServer, request_frames::RequestFrames,
};
use crate::{
    auth::{Auth, Credentials},
    error::Error,
    serve::Peer,
};

/// The identity that a method needs.
#[derive(Clone, Copy)]
pub(super) enum Identity {
    /// A `Caller`.
    Caller,
    /// A `Caller` of a call that lasts until its token expires.
    StreamCaller,
    /// A `Subscriber`.
    Subscriber,
    /// A `Caller`, which needs an identity where TURN is configured.
    IceCaller,
}

/// Identifies the caller of each call, then calls the generated server.
#[derive(Clone)]
pub struct SignalService {
    server: SignalServer<SignalMethods>,
    auth: Arc<Auth>,
    /// The most bytes of a request message.
    limit: usize,
}

impl SignalService {
    pub(super) fn new(server: SignalServer<SignalMethods>, auth: Arc<Auth>, limit: usize) -> Self {
        Self { server, auth, limit }
    }

    fn call_server<B>(&mut self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<StdError> + Send> + Unpin + Send + 'static,
    {
        let is_stream = request.uri().path() == SEND_STREAM;
        self.server.call(RequestFrames::wrap(request, is_stream, self.limit))
    }
}

/// Stores the identity that the method needs in an extension. A method that does not exist needs none.
fn identify<B>(auth: &Auth, request: &mut Request<B>) -> Result<(), Error> {
    let Some(needed) = needed_identity(request.uri().path()) else { return Ok(()) };
    let Peer { tcp: peer, client } = request.extensions().get().copied().ok_or(Error::Internal)?;
    let (headers, uri, certificate) = (request.headers(), request.uri(), request.extensions().get());
    let lasts = matches!(needed, Identity::StreamCaller | Identity::Subscriber);
    let credentials = Credentials { headers, uri, is_stream_request: false, lasts, peer, client, certificate };
    match needed {
        Identity::Caller | Identity::StreamCaller => {
            let caller = auth.caller(&credentials)?;
            request.extensions_mut().insert(caller);
        }
        Identity::IceCaller => {
            let caller = auth.ice_caller(&credentials)?;
            request.extensions_mut().insert(caller);
        }
        Identity::Subscriber => {
            let subscriber = auth.subscriber(&credentials, None)?;
            request.extensions_mut().insert(subscriber);
        }
    }
    Ok(())
}

/// The answer to a call whose identity is refused.
#[must_use]
pub fn refusal(auth: &Auth, error: Error) -> http::Response<tonic::body::Body> {
    let mut response = Status::from(error).into_http();
    response.headers_mut().extend(auth.challenge(error));
    // For `app/failed_identities.rs`.
    response.extensions_mut().insert(error);
    response
}

/// The future of a response. The same for every body of a request.
type Answer = <SignalServer<SignalMethods> as Service<Request<RequestFrames<tonic::body::Body>>>>::Future;

impl NamedService for SignalService {
    const NAME: &'static str = SignalServer::<SignalMethods>::NAME;
}

impl<B> Service<Request<B>> for SignalService
where
    B: Body<Data = Bytes, Error: Into<StdError> + Send> + Unpin + Send + 'static,
{
    type Response = <SignalServer<SignalMethods> as Service<Request<RequestFrames<B>>>>::Response;
    type Error = <SignalServer<SignalMethods> as Service<Request<RequestFrames<B>>>>::Error;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<RequestFrames<B>>>::poll_ready(&mut self.server, cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let identified = identify(&self.auth, &mut request);
        match identified {
            Ok(()) => self.call_server(request),
            Err(error) if self.auth.waits_for_keys(error) => {
                let mut service = self.clone();
                Box::pin(async move {
                    let auth = service.auth.clone();
                    match auth.with_new_keys(Err(error), || identify(&auth, &mut request)).await {
                        Ok(()) => service.call_server(request).await,
                        Err(error) => Ok(refusal(&auth, error)),
                    }
                })
            }
            Err(error) => Box::pin(std::future::ready(Ok(refusal(&self.auth, error)))),
        }
    }
}

/// The identity of a call: a `Caller` or a `Subscriber`, as the list of methods says.
pub(super) fn of<I, T>(request: &tonic::Request<T>) -> Result<I, Error>
where
    I: Clone + Send + Sync + 'static,
{
    request.extensions().get().cloned().ok_or(Error::Internal)
}
