//! The data of the server in memory, and the scripts: what each reads, writes, answers and publishes. Pure: time is an argument.

use std::collections::BTreeMap;

use crate::{
    auth::{TenantAddress, TenantUser},
    cluster::directory::{
        About, Beat, Claim, DEAD_MS, Entry, Fault, Found, Hello, Listed, Member, NodeId, Phase, Told,
    },
    hub::Term,
    model::DeviceId,
};

/// The keys `g`, `m`, `o`, `d:` and `t:` of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    /// When the directory was made, or more. 0: there is none yet.
    pub(super) generation: u64,
    /// The run of the server on which the directory was made.
    run: u64,
    since_ms: u64,
    /// The last term that was granted.
    last_term: Term,
    last_debt: u64,
    members: BTreeMap<NodeId, Row>,
    debts: BTreeMap<NodeId, Debt>,
    users: BTreeMap<TenantUser, Devices>,
    tickets: BTreeMap<Vec<u8>, u64>,
}

#[derive(Clone, Debug)]
struct Row {
    at_ms: u64,
    phase: Phase,
    about: About,
}

#[derive(Clone, Copy, Debug)]
struct Debt {
    number: u64,
    since_ms: u64,
}

#[derive(Clone, Debug, Default)]
struct Devices {
    expires_ms: u64,
    entries: BTreeMap<DeviceId, Entry>,
}

/// One run of a script.
pub(super) struct Script<'a> {
    pub(super) tables: &'a mut Tables,
    /// Who runs it.
    pub(super) node: NodeId,
    /// The time of the server, in microseconds since 1970.
    pub(super) time_us: u64,
    /// What it publishes to the requests of nodes.
    pub(super) notices: Vec<(NodeId, Vec<u8>)>,
}

impl Script<'_> {
    /// Every script but `hello` begins with this.
    pub(super) fn check(&self, generation: u64) -> Result<(), Fault> {
        if generation == self.tables.generation && generation > 0 { Ok(()) } else { Err(Fault::Reborn) }
    }

    pub(super) fn hello(&mut self, run: u64, known: u64, owes: bool) -> Hello {
        let at_ms = self.time_ms();
        let tables = &mut *self.tables;
        if tables.generation == 0 || tables.run != run || known > tables.generation {
            tables.generation = self.time_us.max(tables.generation + 1).max(known + 1);
            tables.run = run;
            tables.since_ms = at_ms;
            for node in self.tables.members.keys().copied().collect::<Vec<_>>() {
                self.indebt(node);
            }
        }
        let returned = known > 0 && (self.is_dead(self.node) || known != self.tables.generation);
        let row = Row { at_ms, phase: Phase::Joining, about: About::default() };
        self.tables.members.entry(self.node).or_insert(row).at_ms = at_ms;
        if owes || returned {
            self.indebt(self.node);
        }
        let age_ms = at_ms.saturating_sub(self.tables.since_ms);
        Hello { generation: self.tables.generation, debt: self.debt(), age_ms }
    }

    pub(super) fn beat(&mut self, phase: Phase, about: &About) -> Beat {
        let now = self.time_ms();
        let was_dead = self.is_dead(self.node);
        self.tables.members.insert(self.node, Row { at_ms: now, phase, about: about.clone() });
        if was_dead {
            self.indebt(self.node);
        }
        let Tables { members, debts, .. } = &mut *self.tables;
        members.retain(|_, row| now.saturating_sub(row.at_ms) <= FORGOTTEN_MS);
        debts.retain(|node, debt| members.contains_key(node) || now.saturating_sub(debt.since_ms) < DEAD_MS);
        let members = members.iter().map(|(node, row)| Member {
            node: *node,
            phase: row.phase,
            age_ms: now.saturating_sub(row.at_ms),
            about: row.about.clone(),
        });
        Beat { members: members.collect(), time_ms: now, debt: self.debt() }
    }

    pub(super) fn told(&mut self, number: u64) {
        if self.debt() == Some(number) {
            self.tables.debts.remove(&self.node);
        }
    }

    pub(super) fn owe(&mut self) -> u64 {
        self.indebt(self.node)
    }

    pub(super) fn claim(&mut self, address: &TenantAddress, limit: usize) -> Claim {
        match self.entry(address) {
            Some(entry) if entry.node == self.node => Claim::Mine(entry.term),
            Some(entry) if self.is_dead(entry.node) => {
                let term = self.grant(address, entry.term);
                self.notify(entry.node, b'Y', term, address);
                Claim::Over(term)
            }
            Some(entry) => Claim::Held(entry),
            None if limit > 0 && self.is_full(&address.user, limit) => Claim::Full,
            None => Claim::New { term: self.grant(address, 0), sure: self.is_sure() },
        }
    }

    pub(super) fn take_over(&mut self, address: &TenantAddress, from: Entry, forced: bool) -> Option<Term> {
        match self.entry(address)? {
            entry if entry == from => {
                let term = self.grant(address, from.term);
                let (kind, told) = if forced { (b'Y', term) } else { (b'M', from.term) };
                if from.node != self.node {
                    self.notify(from.node, kind, told, address);
                }
                Some(term)
            }
            entry => (entry.node == self.node && entry.term > from.term).then_some(entry.term),
        }
    }

    pub(super) fn revive(&mut self, address: &TenantAddress, term: Term) -> Option<Term> {
        let mine = self.entry(address) == Some(Entry { node: self.node, term });
        mine.then(|| self.grant(address, term))
    }

    pub(super) fn release(&mut self, address: &TenantAddress, term: Term) {
        self.delete(address, Entry { node: self.node, term });
    }

    pub(super) fn bury(&mut self, address: &TenantAddress, entry: Entry) {
        if self.is_dead(entry.node) {
            self.delete(address, entry);
        }
    }

    pub(super) fn tell(&mut self, address: &TenantAddress, term: Term) -> Told {
        let told = match self.entry(address) {
            Some(entry) if entry.node == self.node => entry.term.max(term),
            Some(entry) if entry.term >= term => return Told::Lost(entry),
            loser => {
                if let Some(loser) = loser {
                    self.notify(loser.node, b'Y', term, address);
                }
                term
            }
        };
        self.write(address, told);
        Told::Mine(told)
    }

    pub(super) fn find(&mut self, address: &TenantAddress) -> Found {
        match self.entry(address) {
            Some(entry) => Found::At(entry, self.is_dead(entry.node)),
            None if self.is_sure() => Found::Nobody,
            None => Found::Unsure,
        }
    }

    pub(super) fn absent(&mut self, address: &TenantAddress, named: Entry) -> Found {
        match self.entry(address) {
            Some(entry) if entry != named => Found::At(entry, self.is_dead(entry.node)),
            _ if self.is_sure() => Found::Nobody,
            _ => Found::Unsure,
        }
    }

    pub(super) fn list(&mut self, user: &TenantUser) -> Listed {
        let entries = self.devices(user).map(|devices| devices.entries.clone()).unwrap_or_default();
        let dead = |(device, entry): (DeviceId, Entry)| (device, entry, self.is_dead(entry.node));
        Listed { entries: entries.into_iter().map(dead).collect(), sure: self.is_sure() }
    }

    pub(super) fn bye(&mut self) {
        self.tables.members.remove(&self.node);
        self.tables.debts.remove(&self.node);
    }

    pub(super) fn use_ticket(&mut self, ticket: &[u8]) -> bool {
        let now = self.time_ms();
        self.tables.tickets.retain(|_, expires| *expires > now);
        self.tables.tickets.insert(ticket.to_vec(), now + TICKET_MS).is_none()
    }

    /// Whether no node owes. A debt lapses when it and the debtor's last beat are both old.
    pub(super) fn is_sure(&self) -> bool {
        let old = |debt: &Debt| self.time_ms().saturating_sub(debt.since_ms) >= DEAD_MS;
        self.tables.debts.iter().all(|(node, debt)| old(debt) && self.is_dead(*node))
    }

    pub(super) fn entry(&mut self, address: &TenantAddress) -> Option<Entry> {
        self.devices(&address.user)?.entries.get(&address.device).copied()
    }

    fn devices(&mut self, user: &TenantUser) -> Option<&mut Devices> {
        let now = self.time_ms();
        if self.tables.users.get(user).is_some_and(|devices| devices.expires_ms <= now) {
            self.tables.users.remove(user);
        }
        self.tables.users.get_mut(user)
    }

    /// Whether the user has too many devices. Deletes those of dead nodes before it says so.
    fn is_full(&mut self, user: &TenantUser, limit: usize) -> bool {
        let Some(devices) = self.devices(user).filter(|devices| devices.entries.len() >= limit) else { return false };
        let mut entries = std::mem::take(&mut devices.entries);
        entries.retain(|_, entry| !self.is_dead(entry.node));
        let left = entries.len();
        self.tables.users.entry(user.clone()).or_default().entries = entries;
        left >= limit
    }

    /// Makes the entry this node's, with a term above `over`.
    fn grant(&mut self, address: &TenantAddress, over: Term) -> Term {
        let term = self.time_us.max(over + 1).max(self.tables.last_term + 1);
        self.write(address, term);
        term
    }

    fn write(&mut self, address: &TenantAddress, term: Term) {
        self.tables.last_term = self.tables.last_term.max(term);
        let expires_ms = self.time_ms() + EXPIRES_MS;
        self.devices(&address.user);
        let devices = self.tables.users.entry(address.user.clone()).or_default();
        devices.expires_ms = expires_ms;
        devices.entries.insert(address.device.clone(), Entry { node: self.node, term });
    }

    fn delete(&mut self, address: &TenantAddress, entry: Entry) {
        let Some(devices) = self.devices(&address.user) else { return };
        if devices.entries.get(&address.device) == Some(&entry) {
            devices.entries.remove(&address.device);
        }
        if devices.entries.is_empty() {
            self.tables.users.remove(&address.user);
        }
    }

    fn indebt(&mut self, node: NodeId) -> u64 {
        let number = self.time_us.max(self.tables.last_debt + 1);
        self.tables.last_debt = number;
        self.tables.debts.insert(node, Debt { number, since_ms: self.time_ms() });
        number
    }

    fn debt(&self) -> Option<u64> {
        self.tables.debts.get(&self.node).map(|debt| debt.number)
    }

    fn is_dead(&self, node: NodeId) -> bool {
        let row = self.tables.members.get(&node);
        row.is_none_or(|row| self.time_ms().saturating_sub(row.at_ms) >= DEAD_MS)
    }

    fn notify(&mut self, node: NodeId, kind: u8, term: Term, address: &TenantAddress) {
        self.notices.push((node, notice(kind, term, address)));
    }

    fn time_ms(&self) -> u64 {
        self.time_us / 1_000
    }
}

/// The bytes of a notice.
fn notice(kind: u8, term: Term, address: &TenantAddress) -> Vec<u8> {
    let (user, device) = (address.user.as_text(), address.device.as_str());
    format!("N{}{term} {} {user}{device}", char::from(kind), user.len()).into_bytes()
}

/// When the row of a node is dropped, in milliseconds after its last beat.
const FORGOTTEN_MS: u64 = 60_000;

/// When the entries of a user expire, in milliseconds after the last claim or tell.
const EXPIRES_MS: u64 = 3_600_000;

/// For how long a used ticket is remembered, in milliseconds.
const TICKET_MS: u64 = 31_000;
