//! Streams of HTTP/1.1 at the socket: what comes before them, what stands in their heads, how they end, and both ways to write them.

use std::{process::Command, time::Duration};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Connection, FORM, Server, claim, within};

/// A request for the stream of `bob/phone`.
fn subscribe(version: &str) -> String {
    format!("GET /subscribe {version}\r\nhost: localhost\r\nx-user-claim: {}\r\n\r\n", claim("bob/phone"))
}

/// A connection that has asked for it.
async fn asked(server: &Server) -> Connection {
    let mut connection = Connection::open(server.address).await;
    connection.write(subscribe("HTTP/1.1").as_bytes()).await;
    connection
}

async fn is_listed(server: &Server, listed: bool) {
    let wanted = if listed { r#"["phone"]"# } else { "[]" };
    crate::harness::until(|| server.devices("bob"), |devices| devices == wanted).await;
}

#[tokio::test]
async fn requests_before_a_stream_on_its_connection_are_answered_whole_and_in_order() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    let asked = connection.request("GET /healthz", &[], b"").await;
    assert_eq!((asked.status, asked.text().as_str()), (200, "ok\n"));
    // All in one piece, with an answer that is larger than a socket's buffer wants to be.
    let before =
        "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20);
    connection.write((before + &subscribe("HTTP/1.1")).as_bytes()).await;
    for _ in 0..20 {
        let metrics = connection.response(false).await;
        assert!(metrics.status == 200 && metrics.text().ends_with("# EOF\n"), "{metrics:?}");
        assert_eq!(connection.response(false).await.problem(), "no_route");
    }
    let head = connection.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"));
    let opening = String::from_utf8(connection.chunk().await.expect("the opening")).expect("UTF-8");
    assert!(opening.starts_with(": backend-signal\n") && opening.contains("signal.ready"), "{opening}");
    assert_eq!(server.post("bob/phone", "hi").await.status, 200);
    let message = String::from_utf8(connection.chunk().await.expect("the message")).expect("UTF-8");
    assert!(message.starts_with("data: hi\nid: "), "{message}");
}

#[tokio::test]
async fn a_stream_has_the_head_that_any_response_has() {
    let server = Server::start().await;
    let mut connection = asked(&server).await;
    let mut first = vec![0; 4_096];
    let length = within(connection.stream.peek(&mut first)).await.expect("bytes");
    let first = String::from_utf8_lossy(&first[..length]);
    assert!(first.ends_with("}\n\n\r\n"), "the head and the opening come at once: {first}");
    let head = connection.head().await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
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

#[tokio::test]
async fn a_stream_ends_with_its_last_chunk_and_never_with_a_reset() {
    let server = Server::with(&["--drain-window", "1"]).await;
    let mut connection = asked(&server).await;
    connection.head().await;
    connection.chunk().await.expect("the opening");
    server.drain.start();
    let end = connection.chunk().await.expect("the reason");
    assert_eq!(end, b"event: signal.end\ndata: {\"reason\":\"draining\"}\n\n");
    assert_eq!(connection.chunk().await, None, "the last chunk");
    let mut rest = [0];
    assert_eq!(within(connection.stream.read(&mut rest)).await.expect("no reset"), 0);
}

#[tokio::test]
async fn a_listener_that_leaves_is_not_connected_any_more() {
    let server = Server::start().await;
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let mut connection = Connection::open(server.address).await;
        connection.write(subscribe(version).as_bytes()).await;
        connection.head().await;
        is_listed(&server, true).await;
        drop(connection);
        is_listed(&server, false).await;
    }
}

/// hyper would take the end of its peer's side for the end of its interest.
#[tokio::test]
async fn past_the_library_a_request_is_answered_although_its_client_ends_its_side_with_it() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    for number in 0..100 {
        let (mut connection, data) = (Connection::open(server.address).await, format!("data={number:03}"));
        let headers = [("content-type", FORM), ("content-length", "8")];
        connection.ask("POST /user/bob/device/phone", &headers).await;
        // The server comes to wait for the rest.
        tokio::time::sleep(Duration::from_millis(2)).await;
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

/// hyper would leave such bytes unread, so that the system resets the connection in the end.
#[tokio::test]
async fn past_the_library_a_listener_that_talks_is_heard_out_for_a_while() {
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
    crate::harness::until(|| server.devices("bob"), |devices| devices == r#"["laptop","phone"]"#).await;
    // It is cut while it talks.
    let _ = within(endless.stream.write_all("x".repeat(1_000_000).as_bytes())).await;
    is_listed(&server, true).await;
    server.drain.start();
    assert_eq!(
        connection.chunk().await.expect("the reason"),
        b"event: signal.end\ndata: {\"reason\":\"draining\"}\n\n"
    );
    assert_eq!(connection.chunk().await, None, "the last chunk");
    assert_eq!(within(connection.stream.read(&mut [0])).await.expect("no reset"), 0);
}

#[tokio::test]
async fn a_post_with_a_body_that_is_still_on_its_way_leaves_its_connection_usable() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let mut connection = Connection::open(server.address).await;
    for data in ["one", "two"] {
        let headers = [("content-type", FORM), ("content-length", "8")];
        connection.ask("POST /user/bob/device/phone", &headers).await;
        tokio::task::yield_now().await;
        connection.write(format!("data={data}").as_bytes()).await;
        assert_eq!(connection.response(false).await.status, 200);
        assert_eq!(phone.data().await, data);
    }
}

/// Everything in this binary once more, with streams of HTTP/1.1 written by hyper: the reference for those that are taken over.
#[tokio::test]
async fn the_same_promises_hold_when_the_library_writes_the_stream() {
    #[expect(clippy::disallowed_methods, reason = "this is the second run itself")]
    if std::env::var_os("SIGNAL_HTTP1_TAKEOVER").is_some() {
        return;
    }
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    // A pulled cable takes its time and shows sockets, not streams; the README's commands are not about them either.
    command.args(["--test-threads", "2", "--skip", "cable::", "--skip", "readme::", "--skip", "past_the_library"]);
    command.env("SIGNAL_HTTP1_TAKEOVER", "false").env("CUT_SECONDS", "10");
    let (send, receive) = tokio::sync::oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "waits for a process, beside the other tests")]
    std::thread::spawn(move || send.send(command.output()));
    let output = receive.await.expect("a thread").expect("the second run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("test result: ok."),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
