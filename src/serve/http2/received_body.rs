//! The body of an HTTP/2 request as hyper gives it. Its small frames count against the connection until they are read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};

use super::{STREAM_WINDOW, streams::Streams};

pub(super) struct ReceivedBody {
    body: Incoming,
    streams: Arc<Streams>,
}

impl ReceivedBody {
    pub(super) fn new(body: Incoming, streams: Arc<Streams>) -> Self {
        Self { body, streams }
    }

    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }
}

impl HttpBody for ReceivedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            // h2 does not count the last frame of a stream.
            && !self.body.is_end_stream()
        {
            self.streams.on_frame_read(data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ReceivedBody {
    /// h2 stops counting the frames that it drops with the body, so they are read here.
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        // A stream holds at most its window, and each frame has a byte or more.
        for _ in 0..STREAM_WINDOW {
            if self.body.is_end_stream()
                || !matches!(Pin::new(&mut *self).poll_frame(&mut cx), Poll::Ready(Some(Ok(_))))
            {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use axum::body::Body;
    use http::{Request, Response};
    use hyper::{server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::{
        budget::Budget,
        serve::{
            filtered_io::FilteredIo,
            http2::{frame_filter::FrameFilter, testing},
            write_watchdog::Watchdog,
        },
        telemetry::Metrics,
    };

    #[tokio::test]
    async fn small_frames_of_a_body_that_is_dropped_unread_no_longer_count() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        client.write_all(&testing::upload(&[b"one", b"two", b"three"])).await.expect("space");
        let streams = Streams::new(Watchdog::new(Duration::from_secs(5), Budget::new(0), Metrics::new()));
        let frames = FrameFilter::new(Metrics::new(), streams.clone());
        let counting = streams.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (body, streams) = (ReceivedBody::new(request.into_body(), counting.clone()), counting.clone());
            async move {
                assert_eq!(streams.receive_window().small_frames(), 3 * 256 - 3 - 3 - 5);
                drop(body);
                assert_eq!(streams.receive_window().small_frames(), 0);
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let io = TokioIo::new(FilteredIo::new(server, frames));
        let mut connection = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service);
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            (_, kind) = testing::next_answer(&mut client) => assert_eq!(kind, testing::HEADERS),
        }
    }
}
