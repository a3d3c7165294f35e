//! Random calls of the directory, with terms that differ in their last digits only.

use fastrand::Rng;

use super::{address, same_answers::id, user};
use crate::{
    auth::TenantAddress,
    cluster::directory::{About, Claim, Directory, Entry, Fault, NodeId, Phase, Told},
    hub::Term,
};

/// Makes calls, and remembers what they answered.
pub(super) struct Calls {
    pub(super) random: Rng,
    /// The generation that each node knows.
    pub(super) known: [u64; NODES],
    /// The generations that were answered. They hold the time, so a line shows the place in this list.
    generations: Vec<u64>,
    /// The next hello makes a new directory.
    pub(super) is_lost: bool,
    /// The debts that were answered. Their numbers hold the time, so a line shows the place in this list.
    debts: Vec<u64>,
    entries: Vec<(TenantAddress, Entry)>,
}

impl Calls {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            known: [0; NODES],
            generations: vec![0],
            is_lost: true,
            debts: vec![1],
            entries: Vec::new(),
        }
    }

    /// Says hello. Then tells a term far above the time, so that the next ones follow it on every server.
    pub(super) async fn hello(&mut self, node: usize, directory: &dyn Directory) -> Result<String, Fault> {
        let (known, more) = match self.random.u8(0..10) {
            0 => (0, 0),
            1 => (self.known[node], 1),
            _ => (self.known[node], 0),
        };
        let owes = self.random.u8(0..4) == 0;
        let mut hello = directory.hello(known + more, owes).await?;
        assert_eq!(directory.generation(), hello.generation);
        if std::mem::take(&mut self.is_lost) {
            assert!(!self.generations.contains(&hello.generation), "no node knows a new directory");
        }
        self.known[node] = hello.generation;
        let known = self.generation(known);
        hello.generation = self.generation(hello.generation);
        hello.debt = self.debt(hello.debt);
        // The two servers need some milliseconds more or less.
        hello.age_ms = hello.age_ms / 1_350 * 1_350;
        let told = directory.tell(&[(address("base", &id(node).to_string()), BASE)]).await?;
        Ok(format!("hello({known} + {more}, {owes}) {hello:?}, {told:?}"))
    }

    /// A call of any kind.
    pub(super) async fn any(&mut self, node: usize, directory: &dyn Directory) -> Result<String, Fault> {
        match self.random.u8(0..30) {
            0 => self.hello(node, directory).await,
            1..4 => self.beat(directory).await,
            4..7 => self.pay(directory).await,
            7 => {
                let debt = directory.owe().await?;
                Ok(format!("owe {:?}", self.debt(Some(debt))))
            }
            8 => {
                let ticket = [self.random.u8(0..3), 0, 255];
                Ok(format!("use_ticket {}", directory.use_ticket(&ticket).await?))
            }
            9 if self.random.bool() => Ok(format!("bye {:?}", directory.bye().await?)),
            9..12 => {
                let user = user(USERS[self.random.usize(0..USERS.len())]);
                let listed = directory.list(&user).await?;
                Ok(format!("list {user:?} {listed:?}"))
            }
            12..15 => self.tell(node, directory).await,
            kind => self.about_a_device(kind, node, directory).await,
        }
    }

    async fn beat(&mut self, directory: &dyn Directory) -> Result<String, Fault> {
        let phase = [Phase::Joining, Phase::Up, Phase::Leaving][self.random.usize(0..3)];
        let about = About { version: "0.2.0".to_owned(), streams: self.random.u64(0..9), mailboxes: 9 };
        let mut beat = directory.beat(phase, &about).await?;
        beat.debt = self.debt(beat.debt);
        beat.time_ms = 0;
        for member in &mut beat.members {
            // Whole steps of time. Each step of the world takes a little more than that.
            member.age_ms /= 2_700;
        }
        Ok(format!("beat {phase:?} {beat:?}"))
    }

    /// Says that all is told, for a debt of anybody.
    async fn pay(&mut self, directory: &dyn Directory) -> Result<String, Fault> {
        let back = self.random.usize(0..3).min(self.debts.len() - 1);
        let index = self.debts.len() - 1 - back;
        directory.told(self.debts[index]).await?;
        Ok(format!("told({index})"))
    }

    async fn tell(&mut self, node: usize, directory: &dyn Directory) -> Result<String, Fault> {
        let mut mailboxes: Vec<(TenantAddress, Term)> = Vec::new();
        for _ in 0..self.random.usize(0..4) {
            let address = self.address();
            if mailboxes.iter().all(|(other, _)| *other != address) {
                let entry = self.entry(&address);
                mailboxes.push((address, entry.term));
            }
        }
        let told = directory.tell(&mailboxes).await?;
        for ((address, _), told) in mailboxes.iter().zip(&told) {
            let entry = match *told {
                Told::Mine(term) => Entry { node: id(node), term },
                Told::Lost(entry) => entry,
            };
            self.entries.push((address.clone(), entry));
        }
        Ok(format!("tell {mailboxes:?} {told:?}"))
    }

    async fn about_a_device(&mut self, kind: u8, node: usize, directory: &dyn Directory) -> Result<String, Fault> {
        let address = self.address();
        let entry = self.entry(&address);
        let at = |term: Option<Term>| term.map(|term| Entry { node: id(node), term });
        let (line, granted) = match kind {
            15..19 => {
                let limit = self.random.usize(0..4);
                let claim = directory.claim(&address, limit).await?;
                let term = match claim {
                    Claim::New { term, .. } | Claim::Mine(term) | Claim::Over(term) => Some(term),
                    Claim::Held(entry) => {
                        self.entries.push((address.clone(), entry));
                        None
                    }
                    Claim::Full => None,
                };
                (format!("claim({limit}) {claim:?}"), at(term))
            }
            19..22 => {
                let forced = self.random.bool();
                let term = directory.take_over(&address, entry, forced).await?;
                (format!("take_over {} ({entry:?}, {forced}) {term:?}", moved(term)), at(term))
            }
            22..24 => {
                let term = directory.revive(&address, entry.term).await?;
                (format!("revive {} ({}) {term:?}", moved(term), entry.term), at(term))
            }
            24 => (format!("release({}) {:?}", entry.term, directory.release(&address, entry.term).await?), None),
            25 => (format!("bury({entry:?}) {:?}", directory.bury(&address, entry).await?), None),
            26 | 27 => (format!("find {:?}", directory.find(&address).await?), None),
            _ => (format!("absent({entry:?}) {:?}", directory.absent(&address, entry).await?), None),
        };
        if let Some(entry) = granted {
            self.entries.push((address.clone(), entry));
        }
        Ok(format!("{address:?} {line}"))
    }

    fn address(&mut self) -> TenantAddress {
        let user = USERS[self.random.usize(0..USERS.len())];
        address(user, DEVICES[self.random.usize(0..DEVICES.len())])
    }

    /// The last entry that was seen of a device, or one that is almost the same.
    fn entry(&mut self, address: &TenantAddress) -> Entry {
        let seen = self.entries.iter().rev().find(|(other, _)| other == address).map(|(_, entry)| *entry);
        let mut entry = seen.unwrap_or(Entry { node: NodeId(99), term: BASE });
        match self.random.u8(0..8) {
            0 => entry.term += 1,
            1 => entry.term -= 1,
            2 => entry.node = id(self.random.usize(0..NODES)),
            _ => {}
        }
        entry
    }

    /// The place of a generation in the list. A new one is above all before it: no node knows it.
    fn generation(&mut self, generation: u64) -> u64 {
        let known = self.generations.iter().position(|known| *known == generation);
        let index = known.unwrap_or_else(|| {
            assert!(self.generations.iter().all(|known| *known < generation), "{generation}: {:?}", self.generations);
            self.generations.push(generation);
            self.generations.len() - 1
        });
        u64::try_from(index).unwrap_or(u64::MAX)
    }

    /// The place of a debt in the list.
    fn debt(&mut self, debt: Option<u64>) -> Option<u64> {
        let debt = debt?;
        let known = self.debts.iter().position(|known| *known == debt);
        let index = known.unwrap_or_else(|| {
            self.debts.push(debt);
            self.debts.len() - 1
        });
        u64::try_from(index).ok()
    }
}

fn moved(term: Option<Term>) -> &'static str {
    if term.is_some() { "moved" } else { "changed" }
}

pub(super) const NODES: usize = 3;

const USERS: [&str; 3] = ["ana", "tenant\0bob", "ü:* x"];
const DEVICES: [&str; 4] = ["phone", "1 2", "d:i:*", "é"];

/// Far above the time, and 16 digits long.
const BASE: Term = 4_000_000_000_000_000;
