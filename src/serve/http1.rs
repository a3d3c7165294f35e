//! Serves one HTTP/1.1 connection with hyper. A streaming response leaves hyper: `stream_writer` writes it.

mod counted_body;
mod detach;
mod first_head_timer;
mod response_kind;
mod stream_writer;

use std::{convert::Infallible, sync::Arc};

use axum::body::Body;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use self::{
    counted_body::CountedBody,
    detach::{DetachableConnection, Detachment, ReadTrackedBody},
    first_head_timer::FirstHeadTimer,
    stream_writer::StreamWriter,
};
use super::{
    Handler, Peer,
    connection::ServerState,
    connection_limit::ConnectionPermit,
    discard::read_to_end,
    filtered_io::FilteredIo,
    protocol_detection::Rewound,
    tls::{MaybeTls, TlsClient},
};

/// hyper's limit for both buffers: the head of a request, and response bytes that the socket has not taken.
const MAX_HEAD_AND_BUFFER: usize = 32 * 1024;

/// `first_head_by` is the deadline for the head of the first request.
pub(super) async fn serve<H: Handler>(
    state: Arc<ServerState<H>>,
    io: Rewound<MaybeTls>,
    peer: Peer,
    permit: ConnectionPermit,
    first_head_by: Instant,
) -> hyper::Result<()> {
    let (settings, detachment, client) = (&state.settings, Detachment::default(), TlsClient::of(&io));
    let service = {
        let (state, detachment) = (state.clone(), detachment.clone());
        // One `Arc` for each connection, so a request clones this counter and not the one that all threads share.
        let (detaches, watchdog) = (settings.http1_takeover, Arc::new(state.watchdog.clone()));
        service_fn(move |request: Request<Incoming>| {
            let (watchdog, detachment, version) = (watchdog.clone(), detachment.clone(), request.version());
            let request = ReadTrackedBody::wrap(client.attach(request), &detachment, state.settings.body_timeout);
            let response = state.handler.handle(peer, request);
            async move {
                let mut response = response.await;
                if detaches {
                    response = detachment.hold_back_stream(response, version).await;
                }
                Ok::<_, Infallible>(CountedBody::wrap(close_after_unknown_length(response, version), &watchdog))
            }
        })
    };
    let connection = http1::Builder::new()
        .timer(FirstHeadTimer::new(first_head_by))
        .header_read_timeout(settings.header_timeout)
        // The system writes one buffer faster than a list of small ones.
        .writev(false)
        .max_buf_size(MAX_HEAD_AND_BUFFER)
        // Many clients half-close with their request. Forbidden if hyper writes streams: only the end of input shows that the peer
        // has left.
        .half_close(settings.http1_takeover)
        .serve_connection(TokioIo::new(FilteredIo::new(io, detachment.clone())), service);
    let mut connection = DetachableConnection::new(connection, detachment, state.drain.clone());
    let detached = tokio::select! {
        ended = &mut connection => ended,
        () = state.drain.next_stop() => {
            connection.graceful_shutdown();
            (&mut connection).await
        }
    };
    // Unwraps TokioIo, the detachment filter and the first bytes, which hyper has read.
    let io = || connection.into_io().into_inner().into_inner().into_inner();
    match detached {
        // A task of its own, because a task keeps the memory of the largest future that it ever ran.
        Ok(Some(streaming)) => {
            state.drain.spawn(StreamWriter::new(io(), streaming, state.watchdog.clone(), permit));
            Ok(())
        }
        // The socket failed, or no head came in time: nobody waits for a response.
        Err(error) if !error.is_parse() => Err(error),
        // hyper has half-closed the connection.
        ended => {
            read_to_end(io(), state.drain.clone()).await;
            ended.map(drop)
        }
    }
}

/// In HTTP/1.0 the end of the connection ends a body of unknown length. hyper would say `keep-alive`, unless the
/// response has the version HTTP/1.0.
fn close_after_unknown_length(mut response: Response<Body>, version: Version) -> Response<Body> {
    if version < Version::HTTP_11 && response.body().size_hint().exact().is_none() {
        *response.version_mut() = version;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
