//! Holds back the refusals of identities that are not valid, for all routes of both protocols.
//!
//! Whoever guesses identities gets each refusal later than the one before. By then the rest of the request was thrown away, or is
//! being thrown away, so nothing waits but the answer, with one timer. A valid identity of the same address is not affected.

use std::net::IpAddr;

use axum::response::{IntoResponse as _, Response};
use http::header;

use crate::{
    drain::Drain,
    error::{Error, Limit},
    limits::{HeldBack, IdentityFailures, Penalty},
    rest::Problem,
    telemetry::Metrics,
};

/// Counts the failures of each address.
pub(super) struct FailedIdentities {
    pub(super) failures: IdentityFailures,
    pub(super) metrics: Metrics,
    /// In a drain no refusal waits: it would hold up the drain.
    pub(super) drain: Drain,
}

impl FailedIdentities {
    /// The response of a handler: at once, or later if it refuses an identity.
    pub(super) async fn hold_back(&self, client: IpAddr, handler: impl Future<Output = Response>) -> Response {
        let response = handler.await;
        if !response.extensions().get::<Error>().is_some_and(|error| error.is_failed_identity()) {
            return response;
        }
        match self.failures.charge(client) {
            Penalty::None => response,
            // Boxed: otherwise the future of every request would have room for a timer.
            Penalty::Wait(held_back) => Box::pin(self.wait(held_back, response)).await,
            Penalty::Refuse(error) => {
                self.metrics.limited(Limit::IdentityFailures);
                let mut refusal = Problem::from(error).into_response();
                if let Some(close) = response.headers().get(header::CONNECTION) {
                    refusal.headers_mut().insert(header::CONNECTION, close.clone());
                }
                refusal
            }
        }
    }

    async fn wait(&self, held_back: HeldBack, response: Response) -> Response {
        self.metrics.limited(Limit::IdentityFailures);
        tokio::select! {
            () = held_back.over() => {}
            () = self.drain.next_stop() => {}
        }
        response
    }
}
