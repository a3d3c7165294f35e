//! A connection for which there is no place: one request, and the answer that the server is healthy or has no place.

use std::{convert::Infallible, future::poll_fn, pin::pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, OwnedSemaphorePermit},
    time::timeout,
};

use super::{
    Handler, Peer,
    http2::request_body::CompleteBody,
    protocol_detection::{Protocol, Rewound, detect},
    tls::{self, Tls, Transport},
    watched_socket::WatchedSocket,
    write_watchdog::Watchdog,
};
use crate::drain::Drain;

/// What all such connections share.
#[derive(Clone)]
pub(super) struct OverLimit<H> {
    pub(super) handler: H,
    pub(super) tls: Option<Tls>,
    pub(super) watchdog: Watchdog,
    pub(super) drain: Drain,
}

impl<H: Handler> OverLimit<H> {
    /// Serves a connection on one of the few places, which it may not keep for long.
    pub(super) async fn serve(self, socket: TcpStream, peer: Peer, _place: OwnedSemaphorePermit) {
        let drain = self.drain.clone();
        tokio::select! {
            ended = timeout(PATIENCE, self.answer(socket, peer)) => match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a connection without a place ended early"),
                Err(_) => tracing::debug!("a connection without a place took too long"),
            },
            () = drain.finished() => {}
        }
    }

    async fn answer(self, socket: TcpStream, peer: Peer) -> Result<(), axum::BoxError> {
        let socket = WatchedSocket::new(socket, self.watchdog.clone());
        match detect(tls::accept(self.tls.as_ref(), socket).await?).await? {
            Some((Protocol::Http1, io)) => self.http1(io, peer).await,
            Some((Protocol::Http2, io)) => self.http2(io, peer).await,
            None => Ok(()),
        }
    }

    async fn http1(self, io: Rewound<Transport>, peer: Peer) -> Result<(), axum::BoxError> {
        let service = service_fn(|request: Request<Incoming>| {
            let response = self.handler.handle_over_limit(peer, request);
            Box::pin(async { Ok::<_, Infallible>(response.await) })
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .keep_alive(false)
            .half_close(true)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(io), service);
        poll_fn(|cx| connection.poll_without_shutdown(cx)).await?;
        // In two steps: the system would take the answer back if unread bytes of the request were thrown away with the socket.
        let mut io = connection.into_parts().io.into_inner();
        io.shutdown().await?;
        while io.read(&mut [0; 1024]).await? > 0 {}
        Ok(())
    }

    async fn http2(self, io: Rewound<Transport>, peer: Peer) -> Result<(), axum::BoxError> {
        let asked = Arc::new(Notify::new());
        let service = service_fn(|request: Request<Incoming>| {
            asked.notify_one();
            let response = self.handler.handle_over_limit(peer, request.map(CompleteBody));
            async { Ok::<_, Infallible>(response.await) }
        });
        let connection = http2::Builder::new(Tasks(self.drain.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(1)
            .max_send_buf_size(BUFFER)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = asked.notified() => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }
}

/// Starts the task of a stream of HTTP/2.
#[derive(Clone)]
struct Tasks(Drain);

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

/// For all of it: a health check has its answer in milliseconds, and silent connections cannot hold these places long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a request's head, and of an answer that waits for its peer.
const BUFFER: usize = 16 * 1024;
