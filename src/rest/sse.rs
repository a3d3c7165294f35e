//! Writes server-sent events (WHATWG HTML, section 9.2). A client chooses one of three formats for its messages.
//!
//! Every message is exactly one event, whatever its data. A field of an event ends at CR, LF or CRLF. So `plain` writes one `data`
//! field for each line of the data, and the client's parser joins them with LF. The other formats escape line ends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use memchr::memchr2;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::event_data;
use crate::{
    error::Invalid,
    hub::{Change, Ready, SharedMessage, StreamItem, WatchItem},
    model::{Cursor, DeviceId, EndReason, EventName, Message, Start},
};

/// The text of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EventText {
    /// A text for this stream only.
    Own(String),
    /// A text that several streams share, and then a text for this stream only.
    Shared(Bytes, String),
}

/// The format of the messages in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// The data alone.
    #[default]
    Plain,
    /// JSON with the data, the sender and the time.
    Envelope,
    /// The format of the 2019 server.
    Legacy,
}

impl Format {
    /// Parses the query parameter `format`.
    pub(super) fn parse(name: Option<&str>) -> Result<Self, Invalid> {
        match name {
            None | Some("plain") => Ok(Self::Plain),
            Some("envelope") => Ok(Self::Envelope),
            Some("legacy") => Ok(Self::Legacy),
            Some(_) => Err(Invalid::Format),
        }
    }

    /// The beginning of a stream: `retry`, the time to wait before reconnecting, `signal.ready` and the cursor. One block with data:
    /// from a block with only an `id`, some clients do not take the id, and others make an empty message of it. In the legacy
    /// format only a comment.
    ///
    /// If the request carried a cursor, a block without data comes first. `WebKit` keeps half an event of a stream that was cut, and
    /// would put it together with the next stream's first lines. The comment ends a half line, and the name sends the half event to
    /// listeners that no page has.
    pub(super) fn opening(self, ready: &Ready, start: Start, heartbeat: Duration, retry: Duration) -> String {
        if self == Self::Legacy {
            return LEGACY_COMMENT.to_owned();
        }
        let data = event_data::ready(ready, heartbeat);
        let retry = retry_line(retry);
        let begin = match start {
            Start::Anew => String::new(),
            Start::After(_) | Start::Unreadable => format!(": backend-signal\n{retry}event: signal.begin\n\n"),
        };
        format!("{begin}{retry}event: signal.ready\ndata: {data}\nid: {}\n\n", ready.cursor)
    }

    /// The text of one event. Empty for an event that this format does not have. `after_drain` is the time to wait when the stream
    /// ends because of a drain.
    pub(super) fn event(
        self,
        event: &StreamItem,
        now: impl FnOnce() -> SystemTime,
        after_drain: impl FnOnce() -> Duration,
    ) -> EventText {
        EventText::Own(match (self, event) {
            (_, StreamItem::Message(cursor, shared)) => return self.message(*cursor, shared),
            (Self::Legacy, StreamItem::Ping) => LEGACY_COMMENT.to_owned(),
            (Self::Legacy, StreamItem::End(_)) => String::new(),
            (_, StreamItem::Ping) => ping(now()),
            (_, StreamItem::End(reason)) => end(*reason, after_drain),
        })
    }

    /// Writes the line with the cursor last, for two reasons: a client that is cut inside the message does not store the cursor of
    /// a message that it has not got, and streams can share the lines before the cursor.
    fn message(self, cursor: Cursor, shared: &SharedMessage) -> EventText {
        let id = if self == Self::Legacy { String::new() } else { cursor.to_string() };
        if let Some(text) = shared.text(self as usize, |message| self.lines(message, 0)) {
            let mut end = String::new();
            push_end(&mut end, &id);
            return EventText::Shared(text, end);
        }
        let mut text = self.lines(shared, "id: \n\n".len() + id.len());
        push_end(&mut text, &id);
        EventText::Own(text)
    }

    /// The lines of a message that are the same for every stream. Except in the legacy format, the string has capacity for `more`
    /// bytes after them.
    fn lines(self, message: &Message, more: usize) -> String {
        match self {
            Self::Plain => plain(message, more),
            Self::Envelope => envelope(message, more),
            Self::Legacy => legacy(message),
        }
    }
}

/// The line that tells a client how long to wait before it reconnects. It belongs to the block of the event after it.
pub(super) fn retry_line(retry: Duration) -> String {
    format!("retry: {}\n", retry.as_millis())
}

/// The whole stream of a client that is refused: why, and how long to wait.
pub(super) fn refusal(reason: &str, retry: Duration) -> String {
    format!("{}{}", retry_line(retry), end_event(reason))
}

/// The events for one item of a watch. `names_user`: each list and change names its user, for a watch of several users. `after_drain`
/// is as in [`Format::event`].
pub(super) fn watch_event(
    event: &WatchItem,
    names_user: bool,
    now: SystemTime,
    after_drain: impl FnOnce() -> Duration,
) -> EventText {
    EventText::Own(match event {
        WatchItem::Devices(user, devices) => {
            let devices = ids(devices);
            let data = if names_user { to_json(&ListData { user: user.id(), devices }) } else { to_json(&devices) };
            format!("event: signal.devices\ndata: {data}\n\n")
        }
        WatchItem::Changes(user, changes) => {
            let user = names_user.then(|| user.id());
            let make = |changes: &[Change]| changes.iter().map(|change| change_event(user, change)).collect();
            return EventText::Shared(changes.text(names_user, make), String::new());
        }
        WatchItem::Ping => ping(now),
        WatchItem::End(reason) => end(*reason, after_drain),
    })
}

fn change_event(user: Option<&str>, change: &Change) -> String {
    let (name, device) = match change {
        Change::Online(device) => ("online", device),
        Change::Offline(device) => ("offline", device),
    };
    format!("event: signal.{name}\ndata: {}\n\n", to_json(&ChangeData { user, device: device.as_str() }))
}

fn ping(now: SystemTime) -> String {
    format!("event: signal.ping\ndata: {}\n\n", now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
}

fn end(reason: EndReason, after_drain: impl FnOnce() -> Duration) -> String {
    let retry = match reason {
        EndReason::Superseded => Some(SUPERSEDED_RETRY),
        EndReason::Draining => Some(after_drain()),
        EndReason::Expired => None,
    };
    retry.map(retry_line).unwrap_or_default() + &end_event(reason_name(reason))
}

fn end_event(reason: &str) -> String {
    format!("event: signal.end\ndata: {{\"reason\":\"{reason}\"}}\n\n")
}

fn plain(message: &Message, more: usize) -> String {
    let mut data = message.data.as_str();
    let mut text = begin_with_event_line(message, data.len() + more);
    while let Some(end) = memchr2(b'\r', b'\n', data.as_bytes()) {
        push_data_line(&mut text, &data[..end]);
        let line_end = if data[end..].starts_with("\r\n") { 2 } else { 1 };
        data = &data[end + line_end..];
    }
    push_data_line(&mut text, data);
    text
}

fn envelope(message: &Message, more: usize) -> String {
    let data = event_data::envelope(message);
    let mut text = begin_with_event_line(message, data.len() + more);
    push_data_line(&mut text, &data);
    text
}

fn legacy(message: &Message) -> String {
    let from = message.from.as_ref();
    let user = from.map_or(UNDEFINED, |from| from.user.as_str());
    let device = from.and_then(|from| from.device.as_ref()).map_or(UNDEFINED, DeviceId::as_str);
    let event = message.event.as_ref().map_or(UNDEFINED, |event| event.as_str());
    let data = utf8_percent_encode(message.data.as_str(), ENCODE_URI);
    format!("id: {user}:{device}\nevent: {event}\ndata: {data}\n")
}

/// The `event` line, if the message has an event name, in a string with capacity for a `data` line and `more` bytes. For data of
/// one line the capacity is exact: a string without spare capacity becomes `Bytes` without a copy.
fn begin_with_event_line(message: &Message, more: usize) -> String {
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

/// Appends the `id` line, unless `id` is empty, and the blank line that ends an event.
fn push_end(text: &mut String, id: &str) {
    if !id.is_empty() {
        text.push_str("id: ");
        text.push_str(id);
        text.push('\n');
    }
    text.push('\n');
}

/// The space after the colon is needed: a parser removes one space, so data that begins with a space would lose it.
fn push_data_line(text: &mut String, value: &str) {
    text.push_str("data: ");
    text.push_str(value);
    text.push('\n');
}

/// The ids as text.
pub(super) fn ids(devices: &[DeviceId]) -> Vec<&str> {
    devices.iter().map(DeviceId::as_str).collect()
}

#[derive(Serialize)]
struct ListData<'a> {
    user: &'a str,
    devices: Vec<&'a str>,
}

#[derive(Serialize)]
struct ChangeData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    device: &'a str,
}

/// JSON on one line: the serializer escapes line ends inside strings. Cannot fail, because the types hold only strings and numbers.
///
/// Also escapes U+0085, U+2028 and U+2029, because some readers of a stream take them for line ends. In JSON they can only be inside
/// strings.
pub(super) fn to_json(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    // The first bytes of the three characters in UTF-8. Most data has neither.
    if memchr2(0xc2, 0xe2, json.as_bytes()).is_none() {
        return json;
    }
    json.replace('\u{85}', r"\u0085").replace('\u{2028}', r"\u2028").replace('\u{2029}', r"\u2029")
}

fn reason_name(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Superseded => "superseded",
        EndReason::Draining => "draining",
        EndReason::Expired => "expired",
    }
}

/// Many clients do not take 204 for an end. Without this, a superseded one would come back after its usual time, again and again.
const SUPERSEDED_RETRY: Duration = Duration::from_secs(60);

const LEGACY_COMMENT: &str = ":\n\n";

/// The 2019 server, in JavaScript, wrote this for an absent field.
const UNDEFINED: &str = "undefined";

/// The characters that ECMAScript's `encodeURI` escapes: all but letters, digits, `;/?:@&=+$,#` and `-_.!~*'()`.
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
