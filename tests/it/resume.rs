//! Resuming with a cursor, over both protocols and from one to the other.

use backend_signal::grpc::proto::Continuity;

use crate::harness::{Server, until};

/// Sends three messages to a stream whose client reads only the first. Returns the cursor of the first.
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

/// Opens the device's stream over HTTP or gRPC, reads the replayed messages and leaves. Returns the continuity, the messages, and
/// the cursor with which to come back.
async fn visit(server: &Server, over_grpc: bool, cursor: &str) -> (String, Vec<String>, String) {
    let mut replayed = Vec::new();
    let (continuity, cursor) = if over_grpc {
        let mut phone = server.grpc_stream("bob/phone", cursor).await.expect("a stream");
        for _ in 0..phone.ready.replayed {
            replayed.push(phone.data().await);
        }
        let continuity = phone.ready.continuity().as_str_name().trim_start_matches("CONTINUITY_").to_lowercase();
        (continuity, phone.cursor)
    } else {
        let headers: &[_] = if cursor.is_empty() { &[] } else { &[("last-event-id", cursor)] };
        let mut phone = server.sse_with("bob/phone", "/subscribe", headers).await;
        for _ in 0..phone.ready["replayed"].as_u64().expect("a number") {
            replayed.push(phone.data().await);
        }
        (phone.ready["continuity"].as_str().expect("a string").to_owned(), phone.leave())
    };
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    (continuity, replayed, cursor)
}

/// Lets the server hold a message for the absent device.
async fn hold(server: &Server, data: &str) {
    assert_eq!(server.post_with_ttl("bob/phone", data, "60").await.status, 202);
}

#[tokio::test]
async fn a_stream_with_an_unknown_cursor_is_told_broken_and_gets_held_messages() {
    let server = Server::start().await;
    let (_, _, seen) = visit(&server, false, "").await;
    let (epoch, _) = seen.split_once('.').expect("a cursor");
    let from_the_future = [format!("{epoch}.1.ff"), format!("{epoch}.ff.0")];
    for cursor in
        ["ana:laptop", "0123456789abcdef.1.0", &from_the_future[0], &from_the_future[1], &"x".repeat(5_000), "\u{fc}"]
    {
        for over_grpc in [false, true] {
            hold(&server, "kept").await;
            let (continuity, replayed, _) = visit(&server, over_grpc, cursor).await;
            assert_eq!((continuity.as_str(), replayed), ("broken", vec!["kept".to_owned()]), "{cursor:.40}");
            let (continuity, replayed, _) = visit(&server, over_grpc, cursor).await;
            assert_eq!((continuity.as_str(), replayed.len()), ("broken", 0), "{cursor:.40}");
        }
    }
}

#[tokio::test]
async fn evicted_messages_are_reported_missing_and_all_others_are_replayed() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let mut cursors = vec![phone.parser.last_event_id.clone()];
    for number in 1..=300 {
        assert_eq!(server.post("bob/phone", &number.to_string()).await.status, 200);
        cursors.push(phone.message().await.id);
    }
    phone.leave();
    // The last 256 are kept after they were handed over, so 44 are gone.
    let kept: Vec<_> = (45..=300).map(|number| number.to_string()).collect();
    for (seen, expected) in [(0, "broken"), (43, "broken"), (44, "resumed")] {
        for over_grpc in [false, true] {
            let (continuity, replayed, cursor) = visit(&server, over_grpc, &cursors[seen]).await;
            assert_eq!((continuity.as_str(), &replayed), (expected, &kept), "after {seen}");
            assert_eq!(cursor, cursors[300]);
        }
    }
}

#[tokio::test]
async fn without_a_cursor_a_stream_gets_the_messages_that_no_stream_took() {
    for over_grpc in [false, true] {
        let server = Server::start().await;
        hold(&server, "1").await;
        let (continuity, replayed, _) = visit(&server, over_grpc, "").await;
        assert_eq!((continuity.as_str(), replayed), ("new", vec!["1".to_owned()]));
        // Nothing shows that the first message arrived.
        hold(&server, "2").await;
        let (continuity, replayed, cursor) = visit(&server, over_grpc, "").await;
        assert_eq!((continuity.as_str(), replayed), ("broken", vec!["2".to_owned()]));
        // The cursor shows that the second one did.
        assert_eq!(visit(&server, over_grpc, &cursor).await, ("resumed".to_owned(), vec![], cursor));
        hold(&server, "3").await;
        let (continuity, replayed, _) = visit(&server, over_grpc, "").await;
        assert_eq!((continuity.as_str(), replayed), ("new", vec!["3".to_owned()]));
    }
}

#[tokio::test]
async fn without_a_cursor_every_stream_is_new_unless_something_may_be_missing() {
    let server = Server::start().await;
    for over_grpc in [false, true, false, true] {
        let (continuity, replayed, _) = visit(&server, over_grpc, "").await;
        assert_eq!((continuity.as_str(), replayed.len()), ("new", 0));
    }
}

#[tokio::test]
async fn a_stream_without_a_cursor_is_broken_until_a_cursor_from_after_the_gap_has_come_back() {
    for (over_grpc, lost) in
        [(false, "expired"), (true, "expired"), (false, "unknown cursor"), (true, "unknown cursor")]
    {
        let server = Server::start().await;
        let (_, _, before) = visit(&server, over_grpc, "").await;
        if lost == "expired" {
            assert_eq!(server.post_with_ttl("bob/phone", "missed", "1").await.status, 202);
            until(|| server.metrics(), |text| text.contains("signal_expired_total 1")).await;
        } else {
            assert_eq!(visit(&server, over_grpc, "0123456789abcdef.1.0").await.0, "broken");
        }
        for _ in 0..2 {
            assert_eq!(visit(&server, over_grpc, "").await.0, "broken", "nobody has read that: {lost}");
        }
        if lost == "expired" {
            assert_eq!(visit(&server, over_grpc, &before).await.0, "broken", "this cursor is from before the gap");
            assert_eq!(visit(&server, over_grpc, "").await.0, "broken");
        }
        let (continuity, _, after) = visit(&server, over_grpc, "").await;
        assert_eq!(continuity, "broken");
        assert_eq!(visit(&server, over_grpc, &after).await.0, "resumed");
        assert_eq!(visit(&server, over_grpc, "").await.0, "new");
    }
}

#[tokio::test]
async fn a_message_that_kills_its_reader_does_not_come_back_for_ever() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let cursor = phone.parser.last_event_id.clone();
    assert_eq!(server.post("bob/phone", "deadly").await.status, 200);
    assert_eq!(phone.data().await, "deadly");
    drop(phone);
    let (mut visits, mut killed) = (0, 0);
    tokio::time::pause();
    let survived = loop {
        let mut phone = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
        visits += 1;
        if phone.ready["replayed"] == 0 {
            break phone;
        }
        assert_eq!(phone.data().await, "deadly");
        killed += 1;
        assert!(visits < 40, "it comes back for ever");
        drop(phone);
        tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    };
    assert_eq!(survived.ready["continuity"], "broken");
    assert!(killed > 3, "it is replayed at first: {killed}");
}

#[tokio::test]
async fn a_cursor_in_the_query_has_two_spellings_and_the_newest_cursor_wins() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let mut cursors = vec![phone.parser.last_event_id.clone()];
    for data in ["1", "2", "3"] {
        assert_eq!(server.post("bob/phone", data).await.status, 200);
        cursors.push(phone.message().await.id);
    }
    drop(phone);
    let [zero, one, two, _] = &cursors[..] else { panic!("{cursors:?}") };
    let both = format!("last_event_id={zero}&lastEventId={one}");
    for (query, header, expected) in [
        (format!("lastEventId={zero}"), None, 3),
        (format!("x=%ff&lastEventId={two}"), None, 1),
        // `event-source-polyfill` appends its cursor to the URL that the page made.
        (both.clone(), None, 2),
        // A browser sends its cursor in the header, with the same URL as before.
        (both, Some(two), 1),
        (format!("lastEventId={two}"), Some(&String::new()), 1),
    ] {
        let headers: Vec<_> = header.map(|cursor| ("last-event-id", cursor.as_str())).into_iter().collect();
        let phone = server.sse_with("bob/phone", &format!("/subscribe?{query}"), &headers).await;
        assert_eq!(
            (&phone.ready["continuity"], &phone.ready["replayed"]),
            (&"resumed".into(), &expected.into()),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_device_that_does_not_come_back_within_its_window_is_forgotten() {
    let server = Server::with(&["--resume-window", "0.3"]).await;
    let cursor = missed(&server).await;
    until(|| server.metrics(), |text| text.contains("signal_mailboxes 0") && text.contains("signal_mailbox_bytes 0"))
        .await;
    let phone = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
    assert_eq!((&phone.ready["continuity"], &phone.ready["replayed"]), (&"broken".into(), &0.into()));
}

#[tokio::test]
async fn a_stream_with_an_unreadable_cursor_in_the_query_is_told_broken() {
    let server = Server::start().await;
    for query in [
        "last_event_id=%ff",
        "last_event_id=%ff&format=plain",
        "last_event_id=a&last_event_id=a",
        "last_event_id=%ff&last_event_id=%ff",
        "last_event_id=nonsense",
        "lastEventId=%ff",
        "lastEventId=nonsense",
        "lastEventId=a&lastEventId=a",
    ] {
        let phone = server.sse_with("bob/phone", &format!("/subscribe?{query}"), &[]).await;
        assert_eq!(phone.ready["continuity"], "broken", "{query}");
        drop(phone);
    }
}

#[tokio::test]
async fn other_unreadable_parts_of_a_query_are_ignored() {
    let server = Server::start().await;
    let cursor = server.sse("bob/phone").await.leave();
    for query in [
        "%ff=x",
        "x=%ff",
        "heartbeat=%ff",
        "heartbeat=x",
        "format=%ff",
        "format=plain&format=legacy",
        "format=nonsense&format=plain",
        "&&=&%",
    ] {
        let query = format!("/subscribe?{query}&last_event_id={cursor}");
        let phone = server.sse_with("bob/phone", &query, &[]).await;
        assert_eq!(phone.ready["continuity"], "resumed", "{query}");
        drop(phone);
    }
}
