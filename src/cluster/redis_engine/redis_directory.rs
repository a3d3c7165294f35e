//! The directory on Redis: each method is one script, in one round trip.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use redis::{Cmd, Value};

use super::{
    commands::Commands,
    key_names::RedisPrefix,
    lua::{Loaded, Script},
    replies::{Garbled, Reply, phase_word},
};
use crate::{
    auth::{TenantAddress, TenantUser},
    cluster::directory::{
        About, Answer, Beat, Claim, Directory, Entry, Fault, Found, Hello, Listed, NodeId, Phase, Told,
    },
    hub::Term,
};

pub(super) struct RedisDirectory {
    pub(super) commands: Arc<Commands>,
    pub(super) prefix: RedisPrefix,
    pub(super) scripts: Loaded,
    pub(super) node: NodeId,
    /// The run of the server.
    pub(super) run: String,
    pub(super) generation: AtomicU64,
}

impl RedisDirectory {
    /// A script that needs no device.
    fn call(&self, script: Script) -> Cmd {
        self.call_on(script, self.generation(), &[])
    }

    /// A script about a device, which is its first argument.
    fn call_for(&self, script: Script, address: &TenantAddress) -> Cmd {
        let mut command = self.call_on(script, self.generation(), &[&address.user]);
        command.arg(address.device.as_str());
        command
    }

    fn call_on(&self, script: Script, generation: u64, users: &[&TenantUser]) -> Cmd {
        let mut command = self.scripts.call(script);
        command.arg(3 + users.len());
        command.arg(self.prefix.directory()).arg(self.prefix.members()).arg(self.prefix.debts());
        for user in users {
            command.arg(self.prefix.devices(user));
        }
        command.arg(generation).arg(self.node.to_string()).arg(self.prefix.requests());
        command
    }

    /// Looks a device up. `not`: the text of an entry that counts as none, or empty.
    async fn look_up(&self, address: &TenantAddress, not: String) -> Result<Found, Fault> {
        let mut command = self.call_for(Script::Find, address);
        command.arg(not);
        self.run(command, Reply::found).await
    }

    /// Runs a script, and reads its answer.
    async fn run<T>(&self, command: Cmd, read: impl FnOnce(Reply) -> Result<T, Garbled>) -> Result<T, Fault> {
        match self.commands.call(&command).await? {
            Value::SimpleString(status) if status == "REBORN" => Err(self.commands.reborn()),
            value => Reply::of(value).and_then(read).map_err(|Garbled| self.commands.not_understood()),
        }
    }
}

fn entry_text(Entry { node, term }: Entry) -> String {
    format!("{node} {term}")
}

impl Directory for RedisDirectory {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn hello(&self, known: u64, owes: bool) -> Answer<'_, Hello> {
        Box::pin(async move {
            let mut command = self.call_on(Script::Hello, known, &[]);
            command.arg(&self.run).arg(u8::from(owes));
            let hello = self.run(command, Reply::hello).await?;
            self.generation.store(hello.generation, Ordering::Release);
            Ok(hello)
        })
    }

    fn beat<'a>(&'a self, phase: Phase, about: &'a About) -> Answer<'a, Beat> {
        Box::pin(async move {
            let mut command = self.call(Script::Beat);
            command.arg(format!("{} {about}", phase_word(phase)));
            self.run(command, Reply::beat).await
        })
    }

    fn told(&self, debt: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut command = self.call(Script::Told);
            command.arg(debt);
            self.run(command, |_| Ok(())).await
        })
    }

    fn owe(&self) -> Answer<'_, u64> {
        Box::pin(async move { self.run(self.call(Script::Owe), Reply::one).await })
    }

    fn claim<'a>(&'a self, address: &'a TenantAddress, limit: usize) -> Answer<'a, Claim> {
        Box::pin(async move {
            let mut command = self.call_for(Script::Claim, address);
            command.arg(limit);
            self.run(command, Reply::claim).await
        })
    }

    fn take_over<'a>(&'a self, address: &'a TenantAddress, from: Entry, forced: bool) -> Answer<'a, Option<Term>> {
        Box::pin(async move {
            let mut command = self.call_for(Script::TakeOver, address);
            command.arg(entry_text(from)).arg(if forced { "Y" } else { "M" });
            self.run(command, Reply::term).await
        })
    }

    fn revive<'a>(&'a self, address: &'a TenantAddress, term: Term) -> Answer<'a, Option<Term>> {
        Box::pin(async move {
            let mut command = self.call_for(Script::Revive, address);
            command.arg(term);
            self.run(command, Reply::term).await
        })
    }

    fn release<'a>(&'a self, address: &'a TenantAddress, term: Term) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut command = self.call_for(Script::Release, address);
            command.arg(term);
            self.run(command, |_| Ok(())).await
        })
    }

    fn bury<'a>(&'a self, address: &'a TenantAddress, entry: Entry) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut command = self.call_for(Script::Bury, address);
            command.arg(entry_text(entry));
            self.run(command, |_| Ok(())).await
        })
    }

    fn tell<'a>(&'a self, mailboxes: &'a [(TenantAddress, Term)]) -> Answer<'a, Vec<Told>> {
        Box::pin(async move {
            let users = mailboxes.iter().map(|(address, _)| &address.user).collect::<Vec<_>>();
            let mut command = self.call_on(Script::Tell, self.generation(), &users);
            for (address, term) in mailboxes {
                command.arg(address.device.as_str()).arg(*term);
            }
            self.run(command, |reply| reply.told(self.node, mailboxes.len())).await
        })
    }

    fn find<'a>(&'a self, address: &'a TenantAddress) -> Answer<'a, Found> {
        Box::pin(self.look_up(address, String::new()))
    }

    fn absent<'a>(&'a self, address: &'a TenantAddress, entry: Entry) -> Answer<'a, Found> {
        Box::pin(self.look_up(address, entry_text(entry)))
    }

    fn list<'a>(&'a self, user: &'a TenantUser) -> Answer<'a, Listed> {
        Box::pin(async move {
            let command = self.call_on(Script::List, self.generation(), &[user]);
            self.run(command, Reply::list).await
        })
    }

    fn bye(&self) -> Answer<'_, ()> {
        Box::pin(async move { self.run(self.call(Script::Bye), |_| Ok(())).await })
    }

    fn use_ticket<'a>(&'a self, ticket: &'a [u8]) -> Answer<'a, bool> {
        Box::pin(async move {
            let mut command = redis::cmd("SET");
            command.arg(self.prefix.ticket(ticket)).arg("").arg("NX").arg("PX").arg(TICKET_MS);
            match self.commands.call(&command).await? {
                Value::Okay => Ok(true),
                Value::Nil => Ok(false),
                _ => Err(self.commands.not_understood()),
            }
        })
    }
}

/// For how long a used ticket is remembered, in milliseconds: longer than it is valid.
const TICKET_MS: u64 = 31_000;
