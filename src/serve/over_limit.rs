//! Serves a connection over the connection limit: one request within 2 s, which is refused unless it is a health check.

use std::{convert::Infallible, future::poll_fn, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use axum::BoxError;
use http::Request;
use hyper::{
    body::Incoming,
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
    connection::ServerState,
    http2::{StreamTasks, Streams},
    protocol_detection::{Protocol, Rewound, detect},
    tls::MaybeTls,
};

/// Ends after one request, after [`TIMEOUT`], or at the hard stop.
pub(super) async fn serve<H: Handler>(
    state: Arc<ServerState<H>>,
    socket: TcpStream,
    tcp: IpAddr,
    _permit: OwnedSemaphorePermit,
) {
    tokio::select! {
        ended = timeout(TIMEOUT, serve_one(&state, socket, tcp)) => match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a connection over the limit failed"),
            Err(_) => tracing::debug!("a connection over the limit took too long"),
        },
        () = state.drain.hard_stop() => {}
    }
}

async fn serve_one(state: &ServerState<impl Handler>, mut socket: TcpStream, tcp: IpAddr) -> Result<(), BoxError> {
    let (peer, _counted) = state.admit(&mut socket, tcp).await?;
    match detect(state.handshake(socket, peer).await?).await? {
        Some((Protocol::Http1, io)) => serve_http1(&state.handler, io, peer).await,
        Some((Protocol::Http2, io)) => serve_http2(state, io, peer).await,
        None => Ok(()),
    }
}

async fn serve_http1(handler: &impl Handler, io: Rewound<MaybeTls>, peer: Peer) -> Result<(), BoxError> {
    let service = service_fn(|request: Request<Incoming>| {
        let response = handler.handle_over_limit(peer, request);
        Box::pin(async { Ok::<_, Infallible>(response.await) })
    });
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .keep_alive(false)
        .half_close(true)
        .max_buf_size(MAX_HEAD_AND_BUFFER)
        .serve_connection(TokioIo::new(io), service);
    poll_fn(|cx| connection.poll_without_shutdown(cx)).await?;
    // First half-closes, then reads until the peer closes: closing a socket with unread bytes sends RST, and the peer may lose
    // the response.
    let mut io = connection.into_parts().io.into_inner();
    io.shutdown().await?;
    while io.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}

async fn serve_http2(state: &ServerState<impl Handler>, io: Rewound<MaybeTls>, peer: Peer) -> Result<(), BoxError> {
    let request_came = Arc::new(Notify::new());
    // [`TIMEOUT`] and one stream bound everything else, so no stream is watched.
    let tasks = StreamTasks::new(state.drain.clone(), TIMEOUT, Streams::new(state.watchdog.clone()));
    let opening = tasks.clone();
    let service = service_fn(|request: Request<Incoming>| {
        request_came.notify_one();
        let (request, _) = opening.open_stream(request);
        let response = state.handler.handle_over_limit(peer, request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let connection = http2::Builder::new(tasks)
        .timer(TokioTimer::new())
        .max_concurrent_streams(1)
        .max_send_buf_size(MAX_HEAD_AND_BUFFER)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = request_came.notified() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// The time for the whole connection. A health check has its answer within milliseconds, and silent peers must not hold these few
/// permits.
const TIMEOUT: Duration = Duration::from_secs(2);

/// hyper's limit for both buffers: the head of a request, and response bytes that the socket has not taken.
const MAX_HEAD_AND_BUFFER: usize = 16 * 1024;
