//! The request body of a gRPC-Web call. tonic-web turns every body error into INTERNAL and drops its source. So [`WebBody`] keeps
//! the error for the checks after tonic-web. If none was kept, tonic-web failed itself: the client sent bad base64.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, Request};
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::{Status, codegen::StdError};

use crate::error::{Error, Invalid};

/// Request extension: the error that the body gave to tonic-web, if any.
#[derive(Clone, Default)]
pub(super) struct KeptError(Arc<Mutex<Option<StdError>>>);

impl KeptError {
    /// Takes it out of the request. `None` if the call is not gRPC-Web.
    pub(super) fn of(extensions: &mut Extensions) -> Option<Self> {
        extensions.remove()
    }

    /// What a tonic-web error stands for: the body's own error, or else an invalid body.
    pub(super) fn take(&self) -> StdError {
        self.0.lock().take().unwrap_or_else(|| Status::from(Error::from(Invalid::Body)).into())
    }
}

/// A body that keeps its error for the checks after tonic-web.
pub struct WebBody<B> {
    body: B,
    error: KeptError,
}

impl<B> WebBody<B> {
    /// Wraps the body, and puts the `KeptError` into the request.
    pub fn wrap(mut request: Request<B>) -> Request<Self> {
        let error = KeptError::default();
        request.extensions_mut().insert(error.clone());
        request.map(|body| Self { body, error })
    }
}

impl<B: Body<Error: Into<StdError>> + Unpin> Body for WebBody<B> {
    type Data = B::Data;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, StdError>>> {
        Pin::new(&mut self.body).poll_frame(cx).map_err(|error| {
            *self.error.0.lock() = Some(error.into());
            // tonic-web needs some error here. Nobody sees this text.
            "the error is kept".into()
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
