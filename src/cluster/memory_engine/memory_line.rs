//! One connection between a node and a server in memory: what goes in at one end comes out at the other in order, later, or never.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{MemoryServer, memory_network::Network};
use crate::{
    auth::TenantUser,
    cluster::{
        directory::NodeId,
        lost::Lost,
        wire::{Channel, Published},
    },
};

/// One connection.
pub(super) struct Line {
    pub(super) number: u64,
    /// The server process to which it goes.
    pub(super) run: u64,
    pub(super) node: NodeId,
    /// Why the node's end is closed.
    pub(super) lost: Lost,
    up: mpsc::Sender<(Instant, Command)>,
    down: mpsc::Sender<(Instant, Arrived)>,
    state: Mutex<State>,
}

struct State {
    /// When the last packet of each way arrives: the next one does not overtake it.
    up_at: Instant,
    down_at: Instant,
    presence: HashSet<TenantUser>,
}

/// Runs on the server. What it returns runs at the node when the answer arrives.
pub(super) type Command = Box<dyn FnOnce(&mut Network, &Line) -> Delivery + Send>;
pub(super) type Delivery = Box<dyn FnOnce() + Send>;

enum Arrived {
    Answer(Delivery),
    Published(Published),
}

impl Line {
    /// A connection of a node to a server process.
    #[expect(clippy::disallowed_methods, reason = "the tasks of a test end with the test")]
    pub(super) fn open(
        server: &MemoryServer,
        node: NodeId,
        run: u64,
        inbox: mpsc::Sender<Published>,
    ) -> Option<Arc<Self>> {
        let (up, commands) = mpsc::channel(QUEUE);
        let (down, arrived) = mpsc::channel(QUEUE);
        let mut network = server.0.lock();
        let state = State { up_at: Instant::now(), down_at: Instant::now(), presence: HashSet::new() };
        let line = Arc::new(Self {
            number: network.number(),
            run,
            node,
            lost: Lost::default(),
            up,
            down,
            state: Mutex::new(state),
        });
        network.open(&line).then(|| {
            tokio::spawn(serve(server.clone(), line.clone(), commands));
            tokio::spawn(deliver(server.clone(), Arc::downgrade(&line), arrived, inbox));
            line.clone()
        })
    }

    /// Sends a command to the server.
    pub(super) fn send(&self, network: &mut Network, command: Command) {
        let mut state = self.state.lock();
        state.up_at = state.up_at.max(Instant::now() + network.way());
        let at = state.up_at;
        drop(state);
        if self.up.try_send((at, command)).is_err() {
            self.lost.set("too many commands");
        }
    }

    /// Sends the node what was published for it.
    pub(super) fn send_published(&self, network: &mut Network, published: Published) {
        self.send_down(network, Arrived::Published(published));
    }

    fn send_down(&self, network: &mut Network, arrived: Arrived) {
        let mut state = self.state.lock();
        state.down_at = state.down_at.max(Instant::now() + network.way());
        let at = state.down_at;
        drop(state);
        if self.down.try_send((at, arrived)).is_err() {
            self.lost.set("the output buffer is full");
        }
    }

    /// Whether what is published on a channel goes down this line.
    pub(super) fn receives(&self, channel: &Channel) -> bool {
        match channel {
            Channel::Requests(node) | Channel::Answers(node) => *node == self.node,
            Channel::Presence(user) => self.state.lock().presence.contains(user),
        }
    }

    pub(super) fn follow(&self, user: TenantUser, follows: bool) {
        let presence = &mut self.state.lock().presence;
        if follows {
            presence.insert(user);
        } else {
            presence.remove(&user);
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.reason().is_some()
    }
}

/// The server's end: runs commands in order. Of those that were under way when the connection broke, the first few still run.
async fn serve(server: MemoryServer, line: Arc<Line>, mut commands: mpsc::Receiver<(Instant, Command)>) {
    loop {
        let next = tokio::select! {
            biased;
            next = commands.recv() => next,
            _ = line.lost.wait() => None,
        };
        let Some((at, command)) = next else { break };
        wait(&server, line.node, at).await;
        let mut network = server.0.lock();
        if line.is_lost() && !network.chance(STILL_RUNS) {
            break;
        }
        if network.script(line.run, line.node).is_none() {
            break;
        }
        let answer = command(&mut network, &line);
        line.send_down(&mut network, Arrived::Answer(answer));
    }
    line.lost.set("closed by the server");
    let way = server.0.lock().way();
    sleep(way).await;
    wait(&server, line.node, Instant::now()).await;
    server.0.lock().forget(&line);
}

/// The node's end: what arrives is given to whoever waits, in order.
async fn deliver(
    server: MemoryServer,
    line: std::sync::Weak<Line>,
    mut arrived: mpsc::Receiver<(Instant, Arrived)>,
    inbox: mpsc::Sender<Published>,
) {
    while let Some((at, arrived)) = arrived.recv().await {
        let Some(node) = line.upgrade().map(|line| line.node) else { return };
        wait(&server, node, at).await;
        let Some(line) = line.upgrade().filter(|line| !line.is_lost()) else { return };
        match arrived {
            Arrived::Answer(deliver) => deliver(),
            Arrived::Published(published) => {
                if inbox.try_send(published).is_err() {
                    line.lost.set("the inbox is full");
                }
            }
        }
    }
}

async fn wait(server: &MemoryServer, node: NodeId, at: Instant) {
    sleep_until(at).await;
    loop {
        let stalled = server.0.lock().stalled(node);
        let Some(until) = stalled else { return };
        sleep_until(until).await;
    }
}

/// How many packets one way may hold.
const QUEUE: usize = 65_536;

/// How many of a hundred commands still run after their connection broke.
const STILL_RUNS: u8 = 70;
