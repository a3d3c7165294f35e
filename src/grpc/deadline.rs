//! The deadline of a call: the client's `grpc-timeout`, and our own for everything that is no stream.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use tokio::time::{Instant, timeout_at};

use super::too_late;

/// How long a call may take until its response begins: the request's message has to arrive, and the hub to answer.
const HANDLER_TIME: Duration = Duration::from_secs(10);

/// Request extension: when the client no longer waits.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// Reads `grpc-timeout` (gRPC over HTTP/2: up to 8 digits and a unit). One that cannot be read is none.
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let timeout = timeout(headers.get("grpc-timeout")?.to_str().ok()?)?;
        Instant::now().checked_add(timeout).map(Self)
    }
}

/// Ends a call whose response does not begin in time, and tells streams when their client stops waiting.
pub async fn within_deadline<B, A: Default>(
    mut request: Request<B>,
    call: impl AsyncFnOnce(Request<B>) -> Response<A>,
) -> Response<A> {
    let deadline = Deadline::parse(request.headers());
    let ours = Instant::now() + HANDLER_TIME;
    let until = deadline.map_or(ours, |deadline| deadline.0.min(ours));
    if let Some(deadline) = deadline {
        request.extensions_mut().insert(deadline);
    }
    let version = request.version();
    timeout_at(until, call(request)).await.unwrap_or_else(|_| {
        let mut response = too_late().into_http();
        if version <= Version::HTTP_11 {
            // The client waits no longer, so nobody waits for the rest of its request either.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    })
}

fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_digits_and_a_unit() {
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "S", "1", "1s", "-1S", "123456789S", "1é"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }
}
