//! An engine in memory, for tests: servers with the scripts of the protocol, on virtual time, over a network that a test can break.

mod memory_faults;
mod memory_line;
mod memory_network;
mod memory_tables;
mod memory_tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, sleep_until, timeout},
};

pub(crate) use self::memory_network::{BEGAN_US, MemoryServer, Snapshot};
use self::{
    memory_line::{Delivery, Line},
    memory_network::Network,
    memory_tables::Script,
};
use super::{
    directory::{About, Answer, Beat, Claim, Directory, Entry, Fault, Found, Hello, Listed, NodeId, Phase, TELL, Told},
    wire::{Channel, Connection, Engine, Published, Wire},
};
use crate::{
    auth::{TenantAddress, TenantUser},
    hub::Term,
};

impl Engine for MemoryServer {
    fn connect(&self, node: NodeId, inbox: mpsc::Sender<Published>) -> Answer<'_, Connection> {
        Box::pin(async move {
            let connected = timeout(CONNECT_LIMIT, self.round_trip(node)).await;
            let run = connected.map_err(|_| down("no connection in time"))??;
            // INFO, SCRIPT LOAD and SUBSCRIBE, one after the other on one connection.
            let checked = timeout(CALL_LIMIT, self.round_trip(node)).await;
            if checked.map_err(|_| down("no answer in time"))?? != run {
                return Err(down("connection reset"));
            }
            let line = Line::open(self, node, run, inbox).ok_or_else(|| down("connection reset"))?;
            let lost = line.lost.clone();
            let end = Arc::new(NodeEnd { line, server: self.clone(), generation: AtomicU64::new(0) });
            Ok(Connection { directory: end.clone(), wire: end, lost })
        })
    }
}

impl MemoryServer {
    /// Waits for a packet there and back. Gives the run id of the server.
    async fn round_trip(&self, node: NodeId) -> Result<u64, Fault> {
        let way = {
            let mut network = self.0.lock();
            network.way() + network.way()
        };
        sleep(way).await;
        loop {
            let (run, stalled) = {
                let network = self.0.lock();
                (network.reach(node), network.stalled(node))
            };
            let Some(until) = stalled else { return run.ok_or_else(|| down("connection refused")) };
            sleep_until(until).await;
        }
    }
}

/// A node's end of a connection. Closes the connection when it is dropped.
struct NodeEnd {
    line: Arc<Line>,
    server: MemoryServer,
    generation: AtomicU64,
}

impl Drop for NodeEnd {
    fn drop(&mut self) {
        self.line.lost.set("closed");
    }
}

impl NodeEnd {
    /// Sends a command. Any answer but a good one ends the connection.
    async fn call<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Network, &Line) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let line = &self.line;
        if let Some(why) = line.lost.reason() {
            return Err(Fault::Down(why));
        }
        let (sender, mut answer) = oneshot::channel();
        let command = move |network: &mut Network, line: &Line| -> Delivery {
            let answer = match network.refuses(line.run) {
                Some(error) => Err(Fault::Down(error)),
                None => run(network, line),
            };
            // Fails when nobody waits for the answer any more.
            Box::new(move || drop(sender.send(answer)))
        };
        line.send(&mut self.server.0.lock(), Box::new(command));
        tokio::select! {
            biased;
            Ok(answer) = &mut answer => {
                answer.inspect_err(|fault| line.lost.set(&fault.to_string()))
            }
            why = line.lost.wait() => Err(Fault::Late(why)),
            () = sleep(CALL_LIMIT) => {
                line.lost.set("no answer in time");
                Err(Fault::Late("no answer in time".to_owned()))
            }
        }
    }

    /// Runs a script, and publishes its notices.
    async fn script<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Script<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.call(move |network, line| {
            let mut script = network.script(line.run, line.node).ok_or_else(|| down("the server is gone"))?;
            let answer = run(&mut script);
            for (node, bytes) in script.notices {
                network.publish(line.run, &Channel::Requests(node), &bytes.into(), false);
            }
            answer
        })
        .await
    }

    /// Runs a script of the generation that this node knows.
    fn run<T: Send + 'static>(&self, run: impl FnOnce(&mut Script<'_>) -> T + Send + 'static) -> Answer<'_, T> {
        let generation = self.generation();
        Box::pin(self.script(move |script| script.check(generation).map(|()| run(script))))
    }
}

impl Directory for NodeEnd {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn hello(&self, known: u64, owes: bool) -> Answer<'_, Hello> {
        Box::pin(async move {
            let run = self.line.run;
            let hello = self.script(move |script| Ok(script.hello(run, known, owes))).await?;
            self.generation.store(hello.generation, Ordering::Release);
            Ok(hello)
        })
    }

    fn beat<'a>(&'a self, phase: Phase, about: &'a About) -> Answer<'a, Beat> {
        let about = about.clone();
        self.run(move |script| script.beat(phase, &about))
    }

    fn told(&self, debt: u64) -> Answer<'_, ()> {
        self.run(move |script| script.told(debt))
    }

    fn owe(&self) -> Answer<'_, u64> {
        self.run(|script: &mut Script<'_>| script.owe())
    }

    fn claim<'a>(&'a self, address: &'a TenantAddress, limit: usize) -> Answer<'a, Claim> {
        let address = address.clone();
        self.run(move |script| script.claim(&address, limit))
    }

    fn take_over<'a>(&'a self, address: &'a TenantAddress, from: Entry, forced: bool) -> Answer<'a, Option<Term>> {
        let address = address.clone();
        self.run(move |script| script.take_over(&address, from, forced))
    }

    fn revive<'a>(&'a self, address: &'a TenantAddress, term: Term) -> Answer<'a, Option<Term>> {
        let address = address.clone();
        self.run(move |script| script.revive(&address, term))
    }

    fn release<'a>(&'a self, address: &'a TenantAddress, term: Term) -> Answer<'a, ()> {
        let address = address.clone();
        self.run(move |script| script.release(&address, term))
    }

    fn bury<'a>(&'a self, address: &'a TenantAddress, entry: Entry) -> Answer<'a, ()> {
        let address = address.clone();
        self.run(move |script| script.bury(&address, entry))
    }

    fn tell<'a>(&'a self, mailboxes: &'a [(TenantAddress, Term)]) -> Answer<'a, Vec<Told>> {
        assert!(mailboxes.len() <= TELL, "at most {TELL} at a time");
        let mailboxes = mailboxes.to_vec();
        self.run(move |script| mailboxes.iter().map(|(address, term)| script.tell(address, *term)).collect())
    }

    fn find<'a>(&'a self, address: &'a TenantAddress) -> Answer<'a, Found> {
        let address = address.clone();
        self.run(move |script| script.find(&address))
    }

    fn absent<'a>(&'a self, address: &'a TenantAddress, entry: Entry) -> Answer<'a, Found> {
        let address = address.clone();
        self.run(move |script| script.absent(&address, entry))
    }

    fn list<'a>(&'a self, user: &'a TenantUser) -> Answer<'a, Listed> {
        let user = user.clone();
        self.run(move |script| script.list(&user))
    }

    fn bye(&self) -> Answer<'_, ()> {
        self.run(|script: &mut Script<'_>| script.bye())
    }

    fn use_ticket<'a>(&'a self, ticket: &'a [u8]) -> Answer<'a, bool> {
        let ticket = ticket.to_vec();
        // A used ticket is of no generation.
        Box::pin(self.script(move |script| Ok(script.use_ticket(&ticket))))
    }
}

impl Wire for NodeEnd {
    fn publish(&self, channel: Channel, bytes: Bytes) -> Answer<'_, usize> {
        let may_get_lost = !matches!(channel, Channel::Presence(_));
        Box::pin(self.call(move |network, line| Ok(network.publish(line.run, &channel, &bytes, may_get_lost))))
    }

    fn subscribe<'a>(&'a self, user: &'a TenantUser) -> Answer<'a, ()> {
        let user = user.clone();
        Box::pin(self.call(move |_, line| {
            line.follow(user, true);
            Ok(())
        }))
    }

    fn unsubscribe<'a>(&'a self, user: &'a TenantUser) -> Answer<'a, ()> {
        let user = user.clone();
        Box::pin(self.call(move |_, line| {
            line.follow(user, false);
            Ok(())
        }))
    }
}

fn down(why: &str) -> Fault {
    Fault::Down(why.to_owned())
}

/// How long a node waits for a connection.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// How long a node waits for the answer of a command.
const CALL_LIMIT: Duration = Duration::from_secs(1);
