//! Repeated sends: a mailbox remembers the outcomes of its last messages with an idempotency key, so that a sender who got no answer
//! can send again and nothing is delivered twice. Pure: time is an argument.

use std::collections::VecDeque;

use ring::digest::{Context, SHA256};

use super::{parcel::Repeat, time::Millis};
use crate::{
    auth::Caller,
    limits::AddressKey,
    model::{DeviceId, IdempotencyKey, Outcome, TenantId, UserId},
};

/// How many outcomes one mailbox remembers. The oldest one makes room for a new one.
pub(super) const REPEATS: usize = 64;
/// For how long an outcome is remembered, in milliseconds.
pub(super) const REPEAT_MS: u64 = 60_000;
/// Bytes of memory that a mailbox needs for an outcome, with the unused part of the queue.
pub(super) const REPEAT_BYTES: usize = 64;

/// What names a send for a mailbox: 128 bits of a hash over the caller and its key.
///
/// The caller is the user, in its tenant, and the device if the identity is bound to it. An anonymous caller is its address: an IPv6
/// address stands for its /64 network. Each part stands behind its length, so that no part can continue another one. An absent part is
/// empty, which no id is.
pub(super) fn digest(caller: &Caller, key: &IdempotencyKey) -> u128 {
    let address = caller.user().is_none().then(|| AddressKey::of(caller.ip()).to_bits().to_le_bytes());
    let parts = [
        caller.tenant().map_or("", TenantId::as_str).as_bytes(),
        caller.user().map_or("", UserId::as_str).as_bytes(),
        caller.bound_device().map_or("", DeviceId::as_str).as_bytes(),
        address.as_ref().map_or(&[], |address| address.as_slice()),
        key.as_str().as_bytes(),
    ];
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let hash = context.finish();
    hash.as_ref().iter().take(16).fold(0, |bits, byte| bits << 8 | u128::from(*byte))
}

/// The outcomes that one mailbox remembers, in the order of their sends.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "most mailboxes remember nothing, and then this is 8 bytes instead of 32")]
pub(super) struct Repeats(Option<Box<VecDeque<Remembered>>>);

#[derive(Debug)]
struct Remembered {
    /// The two halves of the key. As one number they would take eight bytes more.
    key: [u64; 2],
    seq: u64,
    until: Millis,
    outcome: Outcome,
}

impl Repeats {
    /// The outcomes of a mailbox that has moved.
    pub(super) fn restore(repeats: Vec<Repeat>, now: Millis) -> Self {
        let mut remembered = Self::default();
        for repeat in repeats {
            remembered.remember(repeat, now);
        }
        remembered
    }

    /// The outcome of an earlier message with this key.
    pub(super) fn outcome(&self, key: u128, now: Millis) -> Option<Outcome> {
        let remembered = self.iter().find(|remembered| remembered.key == halves(key) && remembered.until > now)?;
        Some(remembered.outcome)
    }

    /// Remembers an outcome. Forgets what is too old, or too much.
    pub(super) fn remember(&mut self, repeat: Repeat, now: Millis) {
        self.forget_old(now);
        let Repeat { key, outcome, seq, age_ms } = repeat;
        let Some(rest) = REPEAT_MS.checked_sub(age_ms).filter(|rest| *rest > 0) else { return };
        let remembered = self.0.get_or_insert_default();
        if remembered.len() >= REPEATS {
            remembered.pop_front();
        }
        remembered.push_back(Remembered { key: halves(key), seq, until: now.after(rest), outcome });
    }

    /// Forgets the outcomes that are too old, and frees their memory.
    pub(super) fn forget_old(&mut self, now: Millis) {
        let Some(remembered) = &mut self.0 else { return };
        while remembered.front().is_some_and(|oldest| oldest.until <= now) {
            remembered.pop_front();
        }
        self.0.take_if(|remembered| remembered.is_empty());
    }

    /// All outcomes, oldest first, for a mailbox that moves.
    pub(super) fn to_parcel(&self, now: Millis) -> Vec<Repeat> {
        let repeat = |remembered: &Remembered| {
            let Remembered { key: [high, low], outcome, seq, until } = *remembered;
            let key = u128::from(high) << 64 | u128::from(low);
            Repeat { key, outcome, seq, age_ms: REPEAT_MS.saturating_sub(until.since(now)) }
        };
        self.iter().filter(|remembered| remembered.until > now).map(repeat).collect()
    }

    /// The bytes of memory that all outcomes take.
    pub(super) fn memory(&self) -> usize {
        self.0.as_ref().map_or(0, |remembered| remembered.len() * REPEAT_BYTES)
    }

    fn iter(&self) -> impl Iterator<Item = &Remembered> {
        self.0.iter().flat_map(|remembered| remembered.iter())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
fn halves(key: u128) -> [u64; 2] {
    [(key >> 64) as u64, key as u64]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Address;

    fn repeat(key: u128, age_ms: u64) -> Repeat {
        Repeat { key, outcome: Outcome::Held, seq: 7, age_ms }
    }

    #[test]
    fn an_outcome_is_remembered_for_a_minute_and_only_the_last_64() {
        let mut repeats = Repeats::default();
        for key in 0..=64 {
            repeats.remember(repeat(key, 0), Millis(1_000));
        }
        assert_eq!(repeats.memory(), 64 * REPEAT_BYTES);
        assert_eq!([0, 1, 64].map(|key| repeats.outcome(key, Millis(60_999)).is_some()), [false, true, true]);
        assert_eq!(repeats.outcome(64, Millis(61_000)), None);
        repeats.forget_old(Millis(60_999));
        assert_eq!(repeats.memory(), 64 * REPEAT_BYTES);
        repeats.forget_old(Millis(61_000));
        assert!(repeats.0.is_none(), "an idle mailbox has no memory for it");
    }

    #[test]
    fn outcomes_that_move_to_another_clock_keep_their_ages() {
        let mut repeats = Repeats::default();
        repeats.remember(repeat(u128::MAX - 1, 0), Millis(100_000));
        repeats.remember(repeat(1, 0), Millis(130_000));
        let moved = repeats.to_parcel(Millis(131_000));
        assert_eq!(moved, [repeat(u128::MAX - 1, 31_000), repeat(1, 1_000)]);
        // The other clock is younger than the outcomes.
        let mut there = Repeats::restore(moved, Millis(5));
        assert_eq!(
            [28_999, 29_000].map(|rest| there.outcome(u128::MAX - 1, Millis(5 + rest)).is_some()),
            [true, false]
        );
        assert_eq!([58_999, 59_000].map(|rest| there.outcome(1, Millis(5 + rest)).is_some()), [true, false]);
        there.remember(repeat(2, REPEAT_MS), Millis(5));
        assert_eq!(there.outcome(2, Millis(5)), None, "too old to be remembered");
    }

    #[test]
    fn the_same_key_of_another_caller_is_another_key() {
        let key = |text| IdempotencyKey::new(text).unwrap();
        let caller = |user, device| Caller::proven(Address::new(user, device).unwrap());
        let (bob, anonymous) = (caller("bob", "phone"), Caller::anonymous());
        let digests = [
            digest(&bob, &key("1")),
            digest(&bob, &key("2")),
            digest(&caller("bob", "phone1"), &key("1")),
            digest(&caller("bo", "bphone"), &key("1")),
            digest(&caller("bobp", "hone"), &key("1")),
            digest(&anonymous, &key("1")),
            digest(&anonymous, &key("phone1")),
            digest(&anonymous.clone().at("192.0.2.7"), &key("1")),
            digest(&anonymous.clone().at("2001:db8::1"), &key("1")),
        ];
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{index}");
        }
        assert_eq!(
            digest(&bob.clone().at("192.0.2.7"), &key("1")),
            digests[0],
            "a known caller may change its address"
        );
        assert_eq!(digest(&anonymous.at("2001:db8::2"), &key("1")), digests[8], "the same network");
    }
}
