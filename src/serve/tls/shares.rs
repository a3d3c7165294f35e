//! Gives each address its share of the queue of TLS handshakes, so that a flood from one address delays only its own handshakes.
//!
//! In one queue of all handshakes, an address with thousands of them would make everybody else wait for all of these. So only a few
//! of each address are in that queue. The others of the address wait at its gate, and the addresses take turns.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use crate::limits::AddressKey;

/// Whose share a handshake takes.
#[derive(Clone, Copy)]
pub(in crate::serve) enum HandshakeClient {
    /// An address that counts against limits.
    Counted(AddressKey),
    /// An address that does not, such as that of a proxy with many clients.
    Uncounted(AddressKey),
}

/// The gates of all addresses that have a handshake.
pub(super) struct Shares {
    /// How many handshakes of one address may be in the queue: as many as can compute at the same time. So an address has all worker
    /// threads when no other one needs them.
    share: usize,
    gates: Mutex<HashMap<AddressKey, Gate>>,
}

struct Gate {
    permits: Arc<Semaphore>,
    /// The handshakes of the address.
    places: usize,
}

/// The place of one handshake at the gate of its address. Dropping the last place of an address removes the gate.
pub(super) struct Place<'a> {
    shares: &'a Shares,
    address: AddressKey,
    permits: Arc<Semaphore>,
}

impl Shares {
    pub(super) fn new(share: usize) -> Self {
        Self { share, gates: Mutex::default() }
    }

    pub(super) fn place(&self, client: HandshakeClient) -> Place<'_> {
        let (address, share) = match client {
            HandshakeClient::Counted(address) => (address, self.share),
            HandshakeClient::Uncounted(address) => (address, self.share * UNCOUNTED),
        };
        let mut gates = self.gates.lock();
        let new = || Gate { permits: Arc::new(Semaphore::new(share)), places: 0 };
        let gate = gates.entry(address).or_insert_with(new);
        gate.places += 1;
        Place { shares: self, address, permits: gate.permits.clone() }
    }

    #[cfg(test)]
    pub(super) fn gates(&self) -> usize {
        self.gates.lock().len()
    }
}

impl Place<'_> {
    /// Waits until the handshake may enter the queue. The permit lets the next one of the address in when it is dropped.
    pub(super) async fn admitted(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.permits.acquire().await
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut gates = self.shares.gates.lock();
        if let Some(gate) = gates.get_mut(&self.address) {
            gate.places -= 1;
            if gate.places == 0 {
                gates.remove(&self.address);
            }
        }
    }
}

/// How many shares an address has that does not count. More than one, because a proxy has many clients. Not all, so that nobody else
/// waits long behind a proxy that passes a flood on.
const UNCOUNTED: usize = 16;
