//! The event stream as a client sees it: head, opening, heartbeats, and the three formats.

use std::time::{Duration, Instant};

use crate::harness::{
    Connection, EVENT_STREAM, FORM, JSON, Response, Server, Sse, claim, event_stream::Parser, http2::Http2, until,
    within,
};

#[tokio::test]
async fn a_stream_opens_at_once_in_one_write() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    let claim = claim("bob/phone");
    connection.ask("GET /subscribe", &[("x-user-claim", &claim), ("accept-encoding", "gzip, br")]).await;
    let head = connection.head().await;
    assert_eq!(head.status, 200);
    for (name, value) in [
        ("content-type", EVENT_STREAM),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("content-encoding", ""),
    ] {
        assert_eq!(head.header(name), value);
    }
    let opening = String::from_utf8(connection.chunk().await.expect("the opening")).expect("UTF-8");
    let lines: Vec<_> = opening.split('\n').collect();
    let [retry, "event: signal.ready", data, id, "", ""] = lines[..] else { panic!("{opening}") };
    let retry: u64 = retry.strip_prefix("retry: ").and_then(|retry| retry.parse().ok()).expect("a time");
    assert!((1_000..=4_000).contains(&retry));
    assert!(id.strip_prefix("id: ").is_some_and(|cursor| cursor.split('.').count() == 3), "{id}");
    let expected = r#"data: {"user":"bob","device":"phone","continuity":"new","replayed":0,"heartbeat_ms":15000}"#;
    assert_eq!(data, expected);
}

/// `WebKit` keeps half an event of a stream that was cut, and puts the next stream's first lines after it.
#[tokio::test]
async fn a_stream_with_a_cursor_begins_with_a_block_that_takes_what_a_cut_stream_left() {
    let server = Server::start().await;
    let cursor = server.sse("bob/phone").await.leave();
    let claim = claim("bob/phone");
    let in_query = ["last_event_id", "lastEventId"].map(|name| format!("GET /subscribe?{name}={cursor}"));
    for (head, header) in
        [("GET /subscribe", cursor.as_str()), ("GET /subscribe", "nonsense"), (&in_query[0], ""), (&in_query[1], "")]
    {
        let mut connection = Connection::open(server.address).await;
        let headers = [("x-user-claim", claim.as_str()), ("last-event-id", header)];
        connection.ask(head, if header.is_empty() { &headers[..1] } else { &headers }).await;
        assert_eq!(connection.head().await.status, 200);
        let opening = String::from_utf8(connection.chunk().await.expect("the opening")).expect("UTF-8");
        let lines: Vec<_> = opening.split('\n').collect();
        let [": backend-signal", first, "event: signal.begin", "", second, "event: signal.ready", _, _, "", ""] =
            lines[..]
        else {
            panic!("{head} {header}: {opening}")
        };
        assert!(first.starts_with("retry: ") && first == second, "{opening}");
        for half in ["", "data: {\"sd", "event: offer\ndata: half\n", "event: offer\ndata: {\"sd", "event: off", "id"] {
            let mut parser = Parser::default();
            assert_eq!(parser.push(half.as_bytes()), []);
            let mut events = parser.push(opening.as_bytes());
            let ready = events.pop().expect("signal.ready");
            assert!(ready.name == "signal.ready" && ready.id.starts_with(&cursor[..16]), "{half:?}: {ready:?}");
            assert!(serde_json::from_str::<serde_json::Value>(&ready.data).is_ok(), "{half:?}: {ready:?}");
            assert!(events.iter().all(|event| event.name == "signal.begin"), "{half:?}: {events:?}");
        }
    }
}

#[tokio::test]
async fn each_stream_has_a_random_retry_time() {
    let server = Server::start().await;
    let mut retries = std::collections::HashSet::new();
    for device in 0..5 {
        retries.insert(server.sse(&format!("bob/{device}")).await.parser.retry);
    }
    assert!(retries.len() > 1, "{retries:?}");
}

#[tokio::test]
async fn a_message_carries_an_id_and_control_events_do_not() {
    let server = Server::with(&["--heartbeat", "0.3"]).await;
    let mut phone = server.sse("bob/phone").await;
    let opened = phone.parser.last_event_id.clone();
    let ping = phone.next().await;
    assert_eq!((ping.name.as_str(), &ping.id), ("signal.ping", &opened));
    let millis: u128 = ping.data.parse().expect("milliseconds");
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
    assert!(now.abs_diff(millis) < 60_000);
    assert_eq!(server.post("bob/phone", "hi").await.status, 200);
    let message = phone.message().await;
    assert_eq!(message.name, "message");
    assert_ne!(message.id, opened);
    let raw = String::from_utf8(phone.bytes().await.expect("a ping")).expect("UTF-8");
    assert!(raw.starts_with("event: signal.ping\ndata: ") && raw.ends_with("\n\n") && !raw.contains("id"), "{raw}");
}

#[tokio::test]
async fn a_heartbeat_comes_after_silence_and_not_before() {
    let server = Server::with(&["--heartbeat", "1"]).await;
    let mut phone = server.sse("bob/phone").await;
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(phone.next().await.name, "signal.ping");
        let silence = began.elapsed().as_millis();
        assert!(silence >= 850, "{silence} ms");
    }
}

#[tokio::test]
async fn the_envelope_has_the_sender_the_data_and_the_time() {
    let server = Server::start().await;
    let mut phone = server.sse_with("bob/phone", "/subscribe?format=envelope", &[]).await;
    let claim = claim("ana/laptop");
    for sender in [&[("x-user-claim", claim.as_str())][..], &[]] {
        let headers = [&[("content-type", FORM)], sender].concat();
        let sent = server.request("POST /user/bob/device/phone", &headers, b"event=offer&data=a%0D%0Ab").await;
        assert_eq!(sent.status, 200);
        let event = phone.next().await;
        assert_eq!(event.name, "offer");
        let envelope: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        let from = if sender.is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::json!({"user":"ana","device":"laptop"})
        };
        assert_eq!((&envelope["from"], &envelope["data"]), (&from, &"a\r\nb".into()));
        let sent_at = envelope["sent_at"].as_str().expect("a time");
        assert!(sent_at.len() == 24 && sent_at.ends_with('Z') && sent_at.as_bytes()[19] == b'.', "{sent_at}");
    }
}

#[tokio::test]
async fn the_legacy_format_has_the_bytes_of_the_2019_server() {
    let server = Server::start().await;
    let (bob, claim) = (claim("bob/phone"), claim("ana/laptop"));
    let mut phone = Connection::open(server.address).await;
    phone.ask("GET /subscribe?format=legacy", &[("x-user-claim", &bob), ("last-event-id", "ana:laptop")]).await;
    assert_eq!(phone.head().await.header("content-type"), EVENT_STREAM);
    assert_eq!(phone.chunk().await.as_deref(), Some(&b":\n\n"[..]));
    let headers = [("content-type", FORM), ("x-user-claim", claim.as_str())];
    server.request("POST /user/bob/device/phone", &headers, "data=a b/é\n\"&event=x".as_bytes()).await;
    let expected = "id: ana:laptop\nevent: x\ndata: a%20b/%C3%A9%0A%22\n\n";
    assert_eq!(phone.chunk().await.as_deref(), Some(expected.as_bytes()));
    server.post("bob/phone", "1").await;
    let expected = "id: undefined:undefined\nevent: undefined\ndata: 1\n\n";
    assert_eq!(phone.chunk().await.as_deref(), Some(expected.as_bytes()));
    let _newer = server.sse("bob/phone").await;
    assert_eq!(phone.chunk().await, None, "no control event, and a clean end");
}

#[tokio::test]
async fn data_that_looks_like_the_format_is_exactly_one_event() {
    let server = Server::start().await;
    let connection = Http2::open(server.address).await;
    let mut streams = [server.sse("bob/phone").await, Sse::open_h2(&connection, "bob/laptop").await];
    let nasty = "\u{feff} a\r\n\r\nid: x\n\nevent: y\rdata: z\0\u{2028}:";
    let body = serde_json::json!({ "data": nasty }).to_string();
    for (device, stream) in ["phone", "laptop"].into_iter().zip(&mut streams) {
        let post = format!("POST /user/bob/device/{device}");
        assert_eq!(server.request(&post, &[("content-type", "application/json")], body.as_bytes()).await.status, 200);
        let event = stream.message().await;
        assert_eq!((event.name.as_str(), event.data), ("message", nasty.replace("\r\n", "\n").replace('\r', "\n")));
        server.post(&format!("bob/{device}"), "next").await;
        assert_eq!(stream.data().await, "next");
    }
}

#[tokio::test]
async fn a_format_that_does_not_exist_is_400() {
    let server = Server::start().await;
    let claim = claim("bob/phone");
    let answer = server.request("GET /subscribe?format=xml", &[("x-user-claim", &claim)], b"").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid_format"));
    assert_eq!(server.devices("bob").await, "[]");
}

/// What a refused stream says: its only block, and the time in it.
fn refusal(answer: &Response) -> (u64, &str) {
    assert_eq!((answer.status, answer.header("content-type")), (200, EVENT_STREAM));
    let text = std::str::from_utf8(&answer.body).expect("UTF-8");
    let (retry, end) = text.split_once('\n').expect("two lines");
    (retry.strip_prefix("retry: ").and_then(|retry| retry.parse().ok()).expect("a time"), end)
}

/// Milliseconds of a time.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("short")
}

#[tokio::test]
async fn while_draining_an_event_source_is_told_to_come_back_after_the_window_and_other_clients_get_503() {
    let server = Server::with(&["--drain-window", "8"]).await;
    let _open = [server.sse("bob/phone").await, server.sse("ana/phone").await, server.sse("eve/phone").await];
    let before = Instant::now();
    server.drain.start();
    let claim = claim("bob/laptop");
    let ask = async |path, accept| server.request(path, &[("x-user-claim", &claim), ("accept", accept)], b"").await;
    let refused = until(|| ask("GET /subscribe", "*/*"), |answer| answer.status == 503).await;
    let after = Instant::now();
    assert_eq!((refused.problem().as_str(), refused.header("retry-after")), ("draining", "5"));
    for path in ["GET /subscribe", "GET /subscribe?format=envelope", "GET /user/bob/devices"] {
        // The drain began between `before` and `after`.
        let most = 12_000 - millis(after.elapsed());
        let answer = within(ask(path, "text/event-stream")).await;
        // Less one, because both times are rounded down.
        let least = 8_999 - millis(before.elapsed());
        let (retry, end) = refusal(&answer);
        assert_eq!(end, "event: signal.end\ndata: {\"reason\":\"draining\"}\n\n", "{path}");
        assert!((least..=most).contains(&retry), "{path}: {retry} is not from {least} to {most}");
    }
}

#[tokio::test]
async fn a_stream_that_a_drain_ends_is_told_to_come_back_after_the_window() {
    let server = Server::with(&["--drain-window", "4"]).await;
    let mut streams = Vec::new();
    for user in 0..20 {
        streams.push(server.sse(&format!("{user}/phone")).await);
    }
    let watches = ["/user/bob/devices", "/user/ana/devices"];
    for path in watches {
        let mut watch = Sse::open_plain(server.address, path, &[("accept", "text/event-stream")]).await;
        assert_eq!(watch.next().await.name, "signal.devices");
        streams.push(watch);
    }
    let began = Instant::now();
    server.drain.start();
    let ends = streams.into_iter().map(|mut stream| {
        tokio::spawn(async move {
            let end = stream.next().await;
            assert_eq!((end.name.as_str(), end.data.as_str()), ("signal.end", r#"{"reason":"draining"}"#));
            (millis(began.elapsed()), stream.parser.retry.expect("a time"))
        })
    });
    for end in ends.collect::<Vec<_>>() {
        let (ended, retry) = within(end).await.expect("no panic");
        // 5 to 8 s after the drain began; a client on a busy machine reads its end a little late.
        assert!((4_998..=11_000).contains(&(ended + retry)), "at {ended} ms: {retry}");
    }
}

#[tokio::test]
async fn an_overloaded_server_tells_an_event_source_so() {
    let server = Server::with(&["--user-devices", "1"]).await;
    let _first = server.sse("bob/phone").await;
    let claim = claim("bob/laptop");
    let headers = [("x-user-claim", claim.as_str()), ("accept", "text/event-stream")];
    let mut retries = std::collections::HashSet::new();
    for _ in 0..5 {
        let answer = server.request("GET /subscribe", &headers, b"").await;
        let (retry, end) = refusal(&answer);
        assert_eq!(end, "event: signal.end\ndata: {\"reason\":\"overloaded\"}\n\n");
        assert!((2_000..=6_000).contains(&retry), "{retry}");
        retries.insert(retry);
    }
    assert!(retries.len() > 1, "{retries:?}");
}

#[tokio::test]
async fn a_client_chooses_its_heartbeat_from_4_to_60_seconds() {
    let server = Server::start().await;
    for (query, expected) in [
        ("heartbeat=30", 30_000),
        ("heartbeat=4.5", 4_500),
        ("heartbeat=4", 4_000),
        ("heartbeat=60", 60_000),
        ("heartbeat=1", 4_000),
        ("heartbeat=0", 4_000),
        ("heartbeat=-7", 4_000),
        ("heartbeat=61", 60_000),
        ("heartbeat=99999999999999999999999999", 60_000),
        ("format=envelope&heartbeat=1e999", 60_000),
        ("heartbeat=", 15_000),
        ("heartbeat=soon", 15_000),
        ("heartbeat=nan", 15_000),
        ("heartbeat=inf", 15_000),
        ("heartbeat=10s", 15_000),
        ("heartbeat=%ff", 15_000),
        ("heartbeat=5&heartbeat=6", 15_000),
    ] {
        let phone = server.sse_with("bob/phone", &format!("/subscribe?{query}"), &[]).await;
        assert_eq!(phone.ready["heartbeat_ms"], expected, "{query}");
    }
}

#[tokio::test]
async fn a_stream_gets_its_pings_at_the_heartbeat_that_it_asked_for() {
    let server = Server::with(&["--heartbeat", "600"]).await;
    let claim = claim("bob/old");
    let mut legacy = Connection::open(server.address).await;
    legacy.ask("GET /subscribe?format=legacy&heartbeat=4", &[("x-user-claim", &claim)]).await;
    legacy.head().await;
    assert_eq!(legacy.chunk().await.as_deref(), Some(&b":\n\n"[..]));
    let mut phone = server.sse_with("bob/phone", "/subscribe?heartbeat=4", &[]).await;
    tokio::time::pause();
    assert_eq!(phone.next().await.name, "signal.ping");
    assert_eq!(legacy.chunk().await.as_deref(), Some(&b":\n\n"[..]));
}

/// The new stream replaces the old one, whose next ping is due much later, while that is still attached.
#[tokio::test]
async fn a_page_that_comes_back_with_a_shorter_heartbeat_gets_its_pings_in_time() {
    let server = Server::start().await;
    let mut phone = server.sse_with("bob/phone", "/subscribe?heartbeat=60", &[]).await;
    assert_eq!(server.post("bob/phone", "one").await.status, 200);
    let cursor = phone.next().await.id;
    let mut again = server.sse_with("bob/phone", "/subscribe?heartbeat=4", &[("last-event-id", &cursor)]).await;
    let began = tokio::time::Instant::now();
    tokio::time::pause();
    assert_eq!(again.next().await.name, "signal.ping");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_event_name_that_a_browser_fires_by_itself_is_refused() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    for name in ["error", "open"] {
        let body = serde_json::json!({"data": "x", "event": name}).to_string();
        for path in ["POST /user/bob/device/phone", "POST /user/bob/devices"] {
            let answer = server.request(path, &[("content-type", JSON)], body.as_bytes()).await;
            assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid_event"), "{name}");
        }
        let form = server
            .request("POST /user/bob/devices", &[("content-type", FORM)], format!("data=x&event={name}").as_bytes())
            .await;
        assert_eq!((form.status, form.problem().as_str()), (400, "invalid_event"), "{name}");
        let mut client = server.grpc().await;
        let sent = within(client.send(crate::harness::grpc::message("bob/phone", name, "x"))).await;
        assert_eq!(sent.expect_err("refused").code(), tonic::Code::InvalidArgument, "{name}");
    }
    for name in ["Error", "opened", "message"] {
        let body = serde_json::json!({"data": name, "event": name}).to_string();
        let sent = server.request("POST /user/bob/device/phone", &[("content-type", JSON)], body.as_bytes()).await;
        assert_eq!(sent.status, 200);
        assert_eq!(phone.next().await.name, name);
    }
}
