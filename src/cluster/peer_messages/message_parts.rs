//! The parts of the messages between nodes: addresses, cursors, messages, parcels; and their way to and from the model.

use std::time::{Duration, UNIX_EPOCH};

use crate::{
    auth::{TenantAddress, TenantUser},
    hub::{Parcel, ParcelEntry, Repeat, Waiting, Waits},
    model::{Cursor, Data, DeviceId, EventName, Message, Outcome, Sender, Start, UserId},
    wall_clock,
};

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::cluster) struct WireAddress {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    device: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::cluster) struct WireStart {
    #[prost(message, optional, tag = "1")]
    after: Option<WireCursor>,
    #[prost(bool, tag = "2")]
    unreadable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::cluster) struct WireCursor {
    #[prost(fixed64, tag = "1")]
    epoch: u64,
    #[prost(uint32, tag = "2")]
    page: u32,
    #[prost(uint64, tag = "3")]
    seq: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::cluster) struct WireMessage {
    /// Empty: an anonymous sender.
    #[prost(string, tag = "1")]
    user: String,
    /// Empty: a sender without a device.
    #[prost(string, tag = "2")]
    device: String,
    /// Empty: no event.
    #[prost(string, tag = "3")]
    event: String,
    #[prost(string, tag = "4")]
    data: String,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "5")]
    sent_at_ms: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::cluster) struct WireWaiting {
    #[prost(message, required, tag = "1")]
    message: WireMessage,
    /// For how much longer it is held.
    #[prost(uint64, tag = "2")]
    ttl_ms: u64,
    #[prost(message, optional, tag = "3")]
    repeat: Option<WireRepeat>,
    /// Present: it is not held, but waits until the resume window ends, of which so much is over.
    #[prost(uint64, optional, tag = "4")]
    window_over_ms: Option<u64>,
}

/// The largest parcel that a node sends, in bytes.
pub(in crate::cluster) const LARGEST_PARCEL: usize = 1 << 20;

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::cluster) struct WireParcel {
    #[prost(fixed64, tag = "1")]
    epoch: u64,
    #[prost(uint32, tag = "2")]
    newest_page: u32,
    #[prost(uint32, tag = "3")]
    page: u32,
    #[prost(uint32, tag = "4")]
    generation: u32,
    #[prost(uint64, tag = "5")]
    last: u64,
    #[prost(uint64, tag = "6")]
    handed_over: u64,
    #[prost(uint64, tag = "7")]
    last_missing: u64,
    #[prost(uint64, tag = "8")]
    unconfirmed: u64,
    #[prost(uint64, tag = "9")]
    away_ms: u64,
    #[prost(message, repeated, tag = "10")]
    entries: Vec<WireEntry>,
    #[prost(message, repeated, tag = "11")]
    repeats: Vec<WireRepeat>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::cluster) struct WireEntry {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(message, required, tag = "2")]
    message: WireMessage,
    #[prost(uint64, tag = "3")]
    age_ms: u64,
    #[prost(uint64, tag = "4")]
    ttl_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::cluster) struct WireRepeat {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bool, tag = "2")]
    held: bool,
    #[prost(uint64, tag = "3")]
    age_ms: u64,
    #[prost(uint64, tag = "4")]
    seq: u64,
}

pub(super) fn address(user: &str, device: &str) -> Option<TenantAddress> {
    Some(TenantAddress { user: TenantUser::from_node(user).ok()?, device: DeviceId::new(device).ok()? })
}

impl WireAddress {
    pub(in crate::cluster) fn read(&self) -> Option<TenantAddress> {
        address(&self.user, &self.device)
    }
}

impl From<&TenantAddress> for WireAddress {
    fn from(address: &TenantAddress) -> Self {
        Self { user: address.user.as_text().to_owned(), device: address.device.as_str().to_owned() }
    }
}

impl From<Start> for WireStart {
    fn from(start: Start) -> Self {
        let after = match start {
            Start::After(Cursor { epoch, page, seq }) => Some(WireCursor { epoch, page, seq }),
            Start::Anew | Start::Unreadable => None,
        };
        Self { after, unreadable: start == Start::Unreadable }
    }
}

impl From<&WireStart> for Start {
    fn from(start: &WireStart) -> Self {
        match &start.after {
            Some(WireCursor { epoch, page, seq }) => Self::After(Cursor { epoch: *epoch, page: *page, seq: *seq }),
            None if start.unreadable => Self::Unreadable,
            None => Self::Anew,
        }
    }
}

impl From<&Message> for WireMessage {
    fn from(message: &Message) -> Self {
        let sender = message.from.as_ref();
        let since_1970 = message.sent_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            user: sender.map_or_else(String::new, |sender| sender.user.as_str().to_owned()),
            device: sender
                .and_then(|sender| sender.device.as_ref())
                .map_or_else(String::new, |device| device.as_str().to_owned()),
            event: message.event.as_ref().map_or_else(String::new, |event| event.as_str().to_owned()),
            data: message.data.as_str().to_owned(),
            sent_at_ms: i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

impl WireMessage {
    /// `None` when a part is not valid.
    pub(in crate::cluster) fn read(self) -> Option<Message> {
        let device = (!self.device.is_empty()).then(|| DeviceId::new(&self.device)).transpose().ok()?;
        let from =
            if self.user.is_empty() { None } else { Some(Sender { user: UserId::new(&self.user).ok()?, device }) };
        let event = (!self.event.is_empty()).then(|| EventName::new(&self.event)).transpose().ok()?;
        let since_1970 = Duration::from_millis(u64::try_from(self.sent_at_ms).unwrap_or_default());
        let sent_at = UNIX_EPOCH.checked_add(since_1970).unwrap_or_else(wall_clock::now);
        Some(Message { from, event, data: Data::new(self.data).ok()?, sent_at })
    }
}

impl From<&Waiting> for WireWaiting {
    fn from(waiting: &Waiting) -> Self {
        let (ttl_ms, window_over_ms) = match waiting.waits {
            Waits::Held { rest_ms } => (rest_ms, None),
            Waits::Window { over_ms } => (0, Some(over_ms)),
        };
        let (message, repeat) = ((&waiting.message).into(), waiting.repeat.as_ref().map(WireRepeat::from));
        Self { message, ttl_ms, repeat, window_over_ms }
    }
}

impl WireWaiting {
    pub(in crate::cluster) fn read(self) -> Option<Waiting> {
        let repeat = self.repeat.and_then(|repeat| repeat.read());
        let held = Waits::Held { rest_ms: self.ttl_ms };
        let waits = self.window_over_ms.map_or(held, |over_ms| Waits::Window { over_ms });
        Some(Waiting { message: self.message.read()?, waits, repeat })
    }
}

impl From<&Repeat> for WireRepeat {
    fn from(repeat: &Repeat) -> Self {
        let Repeat { key, seq, outcome, age_ms } = *repeat;
        Self { key: key.to_be_bytes().to_vec(), held: outcome == Outcome::Held, age_ms, seq }
    }
}

impl WireRepeat {
    fn read(&self) -> Option<Repeat> {
        let outcome = if self.held { Outcome::Held } else { Outcome::Delivered };
        Some(Repeat { key: key(&self.key)?, seq: self.seq, outcome, age_ms: self.age_ms })
    }
}

pub(super) fn key(bytes: &[u8]) -> Option<u128> {
    bytes.try_into().ok().map(u128::from_be_bytes)
}

impl From<&Parcel> for WireParcel {
    fn from(parcel: &Parcel) -> Self {
        let entry = |entry: &ParcelEntry| WireEntry {
            seq: entry.seq,
            message: (&entry.message).into(),
            age_ms: entry.age_ms,
            ttl_ms: entry.ttl_ms,
        };
        Self {
            epoch: parcel.epoch,
            newest_page: parcel.newest_page,
            page: parcel.page,
            generation: parcel.generation,
            last: parcel.last,
            handed_over: parcel.handed_over,
            last_missing: parcel.last_missing,
            unconfirmed: parcel.unconfirmed,
            away_ms: parcel.away_ms,
            entries: parcel.entries.iter().map(entry).collect(),
            repeats: parcel.repeats.iter().map(WireRepeat::from).collect(),
        }
    }
}

impl WireParcel {
    /// A message that is not valid is left out: the mailbox then has a gap.
    pub(in crate::cluster) fn read(self) -> Parcel {
        let mut last_missing = self.last_missing;
        let mut entries = Vec::with_capacity(self.entries.len());
        for entry in self.entries {
            match entry.message.read() {
                Some(message) => {
                    entries.push(ParcelEntry { seq: entry.seq, message, age_ms: entry.age_ms, ttl_ms: entry.ttl_ms });
                }
                None => last_missing = last_missing.max(entry.seq),
            }
        }
        Parcel {
            epoch: self.epoch,
            newest_page: self.newest_page,
            page: self.page,
            generation: self.generation,
            last: self.last,
            handed_over: self.handed_over,
            last_missing,
            unconfirmed: self.unconfirmed,
            away_ms: self.away_ms,
            entries,
            repeats: self.repeats.iter().filter_map(WireRepeat::read).collect(),
        }
    }
}
