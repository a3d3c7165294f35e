//! Reads the answers of scripts.

use redis::Value;

use super::key_names::read_node;
use crate::{
    cluster::directory::{About, Beat, Claim, Entry, Found, Hello, Listed, Member, NodeId, Phase, Told},
    hub::Term,
    model::DeviceId,
};

/// The list that a script answered. Each method takes the next items from it.
pub(super) struct Reply(std::vec::IntoIter<Value>);

/// An answer is not what is expected.
#[derive(Debug)]
pub(super) struct Garbled;

impl Reply {
    pub(super) fn of(value: Value) -> Result<Self, Garbled> {
        if let Value::Array(items) = value { Ok(Self(items.into_iter())) } else { Err(Garbled) }
    }

    pub(super) fn hello(mut self) -> Result<Hello, Garbled> {
        Ok(Hello { generation: self.number()?, debt: self.debt()?, age_ms: self.number()? })
    }

    pub(super) fn beat(mut self) -> Result<Beat, Garbled> {
        let (time_ms, debt) = (self.number()?, self.debt()?);
        let mut members = Vec::with_capacity(self.0.len() / 2);
        while self.has_more() {
            // A row that somebody else wrote is no node.
            members.extend(read_member(&self.text()?, &self.text()?, time_ms));
        }
        members.sort_by_key(|member| member.node);
        Ok(Beat { members, time_ms, debt })
    }

    pub(super) fn claim(mut self) -> Result<Claim, Garbled> {
        Ok(match self.text()?.as_str() {
            "new" => Claim::New { term: self.number()?, sure: self.flag()? },
            "mine" => Claim::Mine(self.number()?),
            "over" => Claim::Over(self.number()?),
            "held" => Claim::Held(self.entry()?),
            "full" => Claim::Full,
            _ => return Err(Garbled),
        })
    }

    /// One number, such as the number of a debt.
    pub(super) fn one(mut self) -> Result<u64, Garbled> {
        self.number()
    }

    /// A new term, or nothing.
    pub(super) fn term(mut self) -> Result<Option<Term>, Garbled> {
        if self.has_more() { self.number().map(Some) } else { Ok(None) }
    }

    /// What became of each mailbox that was told.
    pub(super) fn told(mut self, me: NodeId, count: usize) -> Result<Vec<Told>, Garbled> {
        let told = |entry: Entry| if entry.node == me { Told::Mine(entry.term) } else { Told::Lost(entry) };
        let told = (0..self.0.len()).map(|_| self.entry().map(told)).collect::<Result<Vec<_>, _>>()?;
        if told.len() == count { Ok(told) } else { Err(Garbled) }
    }

    pub(super) fn found(mut self) -> Result<Found, Garbled> {
        Ok(match self.0.len() {
            1 if self.flag()? => Found::Nobody,
            1 => Found::Unsure,
            _ => Found::At(self.entry()?, self.flag()?),
        })
    }

    pub(super) fn list(mut self) -> Result<Listed, Garbled> {
        let sure = self.flag()?;
        let mut entries = Vec::with_capacity(self.0.len() / 3);
        while self.has_more() {
            let device = DeviceId::new(&self.text()?).map_err(|_| Garbled)?;
            entries.push((device, self.entry()?, self.flag()?));
        }
        entries.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        Ok(Listed { entries, sure })
    }

    fn has_more(&self) -> bool {
        self.0.len() > 0
    }

    fn text(&mut self) -> Result<String, Garbled> {
        let Some(Value::BulkString(bytes)) = self.0.next() else { return Err(Garbled) };
        String::from_utf8(bytes).map_err(|_| Garbled)
    }

    fn number(&mut self) -> Result<u64, Garbled> {
        self.text()?.parse().map_err(|_| Garbled)
    }

    fn flag(&mut self) -> Result<bool, Garbled> {
        if let Some(Value::Int(flag)) = self.0.next() { Ok(flag == 1) } else { Err(Garbled) }
    }

    /// Empty: the node owes nothing.
    fn debt(&mut self) -> Result<Option<u64>, Garbled> {
        let debt = self.text()?;
        if debt.is_empty() { Ok(None) } else { debt.parse().map(Some).map_err(|_| Garbled) }
    }

    fn entry(&mut self) -> Result<Entry, Garbled> {
        let text = self.text()?;
        let (node, term) = text.split_once(' ').ok_or(Garbled)?;
        Ok(Entry { node: read_node(node).ok_or(Garbled)?, term: term.parse().map_err(|_| Garbled)? })
    }
}

/// Reads the row `beat phase ...` of a node.
pub(super) fn read_member(node: &str, row: &str, time_ms: u64) -> Option<Member> {
    let mut words = row.splitn(3, ' ');
    let beat_ms = words.next()?.parse().ok()?;
    let phase = match words.next()? {
        "joining" => Phase::Joining,
        "up" => Phase::Up,
        // A phase of a newer release: at least it is not given anything.
        _ => Phase::Leaving,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn reply(items: &[Value]) -> Reply {
        Reply::of(Value::Array(items.to_vec())).unwrap()
    }

    #[test]
    fn an_answer_of_another_shape_is_garbled() {
        assert!(Reply::of(Value::Okay).is_err());
        let (one, node, entry) = (Value::Int(1), text("0000000000000001"), text("0000000000000001 1"));
        for items in [
            &[][..],
            &[Value::Nil],
            &[Value::BulkString(vec![0xff])],
            std::slice::from_ref(&one),
            &[text("x"), text("x")],
        ] {
            assert!(reply(items).hello().is_err(), "{items:?}");
            assert!(reply(items).beat().is_err(), "{items:?}");
            assert!(reply(items).claim().is_err(), "{items:?}");
            assert!(reply(items).told(NodeId(1), 3).is_err(), "{items:?}");
        }
        for (id, row) in
            [("0000000000000001", "1"), ("0000000000000001", "x up"), ("0000000000000001", ""), ("x", "1 up")]
        {
            let beat = reply(&[text("1"), text(""), text(id), text(row)]).beat();
            assert_eq!(beat.expect("the rest is good").members, [], "{id}: {row}");
        }
        assert!(reply(&[text("1"), text(""), node.clone()]).beat().is_err());
        assert!(reply(&[text("new"), text("x"), one.clone()]).claim().is_err());
        assert!(reply(&[text("held"), node.clone()]).claim().is_err());
        assert!(reply(std::slice::from_ref(&entry)).told(NodeId(1), 2).is_err());
        assert!(reply(&[one.clone(), text("phone"), entry.clone()]).list().is_err());
        assert!(reply(&[one.clone(), text("phone"), node, one.clone()]).list().is_err());
        assert!(reply(&[entry, text("1")]).found().is_err());
        assert!(reply(&[text("x")]).term().is_err());
    }
}
