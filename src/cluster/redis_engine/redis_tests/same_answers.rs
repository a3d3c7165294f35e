//! The scripts answer as the engine in memory does: the same random calls of three nodes, on both, give the same answers and notices.

use std::time::Duration;

use tokio::{
    runtime::{Builder, Runtime},
    time::sleep,
};

use super::{
    Linked, engine,
    random_calls::{Calls, NODES},
    real_server::{PROGRAMS, RealServer},
    within,
};
use crate::cluster::{
    directory::{Directory, Fault, NodeId},
    memory_engine::MemoryServer,
    wire::{Channel, Engine},
};

#[test]
fn the_scripts_of_each_server_give_the_same_answers_as_the_engine_in_memory() {
    let expected = (0..SEEDS).map(|seed| runtime(true).block_on(in_memory(seed))).collect::<Vec<_>>();
    for program in PROGRAMS {
        runtime(false).block_on(async {
            let Some(server) = RealServer::start(program, "").await else { return };
            for (seed, expected) in (0..SEEDS).zip(&expected) {
                server.run(&["FLUSHALL"]).await;
                let found = World::new(Of::Real(&server), &engine(&server.url()), seed).play().await;
                for (index, pair) in expected.iter().zip(&found).enumerate() {
                    let before = &expected[index.saturating_sub(12)..index];
                    assert_eq!(pair.0, pair.1, "{program}, seed {seed}, after {before:#?}");
                }
                assert_eq!(expected.len(), found.len());
            }
        });
    }
}

/// Which things happened in the random calls: a test that never sees an answer proves nothing about it.
#[test]
fn the_random_calls_see_every_answer_and_notice() {
    let lines = (0..SEEDS).flat_map(|seed| runtime(true).block_on(in_memory(seed))).collect::<Vec<_>>();
    for answer in [
        "New { term",
        "sure: true",
        "sure: false",
        "Mine(",
        "Over(",
        "Held(",
        "Full",
        "take_over moved",
        "take_over changed",
        "revive moved",
        "revive changed",
        "Lost(",
        "At(",
        ", true)",
        ", false)",
        "Nobody",
        "Unsure",
        "Reborn",
        "debt: Some",
        "debt: None",
        "notice \"NM",
        "notice \"NY",
        "restart",
        "flush",
        "Leaving",
        "use_ticket true",
        "use_ticket false",
    ] {
        assert!(lines.iter().any(|line| line.contains(answer)), "{answer}");
    }
}

async fn in_memory(seed: u64) -> Vec<String> {
    let server = MemoryServer::new(seed);
    server.set_latency(Duration::ZERO);
    World::new(Of::Memory(&server), &server, seed).play().await
}

fn runtime(paused: bool) -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap()
}

/// Three nodes and their server.
pub(super) struct World<'a> {
    of: Of<'a>,
    engine: &'a dyn Engine,
    nodes: [Option<Linked>; NODES],
    /// By how much the server's clock is ahead.
    ahead: Duration,
    calls: Calls,
    /// What happened.
    lines: Vec<String>,
    notices: [Vec<String>; NODES],
}

enum Of<'a> {
    Memory(&'a MemoryServer),
    Real(&'a RealServer),
}

impl<'a> World<'a> {
    fn new(of: Of<'a>, engine: &'a dyn Engine, seed: u64) -> Self {
        Self {
            of,
            engine,
            nodes: [None, None, None],
            ahead: Duration::ZERO,
            calls: Calls::new(seed),
            lines: Vec::new(),
            notices: [const { Vec::new() }; NODES],
        }
    }

    async fn play(mut self) -> Vec<String> {
        for _ in 0..STEPS {
            let node = self.calls.random.usize(0..NODES);
            match self.calls.random.u8(0..40) {
                0 => self.flush().await,
                1 => self.restart().await,
                2..6 => self.age().await,
                _ if self.nodes[node].is_none() => self.join(node).await,
                _ => self.step(node).await,
            }
        }
        for node in 0..NODES {
            self.leave(node).await;
        }
        let Self { mut lines, notices, .. } = self;
        let told =
            notices.iter().enumerate().flat_map(|(node, notices)| notices.iter().map(move |notice| (node, notice)));
        lines.extend(told.map(|(node, notice)| format!("{node}: notice {notice:?}")));
        lines
    }

    async fn join(&mut self, node: usize) {
        self.nodes[node] = Some(Linked::to(self.engine, id(node).0).await);
        self.call(node, Calls::hello).await;
    }

    async fn step(&mut self, node: usize) {
        self.call(node, Calls::any).await;
    }

    async fn call(
        &mut self,
        node: usize,
        make: impl AsyncFnOnce(&mut Calls, usize, &dyn Directory) -> Result<String, Fault>,
    ) {
        let Some(linked) = &self.nodes[node] else { return };
        let result = make(&mut self.calls, node, &*linked.connection.directory).await;
        match result {
            Ok(line) => self.note(&format!("{node}: {line}")),
            Err(fault) => {
                assert_eq!(fault, Fault::Reborn, "after {:#?}", self.lines);
                self.note(&format!("{node}: Reborn"));
                // The notices came before the answer.
                self.take_notices(node);
                self.nodes[node] = None;
            }
        }
    }

    /// A node breaks its link when everything that was published for it has come.
    async fn leave(&mut self, node: usize) {
        let Some(linked) = &mut self.nodes[node] else { return };
        linked.connection.wire.publish(Channel::Answers(id(node)), "end".into()).await.unwrap();
        loop {
            let pushed = within(linked.inbox.recv()).await.expect("linked");
            if pushed.channel == Channel::Answers(id(node)) {
                break;
            }
            self.notices[node].push(String::from_utf8(pushed.bytes.to_vec()).unwrap());
        }
        self.nodes[node] = None;
    }

    fn take_notices(&mut self, node: usize) {
        let Some(linked) = &mut self.nodes[node] else { return };
        while let Ok(pushed) = linked.inbox.try_recv() {
            self.notices[node].push(String::from_utf8(pushed.bytes.to_vec()).unwrap());
        }
    }

    async fn flush(&mut self) {
        self.note("flush");
        self.lose().await;
        match self.of {
            Of::Memory(server) => server.flush(),
            Of::Real(server) => drop(server.run(&["FLUSHALL"]).await),
        }
    }

    /// What comes is another directory, of another time. In memory a call takes no time.
    async fn lose(&mut self) {
        self.calls.is_lost = true;
        sleep(Duration::from_millis(1)).await;
    }

    /// The server is a new process with the old data. All links break.
    async fn restart(&mut self) {
        for node in 0..NODES {
            self.leave(node).await;
        }
        self.note("restart");
        self.lose().await;
        match self.of {
            Of::Memory(server) => {
                server.restart(Some(&server.snapshot()));
                server.set_ahead(self.ahead);
            }
            Of::Real(server) => drop(server.run(&["EVAL", ANOTHER_RUN, "0"]).await),
        }
    }

    /// Time passes. What a real server has stored becomes older instead.
    async fn age(&mut self) {
        let time = [AGE, AGE, 2 * AGE, 3 * AGE, 24 * AGE][self.calls.random.usize(0..5)];
        self.note(&format!("{} s pass", time.as_secs_f32()));
        self.ahead += time;
        match self.of {
            Of::Memory(server) => server.set_ahead(self.ahead),
            Of::Real(server) => drop(server.run(&["EVAL", MAKE_OLDER, "0", &time.as_millis().to_string()]).await),
        }
    }

    fn note(&mut self, line: &str) {
        self.lines.push(line.to_owned());
    }
}

pub(super) fn id(node: usize) -> NodeId {
    NodeId([7, 0xffff_ffff_ffff_fff0, 0x0123_4567_89ab_cdef][node])
}

/// How many sequences are played, and how long each is. Short: clocks must not drift past a limit of the protocol on one server only.
const SEEDS: u64 = 60;
const STEPS: usize = 80;

/// Two of it are less than the 6 s after which a node is dead, three are more, and none is near the 60 s after which it is forgotten.
const AGE: Duration = Duration::from_millis(2_700);

const ANOTHER_RUN: &str = "if redis.call('EXISTS', 'bs:g') == 1 then redis.call('HSET', 'bs:g', 'run', 'another') end";

const MAKE_OLDER: &str = r"
for _, key in ipairs({ 'bs:m', 'bs:o' }) do
  local rows = redis.call('HGETALL', key)
  for i = 1, #rows, 2 do
    local pattern = key == 'bs:m' and '^()(%d+)(.*)$' or '^(%d+ )(%d+)()$'
    local before, time, after = string.match(rows[i + 1], pattern)
    if key == 'bs:m' then before = '' else after = '' end
    redis.call('HSET', key, rows[i], before .. string.format('%.0f', time - ARGV[1]) .. after)
  end
end
local since = redis.call('HGET', 'bs:g', 'since')
if since then redis.call('HSET', 'bs:g', 'since', string.format('%.0f', since - ARGV[1])) end
for _, key in ipairs(redis.call('KEYS', 'bs:t:*')) do
  redis.call('PEXPIRE', key, redis.call('PTTL', key) - ARGV[1])
end";
