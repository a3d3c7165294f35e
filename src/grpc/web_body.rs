//! The request body of a gRPC-Web call. tonic-web turns every error of a body into an INTERNAL status with a text. So the body keeps
//! its error past tonic-web, and what tonic-web itself complains about is a fault of the client: base64 that cannot be decoded.

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

/// Request extension: the error of the body before tonic-web.
#[derive(Clone, Default)]
pub(super) struct KeptError(Arc<Mutex<Option<StdError>>>);

impl KeptError {
    /// The one of a call of gRPC-Web.
    pub(super) fn of(extensions: &mut Extensions) -> Option<Self> {
        extensions.remove()
    }

    /// The error of the body, when tonic-web has given one.
    pub(super) fn take(&self) -> StdError {
        self.0.lock().take().unwrap_or_else(|| Status::from(Error::from(Invalid::Body)).into())
    }
}

/// A body that keeps its error.
pub struct WebBody<B> {
    body: B,
    error: KeptError,
}

impl<B> WebBody<B> {
    /// Keeps the error of a call's body, for the checks behind tonic-web.
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
            // For tonic-web, which needs one. Nobody sees it.
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
