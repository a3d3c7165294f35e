//! The event stream format (WHATWG HTML, section 9.2), in the three looks that a client may choose.
//!
//! What is written here is one event for every message, whatever its data: a field's value ends at any of CR, LF and CRLF,
//! so data is cut there and its lines become `data` fields, which the client's parser joins with LF.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memchr::memchr2;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::{
    error::Invalid,
    hub::{Event, Ready, Sighting},
    model::{Address, Continuity, Cursor, DeviceId, EndReason, EventName, Message},
};

/// How a message looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// The data and nothing else.
    #[default]
    Plain,
    /// JSON with the sender and the time.
    Envelope,
    /// What the 2019 server wrote.
    Legacy,
}

impl Format {
    /// Reads the query's `format`.
    pub(super) fn parse(name: Option<&str>) -> Result<Self, Invalid> {
        match name {
            None | Some("plain") => Ok(Self::Plain),
            Some("envelope") => Ok(Self::Envelope),
            Some("legacy") => Ok(Self::Legacy),
            Some(_) => Err(Invalid::Format),
        }
    }

    /// What a stream begins with. `retry` is when a client that lost it comes back.
    pub(super) fn opening(self, ready: &Ready, heartbeat: Duration, retry: Duration) -> String {
        if self == Self::Legacy {
            return LEGACY_HEARTBEAT.to_owned();
        }
        let data = json(&Opened {
            user: ready.address.user.as_str(),
            device: ready.address.device.as_str(),
            continuity: match ready.continuity {
                Continuity::New => "new",
                Continuity::Resumed => "resumed",
                Continuity::Broken => "broken",
            },
            replayed: ready.replayed,
            heartbeat_ms: heartbeat.as_millis(),
        });
        let (first, cursor) = (first_lines(retry), ready.cursor);
        format!("{first}id: {cursor}\n\nevent: signal.ready\ndata: {data}\n\n")
    }

    /// One event of the stream. Empty where this look has none for it.
    pub(super) fn event(self, event: &Event, now: impl FnOnce() -> SystemTime) -> String {
        match (self, event) {
            (Self::Plain, Event::Message(cursor, message)) => plain(*cursor, message),
            (Self::Envelope, Event::Message(cursor, message)) => envelope(*cursor, message),
            (Self::Legacy, Event::Message(_, message)) => legacy(message),
            (Self::Legacy, Event::Ping) => LEGACY_HEARTBEAT.to_owned(),
            (Self::Legacy, Event::End(_)) => String::new(),
            (_, Event::Ping) => ping(now()),
            (_, Event::End(reason)) => end(*reason),
        }
    }
}

/// What a stream without a cursor begins with; and the whole stream for a client that should come back later.
pub(super) fn begin(retry: Duration) -> String {
    first_lines(retry) + "\n"
}

/// One event of a stream of devices.
pub(super) fn sighting(sighting: &Sighting, now: SystemTime) -> String {
    match sighting {
        Sighting::Devices(devices) => {
            let devices: Vec<_> = devices.iter().map(DeviceId::as_str).collect();
            format!("event: signal.devices\ndata: {}\n\n", json(&devices))
        }
        Sighting::Online(device) => format!("event: signal.online\ndata: {}\n\n", json(&Seen::of(device))),
        Sighting::Offline(device) => format!("event: signal.offline\ndata: {}\n\n", json(&Seen::of(device))),
        Sighting::Ping => ping(now),
        Sighting::End(reason) => end(*reason),
    }
}

fn first_lines(retry: Duration) -> String {
    format!(": backend-signal\nretry: {}\n", retry.as_millis())
}

fn ping(now: SystemTime) -> String {
    format!("event: signal.ping\ndata: {}\n\n", now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
}

fn end(reason: EndReason) -> String {
    format!("event: signal.end\ndata: {{\"reason\":\"{}\"}}\n\n", name(reason))
}

fn plain(cursor: Cursor, message: &Message) -> String {
    let data = message.data.as_str();
    let mut text = head(cursor, message, data.len());
    let mut rest = data;
    while let Some(end) = memchr2(b'\r', b'\n', rest.as_bytes()) {
        line(&mut text, &rest[..end]);
        let wide = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + wide..];
    }
    line(&mut text, rest);
    text.push('\n');
    text
}

fn envelope(cursor: Cursor, message: &Message) -> String {
    let data = json(&Envelope {
        from: message.from.as_ref().map(Sender::of),
        data: message.data.as_str(),
        sent_at: humantime::format_rfc3339_millis(message.sent_at).to_string(),
    });
    let mut text = head(cursor, message, data.len());
    line(&mut text, &data);
    text.push('\n');
    text
}

fn legacy(message: &Message) -> String {
    let (user, device) =
        message.from.as_ref().map_or((ABSENT, ABSENT), |from| (from.user.as_str(), from.device.as_str()));
    let event = message.event.as_ref().map_or(ABSENT, |event| event.as_str());
    let data = utf8_percent_encode(message.data.as_str(), ENCODE_URI);
    format!("id: {user}:{device}\nevent: {event}\ndata: {data}\n\n")
}

/// The `id` and `event` lines, with exactly the room for data on one line: text that fills its memory is a frame as it is.
fn head(cursor: Cursor, message: &Message, data: usize) -> String {
    let (mut digits, event) = ([0; Cursor::LONGEST], message.event.as_ref().map(EventName::as_str));
    let id = cursor.write(&mut digits);
    let named = event.map_or(0, |event| "event: \n".len() + event.len());
    let mut text = String::with_capacity("id: \n".len() + id.len() + named + "data: \n\n".len() + data);
    text.push_str("id: ");
    text.push_str(id);
    text.push('\n');
    if let Some(event) = event {
        text.push_str("event: ");
        text.push_str(event);
        text.push('\n');
    }
    text
}

/// The space is part of the format: without it a parser would take one away from data that begins with a space.
fn line(text: &mut String, value: &str) {
    text.push_str("data: ");
    text.push_str(value);
    text.push('\n');
}

#[derive(Serialize)]
struct Opened<'a> {
    user: &'a str,
    device: &'a str,
    continuity: &'static str,
    replayed: u32,
    heartbeat_ms: u128,
}

#[derive(Serialize)]
struct Envelope<'a> {
    from: Option<Sender<'a>>,
    data: &'a str,
    sent_at: String,
}

#[derive(Serialize)]
struct Sender<'a> {
    user: &'a str,
    device: &'a str,
}

#[derive(Serialize)]
struct Seen<'a> {
    device: &'a str,
}

impl<'a> Seen<'a> {
    fn of(device: &'a DeviceId) -> Self {
        Self { device: device.as_str() }
    }
}

impl<'a> Sender<'a> {
    fn of(address: &'a Address) -> Self {
        Self { user: address.user.as_str(), device: address.device.as_str() }
    }
}

/// JSON on one line: line ends inside strings are escaped.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn name(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Superseded => "superseded",
        EndReason::Draining => "draining",
        EndReason::Expired => "expired",
        EndReason::Stalled => "stalled",
    }
}

const LEGACY_HEARTBEAT: &str = ":\n\n";

/// What JavaScript wrote for a field that was not there.
const ABSENT: &str = "undefined";

/// What ECMAScript's `encodeURI` escapes: all but letters, digits, `;/?:@&=+$,#` and `-_.!~*'()`.
const ENCODE_URI: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b';')
    .remove(b'/')
    .remove(b'?')
    .remove(b':')
    .remove(b'@')
    .remove(b'&')
    .remove(b'=')
    .remove(b'+')
    .remove(b'$')
    .remove(b',')
    .remove(b'#')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');
