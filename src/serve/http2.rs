//! Serves one HTTP/2 connection with hyper: sets all of hyper's limits, and adds the limits that hyper does not have.

mod control_frames;
mod frame_filter;
mod frame_headers;
mod idle_timeout;
mod read_ahead;
mod read_budget;
mod receive_window;
mod received_body;
mod request_body;
mod response_body;
mod stream_tasks;
mod streams;
mod unflushed_streams;
mod write_batching;

use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncRead;

pub use self::request_body::{UnreadResponses, expects_continue};
use self::{
    frame_filter::FrameFilter, idle_timeout::IdleTimeout, read_budget::ReadBudget, request_body::CheckedBody,
    response_body::ResponseBody, unflushed_streams::UnflushedStreams, write_batching::WriteBatching,
};
pub(super) use self::{stream_tasks::StreamTasks, streams::Streams};
use super::{
    Handler, Peer, ResponseFuture,
    connection::ServerState,
    discard::read_to_end,
    filtered_io::FilteredIo,
    protocol_detection::Rewound,
    tls::{MaybeTls, TlsClient},
};
use crate::drain::Drain;

/// Bytes of the header list of a request, after decompression.
const HEADER_LIST: u32 = 16 * 1024;
/// Flow-control windows: bytes that the peer may send before handlers read them, for one stream and for the connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes that h2 buffers for one stream whose peer reads slowly.
const STREAM_SEND_BUFFER: usize = 64 * 1024;
/// Streams that the peer reset before hyper accepted them (CVE-2023-44487). The count starts again with each poll, because hyper
/// accepts all requests of a read budget in one poll.
const PENDING_RESETS: usize = 20;
/// Streams that the peer made the server reset (CVE-2025-8671).
const LOCAL_RESETS: usize = 1_024;
/// Silence before a PING, and the time for its answer. Without PING, a peer that hangs but still answers TCP probes is not noticed.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn serve<H: Handler>(
    state: Arc<ServerState<H>>,
    io: Rewound<MaybeTls>,
    peer: Peer,
) -> hyper::Result<()> {
    let (budget, streams, client) = (ReadBudget::default(), Streams::new(state.watchdog.clone()), TlsClient::of(&io));
    let frames = FrameFilter::new(state.metrics.clone(), streams.clone());
    let mut io = FilteredIo::new(FilteredIo::new(io, budget.clone()), frames);
    let tasks = StreamTasks::new(state.drain.clone(), state.settings.body_timeout, streams.clone());
    let service = {
        let (state, budget, streams, tasks) = (state.clone(), budget.clone(), streams.clone(), tasks.clone());
        service_fn(move |request: Request<Incoming>| {
            let ((request, waiter), unpolled) = (tasks.open_stream(client.attach(request)), budget.count_unpolled());
            let mut handled = if streams.must_queue() {
                handle_later(state.clone(), peer, Box::new(request))
            } else {
                state.handler.handle(peer, request)
            };
            async move {
                drop(unpolled);
                let response = poll_fn(|cx| {
                    ready!(waiter.poll_capacity(cx));
                    handled.as_mut().poll(cx)
                });
                let response = response.await;
                Ok::<_, Infallible>(ResponseBody::wrap(response, waiter))
            }
        })
    };
    let connection = builder(tasks, state.settings.max_streams).serve_connection(TokioIo::new(&mut io), service);
    let times = (state.drain.as_ref(), state.settings.http2_idle_timeout);
    let ended = run(connection, http2::Connection::graceful_shutdown, &streams, &budget, times).await;
    // The filters are for h2, which is gone.
    close(io.into_inner().into_inner(), ended, state.drain.clone()).await
}

/// Runs a connection to its end. `None`: the peer does not read, and the connection must be cut.
async fn run<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    streams: &Arc<Streams>,
    budget: &ReadBudget,
    (drain, idle_timeout): (&Drain, Duration),
) -> Option<hyper::Result<()>> {
    let mut connection = pin!(connection);
    let (mut stop, mut hard_stop) = (pin!(stop_without_streams(drain, streams)), pin!(drain.hard_stop()));
    let (mut is_over, mut sent_goaway) = (false, false);
    let mut idle = IdleTimeout::new(idle_timeout, streams.clone());
    let (mut batching, mut unflushed) = (WriteBatching::default(), UnflushedStreams::new(streams.clone()));
    poll_fn(|cx| {
        // First waits for other streams, then for unpolled requests; only then hyper reads and writes.
        ready!(batching.poll(streams.open_streams(), cx));
        ready!(budget.poll_refill(cx));
        if streams.must_pause_reads() {
            budget.pause();
        }
        is_over = is_over || stop.as_mut().poll(cx).is_ready() || idle.poll(cx).is_ready();
        let mut polled = connection.as_mut().poll(cx);
        // After a poll, which has written what the closed streams left: h2 writes GOAWAY before anything else. A blocked socket wakes
        // the connection when it takes the rest.
        if is_over
            && !sent_goaway
            && polled.is_pending()
            && (!streams.is_write_blocked() || hard_stop.as_mut().poll(cx).is_ready())
        {
            sent_goaway = true;
            shut_down(connection.as_mut());
            polled = connection.as_mut().poll(cx);
        }
        streams.check_receive_window();
        if polled.is_pending() {
            if unflushed.check(cx.waker()) {
                return Poll::Ready(None);
            }
            // The last stream may have closed, or the pause may have ended, before this poll left a waker.
            if !is_over && streams.has_last_closed() || budget.is_paused() && !streams.must_pause_reads() {
                cx.waker().wake_by_ref();
            }
        }
        polled.map(Some)
    })
    .await
}

/// Closes the connection. If h2 has sent GOAWAY and half-closed it, reads what still comes: otherwise the system would answer a late
/// frame with RST, and the peer would lose what it has not read.
async fn close(
    io: impl AsyncRead + Send + Unpin + 'static,
    ended: Option<hyper::Result<()>>,
    drain: Arc<Drain>,
) -> hyper::Result<()> {
    let Some(ended) = ended else { return Ok(()) };
    // Other errors: the socket failed, the peer did not answer PING, or sent too many control frames.
    let is_of_h2 = |error: &hyper::Error| error.source().is_some_and(<dyn Error>::is::<h2::Error>);
    if ended.as_ref().err().is_none_or(is_of_h2) {
        read_to_end(io, drain).await;
    }
    ended
}

/// Waits for the next stop, and then for the end of the last stream, at most until the hard stop.
///
/// Some clients (grpc-js with keep-alive) give up their open streams at a GOAWAY, and lose the end of a stream that comes after it. So
/// a connection that always has a stream gets GOAWAY at the hard stop. Until then each of its new requests is refused by itself.
async fn stop_without_streams(drain: &Drain, streams: &Streams) {
    drain.next_stop().await;
    streams.wake_at_last_close();
    let mut hard_stop = pin!(drain.hard_stop());
    poll_fn(|cx| if streams.has_last_closed() { Poll::Ready(()) } else { hard_stop.as_mut().poll(cx) }).await;
}

/// hyper with every limit set.
fn builder(tasks: StreamTasks, max_streams: u32) -> http2::Builder<StreamTasks> {
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(max_streams)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_header_list_size(HEADER_LIST)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_SEND_BUFFER);
    builder
}

/// Calls the handler at the first poll. So a queued stream holds its request in memory, but no response yet.
fn handle_later<H: Handler>(
    state: Arc<ServerState<H>>,
    peer: Peer,
    request: Box<Request<CheckedBody>>,
) -> ResponseFuture {
    Box::pin(async move { state.handler.handle(peer, *request).await })
}

#[cfg(test)]
mod testing {
    use tokio::io::{AsyncRead, AsyncReadExt as _};

    pub(super) use super::control_frames::{HEADERS, RST_STREAM};
    use super::{control_frames::SETTINGS, frame_headers::DATA};
    use crate::serve::protocol_detection::PREFACE;

    const END_HEADERS: u8 = 4;
    const END_STREAM_AND_HEADERS: u8 = 5;

    /// The preface, and a POST as stream 1 whose body begins with these frames.
    pub(super) fn upload(frames: &[&[u8]]) -> Vec<u8> {
        let block = [&[0x83, 0x86, 0x84, 0x01, 9][..], b"localhost"].concat();
        let mut bytes = [&PREFACE[..], &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_HEADERS, 1, &block)].concat();
        bytes.extend(frames.iter().flat_map(|payload| frame(DATA, 0, 1, payload)));
        bytes
    }

    /// The preface, settings that allow `window` unread bytes a stream, and GET requests as streams 1, 3, 5 ...
    pub(super) fn requests_with_window(count: usize, window: u32) -> Vec<u8> {
        // GET, http and / stand in the static table of HPACK; the authority has its name there.
        let block = [&[0x82, 0x86, 0x84, 0x01, 9][..], b"localhost"].concat();
        let mut bytes = PREFACE.to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat()));
        for stream in (1..).step_by(2).take(count) {
            bytes.extend(frame(HEADERS, END_STREAM_AND_HEADERS, stream, &block));
        }
        bytes
    }

    pub(super) fn requests(count: usize) -> Vec<u8> {
        requests_with_window(count, 65_535)
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The stream and the kind of the next HEADERS or `RST_STREAM` frame.
    pub(super) async fn next_answer(client: &mut (impl AsyncRead + Unpin)) -> (u32, u8) {
        loop {
            let mut header = [0; 9];
            client.read_exact(&mut header).await.expect("a frame");
            let [a, b, c, kind, _, stream @ ..] = header;
            client.read_exact(&mut vec![0; u32::from_be_bytes([0, a, b, c]) as usize]).await.expect("its payload");
            if [HEADERS, RST_STREAM].contains(&kind) {
                return (u32::from_be_bytes(stream), kind);
            }
        }
    }
}
