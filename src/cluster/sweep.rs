//! The sweep: tells the directory all mailboxes of this node, after a doubt and every 10 minutes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    Happened,
    directory::{Fault, TELL, Told},
    node::{Node, directory},
    rules::{Rule, is_on},
};
use crate::{
    auth::TenantAddress,
    hub::{Standing, Term},
};

impl Node {
    /// Tells all mailboxes when [`Link::ask_to_tell`](super::link::Link::ask_to_tell) was called, and every [`SWEEP`].
    pub(super) async fn keep_told(self: &Arc<Self>) {
        loop {
            let wished = timeout(SWEEP.mul_f64(0.9 + fastrand::f64() * 0.2), self.link.retell_wished());
            let wished = wished.await.is_ok();
            if self.link.up().is_none() {
                sleep(AGAIN).await;
            } else if wished {
                self.link.take_retell();
                if self.tell_all_at_once().await.is_err() {
                    self.link.ask_to_tell();
                    sleep(AGAIN).await;
                }
            } else if is_on(Rule::TellsWithoutDoubt) {
                // A fault takes the link down, and then everything is told again.
                let _ = self.tell_all(self.link.era(), SPREAD).await;
            }
        }
    }

    /// Tells all mailboxes, and that this node owes nothing.
    async fn tell_all_at_once(self: &Arc<Self>) -> Result<(), Fault> {
        let (era, generation, alone) = (self.link.era(), self.link.generation(), self.alone.load(Ordering::Acquire));
        let debt = self.link.debt();
        self.tell_all(era, Duration::ZERO).await?;
        if self.link.era() != era || self.link.generation() != generation {
            // Another doubt: all is told once more.
            return Ok(());
        }
        if let Some(debt) = debt {
            directory!(self, told(debt))?;
            if self.link.debt() == Some(debt) {
                self.link.note_debt(None);
            }
        }
        // Fails when more were made meanwhile.
        let _ = self.alone.compare_exchange(alone, 0, Ordering::AcqRel, Ordering::Relaxed);
        Ok(())
    }

    async fn tell_all(self: &Arc<Self>, era: u32, pause: Duration) -> Result<(), Fault> {
        for part in 0.. {
            let Some(mailboxes) = self.hub().of_part(part) else { break };
            for batch in mailboxes.chunks(TELL) {
                self.tell_batch(batch, era).await?;
            }
            // Whoever wishes that all is told now does not wait for the end of a sweep.
            if !pause.is_zero() && timeout(pause, self.link.retell_wished()).await.is_ok() {
                break;
            }
        }
        Ok(())
    }

    async fn tell_batch(self: &Arc<Self>, batch: &[(TenantAddress, Standing)], era: u32) -> Result<(), Fault> {
        let mailboxes: Vec<_> = batch.iter().map(|(address, standing)| (address.clone(), standing.term)).collect();
        let told = directory!(self, tell(&mailboxes))?;
        for ((address, term), told) in mailboxes.iter().zip(told) {
            self.apply_told(address, *term, told, era);
        }
        self.observe(Happened::Told(batch.len()));
        Ok(())
    }

    /// Tells the directory of one mailbox: confirms it, or gives it up.
    pub(super) async fn verify(self: &Arc<Self>, address: &TenantAddress, term: Term) {
        let era = self.link.era();
        if let Ok(told) = directory!(self, tell(&[(address.clone(), term)]))
            && let Some(told) = told.first()
        {
            self.apply_told(address, term, *told, era);
        }
    }

    /// Does what the directory said of a mailbox of this term. `era`: when it was told.
    pub(super) fn apply_told(self: &Arc<Self>, address: &TenantAddress, term: Term, told: Told, era: u32) {
        match told {
            // Nothing happens when the mailbox has left meanwhile.
            Told::Mine(new) => {
                self.hub().confirm(address, term, new, era);
            }
            Told::Lost(entry) => self.give_up(address, entry.term.max(term + 1)),
        }
    }
}

/// How often all mailboxes are told without a doubt.
const SWEEP: Duration = Duration::from_secs(600);
/// The pause after each part of a sweep without a doubt, so that it is spread out.
const SPREAD: Duration = Duration::from_millis(500);
/// When to try again.
const AGAIN: Duration = Duration::from_millis(50);
