//! Reads and throws away what a peer still sends after its request was answered, so that the peer gets to read the answer.
//!
//! Without this, the server would close a socket with unread bytes, or reset a stream, while the peer writes its body. The system
//! then sends RST, or the client reports the failed write, and the answer is lost. Everything here has a limit in bytes and time.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{Instant, timeout, timeout_at},
};

use crate::drain::Drain;

/// Discards the rest of one body.
pub(super) type Discard = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ready when the body has ended or failed, when [`MOST_BYTES`] are discarded, at the deadline, or at the hard stop.
pub(super) fn discard<B>(mut body: B, deadline: Instant, drain: Arc<Drain>) -> Discard
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
{
    Box::pin(async move {
        let rest = async {
            let mut bytes = 0;
            while bytes < MOST_BYTES
                && !body.is_end_stream()
                && let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
            {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        limited(deadline, rest, &drain).await;
    })
}

/// Discards a body whose stream is to be reset. Ready when the body has ended or failed, when its peer sends little, after
/// [`LONGEST_DISCARD`], or at the hard stop.
///
/// h2 counts the small frames that come after the reset as faults of the peer, and would end the connection for too many of them.
pub(super) fn discard_until_quiet<B>(mut body: B, drain: Arc<Drain>) -> Discard
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
{
    Box::pin(async move {
        let rest = async {
            let mut has_ended = body.is_end_stream();
            while !has_ended {
                let few = async {
                    for _ in 0..FEW_FRAMES {
                        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
                        has_ended = !matches!(frame, Some(Ok(_))) || body.is_end_stream();
                        if has_ended {
                            return;
                        }
                    }
                };
                if timeout(QUIET_TIME, few).await.is_err() {
                    return;
                }
            }
        };
        limited(Instant::now() + LONGEST_DISCARD, rest, &drain).await;
    })
}

/// The second step of closing a connection, after the half-close: reads until the peer closes its side too, or a limit is reached.
/// Boxed, because the future of every connection would have room for it otherwise.
pub(super) fn read_to_end(mut io: impl AsyncRead + Send + Unpin + 'static, drain: Arc<Drain>) -> Discard {
    Box::pin(async move {
        let rest = async {
            let (mut buffer, mut bytes) = (vec![0; 4 * 1024], 0);
            while bytes < MOST_BYTES
                && let Ok(length @ 1..) = io.read(&mut buffer).await
            {
                bytes += length;
            }
        };
        limited(Instant::now() + CLOSE_TIME, rest, &drain).await;
    })
}

async fn limited(deadline: Instant, rest: impl Future<Output = ()> + Send, drain: &Drain) {
    let rest = pin!(rest);
    tokio::select! {
        biased;
        _ = timeout_at(deadline, rest) => {}
        () = drain.hard_stop() => {}
    }
}

/// The most bytes that are discarded. A client that sends more learns from a failed write that nobody reads them.
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// A peer that sends fewer frames within this time has few on their way.
const FEW_FRAMES: usize = 50;
const QUIET_TIME: Duration = Duration::from_millis(200);
/// The longest time to wait for a peer that sends without a pause and does not read.
const LONGEST_DISCARD: Duration = Duration::from_secs(60);
/// The time for the peer to close its side. Short, because a client that never closes would hold its permit that long.
const CLOSE_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Body;
    use tokio::io::AsyncWriteExt as _;
    use tokio_stream::{StreamExt as _, iter, pending};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_is_discarded_to_its_end_or_2_mib_or_the_deadline_or_the_hard_stop() {
        let piece = || Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1024]));
        let (began, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(10));
        let drain = Arc::new(Drain::new());
        discard(Body::from_stream(iter([piece(), piece()])), deadline, drain.clone()).await;
        discard(Body::from_stream(iter(0..).map(move |_| piece())), deadline, drain.clone()).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        let silent = || Body::from_stream(pending::<Result<Bytes, Infallible>>());
        discard(silent(), deadline, drain.clone()).await;
        assert_eq!(began.elapsed().as_secs(), 10);
        drain.begin_hard_stop();
        discard(silent(), deadline + Duration::from_secs(10), drain).await;
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_close_its_side_is_waited_for_2_seconds() {
        let (began, drain) = (Instant::now(), Arc::new(Drain::new()));
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"bytes").await.expect("space");
        read_to_end(server, drain.clone()).await;
        assert_eq!(began.elapsed().as_secs(), 2);
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        read_to_end(server, drain).await;
        assert_eq!(began.elapsed().as_secs(), 2);
    }
}
