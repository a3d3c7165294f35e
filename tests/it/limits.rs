//! The limits of a mailbox and of the memory budget, and peers that do not read.

use backend_signal::grpc::proto::SubscribeRequest;
use tokio::io::AsyncReadExt as _;
use tonic::Code;

use crate::harness::{Connection, FORM, JSON, Server, Sse, claim, grpc::claimed, http2::Http2, until, within};
use crate::unread::metric;

/// A stream over HTTP/2 whose window is smaller than its opening. So it takes no message until its peer reads.
async fn unread(server: &Server, device: &str) -> http::Response<hyper::body::Incoming> {
    Http2::with_window(server.address, 10).await.unread(device, "/subscribe").await
}

#[tokio::test]
async fn a_mailbox_holds_64_messages_that_no_stream_took_and_one_more_is_429() {
    let server = Server::with(&["--stall-timeout", "60"]).await;
    let response = unread(&server, "bob/phone").await;
    for number in 0..64 {
        assert_eq!(server.post("bob/phone", &number.to_string()).await.status, 200, "{number}");
    }
    let refused = server.post("bob/phone", "one more").await;
    assert_eq!((refused.status, refused.problem().as_str(), refused.header("retry-after")), (429, "mailbox_full", "1"));
    assert_eq!(server.grpc_send("bob/phone", "x").await, Err(Code::ResourceExhausted));
    // When the peer reads, it gets every accepted message in order, and the mailbox has space again.
    let mut stream = crate::harness::event_stream::Parser::default();
    let (mut body, mut next) = (axum::body::Body::new(response.into_body()).into_data_stream(), 0);
    while next < 64 {
        let bytes = within(tokio_stream::StreamExt::next(&mut body)).await.expect("more").expect("no reset");
        for event in stream.push(&bytes).into_iter().filter(|event| event.name == "message") {
            assert_eq!(event.data, next.to_string());
            next += 1;
        }
    }
    assert_eq!(server.post("bob/phone", "again").await.status, 200);
}

#[tokio::test]
async fn a_mailbox_holds_256_kib_and_one_byte_more_is_429() {
    let server = Server::with(&["--stall-timeout", "60", "--body-limit", "262144"]).await;
    let _response = unread(&server, "bob/phone").await;
    for length in [200_000, 256 * 1024 - 200_000] {
        assert_eq!(server.post("bob/phone", &"x".repeat(length)).await.status, 200, "{length}");
    }
    let refused = server.post("bob/phone", "x").await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "mailbox_full"));
    assert_eq!(server.grpc_send("bob/phone", "x").await, Err(Code::ResourceExhausted));
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
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    post_until_gone(&server, "bob/phone").await;
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
    // The peer may read bytes that h2 has sent before; then it finds the reset.
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
    let mut client = backend_signal::grpc::proto::signal_client::SignalClient::new(channel);
    let _unread = within(client.subscribe(claimed("bob/grpc", SubscribeRequest::default()))).await.expect("a stream");
    for _ in 0..3 {
        server.request("POST /user/bob/device/grpc", &[("content-type", JSON)], &long_json()).await;
    }
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    assert_eq!(server.grpc_send("bob/grpc", "x").await, Err(Code::NotFound));
    let listed =
        within(client.list_devices(backend_signal::grpc::proto::ListDevicesRequest { user: "bob".into() })).await;
    assert!(listed.is_ok(), "the connection lives on");
}

fn long_json() -> Vec<u8> {
    serde_json::json!({ "data": "x".repeat(2_000) }).to_string().into_bytes()
}

#[tokio::test]
async fn the_memory_budget_counts_what_a_message_takes_and_not_its_data_alone() {
    let server = Server::with(&["--memory-budget", "100000", "--hold-budget", "100000"]).await;
    let sender = claim(&format!("{}/{}", "u".repeat(256), "d".repeat(256)));
    let headers = [("content-type", FORM), ("ttl", "60"), ("x-user-claim", &sender)];
    let mut held = 0;
    let refused = loop {
        let post = format!("POST /user/bob/device/{}", held / 32);
        let answer = server.request(&post, &headers, b"data=x").await;
        if answer.status != 202 {
            break answer;
        }
        held += 1;
    };
    assert_eq!((refused.status, refused.problem().as_str()), (503, "over_memory_budget"));
    assert!((100..=100_000 / 512).contains(&held), "{held} held");
}
