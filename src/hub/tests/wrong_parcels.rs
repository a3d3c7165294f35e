//! Parcels that no mailbox has made: with any numbers, or without some of their messages.

use proptest::{collection::vec, prelude::*};

use super::{
    super::{
        Parcel, ParcelEntry, Sending,
        log::{ENTRY_BYTES, REPLAY, WAITING},
        mailbox::Mailbox,
        time::Millis,
    },
    mailbox_properties::{EPOCH, message},
    moved_mailbox::{OLDEST, World, op, read},
};
use crate::model::{Continuity, Cursor, Data, Message, Start};

/// A parcel with any numbers.
fn any_parcel() -> impl Strategy<Value = Parcel> {
    let number = || prop_oneof![4 => 0..400u64, 1 => 1 << 40..1u64 << 50, 1 => 1u64 << 63..=u64::MAX];
    let page = || prop_oneof![4 => 0..4u32, 1 => 1u32 << 31..=u32::MAX];
    let entry = (number(), 1..20_000usize, number(), number()).prop_map(|(seq, bytes, age_ms, ttl_ms)| ParcelEntry {
        seq,
        message: Message::clone(&message(Data::new("x".repeat(bytes)).expect("not empty"))),
        age_ms,
        ttl_ms,
    });
    let numbers = (number(), number(), number(), number(), number());
    (numbers, page(), page(), any::<u32>(), vec(entry, 0..100), any::<bool>()).prop_map(
        |(
            (last, handed_over, last_missing, unconfirmed, away_ms),
            newest_page,
            page,
            generation,
            mut entries,
            sorted,
        )| {
            if sorted {
                entries.sort_by_key(|entry| entry.seq);
            }
            Parcel {
                epoch: EPOCH,
                newest_page,
                page,
                generation,
                last,
                handed_over,
                last_missing,
                unconfirmed,
                away_ms,
                entries,
                repeats: Vec::new(),
            }
        },
    )
}

fn open(parcel: Parcel) -> Mailbox {
    Mailbox::restore(parcel, 1, Millis(OLDEST), |message, _| self::message(message.data))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_wrong_parcel_breaks_nothing_and_keeps_the_bounds(parcel in any_parcel(), other in vec(op(), 1..30)) {
        let mut world = World::of(open(parcel.clone()), open(parcel));
        prop_assert!(world.stays.memory() <= (REPLAY + WAITING) * ENTRY_BYTES);
        for op in &other {
            world.apply(op);
        }
    }

    #[test]
    fn a_message_that_a_parcel_lacks_is_a_gap(
        count in 1..30usize, handed_over in 0..30u64, lost in vec(any::<prop::sample::Index>(), 1..3), after in 0..30u64,
        swapped in any::<bool>(),
    ) {
        let mut mailbox = Mailbox::new(EPOCH, Millis(OLDEST));
        let stream = mailbox.attach(Start::Anew, 15_000, Millis(OLDEST)).expect("free");
        for number in 1..=count {
            let shared = message(Data::new(number.to_string()).expect("not empty"));
            mailbox.push(shared, Sending::default(), Millis(OLDEST)).expect("room");
        }
        for _ in 0..handed_over {
            read((&mut mailbox, Millis(OLDEST)), stream);
        }
        let mut parcel = mailbox.depart(None, Millis(OLDEST)).expect("any stream");
        let mut missing = Vec::new();
        for index in &lost {
            if !parcel.entries.is_empty() {
                missing.push(parcel.entries.remove(index.index(parcel.entries.len())).seq);
            }
        }
        if swapped && parcel.entries.len() > 1 {
            missing.push(parcel.entries[0].seq);
            parcel.entries.swap(0, 1);
        }
        let mut mailbox = open(parcel);
        let start = Start::After(Cursor { seq: after.min(handed_over).min(count as u64), ..stream.cursor });
        let Start::After(cursor) = start else { unreachable!() };
        let attached = mailbox.attach(start, 15_000, Millis(OLDEST)).expect("free");
        let is_gap = missing.iter().any(|seq| *seq > cursor.seq);
        prop_assert_eq!(attached.continuity, if is_gap { Continuity::Broken } else { Continuity::Resumed });
        let mut newest = attached.cursor.seq;
        while let Some((cursor, message, _)) = read((&mut mailbox, Millis(OLDEST)), attached) {
            prop_assert!(cursor.seq > newest && message.data.as_str() == cursor.seq.to_string());
            newest = cursor.seq;
        }
    }
}
