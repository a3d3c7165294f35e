//! The limits of a mailbox and of the memory budget.

use tonic::Code;

use crate::harness::{FORM, Server, claim, http2::Http2, within};

/// A stream over HTTP/2 whose window is smaller than its opening, so it takes no message until its peer reads.
async fn unread_stream(server: &Server, device: &str) -> http::Response<hyper::body::Incoming> {
    Http2::with_window(server.address, 10).await.unread(device, "/subscribe").await
}

#[tokio::test]
async fn a_mailbox_holds_64_messages_that_no_stream_took_and_one_more_is_429() {
    let server = Server::with(&["--stall-timeout", "50"]).await;
    let response = unread_stream(&server, "bob/phone").await;
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
    let server = Server::with(&["--stall-timeout", "50", "--body-limit", "262144"]).await;
    let _response = unread_stream(&server, "bob/phone").await;
    for length in [200_000, 256 * 1024 - 200_000] {
        assert_eq!(server.post("bob/phone", &"x".repeat(length)).await.status, 200, "{length}");
    }
    let refused = server.post("bob/phone", "x").await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "mailbox_full"));
    assert_eq!(server.grpc_send("bob/phone", "x").await, Err(Code::ResourceExhausted));
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
    // Two ids of 256 bytes alone are 512 bytes for each message.
    assert!((100..=100_000 / 512).contains(&held), "{held} held");
}
