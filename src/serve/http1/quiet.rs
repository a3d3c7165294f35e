//! A connection of HTTP/1.1 is not woken because the last part of a body was taken from it.
//!
//! Whoever takes a part of a body wakes its connection, so that hyper reads on. hyper does that for the last part too, when it has
//! already let go of the body, and the connection would be polled once more for every POST, to find nothing: 1,150 of the 19,250
//! instructions of one. So hyper is polled with a waker that wakes nobody while its own thread takes a part, and makes up for it
//! when that was not the last one.

use std::{
    cell::Cell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};

use super::detach::Handover;

/// The waker to poll a connection of HTTP/1.1 with.
pub(in crate::serve) struct Quiet {
    task: Waker,
    quiet: Waker,
}

/// The body of a request of such a connection.
pub(in crate::serve) struct QuietBody {
    body: Incoming,
    /// Learns when the request was read to its end.
    handover: Handover,
}

impl QuietBody {
    pub(in crate::serve) fn new(body: Incoming, handover: Handover) -> Self {
        handover.set_whole_request(body.is_end_stream());
        Self { body, handover }
    }
}

thread_local! {
    static TAKING: Cell<Taking> = const { Cell::new(Taking::Nothing) };
}

/// What a thread takes out of a connection at the moment.
#[derive(Default)]
enum Taking {
    #[default]
    Nothing,
    Part,
    /// A part, and this task was not woken for it.
    Unwoken(Waker),
}

impl Default for Quiet {
    fn default() -> Self {
        Self { task: Waker::noop().clone(), quiet: Waker::noop().clone() }
    }
}

impl Quiet {
    /// Wakes the task of a connection as its own waker would, but for the last parts of bodies.
    pub(in crate::serve) fn of(&mut self, task: &Waker) -> &Waker {
        if !self.task.will_wake(task) {
            *self = Self { task: task.clone(), quiet: Arc::new(Connection(task.clone())).into() };
        }
        &self.quiet
    }
}

struct Connection(Waker);

impl Wake for Connection {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match TAKING.try_with(Cell::take).unwrap_or_default() {
            Taking::Nothing => self.0.wake_by_ref(),
            Taking::Part => TAKING.set(Taking::Unwoken(self.0.clone())),
            Taking::Unwoken(other) => {
                TAKING.set(Taking::Unwoken(other));
                self.0.wake_by_ref();
            }
        }
    }
}

impl HttpBody for QuietBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let _part = Part::begin();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if self.body.is_end_stream() {
            // It was the last part: nobody need be woken.
            TAKING.take();
        }
        if self.body.is_end_stream() || matches!(frame, Poll::Ready(None)) {
            self.handover.set_whole_request(true);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// This thread takes a part until this is dropped, and then wakes whom it did not wake for it.
struct Part;

impl Part {
    fn begin() -> Self {
        TAKING.set(Taking::Part);
        Self
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Taking::Unwoken(task) = TAKING.take() {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use axum::body::{self, Body};
    use http::{Request, Response};
    use hyper::{server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often a connection wakes itself in its first poll, and how its answer begins after as many polls as it asked for.
    async fn wakes(quietly: bool, framing: &str, body: &str) -> (usize, String) {
        let (mut client, server) = tokio::io::duplex(1024);
        let service = service_fn(async |request: Request<Incoming>| {
            let body = body::to_bytes(Body::new(QuietBody::new(request.into_body(), Handover::default())), 1024)
                .await
                .expect("a body");
            Ok::<_, Infallible>(Response::new(Body::from(body)))
        });
        let request = format!("POST / HTTP/1.1\r\n{framing}\r\n\r\n{body}");
        client.write_all(request.as_bytes()).await.expect("room");
        let mut connection = http1::Builder::new().serve_connection(TokioIo::new(server), service);
        let (count, mut quiet) = (Arc::new(Wakes::default()), Quiet::default());
        let task = Waker::from(count.clone());
        let waker = if quietly { quiet.of(&task) } else { &task };
        let mut first = None;
        for polls in 1.. {
            assert!(Pin::new(&mut connection).poll(&mut Context::from_waker(waker)).is_pending());
            let woken = count.0.load(Ordering::Relaxed);
            first.get_or_insert(woken);
            if woken < polls {
                break;
            }
        }
        let mut answer = vec![0; 15];
        client.read_exact(&mut answer).await.expect("an answer");
        (first.unwrap_or_default(), String::from_utf8(answer).expect("text"))
    }

    #[tokio::test]
    async fn the_last_part_of_a_body_wakes_nobody() {
        let answer = "HTTP/1.1 200 OK".to_owned();
        assert_eq!(wakes(true, "content-length: 4", "text").await, (0, answer.clone()));
        // Where hyper does not wake either, this file can go.
        assert_eq!(wakes(false, "content-length: 4", "text").await, (1, answer));
    }

    #[tokio::test]
    async fn any_other_part_wakes_its_connection() {
        let (wakes, answer) = wakes(true, "transfer-encoding: chunked", "2\r\nte\r\n2\r\nxt\r\n0\r\n\r\n").await;
        assert!(wakes > 0);
        assert_eq!(answer, "HTTP/1.1 200 OK");
    }
}
