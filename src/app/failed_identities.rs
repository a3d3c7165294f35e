//! Holds back the refusals of identities that are not valid, for all routes of both protocols.
//!
//! Whoever guesses identities gets each refusal later than the one before. Only the answer waits, with one timer: the rest of the
//! request has been discarded by then, or is being discarded. A valid identity of the same address does not wait.

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
            Penalty::Wait(_) if self.drain.has_started() => response,
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::StatusCode;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::{
        error::IdentityFault,
        limits::{AddressScope, AddressSource, ClientAddresses},
    };

    /// How many seconds the answer to this error waits.
    async fn waited(failed: &FailedIdentities, error: Error) -> u64 {
        let began = Instant::now();
        let response = failed.hold_back([192, 0, 2, 1].into(), async { Problem::from(error).into_response() }).await;
        assert_ne!(response.status(), StatusCode::OK);
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn an_invalid_identity_waits_but_not_in_a_drain_and_no_other_answer_does() {
        let (metrics, drain) = (Metrics::new(), Drain::new());
        let addresses = ClientAddresses::new(Vec::new(), AddressSource::XForwardedFor, AddressScope::Public);
        let failed = FailedIdentities { failures: IdentityFailures::new(1, addresses), metrics, drain: drain.clone() };
        let [absent, untrusted, malformed, ambiguous] =
            [IdentityFault::Absent, IdentityFault::Untrusted, IdentityFault::Malformed, IdentityFault::Ambiguous]
                .map(Error::Unauthenticated);
        for (error, seconds) in [(malformed, 0), (ambiguous, 1), (malformed, 2)] {
            assert_eq!(waited(&failed, error).await, seconds, "{error:?}");
        }
        for error in [absent, untrusted, Error::Forbidden, Error::NotConnected] {
            assert_eq!(waited(&failed, error).await, 0, "{error:?}");
        }
        let ok = failed.hold_back([192, 0, 2, 1].into(), async { Response::new(Body::empty()) });
        assert_eq!(ok.await.status(), StatusCode::OK);
        let drains = async {
            sleep(std::time::Duration::from_secs(1)).await;
            drain.start();
        };
        assert_eq!(tokio::join!(waited(&failed, malformed), drains).0, 1, "the drain begins after a second of three");
        assert_eq!(waited(&failed, malformed).await, 0);
    }
}
