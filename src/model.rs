//! The nouns: who, where and what. Holding one of these values proves that it was checked.

use std::{fmt, sync::Arc, time::SystemTime};

use crate::{error::Invalid, hex};

/// A user's id: 1 to 256 bytes of UTF-8, no control characters, not `.` or `..`; compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

/// A device's id, with the same bounds as a user's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Arc<str>);

/// One device of one user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Whose device it is.
    pub user: UserId,
    /// Which of the user's devices.
    pub device: DeviceId,
}

/// The sender's name for a kind of message: 1 to 64 of `[A-Za-z0-9._:-]`, not beginning with `signal.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventName(Box<str>);

/// What a message carries: any text but the empty one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data(Box<str>);

/// One message as the server accepted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender's device, or nobody when the sender was anonymous.
    pub from: Option<Address>,
    /// The sender's name for the kind of message.
    pub event: Option<EventName>,
    /// The data, unchanged.
    pub data: Data,
    /// When the server accepted it, by the wall clock.
    pub sent_at: SystemTime,
}

/// What became of an accepted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Numbered, in the mailbox, and a live stream is attached to it.
    Delivered,
    /// Kept for a device that is not connected.
    Held,
}

/// A position in one mailbox: everything up to and including `seq` has been seen.
///
/// Written `epoch.page.seq` in hexadecimal, and opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The mailbox's random name; another mailbox of the same device has another one.
    pub epoch: u64,
    /// Counts takeovers, so that a page that was superseded can be told from the one that superseded it.
    pub page: u32,
    /// The number of a message; the first is 1.
    pub seq: u64,
}

/// Where a stream wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is new: whatever was never handed to a stream, then live.
    Anew,
    /// It comes back: everything after the cursor, then live.
    After(Cursor),
    /// It comes back with something that is no cursor of ours.
    Lost,
}

/// How a stream relates to the streams before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Continuity {
    /// The first stream of its mailbox.
    New,
    /// Nothing is missing.
    Resumed,
    /// Messages may be missing.
    Broken,
}

/// Why the server ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// A newer stream of the same device took over.
    Superseded,
    /// This node is stopping.
    Draining,
    /// The caller's token is over.
    Expired,
}

impl UserId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`Invalid::User`] when it is out of the bounds above.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        is_id(text).then(|| Self(text.into())).ok_or(Invalid::User)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DeviceId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`Invalid::Device`] when it is out of the bounds above.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        is_id(text).then(|| Self(text.into())).ok_or(Invalid::Device)
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
    /// The first part that is out of bounds.
    pub fn new(user: &str, device: &str) -> Result<Self, Invalid> {
        Ok(Self { user: UserId::new(user)?, device: DeviceId::new(device)? })
    }
}

impl EventName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Invalid::Event`] when it is out of the bounds above or belongs to the server.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        let valid = (1..=64).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with("signal.");
        valid.then(|| Self(text.into())).ok_or(Invalid::Event)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Data {
    /// Checks that there is something to deliver.
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
    /// The bytes that count against a mailbox's bounds: data and event name.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.data.0.len() + self.event.as_ref().map_or(0, |event| event.0.len())
    }

    /// The bytes of memory that it takes, about: all its text, and what stands around it. Its place in a mailbox is not counted.
    #[must_use]
    pub fn footprint(&self) -> usize {
        self.cost() + self.from.as_ref().map_or(0, |from| from.user.0.len() + from.device.0.len()) + AROUND
    }
}

/// Bytes of a message and of the allocations of its parts.
const AROUND: usize = 128;

impl Start {
    /// Reads what a client presents as its cursor; empty is the same as none.
    #[must_use]
    pub fn parse(presented: Option<&str>) -> Self {
        match presented {
            None | Some("") => Self::Anew,
            Some(text) => Cursor::parse(text).map_or(Self::Lost, Self::After),
        }
    }
}

impl Cursor {
    /// Reads a cursor as [`Cursor`] writes it.
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

    /// The length of the longest one, in bytes.
    pub const LONGEST: usize = 16 + 1 + 8 + 1 + 16;

    /// Writes it into a place of that length.
    pub fn write<'a>(&self, into: &'a mut [u8; Self::LONGEST]) -> &'a str {
        let mut end = hex::write(into, self.epoch, 16);
        for part in [self.page.into(), self.seq] {
            into[end] = b'.';
            end += 1 + hex::write(&mut into[end + 1..], part, hex::length(part));
        }
        std::str::from_utf8(&into[..end]).unwrap_or_default()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write(&mut [0; Self::LONGEST]))
    }
}

fn is_id(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text != "." && text != ".." && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_bounds() {
        for good in ["a", "bob's phone", "a/b", "*", ">", "☎", &"x".repeat(256), "..."] {
            assert!(UserId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a\nb", "\0", "\u{85}", &"x".repeat(257)] {
            assert_eq!(DeviceId::new(bad), Err(Invalid::Device), "{bad:?}");
        }
    }

    #[test]
    fn event_names_have_bounds() {
        for good in ["offer", "a.b_c:d-1", "signals", &"x".repeat(64)] {
            assert!(EventName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\nb", "é", "signal.ready", &"x".repeat(65)] {
            assert!(EventName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cursor_reads_what_it_writes_and_nothing_else() {
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
        assert_eq!(Start::parse(Some("ünknown")), Start::Lost);
    }
}
