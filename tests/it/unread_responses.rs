//! A response that its peer does not read is cut, whatever kind of response it is, and its bytes leave the memory budget.

use std::time::Duration;

use axum::body::Body;
use backend_signal::grpc::proto::{Address, SendRequest, SendStreamRequest, SubscribeRequest};
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{
    FORM, Server, claim,
    frames::{self, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, INITIAL_WINDOW_SIZE, RST_STREAM, WINDOW_UPDATE},
    grpc::framed,
    http2::Http2,
    metric, until, within,
};

const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A request. Its response is longer than a window of 100 bytes. A `short` one is only longer than a window of 1 byte.
struct UnreadRequest {
    name: &'static str,
    head: Vec<u8>,
    body: Option<Vec<u8>>,
    short: bool,
}

fn requests() -> Vec<UnreadRequest> {
    let device = "d".repeat(200);
    let claim = claim(&format!("bob/{device}"));
    let call = [("x-user-claim", claim.as_str()), ("content-type", "application/grpc"), ("te", "trailers")];
    let get =
        |name, path, headers: &[_]| UnreadRequest { name, head: frames::get(path, headers), body: None, short: false };
    let post =
        |name, path, body| UnreadRequest { name, head: frames::post(path, &call), body: Some(body), short: false };
    let to = Some(Address { user: "bob".into(), device: "nobody".into() });
    let send = SendRequest { to, event: String::new(), data: "x".into(), ttl: None, idempotency_key: String::new() };
    let mut sends = Vec::new();
    for _ in 0..100 {
        sends.extend(framed(&SendStreamRequest { send: Some(send.clone()) }));
    }
    let watched = Some(Address { user: "eve".into(), device: "e".repeat(200) });
    let delivered = framed(&SendRequest { to: watched, ..send });
    vec![
        get("an event stream", "/subscribe", &call[..1]),
        get("a device list", "/user/eve/devices", &[]),
        get("metrics", "/metrics", &[]),
        UnreadRequest { short: true, ..get("a problem", "/nowhere", &[]) },
        post("Subscribe", "/backend_signal.v1.Signal/Subscribe", framed(&SubscribeRequest::default())),
        post("SendStream", "/backend_signal.v1.Signal/SendStream", sends),
        UnreadRequest { short: true, ..post("Send", "/backend_signal.v1.Signal/Send", delivered) },
    ]
}

async fn ask(peer: &mut Frames, stream: u32, request: &UnreadRequest) {
    let end = if request.body.is_none() { END_STREAM } else { 0 };
    peer.send(HEADERS, end | END_HEADERS, stream, &request.head).await;
    if let Some(body) = &request.body {
        peer.send(DATA, END_STREAM, stream, body).await;
    }
}

/// Another request of the connection is still answered.
async fn assert_lives_on(peer: &mut Frames) {
    peer.send(HEADERS, END_STREAM | END_HEADERS, 101, &frames::get("/healthz", &[])).await;
    peer.next_of(HEADERS).await.expect("an answer");
}

#[tokio::test]
async fn every_unread_response_is_cut_for_any_window() {
    let server = Server::with(&["--stall-timeout", "0.4"]).await;
    let _listed = server.sse(&format!("eve/{}", "e".repeat(200))).await;
    let mut cut = 0;
    for window in [0, 1, 100] {
        // A short response fits into a window of 100 bytes.
        for request in requests().iter().filter(|request| window < 10 || !request.short) {
            let mut peer = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, window)]).await;
            ask(&mut peer, 1, request).await;
            let reset =
                peer.next_of(RST_STREAM).await.unwrap_or_else(|| panic!("{}, {window}: no reset", request.name));
            assert_eq!(reset.payload, CANCEL, "{}, {window}", request.name);
            cut += 1;
            assert_eq!(metric(&server, "signal_stalled_streams_total").await, cut, "{}, {window}", request.name);
            assert_lives_on(&mut peer).await;
        }
    }
    until(|| metric(&server, "signal_unsent_bytes"), |bytes| *bytes == 0).await;
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    assert_eq!(metric(&server, "signal_stalled_connections_total").await, 0);
}

#[tokio::test]
async fn a_peer_that_reads_a_byte_now_and_then_is_cut() {
    let server = Server::with(&["--stall-timeout", "0.4"]).await;
    let _listed = server.sse(&format!("eve/{}", "e".repeat(200))).await;
    for (cut, request) in requests().iter().filter(|request| !request.short).enumerate() {
        let mut peer = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 1)]).await;
        ask(&mut peer, 1, request).await;
        within(async {
            while metric(&server, "signal_stalled_streams_total").await <= cut as u64 {
                // The server ignores a window update for a stream that it has reset.
                peer.flood(&frames::frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        })
        .await;
    }
    until(|| metric(&server, "signal_unsent_bytes"), |bytes| *bytes == 0).await;
}

#[tokio::test]
async fn a_peer_that_shrinks_its_window_to_zero_is_cut_after_its_responses_have_ended() {
    let server = Server::with(&["--stall-timeout", "2"]).await;
    let mut phone = server.sse("bob/phone").await;
    let mut peer = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 60_000)]).await;
    peer.send(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()).await;
    // Every response fits into the flow-control windows, but most do not fit into the socket.
    for stream in (1..100).step_by(2) {
        peer.send(HEADERS, END_STREAM | END_HEADERS, stream, &frames::get("/metrics", &[])).await;
    }
    until(|| metric(&server, "signal_unsent_bytes"), |bytes| *bytes > 50_000).await;
    let settings = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
    peer.send(frames::SETTINGS, 0, 0, &settings).await;
    // The peer reads again, but its windows are zero. It answers PINGs, so only the watchdog can end the connection.
    within(async {
        while let Some(frame) = peer.next().await {
            if frame.kind == frames::PING {
                peer.send(frames::PING, frames::ACK, 0, &frame.payload).await;
            }
        }
    })
    .await;
    until(|| metric(&server, "signal_unsent_bytes"), |bytes| *bytes == 0).await;
    assert_eq!(server.post("bob/phone", "unharmed").await.status, 200);
    assert_eq!(phone.data().await, "unharmed");
}

/// Devices whose list has about 50 KB.
async fn long_list(server: &Server) -> Vec<crate::harness::Sse> {
    list_of(server, 200).await
}

/// Devices whose list has 253 bytes for each.
async fn list_of(server: &Server, number: u32) -> Vec<crate::harness::Sse> {
    let connection = Http2::open(server.address).await;
    let mut devices = Vec::new();
    for device in 0..number {
        devices.push(crate::harness::Sse::open_h2(&connection, &format!("eve/{device:0>250}")).await);
    }
    devices
}

#[tokio::test]
async fn of_a_thousand_unread_responses_only_a_few_are_in_memory() {
    let server = Server::with(&["--stall-timeout", "50"]).await;
    let _devices = long_list(&server).await;
    let mut peer = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    for stream in (1..2_000).step_by(2) {
        let get = frames::get("/user/eve/devices", &[]);
        peer.send(HEADERS, END_STREAM | END_HEADERS, stream, &get).await;
    }
    // A few lists are unsent at any time. The watchdog cuts them and so lets the next ones begin.
    let unsent = async || metric(&server, "signal_unsent_bytes").await;
    until(unsent, |bytes| *bytes > 100_000).await;
    until(
        async || {
            let bytes = metric(&server, "signal_unsent_bytes").await;
            assert!(bytes < 400_000, "{bytes} bytes for one connection");
            metric(&server, "signal_stalled_streams_total").await
        },
        |cut| *cut >= 5,
    )
    .await;
    drop(peer);
    until(|| metric(&server, "signal_unsent_bytes"), |bytes| *bytes == 0).await;
}

#[tokio::test]
async fn requests_that_wait_behind_unread_responses_are_cut_with_them() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let _devices = long_list(&server).await;
    let mut peer = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    for stream in (1..600).step_by(2) {
        let get = frames::get("/user/eve/devices", &[]);
        peer.send(HEADERS, END_STREAM | END_HEADERS, stream, &get).await;
    }
    until(|| metric(&server, "signal_stalled_streams_total"), |cut| *cut == 300).await;
    until(|| metric(&server, "signal_unsent_bytes"), |bytes| *bytes == 0).await;
}

#[tokio::test]
async fn a_stream_that_blocks_others_of_its_connection_is_cut_early_and_alone() {
    let server = Server::with(&["--stall-timeout", "50"]).await;
    let mut hogs = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    for device in 0..6 {
        let claim = claim(&format!("bob/{device}"));
        let get = frames::get("/subscribe", &[("x-user-claim", &claim)]);
        hogs.send(HEADERS, END_STREAM | END_HEADERS, 1 + 2 * device, &get).await;
        // The window has no bytes yet, so the whole stream waits.
        hogs.next_of(HEADERS).await.expect("an open stream");
    }
    for device in 0..6 {
        hogs.send(WINDOW_UPDATE, 0, 1 + 2 * device, &1_000_u32.to_be_bytes()).await;
    }
    let body = format!("data={}", "x".repeat(60_000));
    for device in 0..6 {
        let path = format!("POST /user/bob/device/{device}");
        assert_eq!(server.request(&path, &[("content-type", FORM)], body.as_bytes()).await.status, 200);
    }
    until(|| metric(&server, "signal_unsent_bytes"), |bytes| *bytes > 256 * 1_024).await;
    assert_eq!(metric(&server, "signal_stalled_streams_total").await, 0, "no other request waits");
    hogs.send(HEADERS, END_STREAM | END_HEADERS, 101, &frames::get("/healthz", &[])).await;
    hogs.next_of(HEADERS).await.expect("an answer");
    let cut = metric(&server, "signal_stalled_streams_total").await;
    assert!((1..=3).contains(&cut), "{cut} cut for one request");
}

#[tokio::test]
async fn when_the_memory_budget_is_full_the_longest_unread_stream_is_cut_first() {
    let server = Server::with(&["--stall-timeout", "50", "--memory-budget", "375000"]).await;
    let body = format!("data={}", "x".repeat(60_000));
    let _devices = long_list(&server).await;
    let mut unread = Vec::new();
    for device in ["a", "b", "c"] {
        // The window is enough for the opening and the beginning of a message.
        let connection = Http2::with_window(server.address, 1_000).await;
        let request =
            Request::get(connection.uri("/subscribe")).header("x-user-claim", claim(&format!("bob/{device}")));
        let response = connection.clone().send(request.body(Body::empty()).expect("a request")).await;
        let before = metric(&server, "signal_unsent_bytes").await;
        let path = format!("POST /user/bob/device/{device}");
        assert_eq!(server.request(&path, &[("content-type", FORM)], body.as_bytes()).await.status, 200);
        until(|| metric(&server, "signal_unsent_bytes"), |bytes| *bytes >= before + 50_000).await;
        // Two ticks of the watchdog's clock, so that it can tell which stream has waited longer.
        tokio::time::sleep(Duration::from_millis(250)).await;
        unread.push((connection, response));
    }
    assert_eq!(metric(&server, "signal_stalled_streams_total").await, 0);
    let mut list = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    list.send(HEADERS, END_STREAM | END_HEADERS, 1, &frames::get("/user/eve/devices", &[])).await;
    until(|| server.devices("bob"), |devices| devices == r#"["b","c"]"#).await;
    assert_eq!(metric(&server, "signal_stalled_streams_total").await, 1);
}

#[tokio::test]
async fn a_peer_that_reads_a_large_message_at_once_is_not_cut_in_the_silence_after_it() {
    let server = Server::with(&["--stall-timeout", "0.4", "--heartbeat", "600"]).await;
    for (window, bytes) in [(16_000, 40_000), (65_535, 99_000), (1 << 20, 99_000), (1_000, 3_000)] {
        let connection = Http2::with_window(server.address, window).await;
        let mut phone = crate::harness::Sse::open_h2(&connection, "bob/phone").await;
        for round in 0..2 {
            let data = format!("{round}{}", "x".repeat(bytes));
            let body = format!("data={data}");
            let answer =
                server.request("POST /user/bob/device/phone", &[("content-type", FORM)], body.as_bytes()).await;
            assert_eq!(
                (answer.status, phone.data().await == data),
                (200, true),
                "window {window}, {bytes} bytes, {round}"
            );
            // Three times the stall timeout.
            tokio::time::sleep(Duration::from_millis(1_200)).await;
        }
    }
    assert_eq!(metric(&server, "signal_stalled_streams_total").await, 0);
}

#[tokio::test]
async fn a_tls_peer_that_does_not_read_is_cut() {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = crate::serve::tempfiles("unread", &identity);
    let options = ["--tls-cert", &files[0], "--tls-key", &files[1], "--stall-timeout", "0.4", "--heartbeat", "600"];
    let server = Server::with(&options).await;
    let connector = crate::serve::connector(identity.cert.der(), b"http/1.1");
    let connect = async |socket| {
        let name = "localhost".try_into().expect("a name");
        within(connector.connect(name, socket)).await.expect("a handshake")
    };
    let mut phone = connect(crate::harness::narrow(server.address).await).await;
    let subscribe = format!("GET /subscribe HTTP/1.1\r\nhost: a\r\nx-user-claim: {}\r\n\r\n", claim("bob/phone"));
    within(phone.write_all(subscribe.as_bytes())).await.expect("writable");
    let mut other = connect(tokio::net::TcpStream::connect(server.address).await.expect("listens")).await;
    let mut ask = async |request: String| {
        within(other.write_all(request.as_bytes())).await.expect("writable");
        let (mut answer, mut part) = (String::new(), [0; 2_048]);
        loop {
            let length = within(other.read(&mut part)).await.expect("an answer");
            answer.push_str(&String::from_utf8_lossy(&part[..length]));
            let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return answer;
            }
        }
    };
    let metrics = || "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".to_owned();
    // Post until the socket's buffers are full.
    let body = format!("data={}", "x".repeat(4_000));
    let head = "POST /user/bob/device/phone HTTP/1.1\r\nhost: a";
    let post = format!("{head}\r\ncontent-type: {FORM}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut posts = 0;
    while ask(metrics()).await.contains("signal_unsent_bytes 0\n") {
        assert!(posts < 1_000, "the socket's buffers never fill");
        assert!(ask(post.clone()).await.starts_with("HTTP/1.1 200"), "after {posts}");
        posts += 1;
    }
    let cut = "signal_stalled_connections_total 1\n";
    let gone = ["signal_streams 0\n", "signal_unsent_bytes 0\n", cut];
    within(async {
        while let text = ask(metrics()).await
            && !gone.iter().all(|line| text.contains(line))
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(phone);
}

/// Before, the server closed its socket with the late frames unread, and the system threw away what the peer had not read yet.
#[tokio::test]
async fn a_peer_that_still_writes_while_its_connection_is_closed_gets_to_read_everything() {
    let server = Server::with(&["--stall-timeout", "50"]).await;
    // More than the system takes for the peer, and not more than it takes for both sides.
    let _listed = list_of(&server, 110).await;
    let mut peer = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 1 << 20)]).await;
    peer.send(HEADERS, END_STREAM | END_HEADERS, 1, &frames::get("/user/eve/devices", &[])).await;
    peer.next_of(HEADERS).await.expect("an answer");
    // The system has all of the answer, and the peer has little of it.
    until(|| metric(&server, "signal_unsent_bytes"), |bytes| *bytes == 0).await;
    // A PING belongs to no stream, so the connection ends.
    let late = frames::frame(frames::PING, 0, 0, &[0; 8]).repeat(2_000);
    peer.write(&[frames::frame(frames::PING, 0, 1, &[0; 8]), late].concat()).await;
    // By the time of this answer the server has seen the fault.
    until(|| metric(&server, "signal_unsent_bytes"), |bytes| *bytes == 0).await;
    let mut list = 0;
    while let Some(frame) = peer.next().await
        && frame.kind != frames::GOAWAY
    {
        list += if frame.kind == DATA { frame.payload.len() } else { 0 };
    }
    assert!(list > 27_000, "{list} bytes");
    assert!(peer.next().await.is_none());
}

/// The window of a connection that a client has to respect.
struct Sender {
    peer: Frames,
    window: usize,
}

impl Sender {
    async fn read(&mut self) -> frames::Frame {
        let frame = self.peer.next().await.expect("an open connection");
        if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
            self.window += u32::from_be_bytes(frame.payload[..].try_into().expect("four bytes")) as usize;
        }
        frame
    }

    async fn caught_up(&mut self) {
        self.peer.send(frames::PING, 0, 0, &[1; 8]).await;
        while let frame = self.read().await
            && (frame.kind != frames::PING || frame.payload != [1; 8])
        {}
    }
}

/// 40 calls whose responses cannot be written, because the peer gives their streams no window. Their requests use up the window of
/// the connection, so a POST on it could not send its body. Before, the POST waited for the stall timeout.
#[tokio::test]
async fn calls_that_nobody_reads_do_not_hold_up_a_post_on_their_connection() {
    let server = Server::with(&["--stall-timeout", "50"]).await;
    let mut phone = server.sse("bob/phone").await;
    let peer = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let mut sender = Sender { peer, window: 65_535 };
    let streams: Vec<u32> = (1..80).step_by(2).collect();
    for stream in &streams {
        sender.peer.send(HEADERS, frames::END_HEADERS, *stream, &send_stream()).await;
    }
    sender.caught_up().await;
    // Empty messages: each gets an error as its response.
    let requests = [0; 16_000];
    for _ in 0..4 {
        for stream in &streams {
            let length = requests.len().min(sender.window);
            sender.peer.send(frames::DATA, 0, *stream, &requests[..length]).await;
            sender.window -= length;
            sender.caught_up().await;
        }
    }
    let post = frames::post("/user/bob/device/phone", &[("content-type", FORM)]);
    sender.peer.send(HEADERS, frames::END_HEADERS, 101, &post).await;
    within(async {
        while sender.window < 6 {
            sender.read().await;
        }
    })
    .await;
    sender.peer.send(frames::DATA, END_STREAM, 101, b"data=x").await;
    while let frame = within(sender.read()).await
        && (frame.kind, frame.stream) != (HEADERS, 101)
    {}
    assert_eq!(phone.data().await, "x");
    let ended = metric(&server, "signal_stalled_streams_total").await;
    assert!((1..40).contains(&ended), "{ended} of 40");
}

fn send_stream() -> Vec<u8> {
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    frames::post("/backend_signal.v1.Signal/SendStream", &headers)
}

/// 30 calls whose responses cannot be written, with 200 small frames each. h2 allows about 2,000 such frames that nobody has read,
/// and before, it ended the connection with all its streams.
#[tokio::test]
async fn small_frames_of_calls_that_nobody_reads_do_not_end_their_connection() {
    let server = Server::with(&["--stall-timeout", "50"]).await;
    let mut phone = server.sse("bob/phone").await;
    let mut peer = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    for stream in (1..60).step_by(2) {
        peer.send(HEADERS, frames::END_HEADERS, stream, &send_stream()).await;
    }
    peer.caught_up().await;
    for stream in (1..60).step_by(2) {
        // Empty messages: each gets an error as its response.
        peer.write(&frames::frame(DATA, 0, stream, &[0; 5]).repeat(200)).await;
    }
    assert_eq!(post_status(&mut peer, 101).await, "200");
    assert_eq!(phone.data().await, "x");
    assert_eq!(metric(&server, "signal_stalled_streams_total").await, 0, "nothing held up the others");
}

/// Posts a message to bob/phone and returns the status.
async fn post_status(peer: &mut Frames, stream: u32) -> String {
    let post = frames::post("/user/bob/device/phone", &[("content-type", FORM)]);
    peer.send(HEADERS, frames::END_HEADERS, stream, &post).await;
    peer.send(DATA, END_STREAM, stream, b"data=x").await;
    loop {
        let frame = peer.next_of(HEADERS).await.expect("an open connection");
        if frame.stream == stream {
            return frames::status(&frame.payload);
        }
    }
}

/// The peer's `WINDOW_UPDATE` comes behind 13,000 small frames. Before, the server stopped reading after 1,000 of them, never saw it,
/// and refused the call.
#[tokio::test]
async fn a_call_whose_client_reads_is_answered_however_many_small_requests_come_before_its_window_update() {
    const REQUESTS: usize = 13_000;
    let server = Server::with(&["--stall-timeout", "50"]).await;
    let mut peer = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 10)]).await;
    peer.send(HEADERS, frames::END_HEADERS, 1, &send_stream()).await;
    peer.caught_up().await;
    let update = (1_u32 << 30).to_be_bytes();
    let updates = [frames::frame(WINDOW_UPDATE, 0, 0, &update), frames::frame(WINDOW_UPDATE, 0, 1, &update)];
    let requests = frames::frame(DATA, 0, 1, &[0; 5]).repeat(REQUESTS);
    peer.write(&[requests, updates.concat(), frames::frame(DATA, END_STREAM, 1, &[])].concat()).await;
    let mut responses = Vec::new();
    let trailers = loop {
        let frame = within(peer.next()).await.expect("an open connection");
        match frame.kind {
            DATA => responses.extend(frame.payload),
            HEADERS if frame.flags & END_STREAM != 0 => break frame,
            _ => {}
        }
    };
    let mut answered = 0;
    let mut rest = &responses[..];
    while let [0, length @ ..] = rest {
        let length = u32::from_be_bytes(*length.first_chunk().expect("a length"));
        (rest, answered) = (&rest[5 + length as usize..], answered + 1);
    }
    assert_eq!((answered, metric(&server, "signal_stalled_streams_total").await), (REQUESTS, 0));
    assert_eq!(trailers.stream, 1);
}

/// A peer that sends small frames on stream 1 as fast as its windows allow, and gives the responses no window.
struct SmallFrames {
    peer: Frames,
    window: usize,
    stream_window: usize,
}

impl SmallFrames {
    /// Sends frames if the windows allow them. Returns whether the server has reset the stream.
    async fn send(&mut self, payload: &[u8], count: usize) -> bool {
        let length = payload.len() * count;
        if self.window.min(self.stream_window) >= length {
            self.peer.write(&frames::frame(DATA, 0, 1, payload).repeat(count)).await;
            (self.window, self.stream_window) = (self.window - length, self.stream_window - length);
        }
        self.peer.send(frames::PING, 0, 0, &[1; 8]).await;
        let mut is_reset = false;
        loop {
            let frame = self.peer.next().await.expect("an open connection");
            match frame.kind {
                WINDOW_UPDATE => {
                    let window = if frame.stream == 0 { &mut self.window } else { &mut self.stream_window };
                    *window += u32::from_be_bytes(frame.payload[..].try_into().expect("four bytes")) as usize;
                }
                RST_STREAM => is_reset = true,
                frames::PING if frame.payload == [1; 8] => return is_reset,
                _ => {}
            }
        }
    }
}

/// h2 counts what comes after a reset as faults of the peer. Before, it ended the connection for what was on its way.
#[tokio::test]
async fn a_refused_call_whose_client_goes_on_sending_does_not_take_its_connection_along() {
    let server = Server::with(&["--stall-timeout", "3"]).await;
    let mut phone = server.sse("bob/phone").await;
    let mut peer = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    peer.send(HEADERS, frames::END_HEADERS, 1, &send_stream()).await;
    peer.caught_up().await;
    let mut sender = SmallFrames { peer, window: 65_535, stream_window: 65_535 };
    // As much as is read ahead.
    for _ in 0..10 {
        sender.send(&[0; 15_000], 1).await;
    }
    // Until long after the stall timeout.
    let began = std::time::Instant::now();
    let mut is_reset = false;
    while !is_reset && began.elapsed() < Duration::from_secs(7) {
        is_reset = sender.send(&[0; 5], 100).await;
    }
    if is_reset {
        // What a client over a slower network had written by then.
        sender.peer.write(&frames::frame(DATA, 0, 1, &[0; 5]).repeat(2_300)).await;
    } else {
        let reset = sender.peer.next_of(RST_STREAM).await.expect("an open connection");
        assert_eq!((reset.stream, reset.payload), (1, CANCEL.to_vec()));
    }
    assert_eq!(post_status(&mut sender.peer, 101).await, "200");
    assert_eq!(phone.data().await, "x");
    assert_eq!(metric(&server, "signal_stalled_streams_total").await, 1, "refused and cut is one stream");
}

/// The request of the event stream has an open body, which the server discards. Before, the event stream was refused, because it had
/// waited longest, and its body was never read again.
#[tokio::test]
async fn an_event_stream_whose_request_has_an_open_body_is_not_ended_for_the_calls_beside_it() {
    let server = Server::with(&["--stall-timeout", "50"]).await;
    let mut phone = server.sse("bob/phone").await;
    let mut peer = Frames::open(server.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let claim = claim("eve/tablet");
    let subscribe = frames::get("/subscribe", &[("x-user-claim", &claim)]);
    peer.send(HEADERS, frames::END_HEADERS, 1, &subscribe).await;
    until(|| server.devices("eve"), |devices| devices == r#"["tablet"]"#).await;
    peer.send(HEADERS, frames::END_HEADERS, 3, &send_stream()).await;
    peer.caught_up().await;
    for stream in [3, 1, 3, 1, 3, 1] {
        peer.write(&frames::frame(DATA, 0, stream, &[0; 5]).repeat(600)).await;
        peer.caught_up().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(post_status(&mut peer, 101).await, "200");
    assert_eq!(phone.data().await, "x");
    assert_eq!(metric(&server, "signal_stalled_streams_total").await, 0);
}

/// The status of a call: in the trailers, or over gRPC-Web in the body.
async fn call_status(response: http::Response<hyper::body::Incoming>) -> String {
    let mut body = Body::new(response.into_body());
    let mut end = String::new();
    while let Some(frame) = within(std::future::poll_fn(|cx| {
        use hyper::body::Body as _;
        std::pin::Pin::new(&mut body).poll_frame(cx)
    }))
    .await
    {
        match frame.expect("no reset").into_trailers() {
            Ok(trailers) => return trailers["grpc-status"].to_str().expect("ASCII").to_owned(),
            Err(data) => end += &String::from_utf8_lossy(&data.into_data().expect("data")),
        }
    }
    let status = end.split("grpc-status:").nth(1).unwrap_or_else(|| panic!("no status in {end:?}"));
    status.split("\r\n").next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_call_that_ends_because_nobody_reads_it_says_so_over_grpc_and_grpc_web() {
    for kind in ["application/grpc", "application/grpc-web+proto"] {
        let server = Server::with(&["--stall-timeout", "50"]).await;
        let connection = Http2::with_window(server.address, 10).await;
        let mut calls = Vec::new();
        let send = SendRequest {
            to: None,
            event: String::new(),
            data: "x".repeat(6_000),
            ttl: None,
            idempotency_key: String::new(),
        };
        let requests = framed(&SendStreamRequest { send: Some(send) }).repeat(60);
        for _ in 0..20 {
            let request = Request::post(connection.uri("/backend_signal.v1.Signal/SendStream"));
            let request = request.header("content-type", kind).body(Body::from(requests.clone()));
            calls.push(connection.clone().send(request.expect("a request")).await);
        }
        until(|| metric(&server, "signal_stalled_streams_total"), |ended| *ended > 0).await;
        // Those that go on now end as well.
        let mut statuses = std::collections::BTreeMap::<_, u64>::new();
        for status in statuses_of(calls).await {
            *statuses.entry(status).or_default() += 1;
        }
        let ended = metric(&server, "signal_stalled_streams_total").await;
        assert_eq!(statuses.remove("8"), Some(ended), "{kind}: {statuses:?}");
        assert_eq!(statuses.into_keys().collect::<Vec<_>>(), ["0"], "{kind}");
    }
}

/// Reads all calls at the same time.
async fn statuses_of(calls: Vec<http::Response<hyper::body::Incoming>>) -> Vec<String> {
    let mut reading = tokio::task::JoinSet::new();
    for call in calls {
        reading.spawn(call_status(call));
    }
    reading.join_all().await
}
