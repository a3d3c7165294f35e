//! Properties of the event stream writer: a reference parser reads back exactly one event with exactly the data.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use self::event_stream::{Event, Parser};
use super::sse::{EventText, Format};
use crate::{
    auth::TenantAddress,
    budget::Budget,
    hub::{self, Ready},
    model::{Address, Continuity, Cursor, Data, EndReason, EventName, Message, Sender, Start},
    wall_clock,
};

#[expect(unreachable_pub, reason = "the tests over the wire use the parser too")]
#[path = "../../tests/it/harness/event_stream.rs"]
mod event_stream;

const CURSOR: Cursor = Cursor { epoch: 7, page: 1, seq: 42 };

/// Any text, often with characters that could break a line.
fn any_text() -> impl Strategy<Value = String> {
    let nasty = prop_oneof![
        Just("\r".to_owned()),
        Just("\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("\0".to_owned()),
        Just("\u{2028}".to_owned()),
        Just("\u{2029}\u{85}".to_owned()),
        Just("\u{feff}".to_owned()),
        Just(" ".to_owned()),
        Just(":".to_owned()),
        Just("\n\nid: x\ndata: y\n\n".to_owned()),
        "\\PC{0,8}",
        any::<String>(),
    ];
    proptest::collection::vec(nasty, 1..12)
        .prop_map(|parts| parts.concat())
        .prop_filter("data is not empty", |text| !text.is_empty())
}

fn message(event: Option<&str>, data: &str) -> hub::StreamItem {
    let event = event.map(|name| EventName::new(name).expect("a name"));
    let Address { user, device } = Address::new("ana:x", "phone\u{2028}").expect("ids");
    let from = Some(Sender { user, device: Some(device) });
    let data = Data::new(data).expect("not empty");
    let message = Message { from, event, data, sent_at: SystemTime::UNIX_EPOCH };
    hub::StreamItem::Message(
        CURSOR,
        hub::SharedMessage::new(message, 2, Duration::ZERO, Budget::new(usize::MAX)).into(),
    )
}

/// The whole text of an event, with the part that streams share.
fn written(format: Format, event: &hub::StreamItem, now: SystemTime) -> String {
    match format.event(event, || now, || Duration::from_millis(3_210)) {
        EventText::Own(text) => text,
        EventText::Shared(text, end) => String::from_utf8(text.to_vec()).expect("UTF-8") + &end,
    }
}

/// Parses a stream in chunks that end at the given places.
fn parse(stream: &str, chunk_ends: &[prop::sample::Index]) -> (Vec<Event>, Parser) {
    let ends = chunk_ends.iter().map(|end| end.index(stream.len() + 1));
    let mut ends: Vec<_> = ends.chain([0, stream.len()]).collect();
    ends.sort_unstable();
    let mut parser = Parser::default();
    let events = ends.windows(2).flat_map(|pair| parser.push(&stream.as_bytes()[pair[0]..pair[1]])).collect();
    (events, parser)
}

fn opening(format: Format, start: Start) -> String {
    let address = TenantAddress::of(&Address::new("bob", "phone").expect("ids"));
    let ready = Ready { address, cursor: CURSOR, continuity: Continuity::New, replayed: 0 };
    format.opening(&ready, start, Duration::from_secs(15), Duration::from_millis(2_413))
}

/// ECMAScript's `decodeURI`.
fn decode_uri(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().expect("UTF-8").into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_back_as_one_event_however_the_stream_is_split(
        data in any_text(),
        event in prop::option::of("[A-Za-z0-9._:-]{1,64}".prop_filter("reserved", |name| EventName::new(name).is_ok())),
        chunk_ends in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let event = event.as_deref();
        for format in [Format::Plain, Format::Envelope, Format::Legacy] {
            let stream = opening(format, Start::Unreadable) + &written(format, &message(event, &data), wall_clock::now());
            let (mut events, parser) = parse(&stream, &chunk_ends);
            if format != Format::Legacy {
                prop_assert_eq!(events.remove(0).name, "signal.ready");
                prop_assert_eq!(parser.last_event_id, CURSOR.to_string());
            }
            prop_assert_eq!(events.len(), 1, "{:?}", stream);
            let found = events.remove(0);
            let absent = if format == Format::Legacy { "undefined" } else { "message" };
            prop_assert_eq!(&found.name, event.unwrap_or(absent));
            let read_back = match format {
                Format::Plain => found.data,
                Format::Envelope => {
                    let envelope: serde_json::Value = serde_json::from_str(&found.data).expect("JSON");
                    envelope["data"].as_str().expect("a string").to_owned()
                }
                Format::Legacy => decode_uri(&found.data),
            };
            let expected = if format == Format::Plain { data.replace("\r\n", "\n").replace('\r', "\n") } else { data.clone() };
            prop_assert_eq!(read_back, expected);
        }
    }
}

#[test]
fn the_first_event_of_a_stream_has_these_bytes() {
    let ready = format!(
        "retry: 2413\nevent: signal.ready\ndata: {{\"user\":\"bob\",\"device\":\"phone\",\
         \"continuity\":\"new\",\"replayed\":0,\"heartbeat_ms\":15000}}\nid: {CURSOR}\n\n"
    );
    let begin = ": backend-signal\nretry: 2413\nevent: signal.begin\n\n";
    for format in [Format::Plain, Format::Envelope] {
        assert_eq!(opening(format, Start::Anew), ready);
        for start in [Start::After(CURSOR), Start::Unreadable] {
            assert_eq!(opening(format, start), format!("{begin}{ready}"));
        }
    }
    assert_eq!(opening(Format::Legacy, Start::Unreadable), ":\n\n");
}

#[test]
fn the_events_of_each_format_have_these_bytes() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
    let offer = message(Some("offer"), "a ü;\"\nb");
    assert_eq!(written(Format::Plain, &offer, now), format!("event: offer\ndata: a ü;\"\ndata: b\nid: {CURSOR}\n\n"));
    assert_eq!(
        written(Format::Envelope, &offer, now),
        format!(
            "event: offer\ndata: {{\"from\":{{\"user\":\"ana:x\",\"device\":\"phone\\u2028\"}},\
             \"data\":\"a ü;\\\"\\nb\",\"sent_at\":\"1970-01-01T00:00:00.000Z\"}}\nid: {CURSOR}\n\n"
        )
    );
    assert_eq!(
        written(Format::Legacy, &offer, now),
        "id: ana:x:phone\u{2028}\nevent: offer\ndata: a%20%C3%BC;%22%0Ab\n\n"
    );
    assert_eq!(written(Format::Plain, &hub::StreamItem::Ping, now), "event: signal.ping\ndata: 1500\n\n");
    assert_eq!(written(Format::Legacy, &hub::StreamItem::Ping, now), ":\n\n");
    let end = hub::StreamItem::End(EndReason::Superseded);
    let expected = "retry: 60000\nevent: signal.end\ndata: {\"reason\":\"superseded\"}\n\n";
    assert_eq!(written(Format::Plain, &end, now), expected);
    assert_eq!(written(Format::Legacy, &end, now), "");
    let end = hub::StreamItem::End(EndReason::Draining);
    let expected = "retry: 3210\nevent: signal.end\ndata: {\"reason\":\"draining\"}\n\n";
    assert_eq!(written(Format::Envelope, &end, now), expected);
}
