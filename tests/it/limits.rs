//! The bounds of a mailbox, and peers that do not read.

use backend_signal::grpc::proto::SubscribeRequest;
use tonic::Code;

use crate::harness::{
    Connection, FORM, JSON, Response, Server, Sse, claim, grpc::claimed, http2::Http2, path, until, within,
};

async fn post_large(server: &Server, device: &str) -> Response {
    let body = format!("data={}", "x".repeat(60_000));
    server.request(&format!("POST {}", path(device)), &[("content-type", FORM)], body.as_bytes()).await
}

/// Posts until something other than 200 comes.
async fn fill(server: &Server, device: &str) -> Response {
    for _ in 0..2_000 {
        let answer = post_large(server, device).await;
        if answer.status != 200 {
            return answer;
        }
    }
    panic!("a peer that does not read takes everything")
}

#[tokio::test]
async fn a_mailbox_holds_64_unsent_messages_and_one_more_is_429() {
    let server = Server::with(&["--stall-timeout", "60"]).await;
    // A window smaller than the opening, so that the first message is the last one that the transport takes.
    let connection = Http2::with_window(server.address, 10).await;
    let mut slow = connection.clone();
    let request = http::Request::get(slow.uri("/subscribe")).header("x-user-claim", claim("bob/phone"));
    let response = slow.send(request.body(axum::body::Body::empty()).expect("a request")).await;
    let mut accepted = 0;
    let refused = loop {
        let answer = server.post("bob/phone", &accepted.to_string()).await;
        if answer.status != 200 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 80, "no bound");
    };
    assert_eq!((refused.status, refused.problem().as_str(), refused.header("retry-after")), (429, "mailbox_full", "1"));
    assert!((64..=66).contains(&accepted), "{accepted}");
    assert_eq!(server.grpc_send("bob/phone", "x").await, Err(Code::ResourceExhausted));
    // Once the peer reads, everything that was accepted comes, in order, and there is room again.
    let mut stream = crate::harness::event_stream::Parser::default();
    let (mut body, mut next) = (axum::body::Body::new(response.into_body()).into_data_stream(), 0);
    while next < accepted {
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
    let connection = Http2::with_window(server.address, 10).await;
    let mut slow = connection.clone();
    let request = http::Request::get(slow.uri("/subscribe")).header("x-user-claim", claim("bob/phone"));
    let _response = slow.send(request.body(axum::body::Body::empty()).expect("a request")).await;
    let refused = fill(&server, "bob/phone").await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "mailbox_full"));
    let waiting = async || server.request("GET /metrics", &[], b"").await.text();
    let bytes = waiting().await.lines().find_map(|line| line.strip_prefix("signal_mailbox_bytes ")?.parse().ok());
    assert!(bytes.is_some_and(|bytes: usize| bytes <= 256 * 1024 + 60_000), "{bytes:?}");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_and_the_device_is_gone() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let mut phone = Connection::open(server.address).await;
    let claim = claim("bob/phone");
    phone.ask("GET /subscribe", &[("x-user-claim", &claim)]).await;
    phone.head().await;
    let mut other = server.sse("bob/laptop").await;
    let refused = fill(&server, "bob/phone").await;
    assert!([429, 404].contains(&refused.status), "{refused:?}");
    until(|| server.devices("bob"), |devices| devices == r#"["laptop"]"#).await;
    assert_eq!(server.post("bob/phone", "x").await.status, 404);
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
        // A byte a moment is no reading; it ends when the server has cut the connection and all is read.
        let mut byte = [0];
        while matches!(tokio::io::AsyncReadExt::read(&mut phone.stream, &mut byte).await, Ok(1)) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    fill(&server, "bob/phone").await;
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    reading.abort();
}

#[tokio::test]
async fn one_stream_that_does_not_read_is_cut_and_the_others_on_its_connection_live_on() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let connection = Http2::with_window(server.address, 1_000).await;
    let mut reader = Sse::open_h2(&connection, "bob/reader").await;
    let mut slow = connection.clone();
    let request = http::Request::get(slow.uri("/subscribe")).header("x-user-claim", claim("bob/sse"));
    let response = slow.send(request.body(axum::body::Body::empty()).expect("a request")).await;
    for _ in 0..3 {
        server.request("POST /user/bob/device/sse", &[("content-type", JSON)], &long_json()).await;
    }
    until(|| server.devices("bob"), |devices| devices == r#"["reader"]"#).await;
    // Whatever was on its way may still be read, then the stream is reset.
    let mut body = axum::body::Body::new(response.into_body()).into_data_stream();
    let cut = within(async {
        loop {
            match tokio_stream::StreamExt::next(&mut body).await {
                Some(Ok(_)) => {}
                end => return end,
            }
        }
    });
    assert!(matches!(cut.await, Some(Err(_)) | None));
    assert_eq!(server.post("bob/reader", "x").await.status, 200);
    assert_eq!(reader.data().await, "x");
    let metrics = server.request("GET /metrics", &[], b"").await.text();
    assert!(metrics.contains("signal_streams 1"), "{metrics}");
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
