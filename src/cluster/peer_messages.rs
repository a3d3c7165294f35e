//! What nodes say to each other, as protobuf: two neighbouring releases understand each other, because new fields are ignored.
//!
//! The first byte says what follows: `R` a request, `A` an answer, `P` presence, `N` a notice (text, written by the scripts).

mod framing;
#[cfg(test)]
mod kept_bytes;
mod live_device;
mod message_parts;
mod push_answer;

use bytes::Bytes;

use self::{framing::write, message_parts::key};
pub(super) use self::{
    framing::{Incoming, Notice, read_incoming, read_presence, read_reply},
    live_device::LiveDevice,
    message_parts::{LARGEST_PARCEL, WireAddress, WireMessage, WireParcel, WireStart, WireWaiting},
    push_answer::Pushed,
};
use crate::{
    auth::TenantAddress,
    hub::{Sending, Term},
    model::Message,
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
    /// The term of the entry that names the node that is asked.
    #[prost(uint64, tag = "4")]
    pub(super) term: u64,
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
    /// Parcels fill the link of the node that asks: ask again later.
    Busy = 6,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LiveSay {
    #[prost(message, repeated, tag = "1")]
    pub(super) devices: Vec<LiveDevice>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DeliveredSay {
    #[prost(string, repeated, tag = "1")]
    pub(super) devices: Vec<String>,
    /// Why a live device did not get it. `Unknown`: each of them got it.
    #[prost(enumeration = "Pushed", tag = "2")]
    pub(super) refused: i32,
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

impl PushAsk {
    pub(super) fn new(address: &TenantAddress, term: Term, message: &Message, sending: Sending) -> Self {
        let key = sending.key.map(|key| key.to_be_bytes().to_vec()).unwrap_or_default();
        Self { address: address.into(), term, message: message.into(), ttl_ms: sending.ttl_ms, key }
    }

    pub(super) fn sending(&self) -> Sending {
        Sending { ttl_ms: self.ttl_ms, key: key(&self.key) }
    }
}
