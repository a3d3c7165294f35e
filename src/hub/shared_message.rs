//! A message that mailboxes and streams share: its memory is counted once, and its text for a format is made once.

use std::{collections::BTreeMap, ops::Deref, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;

use super::latency::AcceptedAt;
use crate::{budget::Budget, model::Message};

/// A message that counts against the memory budget until the last mailbox and the last stream drop it.
#[derive(Debug)]
pub struct SharedMessage {
    message: Message,
    budget: Budget,
    /// The texts that streams share, by format. `None` for a small message or a single device: there a copy costs less.
    texts: Option<Box<Mutex<BTreeMap<usize, Bytes>>>>,
    /// When the hub accepted the message.
    pub(super) accepted_at: AcceptedAt,
}

impl SharedMessage {
    /// Makes a message for a number of devices. The hub accepted the message at `elapsed`, the time since the hub began.
    pub(crate) fn new(message: Message, devices: usize, elapsed: Duration, budget: Budget) -> Self {
        budget.add_messages(message.memory_bytes());
        let texts = (devices > 1 && message.payload_bytes() >= WORTH_SHARING).then(Box::default);
        Self { message, budget, texts, accepted_at: AcceptedAt::new(elapsed) }
    }

    /// A message that counts against no budget.
    pub(crate) fn uncounted(message: Message) -> Self {
        Self::new(message, 1, Duration::ZERO, Budget::new(usize::MAX))
    }

    /// The text of the message in one format. `format` is the number by which the caller knows the format. The first stream makes
    /// the text and all others share it. `None` when a copy for each stream costs less.
    pub fn text(&self, format: usize, make: impl FnOnce(&Message) -> String) -> Option<Bytes> {
        let make = || Bytes::from_owner(Text::new(make(&self.message), self.budget.clone()));
        Some(self.texts.as_ref()?.lock().entry(format).or_insert_with(make).clone())
    }
}

impl Deref for SharedMessage {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl PartialEq for SharedMessage {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

impl Eq for SharedMessage {}

impl Drop for SharedMessage {
    fn drop(&mut self) {
        self.budget.remove_messages(self.message.memory_bytes());
    }
}

/// A text that streams share. It counts against the memory budget until the last stream has written it.
struct Text(String, Budget);

impl Text {
    fn new(text: String, budget: Budget) -> Self {
        budget.add_messages(text.len());
        Self(text, budget)
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        self.1.remove_messages(self.0.len());
    }
}

/// A smaller message is not shared: a copy for each stream costs less.
const WORTH_SHARING: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::Data;

    fn message(bytes: usize) -> Message {
        let data = Data::new("x".repeat(bytes)).expect("not empty");
        Message { from: None, event: None, data, sent_at: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn the_text_of_a_large_message_is_made_once_and_counted_until_the_last_stream_drops_it() {
        let budget = Budget::new(usize::MAX);
        let shared = SharedMessage::new(message(10_000), 2, Duration::ZERO, budget.clone());
        let alone = budget.messages();
        let first = shared.text(0, |_| "y".repeat(11_000)).expect("shared");
        let second = shared.text(0, |_| unreachable!("made already")).expect("shared");
        assert_eq!((first.as_ptr(), budget.messages()), (second.as_ptr(), alone + 11_000));
        drop(shared);
        drop(first);
        assert_eq!(budget.messages(), 11_000);
        drop(second);
        assert_eq!(budget.messages(), 0);
    }

    #[test]
    fn a_message_for_one_device_or_a_small_one_is_not_shared() {
        let budget = Budget::new(usize::MAX);
        for (bytes, devices) in [(10_000, 1), (100, 2)] {
            let shared = SharedMessage::new(message(bytes), devices, Duration::ZERO, budget.clone());
            assert!(shared.text(0, |_| unreachable!("not shared")).is_none());
        }
    }
}
