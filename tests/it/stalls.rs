//! Event streams whose peer stops reading: they are cut, and their messages are kept for the next stream.

use std::time::{Duration, Instant};

use backend_signal::grpc::proto::{
    ListDevicesRequest, SubscribeRequest, signal_client::SignalClient, subscribe_response::Kind,
};
use tokio::io::AsyncReadExt as _;
use tonic::Code;

use crate::harness::{
    Connection, FORM, JSON, Server, Sse, claim,
    frames::{self, Frames},
    grpc::claimed,
    http2::Http2,
    metric, until, within,
};

/// The frame of a gRPC message without bytes.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// Posts until the mailbox is full or the stream was cut.
async fn fill(server: &Server, device: &str) {
    let (body, head) = (format!("data={}", "x".repeat(60_000)), format!("POST /user/bob/device/{device}"));
    for _ in 0..2_000 {
        let status = server.request(&head, &[("content-type", FORM)], body.as_bytes()).await.status;
        if status != 200 {
            assert!([404, 429].contains(&status), "{status}");
            return;
        }
    }
    panic!("no limit")
}

/// The body of a device's stream over HTTP/2.
async fn stream(
    connection: &Http2,
    device: &str,
) -> impl tokio_stream::Stream<Item = Result<axum::body::Bytes, axum::Error>> {
    let response = connection.unread(device, "/subscribe").await;
    assert_eq!(response.status(), 200);
    axum::body::Body::new(response.into_body()).into_data_stream()
}

#[tokio::test]
async fn a_stream_that_was_cut_ends_with_a_reset_and_without_signal_end() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let connection = Http2::with_window(server.address, 10).await;
    let mut body = Box::pin(stream(&connection, "bob/sse").await);
    let endpoint = tonic::transport::Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
    let channel = within(endpoint.initial_stream_window_size(10).connect()).await.expect("listens");
    let mut client = SignalClient::new(channel);
    let mut grpc = within(client.subscribe(claimed("bob/grpc", SubscribeRequest::default())))
        .await
        .expect("a stream")
        .into_inner();
    for device in ["sse", "grpc"].repeat(3) {
        server.post(&format!("bob/{device}"), "x").await;
    }
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    let error = loop {
        match within(tokio_stream::StreamExt::next(&mut body)).await.expect("no clean end") {
            Ok(bytes) => assert!(!bytes.windows(10).any(|part| part == b"signal.end"), "{bytes:?}"),
            Err(error) => break error,
        }
    };
    assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
    let status = loop {
        match within(grpc.message()).await {
            Ok(Some(response)) => assert!(!matches!(response.kind, Some(Kind::End(_))), "{response:?}"),
            Ok(None) => panic!("a clean end"),
            Err(status) => break status,
        }
    };
    assert!(format!("{status:?}").contains("CANCEL"), "{status:?}");
}

#[tokio::test]
async fn the_next_stream_gets_the_messages_that_a_stalled_stream_did_not_take() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let cursor = server.sse("bob/phone").await.leave();
    let connection = Http2::with_window(server.address, 10).await;
    let mut slow = connection.clone();
    let request = http::Request::get(slow.uri("/subscribe"));
    let request = request.header("x-user-claim", claim("bob/phone")).header("last-event-id", &cursor);
    let _unread = slow.send(request.body(axum::body::Body::empty()).expect("a request")).await;
    for data in ["1", "2", "3"] {
        assert_eq!(server.post("bob/phone", data).await.status, 200);
    }
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    assert_eq!(server.post("bob/phone", "too late").await.status, 404);
    let mut back = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
    assert_eq!((&back.ready["continuity"], &back.ready["replayed"]), (&"resumed".into(), &3.into()));
    for data in ["1", "2", "3"] {
        assert_eq!(back.data().await, data);
    }
}

#[tokio::test]
async fn a_peer_that_reads_steadily_is_not_cut_although_there_is_always_more_to_read() {
    let server = Server::with(&["--stall-timeout", "1"]).await;
    let mut phone = Connection::open_narrow(server.address).await;
    phone.ask("GET /subscribe", &[("x-user-claim", &claim("bob/phone"))]).await;
    phone.head().await;
    let reading = tokio::spawn(async move {
        let mut some = [0; 8 * 1024];
        loop {
            let length = phone.stream.read(&mut some).await.expect("not cut");
            assert!(length > 0, "not ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let (mut sender, body) = (Connection::open(server.address).await, format!("data={}", "x".repeat(2_000)));
    let (mut refused, began) = (0, Instant::now());
    while began.elapsed() < Duration::from_secs(3) {
        let status =
            sender.request("POST /user/bob/device/phone", &[("content-type", FORM)], body.as_bytes()).await.status;
        assert!([200, 429].contains(&status), "{status} after {:?}", began.elapsed());
        refused += u32::from(status == 429);
    }
    assert!(refused > 0, "the sender is faster than the reader");
    assert!(!reading.is_finished());
    reading.abort();
}

#[tokio::test]
async fn a_connection_of_http_2_that_takes_nothing_is_cut_with_all_its_streams() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let mut other = server.sse("bob/other").await;
    // The largest windows, so that only the socket can be full.
    let mut peer = Frames::open(server.address, &[(frames::INITIAL_WINDOW_SIZE, 0x7fff_ffff)]).await;
    peer.send(frames::WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()).await;
    for (stream, device) in [(1, "a"), (3, "b")] {
        let block = frames::get("/subscribe", &[("x-user-claim", &claim(&format!("bob/{device}")))]);
        peer.send(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, stream, &block).await;
    }
    until(|| server.devices("bob"), |devices| devices == r#"["a","b","other"]"#).await;
    fill(&server, "a").await;
    until(|| server.devices("bob"), |devices| devices == r#"["other"]"#).await;
    assert_eq!(server.post("bob/other", "unharmed").await.status, 200);
    assert_eq!(other.data().await, "unharmed");
}

#[tokio::test]
async fn one_unread_stream_among_forty_on_a_connection_hurts_no_other() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let connection = Http2::with_window(server.address, 1_000).await;
    let mut readers = Vec::new();
    for device in 0..40 {
        readers.push(Sse::open_h2(&connection, &format!("ana/{device}")).await);
    }
    let _unread = stream(&connection, "bob/phone").await;
    fill(&server, "phone").await;
    // While it is stalled, and after it was cut.
    for gone in [false, true] {
        if gone {
            until(|| server.devices("bob"), |devices| devices == "[]").await;
        }
        for (device, reader) in readers.iter_mut().enumerate() {
            assert_eq!(server.post(&format!("ana/{device}"), "hi").await.status, 200);
            assert_eq!(reader.data().await, "hi");
        }
    }
}

#[tokio::test]
async fn a_peer_that_leaves_one_message_unread_is_cut() {
    // No heartbeats: they would add unread bytes.
    let server = Server::with(&["--stall-timeout", "0.5", "--heartbeat", "600"]).await;
    let claim = claim("bob/phone");
    let headers = [("x-user-claim", claim.as_str()), ("content-type", "application/grpc"), ("te", "trailers")];
    let (get, post) =
        (frames::get("/subscribe", &headers[..1]), frames::post("/backend_signal.v1.Signal/Subscribe", &headers));
    for (head, body, opening_end) in [(get, None, "\n\n"), (post, Some(EMPTY_MESSAGE), "phone")] {
        let mut peer = Frames::open(server.address, &[(frames::INITIAL_WINDOW_SIZE, 300)]).await;
        let end = if body.is_none() { frames::END_STREAM } else { 0 };
        peer.send(frames::HEADERS, end | frames::END_HEADERS, 1, &head).await;
        if let Some(body) = body {
            peer.send(frames::DATA, frames::END_STREAM, 1, &body).await;
        }
        let mut read = String::new();
        while !read.contains(opening_end) {
            read += &String::from_utf8_lossy(&peer.next_of(frames::DATA).await.expect("the opening").payload);
        }
        assert_eq!(server.post("bob/phone", &"x".repeat(1_000)).await.status, 200);
        let mut begun = 0;
        while begun < 100 {
            begun += peer.next_of(frames::DATA).await.expect("the message's beginning").payload.len();
        }
        assert!(begun < 300, "{begun}");
        until(|| server.devices("bob"), |devices| devices == "[]").await;
    }
}

/// Posts large messages until the device is gone. Until then its stream takes them, or its mailbox is full.
async fn post_until_gone(server: &Server, device: &str) {
    let data = "x".repeat(60_000);
    within(async {
        loop {
            match server.post(device, &data).await.status {
                404 => return,
                status => assert!([200, 429].contains(&status), "{status}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_and_the_device_is_gone() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let mut phone = Connection::open(server.address).await;
    let claim = claim("bob/phone");
    phone.ask("GET /subscribe", &[("x-user-claim", &claim)]).await;
    phone.head().await;
    let mut other = server.sse("bob/laptop").await;
    post_until_gone(&server, "bob/phone").await;
    assert_eq!(server.devices("bob").await, r#"["laptop"]"#);
    assert_eq!(metric(&server, "signal_stalled_connections_total").await, 1);
    assert_eq!(server.post("bob/laptop", "x").await.status, 200);
    assert_eq!(other.data().await, "x");
}

#[tokio::test]
async fn a_peer_that_reads_a_byte_at_a_time_is_cut_too() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let mut phone = Connection::open(server.address).await;
    let claim = claim("bob/phone");
    phone.ask("GET /subscribe", &[("x-user-claim", &claim)]).await;
    phone.head().await;
    let reading = tokio::spawn(async move {
        // 20 bytes a second, until the server has cut the connection.
        while matches!(phone.stream.read(&mut [0]).await, Ok(1)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    post_until_gone(&server, "bob/phone").await;
    // The peer still reads bytes from its socket's buffer.
    assert_eq!((metric(&server, "signal_stalled_connections_total").await, reading.is_finished()), (1, false));
    reading.abort();
}

#[tokio::test]
async fn one_stream_that_does_not_read_is_cut_and_the_others_on_its_connection_live_on() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let connection = Http2::with_window(server.address, 1_000).await;
    let mut reader = Sse::open_h2(&connection, "bob/reader").await;
    let response = connection.unread("bob/sse", "/subscribe").await;
    for _ in 0..3 {
        server.request("POST /user/bob/device/sse", &[("content-type", JSON)], &long_json()).await;
    }
    until(|| server.devices("bob"), |devices| devices == r#"["reader"]"#).await;
    // The peer may still read bytes that were sent before the reset.
    let mut body = axum::body::Body::new(response.into_body()).into_data_stream();
    let cut = within(async {
        loop {
            match tokio_stream::StreamExt::next(&mut body).await {
                Some(Ok(_)) => {}
                end => return end,
            }
        }
    });
    let error = cut.await.expect("no clean end").expect_err("a reset");
    assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
    assert_eq!(server.post("bob/reader", "x").await.status, 200);
    assert_eq!(reader.data().await, "x");
    assert_eq!(
        (metric(&server, "signal_streams").await, metric(&server, "signal_stalled_streams_total").await),
        (1, 1)
    );
}

#[tokio::test]
async fn a_grpc_stream_that_does_not_read_is_cut() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
    let channel = within(channel.initial_stream_window_size(1_000).connect()).await.expect("listens");
    let mut client = SignalClient::new(channel);
    let _unread = within(client.subscribe(claimed("bob/grpc", SubscribeRequest::default()))).await.expect("a stream");
    for _ in 0..3 {
        server.request("POST /user/bob/device/grpc", &[("content-type", JSON)], &long_json()).await;
    }
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    assert_eq!(server.grpc_send("bob/grpc", "x").await, Err(Code::NotFound));
    let listed = within(client.list_devices(ListDevicesRequest { user: "bob".into() })).await;
    assert!(listed.is_ok(), "the connection lives on");
}

fn long_json() -> Vec<u8> {
    serde_json::json!({ "data": "x".repeat(2_000) }).to_string().into_bytes()
}
