//! A mailbox that leaves its node, comes from another one, or gets a hole. Pure: time is an argument.

use std::sync::Arc;

use super::{
    super::{
        Parcel, Repeat, Standing, Term, Waits,
        log::Log,
        repeats::Repeats,
        shared_message::SharedMessage,
        time::{Millis, Tick},
    },
    Mailbox,
};
use crate::{
    error::Error,
    model::{Message, Start},
};

/// No mailbox counts so far. A parcel with a higher page is wrong, and its mailbox goes on from half of this.
const HIGHEST_PAGE: u32 = 1 << 30;

impl Mailbox {
    /// A new mailbox of a term, with a hole if messages may have been lost before it.
    pub(in crate::hub) fn fresh(epoch: u64, term: Term, hole: bool, now: Millis) -> Self {
        let mailbox = if hole { Self::with_gap(epoch, now) } else { Self::new(epoch, now) };
        Self { term, ..mailbox }
    }

    pub(in crate::hub) fn term(&self) -> Term {
        self.term
    }

    /// Sets the term of a mailbox that has `known`. Says whether it has.
    pub(in crate::hub) fn confirm(&mut self, known: Term, new: Term) -> bool {
        let is_known = self.term == known;
        if is_known {
            self.term = new;
        }
        is_known
    }

    /// What other nodes may know of the mailbox, which was confirmed in an era.
    pub(in crate::hub) fn standing(&self, era: u32) -> Standing {
        let live = self.live_page();
        let number = 2 * u64::from(self.generation) + u64::from(live.is_none());
        Standing { term: self.term, era, epoch: self.epoch, number, live }
    }

    /// Gives everything away to a stream elsewhere that begins at `start`. The attached stream ends at its next poll, as if the new
    /// stream had been attached here; one that is ending already ends for its own reason. `None`: it leaves for another reason than a stream.
    ///
    /// # Errors
    /// [`Error::Superseded`] when a newer page is attached.
    pub(in crate::hub) fn depart(&mut self, start: Option<Start>, now: Millis) -> Result<Parcel, Error> {
        let page = start.map(|start| self.page_of(start)).transpose()?;
        if self.has_stream() {
            self.confirm_replayed(now);
            self.left_at = Tick::not_before(now);
        }
        self.stream = self.stream.take().filter(|stream| stream.ending.is_some());
        let log = std::mem::take(&mut self.log);
        let parcel = Parcel {
            epoch: self.epoch,
            newest_page: self.newest_page,
            page: self.page,
            generation: self.generation,
            last: log.last(),
            handed_over: log.handed_over(),
            last_missing: log.last_missing(),
            unconfirmed: self.unconfirmed,
            away_ms: now.since(self.left_at.time()),
            entries: log.pack(now),
            repeats: std::mem::take(&mut self.repeats).to_parcel(now),
        };
        if !self.has_stream() {
            self.generation = self.generation.wrapping_add(1);
        }
        self.page = page.unwrap_or(self.page);
        Ok(parcel)
    }

    /// The mailbox of a parcel. `share` gets a message and its age in milliseconds. What a wrong parcel has too much of is missing then.
    pub(in crate::hub) fn restore(
        mut parcel: Parcel,
        term: Term,
        now: Millis,
        share: impl FnMut(Message, u64) -> Arc<SharedMessage>,
    ) -> Self {
        let log = Log::unpack(&mut parcel, now, share);
        let newest_page = parcel.newest_page.max(parcel.page);
        let newest_page = if newest_page > HIGHEST_PAGE { HIGHEST_PAGE / 2 } else { newest_page };
        Self {
            term,
            epoch: parcel.epoch,
            newest_page,
            page: parcel.page.min(newest_page),
            generation: parcel.generation,
            unconfirmed: parcel.unconfirmed.min(log.last() + 1),
            log,
            repeats: Repeats::restore(parcel.repeats, now),
            stream: None,
            left_at: Tick::not_before(Millis(now.0.saturating_sub(parcel.away_ms))),
        }
    }

    /// Marks that messages before this point may be lost: ends the stream, then appends `waiting`, but for those whose time is
    /// over or that their senders have repeated here. The next stream is told `broken`. The old one gets nothing from behind the hole.
    pub(in crate::hub) fn hole(
        &mut self,
        waiting: Vec<(Arc<SharedMessage>, Waits, Option<Repeat>)>,
        window_ms: u64,
        now: Millis,
    ) {
        self.release(now);
        self.log.mark_gap();
        let mut all_fit = true;
        for (shared, waits, repeat) in waiting {
            if repeat.is_some_and(|repeat| self.repeats.outcome(repeat.key, now).is_some()) {
                continue;
            }
            let ttl_ms = match waits {
                Waits::Held { rest_ms } => Some(rest_ms).filter(|rest_ms| *rest_ms > 0),
                // As any message to a live stream that left without it: until the window ends, which begins again now.
                Waits::Window { over_ms } => (over_ms < window_ms).then_some(0),
            };
            let pushed = ttl_ms.and_then(|ttl_ms| self.log.push(shared, ttl_ms, now).ok());
            all_fit &= pushed.is_some();
            if let (Some(seq), Some(repeat)) = (pushed, repeat) {
                self.repeats.remember(Repeat { seq, ..repeat }, now);
            }
        }
        if !all_fit {
            self.log.mark_gap();
        }
        self.left_at = Tick::not_before(now);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::{
                ParcelEntry, Sending,
                log::{REPLAY, REPLAY_BYTES, REPLAY_MS},
                tests::mailbox_properties::{EPOCH, WINDOW_MS, message},
            },
            MAILBOX_BYTES, Next,
        },
        *,
    };
    use crate::model::{Continuity, Cursor, Data, EndReason, Outcome};

    const TERM: Term = 7;
    const LIVE: Sending = Sending { ttl_ms: 0, key: None };

    fn shared(text: &str) -> Arc<SharedMessage> {
        message(Data::new(text).expect("not empty"))
    }

    fn held(rest_ms: u64) -> Waits {
        Waits::Held { rest_ms }
    }

    /// The texts of the messages that a stream gets now.
    fn read(mailbox: &mut Mailbox, (generation, page): (u32, u32), now: Millis) -> Vec<String> {
        let next = || match mailbox.next(generation, page, now) {
            Next::Message(outgoing) => Some(outgoing.message.data.as_str().to_owned()),
            _ => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_stream_that_is_told_why_it_ends_is_told_also_when_its_mailbox_departs_first() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        let stream = mailbox.attach(Start::Anew, 15_000, Millis(0)).expect("free");
        mailbox.push(shared("waits"), LIVE, Millis(0)).expect("live");
        assert!(mailbox.end(EndReason::Draining));
        let parcel = mailbox.depart(None, Millis(40)).expect("nobody is newer");
        assert_eq!((parcel.entries.len(), parcel.away_ms), (1, 0), "what it did not get goes along");
        assert_eq!(mailbox.next(stream.generation, 1, Millis(80)), Next::End(EndReason::Draining));
        assert_eq!(mailbox.next(stream.generation, 1, Millis(80)), Next::Replaced);
    }

    #[test]
    fn a_stream_that_is_told_why_it_ends_is_told_also_when_a_hole_comes_first() {
        for reason in [EndReason::Draining, EndReason::Expired] {
            let mut mailbox = Mailbox::new(EPOCH, Millis(0));
            let stream = mailbox.attach(Start::Anew, 15_000, Millis(0)).expect("free");
            mailbox.push(shared("own"), LIVE, Millis(0)).expect("live");
            assert!(mailbox.end(reason));
            mailbox.hole(vec![(shared("one"), held(5_000), None)], WINDOW_MS, Millis(0));
            assert_eq!(mailbox.more(stream.generation, 1, Millis(0)), None, "nothing from the other side of the hole");
            assert_eq!(mailbox.next(stream.generation, 1, Millis(0)), Next::End(reason));
            assert_eq!(mailbox.next(stream.generation, 1, Millis(0)), Next::Replaced);
            let back = mailbox.attach(Start::After(stream.cursor), 15_000, Millis(0)).expect("the same page");
            assert_eq!(back.continuity, Continuity::Broken);
            assert_eq!(read(&mut mailbox, (back.generation, 1), Millis(0)), ["own", "one"]);
        }
    }

    #[test]
    fn a_stream_that_never_reads_why_it_ended_left_for_that_reason_also_when_a_hole_came_first() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        let stream = mailbox.attach(Start::Anew, 15_000, Millis(0)).expect("free");
        assert!(mailbox.end(EndReason::Draining));
        mailbox.hole(Vec::new(), WINDOW_MS, Millis(0));
        assert_eq!(mailbox.leave(stream.generation, 1, Millis(0)), Some(EndReason::Draining));
    }

    #[test]
    fn what_waits_behind_a_stream_that_only_has_to_read_its_reason_is_dropped_to_make_room() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        mailbox.attach(Start::Anew, 15_000, Millis(0)).expect("free");
        mailbox.push(shared("own"), LIVE, Millis(0)).expect("live");
        assert!(mailbox.end(EndReason::Draining));
        mailbox.release(Millis(0));
        assert_eq!(mailbox.drop_waiting(Millis(0)), 1);
    }

    #[test]
    fn a_hole_ends_the_stream_and_the_next_one_is_told_and_gets_what_waits_in_order() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        let first = mailbox.attach(Start::Anew, 15_000, Millis(0)).expect("free");
        mailbox.push(shared("own"), LIVE, Millis(0)).expect("live");
        let waiting = vec![
            (shared("one"), held(5_000), None),
            (shared("over"), held(0), None),
            (shared("two"), held(9_000), None),
        ];
        mailbox.hole(waiting, WINDOW_MS, Millis(0));
        assert_eq!(mailbox.next(first.generation, 1, Millis(0)), Next::Replaced);
        assert_eq!(mailbox.push(shared("none"), LIVE, Millis(0)), Err(Error::NotConnected));
        let back = mailbox.attach(Start::After(first.cursor), 15_000, Millis(1_000)).expect("the same page");
        assert_eq!((back.continuity, back.cursor.page), (Continuity::Broken, 1));
        assert_eq!(read(&mut mailbox, (back.generation, 1), Millis(1_000)), ["own", "one", "two"]);
    }

    #[test]
    fn a_message_that_waited_elsewhere_expires_after_the_rest_of_its_time() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        let waiting = vec![(shared("one"), held(5_000), None), (shared("two"), held(9_000), None)];
        mailbox.hole(waiting, WINDOW_MS, Millis(1_000));
        assert_eq!(mailbox.check(WINDOW_MS, Millis(6_000)).expired, 1);
        let stream = mailbox.attach(Start::Anew, 15_000, Millis(6_000)).expect("free");
        assert_eq!(read(&mut mailbox, (stream.generation, 1), Millis(6_000)), ["two"]);
    }

    #[test]
    fn a_message_to_a_live_stream_elsewhere_waits_for_a_window_unless_its_own_is_over() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        let sent = |text, over_ms| (shared(text), Waits::Window { over_ms }, None);
        mailbox.hole(vec![sent("late", WINDOW_MS), sent("one", WINDOW_MS - 1)], WINDOW_MS, Millis(1_000));
        assert_eq!(mailbox.held(), MAILBOX_BYTES, "nobody asked to hold it");
        let last = Millis(999 + WINDOW_MS);
        assert!(!mailbox.check(WINDOW_MS, last).remove);
        let stream = mailbox.attach(Start::Anew, 15_000, last).expect("free");
        assert_eq!((stream.continuity, stream.replayed), (Continuity::Broken, 1));
        assert_eq!(read(&mut mailbox, (stream.generation, 1), last), ["one"]);
    }

    #[test]
    fn a_hole_is_told_until_a_cursor_after_it_comes_or_a_stream_after_it_has_lived_for_a_minute() {
        for (lived_ms, shows_cursor, continuity) in [
            (REPLAY_MS, false, Continuity::New),
            (REPLAY_MS - 50, false, Continuity::Broken),
            (0, true, Continuity::Resumed),
        ] {
            let mut mailbox = Mailbox::fresh(EPOCH, 1, true, Millis(0));
            let told = mailbox.attach(Start::Anew, 15_000, Millis(0)).expect("free");
            assert_eq!(told.continuity, Continuity::Broken, "and not `new`");
            mailbox.detach(told.generation, Millis(lived_ms));
            let start = if shows_cursor { Start::After(told.cursor) } else { Start::Anew };
            let next = mailbox.attach(start, 15_000, Millis(lived_ms)).expect("free");
            assert_eq!(next.continuity, continuity, "after {lived_ms} ms");
        }
    }

    #[test]
    fn a_hole_keeps_a_mailbox_for_a_window() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        mailbox.hole(Vec::new(), WINDOW_MS, Millis(40_000));
        assert!(!mailbox.check(WINDOW_MS, Millis(WINDOW_MS)).remove);
        assert!(mailbox.check(WINDOW_MS, Millis(40_000 + WINDOW_MS)).remove);
    }

    #[test]
    fn a_parcel_with_more_messages_than_a_mailbox_keeps_loses_the_oldest_of_both_kinds_of_bound() {
        for (count, bytes) in [(REPLAY as u64 + 44, 1), (100, REPLAY_BYTES / 50)] {
            let entry =
                |seq| ParcelEntry { seq, message: Message::clone(&shared(&"x".repeat(bytes))), age_ms: 0, ttl_ms: 0 };
            let mut parcel = Mailbox::new(EPOCH, Millis(0)).depart(None, Millis(0)).expect("any stream");
            (parcel.last, parcel.handed_over, parcel.newest_page) = (count, count, 1);
            parcel.entries = (1..=count).map(entry).collect();
            let mut mailbox = restore(parcel, 1_000);
            let kept = mailbox.memory() as u64 / 64;
            assert!(kept <= REPLAY as u64 && kept * bytes as u64 <= REPLAY_BYTES as u64, "{kept}");
            for (seq, continuity) in [(count - kept, Continuity::Resumed), (count - kept - 1, Continuity::Broken)] {
                let start = Start::After(Cursor { epoch: EPOCH, page: 1, seq });
                let opened = mailbox.attach(start, 15_000, Millis(1_000));
                let opened = opened.map(|it| (it.continuity, u64::from(it.replayed)));
                assert_eq!(opened, Ok((continuity, kept)));
            }
        }
    }

    #[test]
    fn a_mailbox_that_came_with_numbers_beyond_all_bounds_still_opens_streams() {
        let far = u64::MAX;
        let parcel = Parcel {
            epoch: EPOCH,
            newest_page: u32::MAX,
            page: u32::MAX,
            generation: u32::MAX,
            last: far,
            handed_over: far,
            last_missing: far,
            unconfirmed: far,
            away_ms: far,
            entries: Vec::new(),
            repeats: Vec::new(),
        };
        let mut mailbox = Mailbox::restore(parcel, 1, Millis(1_000), |_, _| unreachable!("no message"));
        let stream = mailbox.attach(Start::Anew, 15_000, Millis(1_000)).expect("free");
        mailbox.push(shared("one"), LIVE, Millis(1_000)).expect("live");
        assert_eq!(read(&mut mailbox, (stream.generation, stream.cursor.page), Millis(1_000)), ["one"]);
        let back = mailbox.attach(Start::After(Cursor { seq: far, ..stream.cursor }), 15_000, Millis(1_000));
        assert_eq!(back.map(|back| back.continuity), Ok(Continuity::Broken));
    }

    /// What a mailbox answers to a message with this key at this time.
    fn push(mailbox: &mut Mailbox, key: u128, ttl_ms: u64, now: u64) -> Result<Outcome, Error> {
        mailbox.push(shared("offer"), Sending { ttl_ms, key: Some(key) }, Millis(now))
    }

    fn restore(parcel: Parcel, now: u64) -> Mailbox {
        let share = |it: Message, _| message(it.data);
        Mailbox::restore(parcel, TERM, Millis(now), share)
    }

    #[test]
    fn a_mailbox_that_has_moved_knows_the_keys_of_its_messages_for_the_rest_of_their_time() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(100_000));
        mailbox.attach(Start::Anew, 15_000, Millis(100_000)).expect("free");
        assert_eq!(push(&mut mailbox, 1, 0, 100_000), Ok(Outcome::Delivered));
        mailbox.release(Millis(100_000));
        assert_eq!(push(&mut mailbox, 2, 90_000, 100_000), Ok(Outcome::Held));
        let parcel = mailbox.depart(None, Millis(120_000)).expect("no stream");
        assert_eq!(parcel.repeats.iter().map(|it| (it.key, it.seq)).collect::<Vec<_>>(), [(1, 1), (2, 2)]);
        let mut moved = restore(parcel, 5);
        assert_eq!([1, 2].map(|key| push(&mut moved, key, 0, 40_004)), [Ok(Outcome::Delivered), Ok(Outcome::Held)]);
        assert_eq!([1, 2].map(|key| push(&mut moved, key, 0, 40_005)), [Err(Error::NotConnected); 2]);
    }

    #[test]
    fn a_message_that_comes_with_a_hole_is_taken_once_whether_its_repeat_came_before_or_after() {
        let mut old = Mailbox::new(EPOCH, Millis(0));
        for key in [1, 2] {
            assert_eq!(push(&mut old, key, 90_000, 0), Ok(Outcome::Held));
        }
        let lost = old.depart(None, Millis(30_000)).expect("no stream").waiting();
        assert_eq!(
            lost.iter().map(|it| (it.waits, it.repeat.map(|repeat| repeat.key))).collect::<Vec<_>>(),
            [(held(60_000), Some(1)), (held(60_000), Some(2))]
        );
        let mut new = Mailbox::fresh(EPOCH + 1, TERM, false, Millis(0));
        new.attach(Start::Anew, 15_000, Millis(0)).expect("free");
        assert_eq!(push(&mut new, 1, 0, 0), Ok(Outcome::Delivered), "repeated while the old mailbox was out of reach");
        let waiting = lost.into_iter().map(|it| (message(it.message.data), it.waits, it.repeat)).collect();
        new.hole(waiting, WINDOW_MS, Millis(1_000));
        assert_eq!(push(&mut new, 2, 90_000, 1_000), Ok(Outcome::Held));
        assert_eq!(new.attach(Start::Anew, 15_000, Millis(1_000)).map(|it| it.replayed), Ok(2));
        new.release(Millis(1_000));
        assert_eq!(push(&mut new, 2, 0, 30_999), Ok(Outcome::Held));
        assert_eq!(push(&mut new, 2, 0, 31_000), Err(Error::NotConnected), "a minute after the first send");
    }
}
