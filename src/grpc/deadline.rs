//! The deadline of a call: the client's `grpc-timeout`, and our own for everything that is no stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::Status;

use super::too_late;

/// How long a call may take until its response begins: the request's message has to arrive, and the hub to answer.
const HANDLER_TIME: Duration = Duration::from_secs(10);

/// Ends a call whose response does not begin in time, or goes on when its client has stopped waiting.
pub async fn within_deadline<B, A: Body + Default>(
    request: Request<B>,
    call: impl AsyncFnOnce(Request<B>) -> Response<A>,
    wrap: impl FnOnce(Bounded<A>) -> A,
) -> Response<A> {
    let deadline = deadline(request.headers());
    let ours = Instant::now() + HANDLER_TIME;
    let until = deadline.map_or(ours, |deadline| deadline.min(ours));
    let version = request.version();
    let Ok(response) = timeout_at(until, call(request)).await else { return refuse(version) };
    match deadline {
        Some(deadline) if !response.body().is_end_stream() => {
            response.map(|body| wrap(Bounded { body: Some(body), deadline, alarm: None }))
        }
        _ => response,
    }
}

fn refuse<A: Default>(version: Version) -> Response<A> {
    let mut response = too_late().into_http();
    if version <= Version::HTTP_11 {
        // The client waits no longer, so nobody waits for the rest of its request either.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The body of a call that ends with its deadline, however busy it is.
pub struct Bounded<A> {
    /// None when it has ended.
    body: Option<A>,
    deadline: Instant,
    /// Made when it has to wait for something.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<A: Body + Unpin> Body for Bounded<A> {
    type Data = A::Data;
    type Error = A::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<A::Data>, A::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if this.deadline > Instant::now() {
            if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
                return Poll::Ready(frame);
            }
            let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep_until(this.deadline)));
            ready!(alarm.as_mut().poll(cx));
        }
        this.body = None;
        Poll::Ready(Some(Ok(trailers(&too_late()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

/// The end of a call with a status.
pub(super) fn trailers<D>(status: &Status) -> Frame<D> {
    let mut trailers = HeaderMap::new();
    // It has no metadata that could be wrong.
    let _ = status.add_header(&mut trailers);
    Frame::trailers(trailers)
}

/// Reads `grpc-timeout` (gRPC over HTTP/2: up to 8 digits and a unit). One that cannot be read is none.
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

    /// Always has another frame.
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
    async fn a_call_that_is_never_silent_ends_with_its_deadline_all_the_same() {
        let second = Duration::from_secs(1);
        let mut body = Bounded { body: Some(Endless), deadline: Instant::now() + second, alarm: None };
        let mut next =
            async || poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.map(|frame| frame.expect("data"));
        assert!(next().await.is_some_and(|frame| frame.is_data()));
        advance(second).await;
        let trailers = next().await.and_then(|frame| frame.into_trailers().ok()).expect("the end");
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
