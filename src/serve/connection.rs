//! One connection: which protocol it speaks, with which limits, and how it ends.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use http::Request;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::Instant};

use super::{
    Handler, Peer, ResponseFuture, Settings,
    connection_io::{Http1Io, Http2Io},
    http1::{
        counted_body::CountedBody,
        detach::{DetachableConnection, Detachment, RequestBody},
        response_kind::ResponseKind,
        stream_writer,
        timer::ConnectionTimer,
    },
    http2::{
        idle_timeout::IdleTimeout,
        read_budget::ReadBudget,
        request_body::CompleteBody,
        response_body::ResponseBody,
        stream_tasks::StreamTasks,
        unsent_limit::{UnflushedStreams, UnsentLimit},
        write_batching::WriteBatching,
    },
    protocol_detection::{Protocol, Rewound, detect},
    tls::{self, Transport},
    watched_socket::WatchedSocket,
    write_watchdog::Watchdog,
};
use crate::{drain::Drain, telemetry::Metrics};

/// Bytes of a request's head, and of what HTTP/1.1 buffers for a peer that reads slowly.
const HTTP1_BUFFER: usize = 32 * 1024;
/// Bytes of the header list of an HTTP/2 request, after decompression.
const HTTP2_HEADER_LIST: u32 = 16 * 1024;
/// What one request, and all of a connection, may send before it is read.
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes kept for one stream whose peer reads slowly.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;
/// StreamTasks that the peer reset before they were looked at (CVE-2023-44487). They come in one bite (see `turns`), so requests that
/// are too large for so many of them in a bite do not add up.
const HTTP2_PENDING_RESETS: usize = 20;
/// StreamTasks that the peer made the server reset (CVE-2025-8671); hyper would take `None` for no limit.
const HTTP2_LOCAL_RESETS: usize = 1_024;
/// A PING after this much silence, and the patience for its answer; with the interval above the heartbeat's.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(15);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What all connections share.
pub(super) struct Connections<H>(Arc<Shared<H>>);

struct Shared<H> {
    handler: H,
    settings: Settings,
    watchdog: Watchdog,
    metrics: Metrics,
    drain: Drain,
}

impl<H> Clone for Connections<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H: Handler> Connections<H> {
    pub(super) fn new(handler: H, settings: Settings, watchdog: Watchdog, metrics: Metrics, drain: Drain) -> Self {
        Self(Arc::new(Shared { handler, settings, watchdog, metrics, drain }))
    }

    /// Serves a connection to its end, on its place among all. How it ended is its peer's business, so errors are for debugging
    /// only.
    pub(super) async fn serve(self, socket: TcpStream, peer: Peer, place: OwnedSemaphorePermit) {
        let settings = &self.0.settings;
        let socket = WatchedSocket::new(socket, self.0.watchdog.clone());
        let first_bytes = async { detect(tls::accept(settings.tls.as_ref(), socket).await?).await };
        let head_by = Instant::now() + settings.header_timeout;
        let (protocol, io) = match tokio::time::timeout_at(head_by, first_bytes).await {
            Ok(Ok(Some(detected))) => detected,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => return tracing::debug!(%error, "a connection did not begin"),
            Err(_) => return tracing::debug!("a peer said nothing in time"),
        };
        let ended = match protocol {
            // Boxed, because a task is moved about when it begins, and has room for the largest part of it.
            Protocol::Http1 => Box::pin(self.http1(io, peer, place, head_by)).await,
            Protocol::Http2 => Box::pin(self.http2(io, peer)).await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// The first head has to be there by a time that began with the connection.
    async fn http1(
        self,
        io: Rewound<Transport>,
        peer: Peer,
        place: OwnedSemaphorePermit,
        head_by: Instant,
    ) -> hyper::Result<()> {
        let (shared, detachment) = (self.0.clone(), Detachment::default());
        let (settings, keeper) = (&self.0.settings, detachment.clone());
        // The connection's own, because all threads share the counter of the other one.
        let (takeover, watchdog) = (settings.http1_takeover, Arc::new(self.0.watchdog.clone()));
        let io = TokioIo::new(Http1Io::new(io, detachment.clone()));
        let service = service_fn(move |request: Request<Incoming>| {
            let (watchdog, keeper, version) = (watchdog.clone(), keeper.clone(), request.version());
            let body = |body| RequestBody::new(body, keeper.clone());
            let response = shared.handler.handle(peer, request.map(body));
            async move {
                let mut response = response.await;
                if takeover {
                    response = match ResponseKind::of(response).await {
                        ResponseKind::Streaming(mut going) if keeper.has_whole_request() && going.failed.is_none() => {
                            *going.response.version_mut() = version;
                            keeper.keep(going);
                            pending().await
                        }
                        ResponseKind::Streaming(going) => going.whole(),
                        ResponseKind::Complete(response) => response,
                    };
                }
                Ok::<_, Infallible>(CountedBody::of(response, &watchdog))
            }
        });
        let connection = http1::Builder::new()
            .timer(ConnectionTimer::with_first(head_by))
            .header_read_timeout(settings.header_timeout)
            .max_buf_size(HTTP1_BUFFER)
            // Many clients end their side with their request. But a stream that hyper writes would not notice that its peer left.
            .half_close(settings.http1_takeover)
            .serve_connection(io, service);
        let mut http1 = DetachableConnection { connection, detachment };
        let taken = tokio::select! {
            ended = &mut http1 => ended,
            () = self.0.drain.next_stop() => {
                http1.graceful_shutdown();
                (&mut http1).await
            }
        };
        if let Some(going) = taken? {
            let io = http1.connection.into_parts().io.into_inner().into_inner().into_inner();
            self.0.drain.spawn(stream_writer::StreamWriter::new(io, going, self.0.watchdog.clone(), place));
        }
        Ok(())
    }

    async fn http2(self, io: Rewound<Transport>, peer: Peer) -> hyper::Result<()> {
        let shared = self.0.clone();
        let (turns, account) = (ReadBudget::default(), UnsentLimit::new(self.0.watchdog.clone()));
        let io = TokioIo::new(Http2Io::new(io, turns.clone(), self.0.metrics.clone()));
        let streams = StreamTasks::new(self.0.drain.clone(), account.clone());
        let (opening, waiting, room) = (streams.clone(), turns.clone(), account.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (waiter, turn) = (opening.open(), waiting.enter());
            let mut answer = if room.is_full() || room.is_crowded() {
                shared.clone().later(peer, Box::new(request))
            } else {
                shared.handler.handle(peer, request.map(CompleteBody))
            };
            async move {
                // From here on it is being served, whatever it waits for.
                drop(turn);
                let response = poll_fn(|cx| {
                    ready!(waiter.poll_room(cx));
                    answer.as_mut().poll(cx)
                });
                let response = response.await;
                Ok::<_, Infallible>(ResponseBody::of(response, waiter))
            }
        });
        let connection = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_TIMEOUT)
            .max_concurrent_streams(self.0.settings.max_streams)
            .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
            .max_local_error_reset_streams(HTTP2_LOCAL_RESETS)
            .max_header_list_size(HTTP2_HEADER_LIST)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_send_buf_size(HTTP2_SEND_BUFFER)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        let (mut stop, mut stopping) = (pin!(self.0.drain.next_stop()), false);
        let (open, mut idle) = (account.clone(), IdleTimeout::new(self.0.settings.http2_idle, account.clone()));
        let mut leftover = UnflushedStreams::of(account);
        let mut gathering = WriteBatching::default();
        poll_fn(|cx| {
            ready!(gathering.poll(open.streams().1, cx));
            ready!(turns.poll_begin(cx));
            if !stopping && (stop.as_mut().poll(cx).is_ready() || idle.poll(cx).is_ready()) {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() && leftover.is_cut(cx.waker()) {
                return Poll::Ready(Ok(()));
            }
            polled
        })
        .await
    }
}

impl<H: Handler> Shared<H> {
    /// An answer that is not begun before its connection has room, so that a request is all that is kept until then.
    fn later(self: Arc<Self>, peer: Peer, request: Box<Request<Incoming>>) -> ResponseFuture {
        Box::pin(async move { self.handler.handle(peer, request.map(CompleteBody)).await })
    }
}
