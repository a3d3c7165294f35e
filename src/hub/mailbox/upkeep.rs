//! What a mailbox drops: messages that expire, and messages evicted when memory is full. Decides when the mailbox itself is
//! removed. Pure: time is an argument.

use super::{
    super::{
        deadlines::DeadlineKind,
        log::{Log, REPLAY_MS},
        repeats::Repeats,
        time::{Millis, Tick},
    },
    Mailbox,
};

/// Bytes of memory that a mailbox itself takes. They count as held when the mailbox only holds messages, because any sender can
/// make such a mailbox.
pub(in crate::hub) const MAILBOX_BYTES: usize = 512;

/// The result of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::hub) struct Checked {
    /// The stream has to be woken: a ping is due.
    pub(in crate::hub) wake: bool,
    /// How many waiting messages have expired.
    pub(in crate::hub) expired: usize,
    /// The registry has to remove the mailbox.
    pub(in crate::hub) remove: bool,
}

impl Mailbox {
    /// When the next deadline of a kind is due.
    pub(in crate::hub) fn due(&self, kind: DeadlineKind, window_ms: u64) -> Option<Millis> {
        match (kind, &self.stream) {
            (DeadlineKind::Stream, Some(stream)) => stream.heartbeat.next(),
            // Not before the first held message expires. If messages are left then, the check schedules the next deadline.
            (DeadlineKind::Stream, None) => {
                Some(self.left_at.time().after(window_ms).max(self.log.hold_ends().unwrap_or_default()))
            }
            (DeadlineKind::Replay, _) => self.log.replay_ends(self.droppable_up_to()),
            (DeadlineKind::Waiting, Some(_)) => None,
            // Messages that the last stream did not take count, too: eviction finds mailboxes by this deadline.
            (DeadlineKind::Waiting, None) => self.log.waiting_ends(self.left_at.time().after(window_ms)),
        }
    }

    /// Checks what is due now: a ping, the end of messages, the end of the mailbox.
    pub(in crate::hub) fn check(&mut self, window_ms: u64, now: Millis) -> Checked {
        let mut checked = Checked::default();
        if let Some(stream) = &mut self.stream {
            checked.wake = stream.heartbeat.check(now);
        }
        self.trim_replay(now);
        self.repeats.forget_old(now);
        if self.stream.is_none() {
            let held = self.log.held();
            checked.expired = self.log.expire(now.since(self.left_at.time()) >= window_ms, now);
            if self.log.held() < held {
                // The next stream has to be told of the loss, so the mailbox is kept for another resume window.
                self.left_at = Tick::not_before(now);
            }
            checked.remove = now.since(self.left_at.time()) >= window_ms && !self.log.has_waiting();
            if checked.remove {
                (self.log, self.repeats) = (Log::default(), Repeats::default());
            }
        }
        checked
    }

    /// Drops the oldest message that is kept for replay, to make room. Says whether there was one.
    pub(in crate::hub) fn evict_oldest(&mut self) -> bool {
        self.log.evict_oldest(self.droppable_up_to())
    }

    /// Drops all messages that wait for an absent device, to make room. Its next stream is told `broken`. Returns how many were
    /// dropped.
    pub(in crate::hub) fn drop_waiting(&mut self, now: Millis) -> usize {
        if self.stream.as_ref().is_some_and(|stream| !stream.only_ends) {
            return 0;
        }
        let dropped = self.log.drop_waiting();
        if dropped > 0 {
            self.left_at = Tick::not_before(now);
        }
        dropped
    }

    /// Up to which number messages may be dropped: what the attached stream has taken. Without a stream, all.
    fn droppable_up_to(&self) -> u64 {
        self.stream.as_ref().map_or(u64::MAX, |stream| stream.position)
    }

    /// Drops messages kept for replay that exceed a limit, but none that the attached stream still has to write.
    pub(super) fn trim_replay(&mut self, now: Millis) {
        self.confirm_replayed(now);
        let Some(stream) = &self.stream else { return self.log.trim_replay(self.droppable_up_to(), now, |_, _| ()) };
        let unconfirmed = &mut self.unconfirmed;
        self.log.trim_replay(stream.position, now, |seq, at| {
            // The stream took this message and is still attached `REPLAY_MS` later. So its peer has very likely read the message:
            // the transport would have cut a peer that reads nothing, because `--stall-timeout` is shorter than that. This is a
            // guess. A peer that takes 16 KiB just before each timeout stays, and can be more than `REPLAY_MS` behind.
            if stream.since.time() <= at {
                *unconfirmed = (seq + 1).max(*unconfirmed);
            }
        });
    }

    /// Like [`Mailbox::trim_replay`], for replayed messages: their age began with an earlier stream. Uses the time of the replay.
    pub(super) fn confirm_replayed(&mut self, now: Millis) {
        if let Some(stream) = &mut self.stream
            && stream.replayed_at.take_if(|at| now.since(at.time()) >= REPLAY_MS).is_some()
        {
            self.unconfirmed = self.unconfirmed.max(stream.replayed + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::Sending,
        super::super::tests::mailbox_properties::{EPOCH, WINDOW_MS, message},
        super::Next,
        *,
    };
    use crate::model::{Continuity, Cursor, Data, Start};

    #[test]
    fn a_device_whose_held_messages_are_dropped_is_told_broken_for_a_window_after_that() {
        for expires in [true, false] {
            let mut mailbox = Mailbox::new(EPOCH, Millis(0));
            mailbox
                .push(message(Data::new("ring").expect("not empty")), Sending { ttl_ms: 50_000, key: None }, Millis(0))
                .expect("room");
            let at = if expires { Millis(50_000) } else { Millis(1_000) };
            let dropped = if expires { mailbox.check(WINDOW_MS, at).expired } else { mailbox.drop_waiting(at) };
            assert_eq!((dropped, mailbox.held()), (1, MAILBOX_BYTES));
            let end = at.after(WINDOW_MS);
            assert_eq!(mailbox.due(DeadlineKind::Stream, WINDOW_MS), Some(end));
            assert!(!mailbox.check(WINDOW_MS, Millis(end.0 - 1)).remove);
            let stream = mailbox.attach(Start::Anew, 15_000, Millis(end.0 - 1)).expect("free");
            assert_eq!((stream.continuity, stream.replayed), (Continuity::Broken, 0));
        }
    }

    #[test]
    fn a_replayed_message_is_confirmed_when_its_stream_is_still_attached_a_minute_later() {
        for (left_at, continuity) in [(40_000 + REPLAY_MS, Continuity::New), (39_000 + REPLAY_MS, Continuity::Broken)] {
            let mut mailbox = Mailbox::new(EPOCH, Millis(0));
            let first = mailbox.attach(Start::Anew, 15_000, Millis(0)).expect("free");
            mailbox.push(message(Data::new("offer").expect("not empty")), Sending::default(), Millis(0)).expect("live");
            assert!(matches!(mailbox.next(first.generation, 1, Millis(0)), Next::Message(_)));
            let back = mailbox.attach(Start::After(first.cursor), 15_000, Millis(40_000)).expect("the same page");
            assert!(matches!(mailbox.next(back.generation, 1, Millis(40_000)), Next::Message(_)));
            // The message is a minute old and is dropped, but its replay is younger than a minute.
            mailbox.check(WINDOW_MS, Millis(REPLAY_MS));
            mailbox.detach(back.generation, Millis(left_at));
            let anew = mailbox.attach(Start::Anew, 15_000, Millis(left_at)).expect("free");
            assert_eq!((anew.continuity, anew.replayed), (continuity, 0), "left at {left_at}");
        }
    }

    #[test]
    fn a_message_that_the_stream_still_has_to_write_is_not_dropped_to_make_room() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        let stream = mailbox.attach(Start::Anew, 15_000, Millis(0)).expect("free");
        for _ in 0..2 {
            mailbox.push(message(Data::new("offer").expect("not empty")), Sending::default(), Millis(0)).expect("live");
        }
        for _ in 0..2 {
            assert!(matches!(mailbox.next(stream.generation, 1, Millis(0)), Next::Message(_)));
        }
        let after_first = Cursor { seq: 1, ..stream.cursor };
        mailbox.attach(Start::After(after_first), 15_000, Millis(0)).expect("the same page");
        assert!(mailbox.evict_oldest(), "the first was written");
        assert!(!mailbox.evict_oldest(), "the second is to be replayed");
    }
}
