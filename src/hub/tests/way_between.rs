//! A way between two hubs, which delays, repeats and loses what it carries.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::super::{
    Backplane, BroadcastFault, Brought, Hub, Inbound as _, Page, Placed, Reply, Sending, SharedMessage, Standing,
    Taken, Term,
};
use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    model::{DeviceId, Message, Outcome, Start},
};

/// What the way between the hubs does to what it carries.
#[derive(Default)]
pub(super) struct Faults {
    /// Of 100 parcels, this many are lost.
    pub(super) lost: u8,
    /// Of 100 parcels, this many come twice.
    pub(super) repeated: u8,
    /// The longest delay, in milliseconds.
    pub(super) delay_ms: u64,
}

/// What both hubs share: who has which device, and the hubs.
#[derive(Default)]
pub(super) struct Between {
    entries: Mutex<HashMap<TenantAddress, (usize, Term)>>,
    pub(super) hubs: [OnceLock<Hub>; 2],
    pub(super) eras: [Mutex<u32>; 2],
    pub(super) faults: Faults,
    pub(super) random: Mutex<fastrand::Rng>,
    /// What each hub has said of its devices.
    pub(super) said: Mutex<Vec<(usize, TenantAddress, Standing)>>,
    pub(super) released: Mutex<Vec<(TenantAddress, Term)>>,
}

/// The way of one hub to the other.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) here: usize,
    pub(super) between: Arc<Between>,
}

impl Between {
    pub(super) fn new(faults: Faults, seed: u64) -> Self {
        Self { faults, random: Mutex::new(fastrand::Rng::with_seed(seed)), ..Self::default() }
    }

    pub(super) fn hub(&self, number: usize) -> &Hub {
        self.hubs[number].get().expect("both are made")
    }

    fn happens(&self, of_100: u8) -> bool {
        self.random.lock().u8(..100) < of_100
    }

    async fn delay(&self) {
        let ms = self.random.lock().u64(..=self.faults.delay_ms);
        if ms > 0 {
            sleep(Duration::from_millis(ms)).await;
        }
    }

    /// Moves the entry of a device to a hub, if it is still `known`. Returns the new term.
    fn move_entry(&self, address: &TenantAddress, known: Option<(usize, Term)>, to: usize) -> Option<Term> {
        let mut entries = self.entries.lock();
        let entry = entries.get(address).copied();
        let term = entry.map_or(0, |(_, term)| term) + 1;
        (entry == known).then(|| entries.insert(address.clone(), (to, term)))?;
        Some(term)
    }
}

impl Way {
    pub(super) async fn bring_from(&self, address: &TenantAddress, start: Option<Start>) -> Result<Brought, Error> {
        let (hub, era) = (self.between.hub(self.here), self.era());
        loop {
            self.between.delay().await;
            let known = self.between.entries.lock().get(address).copied();
            let placed = match known {
                Some((holder, term)) if holder == self.here => {
                    if hub.confirm(address, term, term, era) {
                        return Ok(Brought::Here);
                    }
                    Placed::Fresh { hole: true, only_holds: start.is_none() }
                }
                Some((holder, term)) => match self.between.hub(holder).take(address, start, term) {
                    Taken::Refused => return Err(Error::Superseded),
                    Taken::Parcel(parcel) if !self.between.happens(self.between.faults.lost) => Placed::Parcel(parcel),
                    Taken::Parcel(_) | Taken::NotHere => Placed::Fresh { hole: true, only_holds: start.is_none() },
                    Taken::OtherTerm => continue,
                },
                None => Placed::Fresh { hole: false, only_holds: start.is_none() },
            };
            self.between.delay().await;
            let Some(term) = self.between.move_entry(address, known, self.here) else { continue };
            let again = match &placed {
                Placed::Parcel(parcel) if self.between.happens(self.between.faults.repeated) => Some(parcel.clone()),
                _ => None,
            };
            hub.place(address, placed, term, era).expect("the entry is of this hub");
            if let Some(parcel) = again {
                let refused = hub.place(address, Placed::Parcel(parcel.clone()), term, era).expect_err("it is here");
                assert!(matches!(refused, Placed::Parcel(back) if back == parcel));
            }
            return Ok(Brought::Here);
        }
    }
}

impl Backplane for Way {
    fn era(&self) -> u32 {
        *self.between.eras[self.here].lock()
    }

    fn bring<'a>(&'a self, address: &'a TenantAddress, start: Start, _: usize) -> Reply<'a, Result<Brought, Error>> {
        Box::pin(self.bring_from(address, Some(start)))
    }

    fn push<'a>(
        &'a self,
        to: &'a TenantAddress,
        message: &'a Arc<SharedMessage>,
        sending: Sending,
    ) -> Reply<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            loop {
                self.between.delay().await;
                let Some((holder, term)) = self.between.entries.lock().get(to).copied() else {
                    return Err(Error::NotConnected);
                };
                let hub = self.between.hub(holder);
                if hub.standing(to).is_none_or(|standing| standing.term != term) {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
                let copy = hub.receive(Message::clone(message));
                if let Some(answer) = hub.push_here(to, &copy, sending) {
                    return answer;
                }
            }
        })
    }

    fn hold<'a>(&'a self, address: &'a TenantAddress, _: usize) -> Reply<'a, Result<Brought, Error>> {
        Box::pin(self.bring_from(address, None))
    }

    fn release(&self, address: &TenantAddress, term: Term) {
        self.between.released.lock().push((address.clone(), term));
        let mut entries = self.between.entries.lock();
        if entries.get(address) == Some(&(self.here, term)) {
            entries.remove(address);
        }
    }

    fn devices<'a>(&'a self, user: &'a TenantUser) -> Reply<'a, Result<Vec<DeviceId>, Error>> {
        let devices = self.between.hub(1 - self.here).of_user(user);
        let live = devices.into_iter().filter_map(|(device, standing)| standing.live.map(|_| device)).collect();
        Box::pin(std::future::ready(Ok(live)))
    }

    fn broadcast<'a>(
        &'a self,
        user: &'a TenantUser,
        message: &'a Arc<SharedMessage>,
    ) -> Reply<'a, Result<Vec<DeviceId>, BroadcastFault>> {
        let other = self.between.hub(1 - self.here);
        let delivered = other.of_user(user).into_iter().filter(|(device, _)| {
            let to = TenantAddress { user: user.clone(), device: device.clone() };
            other.push_here(&to, message, Sending::default()) == Some(Ok(Outcome::Delivered))
        });
        Box::pin(std::future::ready(Ok(delivered.map(|(device, _)| device).collect())))
    }

    fn watch<'a>(&'a self, _: &'a TenantUser) -> Reply<'a, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn unwatch(&self, _: &TenantUser) {}

    fn remote_pages(&self, user: &TenantUser) -> Vec<(DeviceId, Page)> {
        let devices = self.between.hub(1 - self.here).of_user(user);
        devices.into_iter().filter_map(|(device, standing)| Some((device, standing.live?))).collect()
    }

    fn remote_page(&self, address: &TenantAddress) -> Option<Page> {
        self.between.hub(1 - self.here).standing(address)?.live
    }

    fn changed(&self, address: &TenantAddress, standing: Standing) {
        self.between.said.lock().push((self.here, address.clone(), standing));
        if let Some(other) = self.between.hubs[1 - self.here].get() {
            super::super::Inbound::changed(other, address);
        }
    }
}
