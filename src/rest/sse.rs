//! The event stream format (WHATWG HTML, section 9.2), in the three looks that a client may choose.
//!
//! What is written here is one event for every message, whatever its data: a field's value ends at any of CR, LF and CRLF,
//! so data is cut there and its lines become `data` fields, which the client's parser joins with LF.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use memchr::memchr2;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::{
    error::Invalid,
    hub::{Change, Event, Parcel, Ready, WatchEvent},
    model::{Address, Continuity, Cursor, DeviceId, EndReason, EventName, Message},
};

/// The text of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// Of one stream alone.
    Own(String),
    /// What streams share, and what follows it in this one.
    Shared(Bytes, String),
}

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
    pub(super) fn event(self, event: &Event, now: impl FnOnce() -> SystemTime) -> Text {
        Text::Own(match (self, event) {
            (_, Event::Message(cursor, parcel)) => return self.message(*cursor, parcel),
            (Self::Legacy, Event::Ping) => LEGACY_HEARTBEAT.to_owned(),
            (Self::Legacy, Event::End(_)) => String::new(),
            (_, Event::Ping) => ping(now()),
            (_, Event::End(reason)) => end(*reason),
        })
    }

    /// The cursor stands last, so that a client learns it only with the whole message, and so that streams can share the rest.
    fn message(self, cursor: Cursor, parcel: &Parcel) -> Text {
        let mut digits = [0; Cursor::LONGEST];
        let id = if self == Self::Legacy { "" } else { cursor.write(&mut digits) };
        if let Some(text) = parcel.text(self as usize, |message| self.lines(message, 0)) {
            let mut end = String::new();
            finish(&mut end, id);
            return Text::Shared(text, end);
        }
        let mut text = self.lines(parcel, "id: \n\n".len() + id.len());
        finish(&mut text, id);
        Text::Own(text)
    }

    /// The lines of a message that are the same for every stream, with room for more.
    fn lines(self, message: &Message, room: usize) -> String {
        match self {
            Self::Plain => plain(message, room),
            Self::Envelope => envelope(message, room),
            Self::Legacy => legacy(message),
        }
    }
}

/// What a stream without a cursor begins with; and the whole stream for a client that should come back later.
pub(super) fn begin(retry: Duration) -> String {
    first_lines(retry) + "\n"
}

/// One or more events of a stream of devices.
pub(super) fn sighting(sighting: &WatchEvent, now: SystemTime) -> Text {
    Text::Own(match sighting {
        WatchEvent::Devices(devices) => {
            let devices: Vec<_> = devices.iter().map(DeviceId::as_str).collect();
            format!("event: signal.devices\ndata: {}\n\n", json(&devices))
        }
        WatchEvent::Changes(changes) => {
            return Text::Shared(changes.text(|changes| changes.iter().map(change).collect()), String::new());
        }
        WatchEvent::Ping => ping(now),
        WatchEvent::End(reason) => end(*reason),
    })
}

fn change(change: &Change) -> String {
    let (name, device) = match change {
        Change::Online(device) => ("online", device),
        Change::Offline(device) => ("offline", device),
    };
    format!("event: signal.{name}\ndata: {}\n\n", json(&Seen { device: device.as_str() }))
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

fn plain(message: &Message, room: usize) -> String {
    let data = message.data.as_str();
    let mut text = head(message, data.len() + room);
    let mut rest = data;
    while let Some(end) = memchr2(b'\r', b'\n', rest.as_bytes()) {
        line(&mut text, &rest[..end]);
        let wide = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + wide..];
    }
    line(&mut text, rest);
    text
}

fn envelope(message: &Message, room: usize) -> String {
    let data = json(&Envelope {
        from: message.from.as_ref().map(Sender::of),
        data: message.data.as_str(),
        sent_at: humantime::format_rfc3339_millis(message.sent_at).to_string(),
    });
    let mut text = head(message, data.len() + room);
    line(&mut text, &data);
    text
}

fn legacy(message: &Message) -> String {
    let (user, device) =
        message.from.as_ref().map_or((ABSENT, ABSENT), |from| (from.user.as_str(), from.device.as_str()));
    let event = message.event.as_ref().map_or(ABSENT, |event| event.as_str());
    let data = utf8_percent_encode(message.data.as_str(), ENCODE_URI);
    format!("id: {user}:{device}\nevent: {event}\ndata: {data}\n")
}

/// The `event` line, with exactly the room for data on one line and what follows it: text that fills its memory is a frame as it is.
fn head(message: &Message, more: usize) -> String {
    let event = message.event.as_ref().map(EventName::as_str);
    let named = event.map_or(0, |event| "event: \n".len() + event.len());
    let mut text = String::with_capacity(named + "data: \n".len() + more);
    if let Some(event) = event {
        text.push_str("event: ");
        text.push_str(event);
        text.push('\n');
    }
    text
}

/// Ends an event, with its `id` if it has one.
fn finish(text: &mut String, id: &str) {
    if !id.is_empty() {
        text.push_str("id: ");
        text.push_str(id);
        text.push('\n');
    }
    text.push('\n');
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
