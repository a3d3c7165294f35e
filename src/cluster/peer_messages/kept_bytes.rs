//! Messages between nodes of each release, kept as bytes in `tests/fixtures/nodes`: this release reads those of the ones before it.
//!
//! A change of the bytes of the coming release fails here, and the failure prints its new file. The file of a release that is out never
//! changes. If a newer field makes an old message read as something else than it says here, give it what it means without the field.

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use super::*;
use crate::{
    auth::TenantUser,
    cluster::directory::NodeId,
    hub::{Parcel, ParcelEntry, Repeat, Standing, Waiting, Waits},
    model::{Address, Cursor, Data, DeviceId, EventName, Outcome, Sender, Start, UserId},
};

/// One message of each kind, with its name.
struct Sample {
    name: &'static str,
    bytes: Bytes,
}

fn bob() -> TenantAddress {
    TenantAddress::of(&Address::new("bob", "phone").expect("ids"))
}

fn in_tenant() -> TenantAddress {
    let user = TenantUser::from_node("acme\0b\u{f6}b").expect("ids");
    TenantAddress { user, device: DeviceId::new("\u{1f4f1} 7").expect("an id") }
}

fn message(device: Option<&str>, event: Option<&str>) -> Message {
    let device = device.map(|device| DeviceId::new(device).expect("an id"));
    Message {
        from: device.map(|device| Sender { user: UserId::new("ana").expect("an id"), device: Some(device) }),
        event: event.map(|event| EventName::new(event).expect("a name")),
        data: Data::new("{\"sdp\": \"v=0\\n\"}").expect("not empty"),
        sent_at: UNIX_EPOCH + Duration::from_millis(1_764_363_600_123),
    }
}

fn parcel() -> Parcel {
    let entry = |seq, ttl_ms| ParcelEntry { seq, message: message(Some("laptop"), None), age_ms: 1_500, ttl_ms };
    Parcel {
        epoch: 0x5cbd_c0ff_b7f2_c7a7,
        newest_page: 3,
        page: 2,
        generation: 9,
        last: 41,
        handed_over: 40,
        last_missing: 12,
        unconfirmed: 39,
        away_ms: 30_000,
        entries: vec![entry(40, 0), entry(41, 60_000)],
        repeats: vec![repeat(Outcome::Held)],
    }
}

fn repeat(outcome: Outcome) -> Repeat {
    Repeat { key: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, seq: 41, outcome, age_ms: 2_000 }
}

fn asks() -> [(&'static str, Ask); 8] {
    let sending = Sending { ttl_ms: 30_000, key: Some(7) };
    let take = |start: Start| Ask::Take(TakeAsk { address: (&bob()).into(), term: TERM, start: start.into() });
    let waiting = |waits, repeat| Waiting { message: message(None, Some("offer")), waits, repeat };
    let held = Waits::Held { rest_ms: 9_000 };
    let waiting = [
        waiting(held, Some(repeat(Outcome::Delivered))),
        waiting(held, None),
        waiting(Waits::Window { over_ms: 4_000 }, None),
    ];
    let user = in_tenant().user.as_text().to_owned();
    let wanted = |device: &str| WantedDevice { device: device.to_owned(), term: TERM };
    [
        ("push", Ask::Push(PushAsk::new(&in_tenant(), TERM, &message(Some("laptop"), Some("offer")), sending))),
        ("take-anew", take(Start::Anew)),
        ("take-unreadable", take(Start::Unreadable)),
        ("take-after", take(Start::After(Cursor { epoch: 0x5cbd, page: 2, seq: 40 }))),
        (
            "hole",
            Ask::Hole(HoleAsk {
                address: (&bob()).into(),
                epoch: 0x5cbd,
                term: TERM,
                waiting: waiting.iter().map(WireWaiting::from).collect(),
            }),
        ),
        (
            "adopt",
            Ask::Adopt(AdoptAsk {
                mailboxes: vec![Adopted { address: (&bob()).into(), term: TERM, parcel: (&parcel()).into() }],
            }),
        ),
        ("live", Ask::Live(LiveAsk { user: user.clone(), devices: vec![wanted("phone"), wanted("laptop")] })),
        (
            "broadcast",
            Ask::Broadcast(BroadcastAsk {
                user,
                devices: vec!["phone".to_owned()],
                message: (&message(None, None)).into(),
            }),
        ),
    ]
}

fn says() -> [(&'static str, Say); 5] {
    [
        ("plain", Say::Plain(Plain::Refused.into())),
        ("pushed", Say::Pushed(Pushed::MailboxFull.into())),
        ("parcel", Say::Parcel((&parcel()).into())),
        ("alive", Say::Live(LiveSay { devices: vec![presence()] })),
        (
            "delivered",
            Say::Delivered(DeliveredSay { devices: vec!["phone".to_owned(), "laptop".to_owned()], refused: 0 }),
        ),
    ]
}

fn presence() -> LiveDevice {
    let standing = Standing { term: TERM, era: 3, epoch: 0x5cbd, number: 19, live: Some((0x5cbd, 2)) };
    LiveDevice::of(&in_tenant().device, &standing, NodeId(0xb))
}

fn request(ask: Ask) -> Request {
    Request { token: 77, from: 0xa, sent_ms: 1_764_363_600_456, patience_ms: 350, ask: Some(ask) }
}

/// Every message, as this release writes it.
fn samples() -> Vec<Sample> {
    let requests = asks().map(|(name, ask)| Sample { name, bytes: request(ask).to_bytes() });
    let replies = says().map(|(name, say)| Sample { name, bytes: Reply { token: 77, say: Some(say) }.to_bytes() });
    let presence = Sample { name: "presence", bytes: presence().to_presence() };
    requests.into_iter().chain(replies).chain([presence]).collect()
}

/// The text of a file: a name and its bytes in each line.
fn file(samples: &[Sample]) -> String {
    let mut text = String::new();
    for Sample { name, bytes } in samples {
        let _never_fails = write!(text, "{name} ");
        bytes.iter().for_each(|byte| {
            let _never_fails = write!(text, "{byte:02x}");
        });
        text.push('\n');
    }
    text
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// The files of all releases: version and text.
fn kept() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nodes");
    let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    files.map(|path| (name(&path), std::fs::read_to_string(&path).expect("UTF-8"))).collect()
}

/// What a message says, for a comparison.
fn read(bytes: &[u8]) -> Option<String> {
    match bytes.first()? {
        b'A' => read_reply(bytes).map(|reply| format!("{reply:?}")),
        b'P' => read_presence(bytes).map(|device| format!("{device:?}")),
        _ => match read_incoming(bytes)? {
            Incoming::Request(request) => Some(format!("{request:?}")),
            Incoming::Notice(notice) => Some(format!("{notice:?}")),
        },
    }
}

#[test]
fn the_messages_of_each_release_are_read_as_what_they_say() {
    let (kept, samples) = (kept(), samples());
    assert!(!kept.is_empty());
    for (version, text) in kept {
        for line in text.lines() {
            let (name, hex) = line.split_once(' ').expect("a name and bytes");
            let sample = samples.iter().find(|sample| sample.name == name);
            let sample = sample.unwrap_or_else(|| panic!("{version}: {name} is sent no more, but must be read"));
            assert_eq!(read(&bytes(hex)), read(&sample.bytes), "{version}: {name}");
        }
    }
}

#[test]
fn this_release_writes_the_bytes_that_are_kept_of_it() {
    let ours = file(&samples());
    let kept = kept().into_iter().find(|(version, _)| version == env!("CARGO_PKG_VERSION")).map(|(_, text)| text);
    assert!(
        kept.as_deref() == Some(&ours),
        "if the release {} is not out yet, this belongs into tests/fixtures/nodes/{0}.txt:\n{ours}",
        env!("CARGO_PKG_VERSION")
    );
}

#[test]
fn every_kind_of_message_is_kept() {
    let names: Vec<_> = samples().iter().map(|sample| sample.name).collect();
    for (index, name) in names.iter().enumerate() {
        assert!(!names[..index].contains(name), "{name} stands twice");
    }
    // No `_` arm: a new kind of message has to be kept before this compiles.
    for (_, ask) in asks() {
        match ask {
            Ask::Push(_) | Ask::Take(_) | Ask::Hole(_) | Ask::Adopt(_) | Ask::Live(_) | Ask::Broadcast(_) => {}
        }
    }
    for (_, say) in says() {
        match say {
            Say::Plain(_) | Say::Pushed(_) | Say::Parcel(_) | Say::Live(_) | Say::Delivered(_) => {}
        }
    }
}

#[test]
fn what_a_newer_release_adds_is_ignored() {
    // Field 99, a text, and field 100, a number.
    let added = [0x9a, 0x06, 0x03, b'n', b'e', b'w', 0xa0, 0x06, 0x2a];
    for Sample { name, bytes } in samples() {
        let newer = [&bytes[..], &added].concat();
        assert_eq!(read(&newer), read(&bytes), "{name}");
    }
    // A question that this release does not know is a request without one, and not a fault of the connection.
    let unknown = Request { ask: None, ..request(asks()[0].1.clone()) };
    let newer = [&unknown.to_bytes()[..], &added].concat();
    assert_eq!(read(&newer), Some(format!("{unknown:?}")));
    let reply = Reply { token: 77, say: Some(Say::Pushed(4_711)) };
    assert_eq!(Pushed::try_from(4_711).unwrap_or(Pushed::Unknown), Pushed::Unknown);
    assert!(read_reply(&reply.to_bytes()).is_some());
}

const TERM: Term = 1_764_363_600_000_001;
