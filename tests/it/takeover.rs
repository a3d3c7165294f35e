//! A device has one stream: a newer one takes over, and the old one's late end touches nothing.

use backend_signal::grpc::proto::EndReason;
use tonic::Code;

use crate::harness::{Server, Sse, http2::Http2, until};

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
async fn a_superseded_page_is_turned_away_while_the_newer_one_is_connected() {
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
async fn a_stream_that_comes_back_replaces_itself_without_a_word() {
    let server = Server::start().await;
    let mut first = server.sse("bob/phone").await;
    let cursor = first.parser.last_event_id.clone();
    // With the same cursor again and again, because an answer may be lost on its way.
    for _ in 0..3 {
        let again = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
        assert_eq!(again.ready["continuity"], "resumed");
        assert_eq!(first.try_next().await, None);
        first = again;
    }
    assert_eq!(server.post("bob/phone", "hi").await.status, 200);
    assert_eq!(first.data().await, "hi");
}
