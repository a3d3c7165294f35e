//! Data that looks like the stream format, and the exact bytes of the events that the server makes itself.

use backend_signal::grpc::proto::SendRequest;

use crate::harness::{Connection, JSON, Server, Sse, claim, grpc::message, http2::Http2, within};

/// Data that could break a line, a field or an event.
const NASTY: [&str; 18] = [
    "\r",
    "\n",
    "\r\n",
    "\n\r",
    "\n\n",
    "a\rb\nc\r\nd",
    "ends\n",
    "\nbegins",
    " leads",
    "  leads",
    ":",
    ": comment",
    "\0",
    "\u{feff}mark",
    "a\u{2028}b\u{2029}c\u{85}d",
    "\n\nid: x\n\n",
    "\r\rretry: 1\r\revent: signal.end\rdata: {}\r\r",
    "data: id: event:",
];

/// The data as a parser of the format gives it back: every line end is an LF.
fn normalised(data: &str) -> String {
    data.replace("\r\n", "\n").replace('\r', "\n")
}

#[tokio::test]
async fn any_data_is_exactly_one_event_in_every_transport_and_format() {
    let server = Server::start().await;
    let connection = Http2::open(server.address).await;
    let mut plain = [server.sse("bob/0").await, Sse::open_h2(&connection, "bob/1").await];
    let mut envelope = server.sse_with("bob/2", "/subscribe?format=envelope", &[]).await;
    let mut legacy = Connection::open(server.address).await;
    legacy.ask("GET /subscribe?format=legacy", &[("x-user-claim", &claim("bob/3"))]).await;
    legacy.head().await;
    legacy.chunk().await;
    let mut client = server.grpc().await;
    let mut grpc = server.grpc_stream("bob/4", "").await.expect("a stream");
    for data in NASTY {
        let body = serde_json::json!({"data": data, "event": "x"}).to_string();
        for device in 0..5 {
            // Alternate between the protocols.
            if device % 2 == 0 {
                let post = format!("POST /user/bob/device/{device}");
                assert_eq!(server.request(&post, &[("content-type", JSON)], body.as_bytes()).await.status, 200);
            } else {
                let request = SendRequest { event: "x".into(), ..message(&format!("bob/{device}"), "", data) };
                within(client.send(request)).await.expect("sent");
            }
        }
        for stream in &mut plain {
            let event = stream.next().await;
            assert_eq!((event.name.as_str(), &event.data), ("x", &normalised(data)));
            assert!(event.id.contains('.'), "{event:?}");
        }
        let event: serde_json::Value = serde_json::from_str(&envelope.next().await.data).expect("one line of JSON");
        assert_eq!(event["data"], data);
        let text = String::from_utf8(legacy.chunk().await.expect("an event")).expect("UTF-8");
        let line = text.strip_prefix("id: undefined:undefined\nevent: x\ndata: ").expect("three lines");
        let line = line.strip_suffix("\n\n").expect("an end");
        assert_eq!(percent_encoding::percent_decode_str(line).decode_utf8().expect("UTF-8"), data);
        assert_eq!(grpc.data().await, data);
    }
}

#[tokio::test]
async fn a_sender_id_that_looks_like_the_format_is_exactly_one_event() {
    let server = Server::start().await;
    let mut envelope = server.sse_with("bob/phone", "/subscribe?format=envelope", &[]).await;
    let (user, device) = ("a\": \u{2028}\\", "\u{feff}data: x:y/é");
    let claim = serde_json::json!({"userid": user, "clientid": device}).to_string();
    let headers = [("x-user-claim", claim.as_str()), ("content-type", JSON)];
    assert_eq!(server.request("POST /user/bob/device/phone", &headers, br#"{"data":"hi"}"#).await.status, 200);
    let event: serde_json::Value = serde_json::from_str(&envelope.next().await.data).expect("one line of JSON");
    assert_eq!(event["from"], serde_json::json!({"user": user, "device": device}));
}

#[tokio::test]
async fn the_last_event_has_no_id_and_the_stream_ends_cleanly() {
    let server = Server::start().await;
    for format in ["plain", "envelope"] {
        let mut phone = server.sse_with("bob/phone", &format!("/subscribe?format={format}"), &[]).await;
        let _newer = server.sse("bob/phone").await;
        let last = String::from_utf8(phone.bytes().await.expect("a last event")).expect("UTF-8");
        // The time is for clients that come back although a browser would stop at the 204.
        assert_eq!(last, "retry: 60000\nevent: signal.end\ndata: {\"reason\":\"superseded\"}\n\n");
        assert_eq!(phone.bytes().await, None);
    }
}

#[tokio::test]
async fn a_message_is_its_event_line_its_data_lines_and_last_its_id_line() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    for (body, expected) in [
        (r#"{"data":"a"}"#, "data: a\n"),
        (r#"{"data":"a\nb\r\n","event":"offer"}"#, "event: offer\ndata: a\ndata: b\ndata: \n"),
    ] {
        assert_eq!(
            server.request("POST /user/bob/device/phone", &[("content-type", JSON)], body.as_bytes()).await.status,
            200
        );
        let text = String::from_utf8(phone.bytes().await.expect("an event")).expect("UTF-8");
        let (lines, cursor) = text.rsplit_once("id: ").expect("an id");
        assert!(cursor.strip_suffix("\n\n").is_some_and(|cursor| cursor.split('.').count() == 3), "{cursor}");
        assert_eq!(lines, expected);
    }
}

#[tokio::test]
async fn the_json_of_an_event_has_no_character_that_some_reader_takes_for_a_line_end() {
    let server = Server::start().await;
    let odd = "a\u{85}b\u{2028}c\u{2029}d\u{a85}\u{2027}";
    let (device, path) = ("p\u{2028}", "p%E2%80%A8");
    let mut watch = Sse::open_plain(server.address, "/user/bob/devices", &[("accept", "text/event-stream")]).await;
    assert_eq!(watch.next().await.data, "[]");
    let mut phone = Connection::open(server.address).await;
    let bob = claim(&format!("bob/{device}"));
    phone.ask("GET /subscribe?format=envelope", &[("x-user-claim", &bob)]).await;
    assert_eq!(phone.head().await.status, 200);
    let opening = String::from_utf8(phone.chunk().await.expect("the opening")).expect("UTF-8");
    assert!(opening.contains(r#""device":"p\u2028""#), "{opening}");
    let online = String::from_utf8(watch.bytes().await.expect("a change")).expect("UTF-8");
    assert_eq!(online, "event: signal.online\ndata: {\"device\":\"p\\u2028\"}\n\n");
    let body = serde_json::json!({ "data": odd }).to_string();
    let sender = serde_json::json!({"userid": "\u{2029}", "clientid": device}).to_string();
    let headers = [("content-type", JSON), ("x-user-claim", &sender)];
    let sent = server.request(&format!("POST /user/bob/device/{path}"), &headers, body.as_bytes()).await;
    assert_eq!(sent.status, 200);
    let event = String::from_utf8(phone.chunk().await.expect("the message")).expect("UTF-8");
    let data = event.strip_prefix("data: ").and_then(|rest| rest.split('\n').next()).expect("a line of data");
    assert!(!data.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{data:?}");
    assert!(data.contains(r#""data":"a\u0085b\u2028c\u2029d"#), "{data:?}");
    let envelope: serde_json::Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(envelope["data"], odd);
    assert_eq!(envelope["from"], serde_json::json!({"user": "\u{2029}", "device": device}));
}
