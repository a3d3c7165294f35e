//! What nodes say to each other, as protobuf: two neighbouring releases understand each other, because new fields are ignored.
//!
//! The first byte says what follows: `R` a request, `A` an answer, `P` presence, `N` a notice (text, written by the scripts).

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message as _;

use super::directory::NodeId;
use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    hub::{Parcel, ParcelEntry, Repeat, Sending, Standing, Term, Waiting},
    model::{Cursor, Data, DeviceId, EventName, Message, Outcome, Sender, Start, UserId},
    wall_clock,
};

/// A request to another node.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    /// Chosen by the sender; the answer repeats it.
    #[prost(fixed64, tag = "1")]
    pub(super) token: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) from: u64,
    /// When it was sent, by the clock of the directory, in milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub(super) sent_ms: u64,
    /// For how long the sender waits: an older request is dropped.
    #[prost(uint32, tag = "4")]
    pub(super) patience_ms: u32,
    #[prost(oneof = "Ask", tags = "10, 11, 12, 13, 14, 15")]
    pub(super) ask: Option<Ask>,
}

/// What is asked.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Ask {
    #[prost(message, tag = "10")]
    Push(PushAsk),
    #[prost(message, tag = "11")]
    Take(TakeAsk),
    #[prost(message, tag = "12")]
    Hole(HoleAsk),
    #[prost(message, tag = "13")]
    Adopt(AdoptAsk),
    #[prost(message, tag = "14")]
    Live(LiveAsk),
    #[prost(message, tag = "15")]
    Broadcast(BroadcastAsk),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PushAsk {
    #[prost(message, required, tag = "1")]
    pub(super) address: WireAddress,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(message, required, tag = "3")]
    pub(super) message: WireMessage,
    #[prost(uint64, tag = "4")]
    pub(super) ttl_ms: u64,
    /// 16 bytes, or none.
    #[prost(bytes = "vec", tag = "5")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TakeAsk {
    #[prost(message, required, tag = "1")]
    pub(super) address: WireAddress,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(message, required, tag = "3")]
    pub(super) start: WireStart,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HoleAsk {
    #[prost(message, required, tag = "1")]
    pub(super) address: WireAddress,
    #[prost(fixed64, tag = "2")]
    pub(super) epoch: u64,
    #[prost(message, repeated, tag = "3")]
    pub(super) waiting: Vec<WireWaiting>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AdoptAsk {
    #[prost(message, repeated, tag = "1")]
    pub(super) mailboxes: Vec<Adopted>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Adopted {
    #[prost(message, required, tag = "1")]
    pub(super) address: WireAddress,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(message, required, tag = "3")]
    pub(super) parcel: WireParcel,
}

/// Which of these devices are live.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LiveAsk {
    #[prost(string, tag = "1")]
    pub(super) user: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) devices: Vec<WantedDevice>,
}

/// A device, and the term of the entry that names the node that is asked.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WantedDevice {
    #[prost(string, tag = "1")]
    pub(super) device: String,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BroadcastAsk {
    #[prost(string, tag = "1")]
    pub(super) user: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) devices: Vec<String>,
    #[prost(message, required, tag = "3")]
    pub(super) message: WireMessage,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireAddress {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    device: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireStart {
    #[prost(message, optional, tag = "1")]
    after: Option<WireCursor>,
    #[prost(bool, tag = "2")]
    unreadable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireCursor {
    #[prost(fixed64, tag = "1")]
    epoch: u64,
    #[prost(uint32, tag = "2")]
    page: u32,
    #[prost(uint64, tag = "3")]
    seq: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireMessage {
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
pub(super) struct WireWaiting {
    #[prost(message, required, tag = "1")]
    message: WireMessage,
    #[prost(uint64, tag = "2")]
    ttl_ms: u64,
    #[prost(message, optional, tag = "3")]
    repeat: Option<WireRepeat>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireParcel {
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
pub(super) struct WireEntry {
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
pub(super) struct WireRepeat {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bool, tag = "2")]
    held: bool,
    #[prost(uint64, tag = "3")]
    age_ms: u64,
    #[prost(uint64, tag = "4")]
    seq: u64,
}

/// The answer to a request.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Reply {
    #[prost(fixed64, tag = "1")]
    pub(super) token: u64,
    #[prost(oneof = "Say", tags = "10, 11, 12, 13, 14")]
    pub(super) say: Option<Say>,
}

/// What is answered.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Say {
    #[prost(enumeration = "Plain", tag = "10")]
    Plain(i32),
    #[prost(enumeration = "Pushed", tag = "11")]
    Pushed(i32),
    #[prost(message, tag = "12")]
    Parcel(WireParcel),
    #[prost(message, tag = "13")]
    Live(LiveSay),
    #[prost(message, tag = "14")]
    Delivered(DeliveredSay),
}

/// An answer without content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Plain {
    /// Of a newer release.
    Unknown = 0,
    Ok = 1,
    /// The mailbox is on its way: ask again.
    Moving = 2,
    NotHere = 3,
    /// A newer page is connected.
    Refused = 4,
    Full = 5,
}

/// What became of a pushed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Pushed {
    Unknown = 0,
    Delivered = 1,
    Held = 2,
    Absent = 3,
    MailboxFull = 4,
    OverBudget = 5,
    OverHoldBudget = 6,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LiveSay {
    #[prost(message, repeated, tag = "1")]
    pub(super) devices: Vec<LiveDevice>,
}

/// One device of a [`LiveSay`], and the presence that is published.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LiveDevice {
    #[prost(string, tag = "1")]
    pub(super) device: String,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(uint64, tag = "3")]
    pub(super) number: u64,
    #[prost(fixed64, tag = "4")]
    pub(super) epoch: u64,
    #[prost(uint32, tag = "5")]
    pub(super) page: u32,
    #[prost(bool, tag = "6")]
    pub(super) live: bool,
    /// The mailbox is on its way: look again.
    #[prost(bool, tag = "7")]
    pub(super) moving: bool,
    #[prost(fixed64, tag = "8")]
    pub(super) node: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DeliveredSay {
    #[prost(string, repeated, tag = "1")]
    pub(super) devices: Vec<String>,
}

/// What a script tells the node that lost an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// A parcel of this term was opened elsewhere.
    Moved(TenantAddress, Term),
    /// Another node has a mailbox of this term.
    Yield(TenantAddress, Term),
}

/// What comes in on the channel of requests.
pub(super) enum Incoming {
    Request(Request),
    Notice(Notice),
}

/// Reads what came in on the channel of requests. `None`: it is of no release that this one knows.
pub(super) fn read_incoming(bytes: &[u8]) -> Option<Incoming> {
    match bytes.split_first()? {
        (b'R', rest) => Request::decode(rest).ok().map(Incoming::Request),
        (b'N', rest) => notice(rest).map(Incoming::Notice),
        _ => None,
    }
}

/// Reads an answer.
pub(super) fn read_reply(bytes: &[u8]) -> Option<Reply> {
    let (b'A', rest) = bytes.split_first()? else { return None };
    Reply::decode(rest).ok()
}

/// Reads a device's presence.
pub(super) fn read_presence(bytes: &[u8]) -> Option<LiveDevice> {
    let (b'P', rest) = bytes.split_first()? else { return None };
    LiveDevice::decode(rest).ok()
}

fn notice(text: &[u8]) -> Option<Notice> {
    let text = std::str::from_utf8(text).ok()?;
    let (kind, rest) = text.split_at_checked(1)?;
    let (term, rest) = rest.split_once(' ')?;
    let (length, rest) = rest.split_once(' ')?;
    let (user, device) = rest.split_at_checked(length.parse().ok()?)?;
    let address = address(user, device)?;
    let term = term.parse().ok()?;
    match kind {
        "M" => Some(Notice::Moved(address, term)),
        "Y" => Some(Notice::Yield(address, term)),
        _ => None,
    }
}

/// The bytes of a message after its first letter.
fn write(letter: u8, message: &impl prost::Message) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(letter);
    message.encode_raw(&mut bytes);
    bytes.into()
}

impl Request {
    pub(super) fn to_bytes(&self) -> Bytes {
        write(b'R', self)
    }
}

impl Reply {
    pub(super) fn to_bytes(&self) -> Bytes {
        write(b'A', self)
    }
}

impl LiveDevice {
    pub(super) fn of(device: &DeviceId, standing: &Standing, node: NodeId) -> Self {
        let (epoch, page) = standing.live.unwrap_or((standing.epoch, 0));
        Self {
            device: device.as_str().to_owned(),
            term: standing.term,
            number: standing.number,
            epoch,
            page,
            live: standing.live.is_some(),
            moving: false,
            node: node.0,
        }
    }

    /// A device whose mailbox is on its way.
    pub(super) fn moving(device: &DeviceId, term: Term, node: NodeId) -> Self {
        let device = device.as_str().to_owned();
        Self { device, term, moving: true, node: node.0, ..Self::default() }
    }

    pub(super) fn to_presence(&self) -> Bytes {
        write(b'P', self)
    }
}

fn address(user: &str, device: &str) -> Option<TenantAddress> {
    Some(TenantAddress { user: TenantUser::from_node(user).ok()?, device: DeviceId::new(device).ok()? })
}

impl WireAddress {
    pub(super) fn read(&self) -> Option<TenantAddress> {
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
    pub(super) fn read(self) -> Option<Message> {
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
        Self {
            message: (&waiting.message).into(),
            ttl_ms: waiting.ttl_ms,
            repeat: waiting.repeat.as_ref().map(WireRepeat::from),
        }
    }
}

impl WireWaiting {
    pub(super) fn read(self) -> Option<Waiting> {
        let repeat = self.repeat.and_then(|repeat| repeat.read());
        Some(Waiting { message: self.message.read()?, ttl_ms: self.ttl_ms, repeat })
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

impl PushAsk {
    pub(super) fn new(address: &TenantAddress, term: Term, message: &Message, sending: Sending) -> Self {
        let key = sending.key.map(|key| key.to_be_bytes().to_vec()).unwrap_or_default();
        Self { address: address.into(), term, message: message.into(), ttl_ms: sending.ttl_ms, key }
    }

    pub(super) fn sending(&self) -> Sending {
        Sending { ttl_ms: self.ttl_ms, key: key(&self.key) }
    }
}

fn key(bytes: &[u8]) -> Option<u128> {
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
    pub(super) fn read(self) -> Parcel {
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

impl From<Result<Outcome, Error>> for Pushed {
    fn from(answer: Result<Outcome, Error>) -> Self {
        match answer {
            Ok(Outcome::Delivered) => Self::Delivered,
            Ok(Outcome::Held) => Self::Held,
            Err(Error::NotConnected) => Self::Absent,
            Err(Error::MailboxFull(_)) => Self::MailboxFull,
            Err(Error::OVER_HOLD_BUDGET) => Self::OverHoldBudget,
            Err(_) => Self::OverBudget,
        }
    }
}

impl From<Pushed> for Result<Outcome, Error> {
    fn from(pushed: Pushed) -> Self {
        match pushed {
            Pushed::Delivered => Ok(Outcome::Delivered),
            Pushed::Held => Ok(Outcome::Held),
            Pushed::Absent => Err(Error::NotConnected),
            Pushed::MailboxFull => Err(Error::MAILBOX_FULL),
            Pushed::OverHoldBudget => Err(Error::OVER_HOLD_BUDGET),
            Pushed::OverBudget => Err(Error::OVER_BUDGET),
            // A newer release refused it for a reason that this one does not know.
            Pushed::Unknown => Err(Error::UNREACHABLE),
        }
    }
}
