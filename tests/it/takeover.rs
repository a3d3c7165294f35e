//! A device has one stream: a newer stream takes over, and the late end of the older stream changes nothing.

use backend_signal::grpc::proto::{EndReason, subscribe_response::Kind};
use tonic::Code;

use crate::harness::{Connection, FORM, Server, Sse, grpc::Stream, http2::Http2, path, until, within};

#[tokio::test]
async fn a_newer_stream_takes_over_in_every_pair_of_protocols() {
    let server = Server::start().await;
    let connection = Http2::open(server.address).await;
    let superseded = (EndReason::Superseded.into(), Code::Aborted);
    let first = server.sse("bob/phone").await;
    let second = Sse::open_h2(&connection, "bob/phone").await;
    assert_eq!(first.end().await, "superseded");
    let third = server.grpc_stream("bob/phone", "").await.expect("a stream");
    assert_eq!(second.end().await, "superseded");
    let fourth = server.grpc_stream("bob/phone", "").await.expect("a stream");
    assert_eq!(third.end().await, superseded);
    let mut fifth = server.sse("bob/phone").await;
    assert_eq!(fourth.end().await, superseded);
    assert_eq!(server.devices("bob").await, r#"["phone"]"#);
    assert_eq!(server.post("bob/phone", "hi").await.status, 200);
    assert_eq!(fifth.data().await, "hi");
}

#[tokio::test]
async fn the_late_end_of_an_old_stream_never_touches_the_new_one() {
    let server = Server::start().await;
    for round in 0..20 {
        let old = server.sse("bob/phone").await;
        let mut new = server.sse("bob/phone").await;
        drop(old);
        assert_eq!(server.devices("bob").await, r#"["phone"]"#);
        let data = round.to_string();
        assert_eq!(server.post("bob/phone", &data).await.status, 200);
        assert_eq!(new.data().await, data);
    }
    until(|| server.devices("bob"), |devices| devices == "[]").await;
}

#[tokio::test]
async fn a_superseded_stream_may_not_reconnect_while_the_newer_one_is_connected() {
    let server = Server::start().await;
    let first = server.sse("bob/phone").await;
    let cursor = first.parser.last_event_id.clone();
    let second = server.sse("bob/phone").await;
    assert_eq!(first.end().await, "superseded");
    let claim = crate::harness::claim("bob/phone");
    let back = [("x-user-claim", claim.as_str()), ("last-event-id", cursor.as_str())];
    let answer = server.request("GET /subscribe", &back, b"").await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let refused = server.grpc_stream("bob/phone", &cursor).await.err().expect("refused");
    assert_eq!(refused.code(), Code::Aborted);
    drop(second);
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    assert_eq!(server.sse_with("bob/phone", "/subscribe", &back[1..]).await.ready["continuity"], "resumed");
}

#[tokio::test]
async fn a_stream_that_comes_back_with_its_cursor_replaces_the_old_one_without_signal_end() {
    let server = Server::start().await;
    let mut first = server.sse("bob/phone").await;
    let cursor = first.parser.last_event_id.clone();
    // With the same cursor each time: a client whose answer is lost comes back with its old cursor.
    for _ in 0..3 {
        let again = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
        assert_eq!(again.ready["continuity"], "resumed");
        assert_eq!(first.try_next().await, None);
        first = again;
    }
    assert_eq!(server.post("bob/phone", "hi").await.status, 200);
    assert_eq!(first.data().await, "hi");
}

/// A stream over SSE or gRPC.
enum Either {
    Sse(Box<Sse>),
    Grpc(Box<Stream>),
}

impl Either {
    /// The data of the next message; `None` when the stream was superseded.
    async fn next(&mut self) -> Option<String> {
        match self {
            Self::Sse(stream) => match stream.next().await {
                end if end.name == "signal.end" => {
                    assert_eq!((end.data.as_str(), stream.try_next().await), (r#"{"reason":"superseded"}"#, None));
                    None
                }
                event => Some(event.data),
            },
            Self::Grpc(stream) => match stream.next().await.expect("a response") {
                Some(Kind::Message(message)) => Some(message.data),
                Some(Kind::End(end)) => {
                    assert_eq!(end.reason(), EndReason::Superseded);
                    None
                }
                other => panic!("{other:?}"),
            },
        }
    }
}

#[tokio::test]
async fn no_message_is_lost_or_repeated_while_streams_take_over() {
    const MESSAGES: usize = 300;
    let server = Server::with(&["--heartbeat", "600"]).await;
    let connection = Http2::open(server.address).await;
    let mut stream = Either::Sse(Box::new(server.sse("bob/phone").await));
    let address = server.address;
    let sender = tokio::spawn(async move {
        let mut connection = Connection::open(address).await;
        for number in 0..MESSAGES {
            let (head, body) = (format!("POST {}", path("bob/phone")), format!("data={number}"));
            let answer = connection.request(&head, &[("content-type", FORM)], body.as_bytes()).await;
            assert_eq!(answer.status, 200, "{number}");
        }
    });
    let mut received = Vec::new();
    for round in 0.. {
        // Each stream takes a few messages while the sender goes on.
        for _ in 0..(MESSAGES - received.len()).min(7) {
            received.extend(stream.next().await);
        }
        if received.len() == MESSAGES {
            break;
        }
        let newer = match round % 3 {
            0 => Either::Grpc(Box::new(server.grpc_stream("bob/phone", "").await.expect("a stream"))),
            1 => Either::Sse(Box::new(Sse::open_h2(&connection, "bob/phone").await)),
            _ => Either::Sse(Box::new(server.sse("bob/phone").await)),
        };
        let mut older = std::mem::replace(&mut stream, newer);
        while let Some(data) = older.next().await {
            received.push(data);
        }
    }
    within(sender).await.expect("no panic");
    assert_eq!(received, (0..MESSAGES).map(|number| number.to_string()).collect::<Vec<_>>());
}
