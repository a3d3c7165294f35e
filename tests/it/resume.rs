//! Coming back with a cursor, over both protocols and across them.

use backend_signal::grpc::proto::Continuity;

use crate::harness::{Server, until};

/// Three messages that reach a stream, of which its client has seen only the first.
async fn missed(server: &Server) -> String {
    let mut phone = server.sse("bob/phone").await;
    for data in ["1", "2", "3"] {
        assert_eq!(server.post("bob/phone", data).await.status, 200);
    }
    assert_eq!(phone.data().await, "1");
    let cursor = phone.leave();
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    cursor
}

#[tokio::test]
async fn a_browser_that_comes_back_gets_what_it_missed() {
    let server = Server::start().await;
    let cursor = missed(&server).await;
    let query = format!("/subscribe?last_event_id={cursor}");
    for (path, header) in [("/subscribe", Some(cursor.as_str())), (&query, None)] {
        let headers: Vec<_> = header.map(|cursor| ("last-event-id", cursor)).into_iter().collect();
        let mut phone = server.sse_with("bob/phone", path, &headers).await;
        assert_eq!((&phone.ready["continuity"], &phone.ready["replayed"]), (&"resumed".into(), &2.into()));
        assert_eq!((phone.data().await.as_str(), phone.data().await.as_str()), ("2", "3"));
    }
}

#[tokio::test]
async fn a_cursor_of_one_protocol_resumes_over_the_other_and_back() {
    let server = Server::start().await;
    let cursor = missed(&server).await;
    let mut grpc = server.grpc_stream("bob/phone", &cursor).await.expect("a stream");
    assert_eq!((grpc.ready.continuity(), grpc.ready.replayed), (Continuity::Resumed, 2));
    assert_eq!(grpc.data().await, "2");
    let cursor = grpc.cursor.clone();
    drop(grpc);
    let mut sse = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
    assert_eq!(sse.ready["replayed"], 1);
    assert_eq!(sse.data().await, "3");
}

#[tokio::test]
async fn a_cursor_that_is_not_known_is_said_to_be_broken() {
    let server = Server::start().await;
    let seen = server.sse("bob/phone").await.leave();
    let (epoch, _) = seen.split_once('.').expect("a cursor");
    for cursor in [
        "ana:laptop",
        "0123456789abcdef.1.0",
        &format!("{epoch}.1.ff"),
        &format!("{epoch}.ff.0"),
        &"x".repeat(5_000),
        "\u{fc}",
    ] {
        let sse = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", cursor)]).await;
        assert_eq!((&sse.ready["continuity"], &sse.ready["replayed"]), (&"broken".into(), &0.into()), "{cursor:.40}");
        let grpc = server.grpc_stream("bob/phone", cursor).await.expect("a stream");
        assert_eq!(grpc.ready.continuity(), Continuity::Broken, "{cursor:.40}");
    }
}

#[tokio::test]
async fn a_device_that_does_not_come_back_within_its_window_is_forgotten() {
    let server = Server::with(&["--resume-window", "0.3"]).await;
    let cursor = missed(&server).await;
    let metrics = async || server.request("GET /metrics", &[], b"").await.text();
    until(metrics, |text| text.contains("signal_mailboxes 0") && text.contains("signal_mailbox_bytes 0")).await;
    let phone = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
    assert_eq!((&phone.ready["continuity"], &phone.ready["replayed"]), (&"broken".into(), &0.into()));
}
