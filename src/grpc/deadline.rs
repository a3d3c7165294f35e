//! The deadlines of a call: the client's `grpc-timeout` for the whole call, and 10 s from the server until the response begins.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::Status;

use super::status::trailers;

/// How long a call may take until its response begins. In this time the request message has to arrive and the hub has to answer.
const HANDLER_TIME: Duration = Duration::from_secs(10);

/// Ends a call with `DEADLINE_EXCEEDED` when its response does not begin in time, or has not ended at the client's deadline. `wrap`
/// turns the limited body into the body of the response.
pub async fn within_deadline<B, A: Body + Default>(
    request: Request<B>,
    call: impl AsyncFnOnce(Request<B>) -> Response<A>,
    wrap: impl FnOnce(DeadlineBody<A>) -> A,
) -> Response<A> {
    let deadline = deadline(request.headers());
    let handler_deadline = Instant::now() + HANDLER_TIME;
    let response_due = deadline.map_or(handler_deadline, |deadline| deadline.min(handler_deadline));
    let version = request.version();
    let Ok(response) = timeout_at(response_due, call(request)).await else { return exceeded_response(version) };
    match deadline {
        Some(deadline) if !response.body().is_end_stream() => {
            response.map(|body| wrap(DeadlineBody { body: Some(body), deadline, timer: None }))
        }
        _ => response,
    }
}

fn exceeded_response<A: Default>(version: Version) -> Response<A> {
    let mut response = exceeded().into_http();
    if version <= Version::HTTP_11 {
        // The call is over, so the server does not wait for the rest of the request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The status of a call whose deadline has passed.
fn exceeded() -> Status {
    Status::deadline_exceeded("The call took too long: its grpc-timeout is over, or no response began within 10 s.")
}

/// A response body that ends at a deadline, even when it always has more data.
pub struct DeadlineBody<A> {
    /// `None` after the end.
    body: Option<A>,
    deadline: Instant,
    /// Made when the body first has no data.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<A: Body + Unpin> Body for DeadlineBody<A> {
    type Data = A::Data;
    type Error = A::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<A::Data>, A::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if this.deadline > Instant::now() {
            if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
                return Poll::Ready(frame);
            }
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(this.deadline)));
            ready!(timer.as_mut().poll(cx));
        }
        this.body = None;
        Poll::Ready(Some(Ok(trailers(&exceeded()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

/// Reads `grpc-timeout` (gRPC over HTTP/2: up to 8 digits and a unit). Ignores a value that cannot be parsed.
fn deadline(headers: &HeaderMap) -> Option<Instant> {
    let timeout = timeout(headers.get("grpc-timeout")?.to_str().ok()?)?;
    Instant::now().checked_add(timeout)
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
    use std::{convert::Infallible, future::poll_fn};

    use tokio::time::advance;

    use super::*;

    /// A body that always has another frame.
    struct Endless;

    impl Body for Endless {
        type Data = &'static [u8];
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<&'static [u8]>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(b"x"))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_always_has_more_data_ends_at_the_deadline() {
        let second = Duration::from_secs(1);
        let mut body = DeadlineBody { body: Some(Endless), deadline: Instant::now() + second, timer: None };
        let mut next =
            async || poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.map(|frame| frame.expect("data"));
        assert!(next().await.is_some_and(|frame| frame.is_data()));
        advance(second).await;
        let trailers = next().await.and_then(|frame| frame.into_trailers().ok()).expect("trailers");
        assert_eq!(trailers["grpc-status"], "4");
        assert!(next().await.is_none());
    }

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
