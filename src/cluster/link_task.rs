//! The task that keeps the link: connects, says hello, reads what comes in, and says once a second that this node is alive.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::mpsc, time::sleep};

use super::{
    Happened,
    directory::Phase,
    link::Up,
    node::Node,
    rules::{Rule, is_on},
    wire::{Connection, INBOX, Published},
};

impl Node {
    /// Connects again and again.
    pub(super) async fn keep_linked(self: &Arc<Self>) {
        loop {
            self.wait_if_left().await;
            let (sender, inbox) = mpsc::channel(INBOX);
            let reason = match self.engine.connect(self.id, sender).await {
                Ok(connection) => self.serve(connection, inbox).await,
                Err(fault) => fault.to_string(),
            };
            let known = self.link.down().is_some_and(|down| down.reason == reason);
            if !known {
                self.link.stays_down(&reason);
                self.observe(Happened::LinkDown { reason: &reason });
            }
            sleep(AGAIN.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// Uses a connection until it is lost. Returns why.
    async fn serve(self: &Arc<Self>, connection: Connection, inbox: mpsc::Receiver<Published>) -> String {
        let (known, alone) = (self.link.generation(), self.alone.load(Ordering::Acquire));
        let owes = alone > 0 || self.stubs.has_parcels() || known == 0 && self.has_mailboxes();
        let hello = match connection.directory.hello(known, owes).await {
            Ok(hello) => hello,
            Err(fault) => return fault.to_string(),
        };
        let up = self.link.came_up(&connection, &hello);
        self.observe(Happened::LinkUp { generation: hello.generation });
        if hello.generation != known && is_on(Rule::MournsOldGenerations) {
            self.mourn_older_generations();
        }
        let reason = tokio::select! {
            biased;
            reason = connection.lost.wait() => reason,
            () = self.link.until_lost(&up) => self.link.down().map_or_else(String::new, |down| down.reason),
            reason = self.beat(&up, alone) => reason,
            () = self.read(inbox) => "the connection is over".to_owned(),
        };
        self.take_down(up.number, &reason);
        self.following.doubt();
        reason
    }

    async fn read(self: &Arc<Self>, mut inbox: mpsc::Receiver<Published>) {
        while let Some(published) = inbox.recv().await {
            self.receive(&published);
        }
    }

    /// Says that this node is alive, until that fails. Returns why. `alone`: how many mailboxes were made without the directory
    /// when the hello was sent.
    async fn beat(self: &Arc<Self>, up: &Arc<Up>, alone: u64) -> String {
        // Made while the hello was on its way.
        if self.alone.load(Ordering::Acquire) != alone {
            let owed = up.directory.owe().await;
            match self.down_on_fault(up, owed) {
                Ok(debt) => {
                    self.link.note_debt(Some(debt));
                    // Everything may have been told already, for another debt or for none.
                    self.link.ask_to_tell();
                }
                Err(fault) => return fault.to_string(),
            }
        }
        let node = self.clone();
        self.spawn(async move { node.catch_up_presence().await });
        loop {
            self.wait_if_left().await;
            let (sent, about) = (self.around.wall_clock_ms(), self.around.about());
            let beat = up.directory.beat(self.phase(), &about).await;
            let beat = match self.down_on_fault(up, beat) {
                Ok(beat) => beat,
                Err(fault) => return fault.to_string(),
            };
            self.link.note_beat(&beat, sent, self.around.wall_clock_ms());
            let young = up.is_young();
            self.note_nodes(&beat.members, young);
            if self.phase() == Phase::Joining {
                self.enter(Phase::Up);
            }
            self.observe(Happened::Beat { members: &beat.members, young });
            sleep(BEAT.mul_f64(0.9 + fastrand::f64() * 0.2)).await;
        }
    }

    /// Looks at the clock and at the stubs whose time is over.
    pub(super) async fn keep_time(self: &Arc<Self>) {
        loop {
            sleep(TICK).await;
            self.link.era();
            self.close_due_stubs();
        }
    }
}

/// When a link that is down is tried again.
const AGAIN: Duration = Duration::from_millis(100);
const BEAT: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(200);
