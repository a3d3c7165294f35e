//! HTTP/2 as an attacker speaks it: the limits are announced, and a flood ends its own connection and nobody else's.

use crate::harness::{
    Connection, Process, Server,
    frames::{self, ACK, CONTINUATION, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS, frame},
    within,
};
use crate::unread::metric;

const ENHANCE_YOUR_CALM: u32 = 11;

/// The frame that is a fault on this stream.
type Fault = fn(u32) -> Vec<u8>;

/// Somebody else on the same server gets an answer.
async fn assert_unharmed(server: &Server) {
    assert_eq!(server.request("GET /healthz", &[], b"").await.status, 200);
}

#[tokio::test]
async fn the_limits_of_http_2_are_announced() {
    for (options, streams) in [(&[][..], 1_000), (&["--max-streams", "7"], 7)] {
        let server = Server::with(options).await;
        let mut peer = Frames::open(server.address, &[]).await;
        let settings = peer.next_of(SETTINGS).await.expect("settings").payload;
        let value = |id: u16| {
            let pair = settings.chunks(6).find(|pair| pair[..2] == id.to_be_bytes());
            pair.map(|pair| u32::from_be_bytes(pair[2..].try_into().expect("four bytes")))
        };
        assert_eq!(value(3), Some(streams), "concurrent streams");
        assert_eq!(value(4), Some(64 * 1024), "window of a stream");
        assert_eq!(value(6), Some(16 * 1024), "header list");
        assert!(matches!(value(8), None | Some(0)), "extended CONNECT is off");
    }
}

#[tokio::test]
async fn streams_opened_and_reset_without_end_are_enough_at_some_point() {
    let server = Server::start().await;
    let mut peer = Frames::open(server.address, &[]).await;
    let block = frames::get("/user/bob/devices", &[]);
    let mut flood = Vec::new();
    for stream in (1..4_000).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    peer.flood(&flood).await;
    assert_eq!(peer.goodbye().await, ENHANCE_YOUR_CALM);
    assert_unharmed(&server).await;
}

#[tokio::test]
async fn streams_that_the_server_is_made_to_reset_are_enough_at_some_point() {
    // Each a fault of one stream alone, which the server answers with a reset.
    let faults: [(&str, Fault); 4] = [
        ("window 0", |stream| frame(frames::WINDOW_UPDATE, 0, stream, &[0; 4])),
        ("window too large", |stream| frame(frames::WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())),
        ("data after the end", |stream| frame(frames::DATA, 0, stream, b"x")),
        ("headers after the end", |stream| {
            frame(HEADERS, END_STREAM | END_HEADERS, stream, &frames::get("/user/bob/devices", &[]))
        }),
    ];
    for (name, fault) in faults {
        let server = Server::start().await;
        let mut peer = Frames::open(server.address, &[]).await;
        let claim = crate::harness::claim("bob/phone");
        let block = frames::get("/subscribe", &[("x-user-claim", &claim)]);
        let mut flood = Vec::new();
        for stream in (1..4_000).step_by(2) {
            flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block));
            flood.extend(fault(stream));
        }
        peer.flood(&flood).await;
        let code = peer.goodbye().await;
        // Some of these are faults of the connection, which ends it at once.
        assert_ne!(code, 0, "{name}");
        assert_unharmed(&server).await;
    }
}

#[tokio::test]
async fn a_head_without_end_is_the_end_of_its_connection() {
    let server = Server::start().await;
    let mut peer = Frames::open(server.address, &[]).await;
    let mut flood = frame(HEADERS, END_STREAM, 1, &frames::get("/user/bob/devices", &[]));
    let filler = frames::get("/user/bob/devices", &[("x-filler", &"x".repeat(10_000))]);
    for _ in 0..200 {
        flood.extend(frame(CONTINUATION, 0, 1, &filler));
    }
    peer.flood(&flood).await;
    assert_ne!(peer.goodbye().await, 0);
    assert_unharmed(&server).await;
}

#[tokio::test]
async fn a_head_over_16_kib_is_431_and_the_connection_goes_on() {
    let server = Server::start().await;
    let mut connection = crate::harness::http2::Http2::open(server.address).await;
    for (length, status) in [(17_000, 431), (10_000, 200)] {
        let request = http::Request::get(connection.uri("/healthz")).header("x-long", "x".repeat(length));
        let answer = connection.send(request.body(axum::body::Body::empty()).expect("a request")).await;
        assert_eq!(answer.status(), status);
    }
}

/// Control frames that have a rate, with more of them than a connection may send.
#[tokio::test]
async fn control_frames_without_end_are_the_end_of_their_connection() {
    let server = Server::start().await;
    let window = [&4_u16.to_be_bytes()[..], &1_000_u32.to_be_bytes()].concat();
    let kinds: [(&str, Vec<u8>, usize); 5] = [
        ("SETTINGS", frame(SETTINGS, 0, 0, &window), 500),
        ("PING with ACK", frame(PING, 1, 0, &[7; 8]), 10_000),
        ("unknown", frame(0xbe, 0, 0, b"what"), 10_000),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 3, 9]), 10_000),
        ("PRIORITY_UPDATE", frame(16, 0, 0, b"\0\0\0\x01u=1"), 10_000),
    ];
    for (ended, (name, flood, count)) in kinds.into_iter().enumerate() {
        let mut peer = Frames::open(server.address, &[]).await;
        peer.flood(&flood.repeat(count)).await;
        while peer.next().await.is_some() {}
        assert_eq!(metric(&server, "signal_flooded_connections_total").await, ended as u64 + 1, "{name}");
        assert_unharmed(&server).await;
    }
}

#[tokio::test]
async fn a_page_that_sends_a_priority_with_each_of_thousands_of_requests_is_answered() {
    let server = Server::start().await;
    let mut peer = Frames::open(server.address, &[]).await;
    let block = frames::get("/user/bob/devices", &[]);
    for burst in 0..5 {
        let mut requests = Vec::new();
        for request in 0..1_000 {
            let stream: u32 = 1 + 2 * (1_000 * burst + request);
            requests.extend(frame(16, 0, 0, &[&stream.to_be_bytes()[..], b"u=1"].concat()));
            requests.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block));
        }
        let (mut reader, mut writer) = peer.0.split();
        let read = async {
            let (mut answers, mut head) = (0, [0; 9]);
            while answers < 1_000 {
                tokio::io::AsyncReadExt::read_exact(&mut reader, &mut head).await.expect("an answer");
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                tokio::io::AsyncReadExt::read_exact(&mut reader, &mut vec![0; length as usize]).await.expect("a frame");
                answers += usize::from(head[3] == HEADERS);
            }
        };
        let (written, ()) =
            within(async { tokio::join!(tokio::io::AsyncWriteExt::write_all(&mut writer, &requests), read) }).await;
        written.expect("writable");
        // What was read of the connection's window.
        peer.send(frames::WINDOW_UPDATE, 0, 0, &10_000_u32.to_be_bytes()).await;
    }
    assert_eq!(metric(&server, "signal_flooded_connections_total").await, 0);
}

#[tokio::test]
async fn pings_settings_and_empty_frames_without_end_harm_nobody() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    for flood in
        [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[]), frame(frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])]
    {
        let mut peer = Frames::open(server.address, &[]).await;
        // Nobody reads what it answers, so its answers have to have an end.
        let flooding = tokio::spawn(async move { peer.flood(&flood.repeat(50_000)).await });
        for _ in 0..20 {
            assert_eq!(server.post("bob/phone", "hi").await.status, 200);
            assert_eq!(phone.data().await, "hi");
        }
        within(flooding).await.expect("no panic");
        assert_unharmed(&server).await;
    }
}

#[tokio::test]
async fn what_a_peer_sends_writes_no_line_each() {
    for level in ["info", "trace"] {
        let process = Process::start(&["--log", level, "--drain-window", "1"]);
        let mut peer = Frames::open(process.address, &[]).await;
        // Nobody asked for these answers.
        peer.flood(&frame(PING, ACK, 0, &[7; 8]).repeat(2_000)).await;
        // They are all read when this one is answered.
        peer.flood(&frame(PING, 0, 0, b"the last")).await;
        while peer.next_of(PING).await.is_some_and(|ping| ping.payload != b"the last") {}
        assert_eq!(Connection::open(process.address).await.request("GET /healthz", &[], b"").await.status, 200);
        drop(peer);
        process.signal("TERM");
        let (_, log) = process.exited();
        assert!(log.lines().count() < 20, "{} lines at {level}, such as {:?}", log.lines().count(), log.lines().nth(9));
    }
}
