//! Watching: opens a live view of the devices of some users, on all nodes.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use tokio::task::yield_now;

use super::{Hub, Reply, UserSet, Watch, board::Board, heartbeat::Heartbeat, heartbeat_ms, slot::Slot};
use crate::{
    auth::{Caller, TenantUser},
    error::Error,
};

impl Hub {
    /// Watches the devices of some users: gives the list of connected devices of each user, then their changes in order.
    ///
    /// # Errors
    /// As [`Caller::reach`], for all when the caller may not reach one; [`Error::Draining`]; [`Error::TooMany`]. With more nodes also
    /// [`Error::Unreachable`].
    pub async fn watch(&self, caller: &Caller, users: &UserSet, heartbeat: Duration) -> Result<Watch, Error> {
        let users = users.iter().map(|user| caller.reach(user)).collect::<Result<Vec<_>, _>>()?;
        self.refuse_when_draining()?;
        let (core, key) = (&self.0.core, caller.key());
        let ticket = caller.reserve_ticket().await.inspect_err(|error| self.observe_refused(*error))?;
        let limits = core.limits.of(caller).watches;
        let boards = core.presence.add_watches(&users, key.as_ref(), limits, |user| core.backplane.unwatch(user));
        let boards = boards.inspect_err(|error| self.observe_refused(*error))?;
        let heartbeat = Heartbeat::new(heartbeat_ms(heartbeat), self.now());
        let mut watch = Watch::new(self.clone(), &boards, key, caller.expires(), heartbeat);
        self.follow(&users).await.inspect_err(|error| self.observe_refused(*error))?;
        watch.open();
        for board in &boards {
            self.fill(board);
        }
        // A drain that began in the meantime may have missed this watch.
        self.refuse_when_draining()?;
        ticket.use_up();
        Ok(watch)
    }

    /// Follows the devices of users on other nodes, all at the same time.
    async fn follow(&self, users: &[TenantUser]) -> Result<(), Error> {
        let core = &self.0.core;
        for user in users {
            // The last watch of before may be about to say that it is over.
            while core.presence.is_unwatching(user) {
                yield_now().await;
            }
        }
        let mut followed: Vec<Reply<'_, Result<(), Error>>> =
            users.iter().map(|user| core.backplane.watch(user)).collect();
        poll_fn(|context| {
            let mut failed = None;
            followed.retain_mut(|followed| match followed.as_mut().poll(context) {
                Poll::Ready(answer) => {
                    failed = failed.or(answer.err());
                    false
                }
                Poll::Pending => true,
            });
            match failed {
                Some(error) => Poll::Ready(Err(error)),
                None if followed.is_empty() => Poll::Ready(Ok(())),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Fills the board of a first watch with the devices of all nodes.
    fn fill(&self, board: &Arc<Board>) {
        let (core, now) = (&self.0.core, self.now());
        board.fill(now, || {
            let page = |slot: &Arc<Slot>| Some((slot.address.device.clone(), slot.live_page()?));
            let here = core.registry.live(&board.user);
            // A device that just moved may be on both lists. This node knows its own better.
            here.iter().filter_map(page).chain(core.backplane.remote_pages(&board.user)).collect()
        });
        board.schedule(&core.deadlines, now);
    }
}
