//! Reads the answers of scripts.

use redis::Value;

use super::key_names::read_node;
use crate::{
    cluster::directory::{About, Beat, Claim, Entry, Found, Hello, Listed, Member, NodeId, Phase, Told},
    hub::Term,
    model::DeviceId,
};

/// The list that a script answered. Each method takes the next items from it, and gives `None` when they are not what is expected.
pub(super) struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    /// `None`: it is no list.
    pub(super) fn of(value: Value) -> Option<Self> {
        if let Value::Array(items) = value { Some(Self(items.into_iter())) } else { None }
    }

    pub(super) fn hello(mut self) -> Option<Hello> {
        Some(Hello { generation: self.number()?, debt: self.debt()? })
    }

    pub(super) fn beat(mut self) -> Option<Beat> {
        let (time_ms, debt) = (self.number()?, self.debt()?);
        let mut members = Vec::new();
        while let Some(node) = self.text() {
            members.push(read_member(&node, &self.text()?, time_ms)?);
        }
        members.sort_by_key(|member| member.node);
        Some(Beat { members, time_ms, debt })
    }

    pub(super) fn claim(mut self) -> Option<Claim> {
        Some(match self.text()?.as_str() {
            "new" => Claim::New { term: self.number()?, sure: self.flag()? },
            "mine" => Claim::Mine(self.number()?),
            "over" => Claim::Over(self.number()?),
            "held" => Claim::Held(self.entry()?),
            "full" => Claim::Full,
            _ => return None,
        })
    }

    /// One number, such as the number of a debt.
    pub(super) fn one(mut self) -> Option<u64> {
        self.number()
    }

    /// A new term, or nothing.
    pub(super) fn term(mut self) -> Option<Option<Term>> {
        if self.0.len() == 0 { Some(None) } else { self.number().map(Some) }
    }

    /// What became of each mailbox that was told.
    pub(super) fn told(mut self, me: NodeId, count: usize) -> Option<Vec<Told>> {
        let told = |entry: Entry| if entry.node == me { Told::Mine(entry.term) } else { Told::Lost(entry) };
        let told = (0..self.0.len()).map(|_| self.entry().map(told)).collect::<Option<Vec<_>>>()?;
        (told.len() == count).then_some(told)
    }

    pub(super) fn found(mut self) -> Option<Found> {
        Some(match self.0.len() {
            1 if self.flag()? => Found::Nobody,
            1 => Found::Unsure,
            _ => Found::At(self.entry()?, self.flag()?),
        })
    }

    pub(super) fn list(mut self) -> Option<Listed> {
        let sure = self.flag()?;
        let mut entries = Vec::with_capacity(self.0.len() / 3);
        while let Some(device) = self.text() {
            entries.push((DeviceId::new(&device).ok()?, self.entry()?, self.flag()?));
        }
        entries.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        Some(Listed { entries, sure })
    }

    fn text(&mut self) -> Option<String> {
        if let Value::BulkString(bytes) = self.0.next()? { String::from_utf8(bytes).ok() } else { None }
    }

    fn number(&mut self) -> Option<u64> {
        self.text()?.parse().ok()
    }

    fn flag(&mut self) -> Option<bool> {
        if let Value::Int(flag) = self.0.next()? { Some(flag == 1) } else { None }
    }

    fn debt(&mut self) -> Option<Option<u64>> {
        let debt = self.text()?;
        if debt.is_empty() { Some(None) } else { debt.parse().ok().map(Some) }
    }

    fn entry(&mut self) -> Option<Entry> {
        let text = self.text()?;
        let (node, term) = text.split_once(' ')?;
        Some(Entry { node: read_node(node)?, term: term.parse().ok()? })
    }
}

/// Reads the row `beat phase ...` of a node.
pub(super) fn read_member(node: &str, row: &str, time_ms: u64) -> Option<Member> {
    let mut words = row.splitn(3, ' ');
    let beat_ms = words.next()?.parse().ok()?;
    let phase = match words.next()? {
        "joining" => Phase::Joining,
        "up" => Phase::Up,
        "leaving" => Phase::Leaving,
        _ => return None,
    };
    let about = About::read(words.next().unwrap_or_default());
    Some(Member { node: read_node(node)?, phase, age_ms: time_ms.saturating_sub(beat_ms), about })
}

/// The word of a phase in a row.
pub(super) fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Joining => "joining",
        Phase::Up => "up",
        Phase::Leaving => "leaving",
    }
}
