//! HTTP/2 as an attacker speaks it: the server announces its limits, and a flood ends its own connection and no other.

use crate::harness::{
    Connection, Process, Server,
    frames::{
        self, ACK, CONTINUATION, END_HEADERS, END_STREAM, Frames, HEADERS, INITIAL_WINDOW_SIZE, PING, PRIORITY,
        PRIORITY_UPDATE, RST_STREAM, SETTINGS, frame,
    },
    metric, within,
};

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Makes a frame that breaks the protocol on a stream.
type Fault = fn(u32) -> Vec<u8>;

/// Another client of the same server gets an answer.
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
        assert_eq!(value(INITIAL_WINDOW_SIZE), Some(64 * 1024), "window of a stream");
        assert_eq!(value(6), Some(16 * 1024), "header list");
        assert!(matches!(value(8), None | Some(0)), "extended CONNECT is off");
    }
}

/// How much the peak memory of a process may grow although every flood leaves nothing behind: what the allocator keeps for later.
/// mimalloc keeps pages for each thread.
const KEPT: usize = if cfg!(feature = "jemalloc") { 1024 * 1024 } else { 8 * 1024 * 1024 };

/// Floods a process again and again. After the first flood its peak memory must not grow by [`KEPT`].
async fn assert_flat(process: &Process, floods: usize, mut flood: impl AsyncFnMut()) {
    flood().await;
    let before = process.peak_memory();
    for _ in 1..floods {
        flood().await;
    }
    let growth = process.peak_memory().saturating_sub(before);
    assert!(growth < KEPT, "{growth} bytes");
}

#[tokio::test]
async fn more_than_20_resets_before_their_streams_are_accepted_end_the_connection_and_memory_stays_flat() {
    let process = Process::start(&[]);
    let block = frames::get("/user/bob/devices", &[]);
    let streams = |from: u32, to: u32| -> Vec<u8> {
        let reset = |stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        let stream = |stream| [frame(HEADERS, END_STREAM | END_HEADERS, stream, &block), reset(stream)].concat();
        (from..to).flat_map(|number| stream(1 + 2 * number)).collect()
    };
    let flood = async || {
        let mut peer = Frames::open(process.address, &[]).await;
        // As many resets as the limit: the connection lives on.
        peer.write(&streams(0, 20)).await;
        peer.caught_up().await;
        peer.flood(&streams(20, 2_000)).await;
        assert_eq!(peer.goodbye().await, (ENHANCE_YOUR_CALM, "too_many_resets".to_owned()));
    };
    assert_flat(&process, 100, flood).await;
}

/// Faults of one stream, to which the server answers with a reset of the stream (`MadeYouReset`).
#[tokio::test]
async fn more_than_1024_resets_that_a_peer_made_the_server_send_end_the_connection_and_memory_stays_flat() {
    let faults: [(&str, Fault); 2] = [
        ("window too large", |stream| frame(frames::WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())),
        ("priority depends on itself", |stream| {
            frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[9]].concat())
        }),
    ];
    for (name, fault) in faults {
        let process = Process::start(&[]);
        let flood = async || {
            let mut peer = Frames::open(process.address, &[]).await;
            peer.write(&faulty_streams(fault, 0, 1_024)).await;
            // The connection lives on.
            peer.caught_up().await;
            peer.flood(&faulty_streams(fault, 1_024, 1_100)).await;
            assert_eq!(peer.goodbye().await, (ENHANCE_YOUR_CALM, "too_many_internal_resets".to_owned()), "{name}");
        };
        assert_flat(&process, 5, flood).await;
    }
}

/// Event streams, each with a fault after its request.
fn faulty_streams(fault: Fault, from: u32, to: u32) -> Vec<u8> {
    let claim = crate::harness::claim("bob/phone");
    let block = frames::get("/subscribe", &[("x-user-claim", &claim)]);
    let stream = |stream| [frame(HEADERS, END_STREAM | END_HEADERS, stream, &block), fault(stream)].concat();
    (from..to).flat_map(|number| stream(1 + 2 * number)).collect()
}

/// `MadeYouReset` (CVE-2025-8671) has six ways. For these four, h2 ends the connection.
#[tokio::test]
async fn one_fault_that_no_client_makes_by_accident_ends_its_connection() {
    let server = Server::start().await;
    let faults: [(&str, Fault); 4] = [
        ("window 0", |stream| frame(frames::WINDOW_UPDATE, 0, stream, &[0; 4])),
        ("data after the end", |stream| frame(frames::DATA, 0, stream, b"x")),
        ("headers after the end", |stream| {
            frame(HEADERS, END_STREAM | END_HEADERS, stream, &frames::get("/user/bob/devices", &[]))
        }),
        ("priority of a wrong length", |stream| frame(PRIORITY, 0, stream, &[0; 4])),
    ];
    for (name, fault) in faults {
        let mut peer = Frames::open(server.address, &[]).await;
        peer.write(&faulty_streams(fault, 0, 1)).await;
        assert_eq!(peer.goodbye().await, (PROTOCOL_ERROR, String::new()), "{name}");
        assert_unharmed(&server).await;
    }
}

#[tokio::test]
async fn a_head_of_200_continuations_ends_its_connection() {
    let server = Server::start().await;
    let mut peer = Frames::open(server.address, &[]).await;
    let mut flood = frame(HEADERS, END_STREAM, 1, &frames::get("/user/bob/devices", &[]));
    let filler = frames::get("/user/bob/devices", &[("x-filler", &"x".repeat(10_000))]);
    for _ in 0..200 {
        flood.extend(frame(CONTINUATION, 0, 1, &filler));
    }
    peer.flood(&flood).await;
    assert_eq!(peer.goodbye().await, (PROTOCOL_ERROR, String::new()));
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

#[tokio::test]
async fn control_frames_over_their_rate_end_their_connection() {
    let server = Server::start().await;
    let window = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &1_000_u32.to_be_bytes()].concat();
    let kinds: [(&str, Vec<u8>, usize); 5] = [
        ("SETTINGS", frame(SETTINGS, 0, 0, &window), 500),
        ("PING with ACK", frame(PING, ACK, 0, &[7; 8]), 10_000),
        ("unknown", frame(0xbe, 0, 0, b"what"), 10_000),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]), 10_000),
        ("PRIORITY_UPDATE", frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1"), 10_000),
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
async fn a_priority_with_each_of_5000_requests_is_no_flood() {
    let server = Server::start().await;
    let mut peer = Frames::open(server.address, &[]).await;
    let block = frames::get("/user/bob/devices", &[]);
    for burst in 0..5 {
        let mut requests = Vec::new();
        for request in 0..1_000 {
            let stream: u32 = 1 + 2 * (1_000 * burst + request);
            requests.extend(frame(PRIORITY_UPDATE, 0, 0, &[&stream.to_be_bytes()[..], b"u=1"].concat()));
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
        // Gives back the part of the connection window that the answers took.
        peer.send(frames::WINDOW_UPDATE, 0, 0, &10_000_u32.to_be_bytes()).await;
    }
    assert_eq!(metric(&server, "signal_flooded_connections_total").await, 0);
}

#[tokio::test]
async fn endless_pings_settings_and_window_updates_harm_no_other_client() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    for flood in
        [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[]), frame(frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])]
    {
        let mut peer = Frames::open(server.address, &[]).await;
        // The peer does not read the answers, so the server stops reading at some point.
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
async fn frames_of_a_peer_do_not_write_a_log_line_each() {
    for level in ["info", "trace"] {
        let process = Process::start(&["--log", level, "--drain-window", "1"]);
        let mut peer = Frames::open(process.address, &[]).await;
        // Answers to PINGs that the server has not sent.
        peer.flood(&frame(PING, ACK, 0, &[7; 8]).repeat(2_000)).await;
        // When the server answers this PING, it has read all earlier frames.
        peer.flood(&frame(PING, 0, 0, b"the last")).await;
        while peer.next_of(PING).await.is_some_and(|ping| ping.payload != b"the last") {}
        assert_eq!(Connection::open(process.address).await.request("GET /healthz", &[], b"").await.status, 200);
        drop(peer);
        process.signal("TERM");
        let (_, log) = process.exited();
        assert!(log.lines().count() < 20, "{} lines at {level}, such as {:?}", log.lines().count(), log.lines().nth(9));
    }
}
