//! Streams of HTTP/1.1, byte by byte: the requests before them, their heads and their ends.
//!
//! `SIGNAL_HTTP1_TAKEOVER=false cargo test --test it -- --skip without_hyper` runs all tests with streams that hyper writes.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Connection, EVENT_STREAM, Process, Server, Sse, claim, until, within};

/// A request for the stream of `bob/phone`.
fn subscribe(version: &str) -> String {
    format!("GET /subscribe {version}\r\nhost: localhost\r\nx-user-claim: {}\r\n\r\n", claim("bob/phone"))
}

/// A connection that has sent [`subscribe`].
async fn subscribed(server: &Server) -> Connection {
    let mut connection = Connection::open(server.address).await;
    connection.write(subscribe("HTTP/1.1").as_bytes()).await;
    connection
}

async fn until_listed(server: &Server, listed: bool) {
    let wanted = if listed { r#"["phone"]"# } else { "[]" };
    until(|| server.devices("bob"), |devices| devices == wanted).await;
}

#[tokio::test]
async fn requests_before_a_stream_on_its_connection_are_answered_whole_and_in_order() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    let health = connection.request("GET /healthz", &[], b"").await;
    assert_eq!((health.status, health.text().as_str()), (200, "ok\n"));
    // All in one write, with responses that are larger than the buffer of a socket.
    let before =
        "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20);
    connection.write((before + &subscribe("HTTP/1.1")).as_bytes()).await;
    for _ in 0..20 {
        let metrics = connection.response(false).await;
        assert!(metrics.status == 200 && metrics.text().ends_with("# EOF\n"), "{metrics:?}");
        assert_eq!(connection.response(false).await.problem(), "no_route");
    }
    let head = connection.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, EVENT_STREAM));
    let opening = String::from_utf8(connection.chunk().await.expect("the opening")).expect("UTF-8");
    assert!(opening.starts_with("retry: ") && opening.contains("signal.ready"), "{opening}");
    assert_eq!(server.post("bob/phone", "hi").await.status, 200);
    let message = String::from_utf8(connection.chunk().await.expect("the message")).expect("UTF-8");
    assert!(message.starts_with("data: hi\nid: "), "{message}");
}

#[tokio::test]
async fn a_stream_has_the_head_that_any_response_has() {
    let server = Server::start().await;
    let mut connection = subscribed(&server).await;
    let mut first = vec![0; 4_096];
    let length = within(connection.stream.peek(&mut first)).await.expect("bytes");
    let first = String::from_utf8_lossy(&first[..length]);
    assert!(first.ends_with("\n\n\r\n"), "the head and the opening come at once: {first}");
    let head = connection.head().await;
    for (name, value) in [
        ("content-type", EVENT_STREAM),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("access-control-allow-origin", "*"),
        ("transfer-encoding", "chunked"),
    ] {
        assert_eq!(head.header(name), value, "{name} in {head:?}");
    }
    let date = httpdate::parse_http_date(head.header("date")).expect("a date");
    assert!(date.elapsed().is_ok_and(|age| age.as_secs() < 60), "{head:?}");
    assert_eq!(head.header("content-length"), "");
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_its_stream_without_chunks() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    connection.write(subscribe("HTTP/1.0").as_bytes()).await;
    let head = connection.head().await;
    assert_eq!((head.status, head.header("transfer-encoding")), (200, ""));
    let mut opening = vec![0; 17];
    within(connection.stream.read_exact(&mut opening)).await.expect("the opening");
    server.drain.start();
    let rest = String::from_utf8(connection.closed().await).expect("UTF-8");
    assert!(rest.ends_with("event: signal.end\ndata: {\"reason\":\"draining\"}\n\n"), "{rest}");
}

/// The chunk is one block: when to come back, and why the stream ends.
fn assert_says_draining(chunk: &[u8]) {
    let text = String::from_utf8_lossy(chunk);
    assert!(text.starts_with("retry: "), "{text}");
    let end = text.split_once('\n').map(|(_, end)| end);
    assert_eq!(end, Some("event: signal.end\ndata: {\"reason\":\"draining\"}\n\n"));
}

#[tokio::test]
async fn a_stream_ends_with_its_last_chunk_and_never_with_a_reset() {
    let server = Server::with(&["--drain-window", "1"]).await;
    let mut connection = subscribed(&server).await;
    connection.head().await;
    connection.chunk().await.expect("the opening");
    server.drain.start();
    assert_says_draining(&connection.chunk().await.expect("the reason"));
    assert_eq!(connection.chunk().await, None, "the last chunk");
    let mut rest = [0];
    assert_eq!(within(connection.stream.read(&mut rest)).await.expect("no reset"), 0);
}

#[tokio::test]
async fn a_subscriber_that_leaves_is_not_connected_any_more() {
    let server = Server::start().await;
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let mut connection = Connection::open(server.address).await;
        connection.write(subscribe(version).as_bytes()).await;
        connection.head().await;
        until_listed(&server, true).await;
        drop(connection);
        until_listed(&server, false).await;
    }
}

/// With `--http1-takeover false`, hyper closes the connection as soon as the peer half-closes.
#[tokio::test]
async fn without_hyper_a_client_that_half_closes_after_its_request_gets_its_answer() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    for number in 0..100 {
        let (mut connection, data) = (server.waits_for_body().await, format!("data={number:03}"));
        connection.write(data.as_bytes()).await;
        let another = number % 2 == 1;
        if another {
            connection.write(b"GET /user/bob/devices HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        }
        within(connection.stream.shutdown()).await.expect("an open socket");
        assert_eq!(connection.response(false).await.status, 200, "{data}");
        if another {
            assert_eq!(connection.response(false).await.text(), r#"["phone"]"#, "{data}");
        }
        assert_eq!(connection.closed().await, b"", "{data}");
        assert_eq!(phone.data().await, data["data=".len()..]);
    }
}

/// hyper does not read bytes after the request, so closing the socket sends a reset.
#[tokio::test]
async fn without_hyper_a_stream_goes_on_although_its_peer_sends_bytes_up_to_32_kib() {
    let server = Server::with(&["--drain-window", "1"]).await;
    let mut connection = Connection::open(server.address).await;
    connection.write((subscribe("HTTP/1.1") + &"x".repeat(10_000)).as_bytes()).await;
    connection.head().await;
    connection.chunk().await.expect("the opening");
    connection.write("x".repeat(10_000).as_bytes()).await;
    assert_eq!(server.post("bob/phone", "hi").await.status, 200);
    connection.chunk().await.expect("the message");
    let mut endless = Connection::open(server.address).await;
    endless.write(subscribe("HTTP/1.1").replace("phone", "laptop").as_bytes()).await;
    endless.head().await;
    until(|| server.devices("bob"), |devices| devices == r#"["laptop","phone"]"#).await;
    // The server closes the connection while the peer still writes.
    let _ = within(endless.stream.write_all("x".repeat(1_000_000).as_bytes())).await;
    until_listed(&server, true).await;
    server.drain.start();
    assert_says_draining(&connection.chunk().await.expect("the reason"));
    assert_eq!(connection.chunk().await, None, "the last chunk");
    assert_eq!(within(connection.stream.read(&mut [0])).await.expect("no reset"), 0);
}

/// The reason why the daemon writes streams of HTTP/1.1 itself. If the second number becomes small, remove the takeover. Of what
/// ships: of 500 streams, mimalloc takes twice as much.
#[cfg_attr(not(feature = "jemalloc"), ignore = "measured with the allocator that ships: --features jemalloc")]
#[tokio::test]
async fn without_hyper_an_idle_stream_takes_2_kib_at_most_and_with_hyper_6_at_least() {
    const STREAMS: usize = 500;
    /// Not counted, because they make what all streams share: threads' caches of the allocator, and pages of code.
    const FIRST: usize = 50;
    let mut each = [0; 2];
    for (each, takeover) in each.iter_mut().zip(["true", "false"]) {
        // A stream that gets a ping is not idle, and takes more: a slow machine opens the last one after the first ping is due.
        let process = Process::start(&["--http1-takeover", takeover, "--heartbeat", "3600"]);
        let open = async |number: usize| {
            let claim = claim(&format!("bob{number}/phone"));
            Sse::open(process.address, "/subscribe", &[("x-user-claim", &claim)]).await
        };
        let mut streams = Vec::new();
        let mut before = 0;
        for number in 0..FIRST + STREAMS {
            if number == FIRST {
                before = process.memory();
            }
            streams.push(open(number).await);
        }
        *each = (process.memory() - before) / STREAMS;
    }
    assert!(each[0] <= 2 * 1024 && each[1] >= 6 * 1024, "{each:?} bytes for a stream");
}
