//! A response body for hyper over HTTP/2: splits frames so that polls show whether the peer reads, and counts unsent bytes.
//!
//! hyper 1.12 polls the body for its next frame as soon as h2 has capacity for one byte of the last frame. So a large frame is
//! split into small pieces, and the last byte of every frame is a piece of its own. When hyper polls past the last byte, h2 has
//! capacity for all bytes before it. Until then the task of the stream is alive, and the watchdog can cut it. With whole frames
//! the task would end while most of the last frame is unsent, and nothing would watch that frame.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use http::Response;
use hyper::body::{Frame, SizeHint};

use crate::serve::write_watchdog::{PIECE, as_u32, waiter::Waiter, with_count};

/// The count of a piece that was given to hyper. Its bytes are unsent until h2 has written or dropped them.
struct UnsentPiece {
    waiter: Arc<Waiter>,
    unsent: u32,
}

pub(super) struct ResponseBody {
    body: Body,
    waiter: Arc<Waiter>,
    /// The part of the last frame that is not in a piece yet, without its last byte. Boxed, because nearly all streams are idle
    /// nearly all the time.
    remaining: Option<Box<Bytes>>,
    last_byte: Option<u8>,
    /// Bytes that count as unsent and are not in a piece yet.
    unsent_rest: u32,
    ended: bool,
}

impl ResponseBody {
    /// Counts a body of known length as unsent from now on.
    pub(super) fn wrap(response: Response<Body>, waiter: Arc<Waiter>) -> Response<Self> {
        response.map(|body| {
            let known = if body.is_end_stream() { None } else { body.size_hint().exact() };
            let unsent = known.map_or(0, as_u32);
            if unsent > 0 {
                waiter.add_unsent(unsent);
            }
            Self { body, waiter, remaining: None, last_byte: None, unsent_rest: unsent, ended: false }
        })
    }

    /// Returns the first piece of a frame, and stores the remaining bytes and the last byte.
    fn split(&mut self, mut frame: Bytes) -> Bytes {
        // The bytes of a shared frame are in memory anyway, for its other owners.
        if self.unsent_rest == 0 && frame.is_unique() {
            self.unsent_rest = as_u32(frame.len());
            self.waiter.add_unsent(self.unsent_rest);
        }
        if frame.len() > 1 {
            self.last_byte = frame.last().copied();
            frame.truncate(frame.len() - 1);
        }
        self.piece(frame)
    }

    fn piece(&mut self, mut remaining: Bytes) -> Bytes {
        let bytes = remaining.split_to(remaining.len().min(PIECE));
        // The last byte is counted with the piece before it.
        let length = bytes.len() + usize::from(remaining.is_empty() && self.last_byte.is_some());
        if !remaining.is_empty() {
            self.remaining = Some(Box::new(remaining));
        }
        let unsent = self.unsent_rest.min(as_u32(length));
        self.unsent_rest -= unsent;
        self.waiter.on_frame();
        // The count is inside the bytes, because hyper stores a piece in every stream: a larger type would make all streams
        // larger.
        if unsent == 0 { bytes } else { with_count(bytes, UnsentPiece { waiter: self.waiter.clone(), unsent }) }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // A body whose bytes count already does not queue: only writing these bytes makes room for others.
        if self.unsent_rest == 0 {
            ready!(self.waiter.poll_capacity(cx));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_between_frames(&self) -> bool {
        self.remaining.is_none() && self.last_byte.is_none()
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Some(remaining) = this.remaining.take() {
            return Poll::Ready(Some(Ok(Frame::data(this.piece(*remaining)))));
        }
        if let Some(byte) = this.last_byte.take() {
            this.waiter.on_frame();
            return Poll::Ready(Some(Ok(Frame::data(one(byte)))));
        }
        this.waiter.on_body_poll();
        let Some(frame) = ready!(this.poll_body(cx)?) else {
            this.ended = true;
            return Poll::Ready(None);
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => Frame::data(this.split(data)),
            Err(frame) => frame,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.is_between_frames() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_between_frames() { self.body.size_hint() } else { SizeHint::default() }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.unsent_rest > 0 {
            self.waiter.remove_unsent(self.unsent_rest);
        }
    }
}

impl Drop for UnsentPiece {
    fn drop(&mut self) {
        self.waiter.remove_unsent(self.unsent);
    }
}

/// One byte, without an allocation.
fn one(byte: u8) -> Bytes {
    Bytes::from_static(std::slice::from_ref(&BYTES[usize::from(byte)]))
}

static BYTES: [u8; 256] = {
    let (mut bytes, mut byte) = ([0; 256], 0);
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        {
            bytes[byte] = byte as u8;
        }
        byte += 1;
    }
    bytes
};

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use http::Request;
    use hyper::{body::Incoming, server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::AsyncWriteExt as _;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::serve::http2::testing;

    /// How many frames of 100 bytes hyper polls from a body when the peer's window has `window` bytes.
    async fn polled_frames(window: u32) -> usize {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        client.write_all(&testing::requests_with_window(1, window)).await.expect("space");
        let polled = Arc::new(AtomicUsize::new(0));
        let counting = polled.clone();
        let service = service_fn(move |_: Request<Incoming>| {
            let counting = counting.clone();
            let frames = tokio_stream::iter(0..5).map(move |_| {
                counting.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 100]))
            });
            async { Ok::<_, Infallible>(Response::new(Body::from_stream(frames))) }
        });
        let mut connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service);
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            _ = testing::next_answer(&mut client) => {}
        }
        // Every task is polled until it waits for the peer: a paused clock moves on only then.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), &mut connection).await;
        polled.load(Ordering::Relaxed)
    }

    /// When this fails, hyper polls at another time, and the last byte must be split off differently: see the top of this file.
    #[tokio::test(start_paused = true)]
    async fn hyper_polls_past_a_frame_when_one_byte_of_it_has_capacity() {
        // One frame waits for capacity in hyper. The frame before it went to h2 for one byte of capacity.
        assert_eq!([polled_frames(0).await, polled_frames(1).await, polled_frames(100).await], [1, 2, 2]);
        assert_eq!([polled_frames(101).await, polled_frames(200).await, polled_frames(201).await], [3, 3, 4]);
    }
}
