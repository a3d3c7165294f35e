//! The first byte of what nodes say to each other, and the notices, which are text because scripts write them.

use bytes::Bytes;
use prost::Message as _;

use super::{LiveDevice, Reply, Request, message_parts::address};
use crate::{auth::TenantAddress, hub::Term};

/// What a script tells the node that lost an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Notice {
    /// A parcel of this term was opened elsewhere.
    Moved(TenantAddress, Term),
    /// Another node has a mailbox of this term.
    Yield(TenantAddress, Term),
}

/// What comes in on the channel of requests.
pub(in crate::cluster) enum Incoming {
    Request(Request),
    Notice(Notice),
}

/// Reads what came in on the channel of requests. `None`: it is of no release that this one knows.
pub(in crate::cluster) fn read_incoming(bytes: &[u8]) -> Option<Incoming> {
    match bytes.split_first()? {
        (b'R', rest) => Request::decode(rest).ok().map(Incoming::Request),
        (b'N', rest) => notice(rest).map(Incoming::Notice),
        _ => None,
    }
}

/// Reads an answer.
pub(in crate::cluster) fn read_reply(bytes: &[u8]) -> Option<Reply> {
    let (b'A', rest) = bytes.split_first()? else { return None };
    Reply::decode(rest).ok()
}

/// Reads a device's presence.
pub(in crate::cluster) fn read_presence(bytes: &[u8]) -> Option<LiveDevice> {
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
pub(super) fn write(letter: u8, message: &impl prost::Message) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(letter);
    message.encode_raw(&mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Address;

    #[test]
    fn a_notice_of_a_script_is_read_with_ids_of_any_form() {
        for (user, device) in [("bob", "phone"), ("a b", "\u{1f4f1} 7"), ("9 9 9", " ")] {
            let named = TenantAddress::of(&Address::new(user, device).expect("ids"));
            let text = |kind| format!("N{kind}1764363600000001 {} {user}{device}", user.len());
            let read = |text: String| match read_incoming(text.as_bytes()) {
                Some(Incoming::Notice(notice)) => Some(notice),
                _ => None,
            };
            assert_eq!(read(text("M")), Some(Notice::Moved(named.clone(), 1_764_363_600_000_001)));
            assert_eq!(read(text("Y")), Some(Notice::Yield(named, 1_764_363_600_000_001)));
        }
        for text in ["", "N", "NM", "NM5", "NM5 3", "NM5 99 bobphone", "NX5 3 bobphone", "NMx 3 bobphone", "NM5 3 bob"]
        {
            assert!(read_incoming(text.as_bytes()).is_none(), "{text}");
        }
    }
}
