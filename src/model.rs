//! The nouns of the domain: ids, addresses, messages, cursors. A value that exists is valid.

mod idempotency_key;

use std::{fmt, sync::Arc, time::SystemTime};

pub use self::idempotency_key::IdempotencyKey;
use crate::error::Invalid;

/// The id of a user: 1 to 256 bytes of UTF-8, no control characters, not `.` or `..`. Ids are compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

/// The id of a device, with the same bounds as [`UserId`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Arc<str>);

/// The id of a tenant, with the same bounds as [`UserId`]. Users live inside a tenant: equal ids in two tenants are two users.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// One device of one user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The user.
    pub user: UserId,
    /// One of the user's devices.
    pub device: DeviceId,
}

/// Who sent a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The user.
    pub user: UserId,
    /// The user's device, if the identity or the request named one.
    pub device: Option<DeviceId>,
}

/// The name that a sender gives to a kind of message: 1 to 64 of `[A-Za-z0-9._:-]`. Not `error` or `open`, because they would call the
/// handlers of a browser's `EventSource` for its own state; not beginning with `signal.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventName(Box<str>);

/// The data of a message: any text but the empty one. No log may contain it, so its `Debug` shows only the length.
#[derive(Clone, PartialEq, Eq)]
pub struct Data(Box<str>);

/// One accepted message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender. `None` for an anonymous one.
    pub from: Option<Sender>,
    /// The kind of message, if the sender named one.
    pub event: Option<EventName>,
    /// The data, unchanged.
    pub data: Data,
    /// The wall-clock time at which the server accepted the message.
    pub sent_at: SystemTime,
}

/// The outcome of a send that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The message is in the mailbox, and a live stream reads the mailbox.
    Delivered,
    /// The message is in the mailbox of a device that is not connected.
    Held,
}

/// A position in one mailbox: the client has seen every message up to and including `seq`.
///
/// Its text is `epoch.page.seq` in hexadecimal. Clients must not interpret it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// A random number of the mailbox. A later mailbox of the same device has another number.
    pub epoch: u64,
    /// The number of the page that reads the stream: one load of a web page, or one start of an app. A newer page of the device has
    /// a higher number and supersedes older pages.
    pub page: u32,
    /// The number of a message. The first message is 1.
    pub seq: u64,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Without a cursor: the stream gets the messages that no stream has got, then live messages.
    Anew,
    /// The stream gets the messages after the cursor, then live messages.
    After(Cursor),
    /// The client presented a text that is no cursor.
    Unreadable,
}

/// How a stream relates to earlier streams of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Continuity {
    /// The client presented no cursor, and no message is missing.
    New,
    /// The client presented a cursor, and no message after it is missing.
    Resumed,
    /// Messages may be missing. For a client without a cursor: the device was sent something, and nothing shows that it arrived.
    Broken,
}

/// Why the server ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// A newer stream of the same device is connected.
    Superseded,
    /// This node is stopping.
    Draining,
    /// The caller's token has expired. Not used yet.
    Expired,
}

impl UserId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`Invalid::User`] when the text is out of the bounds of [`UserId`].
    pub fn new(text: &str) -> Result<Self, Invalid> {
        is_id(text).then(|| Self(text.into())).ok_or(Invalid::User)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text of the id, shared.
    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl DeviceId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`Invalid::Device`] when the text is out of the bounds of [`DeviceId`].
    pub fn new(text: &str) -> Result<Self, Invalid> {
        is_id(text).then(|| Self(text.into())).ok_or(Invalid::Device)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TenantId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`Invalid::Tenant`] when the text is out of the bounds of [`TenantId`].
    pub fn new(text: &str) -> Result<Self, Invalid> {
        is_id(text).then(|| Self(text.into())).ok_or(Invalid::Tenant)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Address {
    /// Checks both ids.
    ///
    /// # Errors
    /// [`Invalid::User`] or [`Invalid::Device`] for the first id that is out of bounds.
    pub fn new(user: &str, device: &str) -> Result<Self, Invalid> {
        Ok(Self { user: UserId::new(user)?, device: DeviceId::new(device)? })
    }
}

impl Sender {
    fn bytes(&self) -> usize {
        self.user.0.len() + self.device.as_ref().map_or(0, |device| device.0.len())
    }
}

impl EventName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Invalid::Event`] when the text is out of the bounds of [`EventName`].
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        let reserved = text.starts_with("signal.") || text == "error" || text == "open";
        let valid = (1..=64).contains(&text.len()) && text.bytes().all(plain) && !reserved;
        valid.then(|| Self(text.into())).ok_or(Invalid::Event)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

impl Data {
    /// Checks that the text is not empty.
    ///
    /// # Errors
    /// [`Invalid::Data`] when the text is empty.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.is_empty() { Err(Invalid::Data) } else { Ok(Self(text)) }
    }

    /// The data as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Message {
    /// The bytes that count against the limit of a mailbox: data and event name.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.data.0.len() + self.event.as_ref().map_or(0, |event| event.0.len())
    }

    /// About how many bytes of memory a message takes: its texts and 128 more. Does not count its entry in a mailbox.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.payload_bytes() + self.from.as_ref().map_or(0, Sender::bytes) + OVERHEAD
    }
}

/// About the bytes of the struct [`Message`] and what the allocator adds for its texts.
const OVERHEAD: usize = 128;

impl Start {
    /// Parses the cursor that a client presents. An empty text is the same as no cursor.
    #[must_use]
    pub fn parse(presented: Option<&str>) -> Self {
        match presented {
            None | Some("") => Self::Anew,
            Some(text) => Cursor::parse(text).map_or(Self::Unreadable, Self::After),
        }
    }
}

impl Cursor {
    /// Parses the text of a cursor.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (epoch, page, seq) = (parts.next()?, parts.next()?, parts.next()?);
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if parts.next().is_some() || ![epoch, page, seq].into_iter().all(digits) {
            return None;
        }
        Some(Self {
            epoch: u64::from_str_radix(epoch, 16).ok()?,
            page: u32::from_str_radix(page, 16).ok()?,
            seq: u64::from_str_radix(seq, 16).ok()?,
        })
    }
}

/// The text is `{epoch:016x}.{page:x}.{seq:x}`. `write!` would take 80 ns more, which is 5 % of the CPU time of a message over
/// `SendStream`.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written from its end, with a point before each number.
        let (mut text, mut begin) = ([b'.'; LONGEST], LONGEST);
        for (mut value, least) in [(self.seq, 1), (self.page.into(), 1), (self.epoch, 16)] {
            let end = begin;
            while value > 0 || end - begin < least {
                begin -= 1;
                text[begin] = b"0123456789abcdef"[(value & 15) as usize];
                value >>= 4;
            }
            begin -= 1;
        }
        f.write_str(std::str::from_utf8(&text[begin + 1..]).unwrap_or_default())
    }
}

/// Bytes of the longest text of a cursor: three numbers, each with a point before it.
const LONGEST: usize = 1 + 16 + 1 + 8 + 1 + 16;

fn is_id(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text != "." && text != ".." && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_text_of_data_is_not_the_data() {
        let data = Data::new("v=0 a=ice-pwd:secret").unwrap();
        assert_eq!(format!("{data:?}"), "Data(20 bytes)");
    }

    #[test]
    fn an_id_out_of_bounds_is_invalid() {
        for good in ["a", "bob's phone", "a/b", "*", ">", "☎", &"x".repeat(256), "..."] {
            assert!(UserId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a\nb", "\0", "\u{85}", &"x".repeat(257)] {
            assert_eq!(DeviceId::new(bad), Err(Invalid::Device), "{bad:?}");
        }
    }

    #[test]
    fn an_event_name_out_of_bounds_is_invalid() {
        for good in ["offer", "a.b_c:d-1", "signals", "errors", "Open", "message", &"x".repeat(64)] {
            assert!(EventName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\nb", "é", "signal.ready", "error", "open", &"x".repeat(65)] {
            assert!(EventName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cursor_parses_its_own_text_and_no_malformed_one() {
        let cursor = Cursor { epoch: u64::MAX - 7, page: 3, seq: 4711 };
        assert_eq!(cursor.to_string(), "fffffffffffffff8.3.1267");
        for cursor in
            [cursor, Cursor { epoch: 0, page: 0, seq: 0 }, Cursor { epoch: 16, page: u32::MAX, seq: u64::MAX }]
        {
            let Cursor { epoch, page, seq } = cursor;
            assert_eq!(cursor.to_string(), format!("{epoch:016x}.{page:x}.{seq:x}"));
            assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        }
        for bad in ["1", "1.2", "1.2.3.4", "1..3", "+1.2.3", "x.1.1", "1.1.10000000000000000", "bob:phone"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
        assert_eq!(Start::parse(Some("")), Start::Anew);
        assert_eq!(Start::parse(Some("ünknown")), Start::Unreadable);
    }
}
