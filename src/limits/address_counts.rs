//! Counts what one address has at the same time, such as connections. An address that has nothing has no entry; the table
//! keeps its room for the most addresses that there were at the same time, whose number connections bound.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

use super::AddressKey;

/// The counts of all addresses, with the same limit for each. A cheap handle.
#[derive(Clone)]
pub struct AddressCounts(Arc<Counts>);

struct Counts {
    most: usize,
    of: Mutex<HashMap<AddressKey, usize>>,
}

/// One unit of a count. Dropping it lowers the count.
pub struct Counted {
    counts: Arc<Counts>,
    key: AddressKey,
}

impl AddressCounts {
    /// Counts up to `most` for each address.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Counts { most, of: Mutex::default() }))
    }

    /// Counts one more for an address. `None`: the address has as many as it may.
    #[must_use]
    pub fn add(&self, key: AddressKey) -> Option<Counted> {
        let mut counts = self.0.of.lock();
        let count = counts.entry(key).or_default();
        if *count >= self.0.most {
            return None;
        }
        *count += 1;
        Some(Counted { counts: self.0.clone(), key })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.of.lock();
        if let Entry::Occupied(mut count) = counts.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_at_most_so_many_and_an_address_without_any_takes_no_memory() {
        let (counts, key) = (AddressCounts::new(2), |last| AddressKey::of([192, 0, 2, last].into()));
        let first = counts.add(key(1)).expect("one");
        let second = counts.add(key(1)).expect("two");
        assert!(counts.add(key(1)).is_none());
        let other = counts.add(key(2)).expect("another address");
        drop(first);
        let third = counts.add(key(1)).expect("one has ended");
        assert!(counts.add(key(1)).is_none());
        drop((second, third, other));
        assert_eq!(counts.0.of.lock().len(), 0);
    }
}
