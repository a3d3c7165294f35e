//! Presence: the boards of all watched users, and the limits of watches.

use std::{
    collections::HashMap,
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use parking_lot::Mutex;

use super::{
    board::Board,
    deadlines::Deadlines,
    registry::{self, UserHasher},
    time::Millis,
};
use crate::{
    auth::{CallerKey, TenantAddress, TenantUser},
    error::{Error, Limit},
    model::EndReason,
};

type Boards = HashMap<TenantUser, WatchedUser>;

#[derive(Default)]
struct Shard {
    boards: Mutex<Boards>,
    /// How many users of this shard have lost their last watch, and other nodes are about to learn of that. Rises under the lock.
    unwatching: AtomicUsize,
}

/// A board and the number of its watches.
struct WatchedUser {
    board: Arc<Board>,
    watches: usize,
}

/// The users that are watched. Other users have no board.
pub(super) struct Presence {
    shards: Box<[Shard]>,
    hasher: UserHasher,
    /// How many watches each caller has.
    callers: Mutex<HashMap<CallerKey, usize>>,
}

/// How many watches there may be. 0: any number.
#[derive(Clone, Copy, Debug)]
pub(super) struct WatchLimits {
    /// Watches of one user.
    pub(super) of_user: usize,
    /// Watches of one caller.
    pub(super) of_caller: usize,
}

impl Presence {
    pub(super) fn new() -> Self {
        let shards = (0..registry::SHARDS).map(|_| Shard::default()).collect();
        Self { shards, hasher: UserHasher::default(), callers: Mutex::default() }
    }

    /// Adds a watch of some users: of all, or of none when there is an error. It counts once for its caller, and once for each user.
    /// `unwatch` is as in [`Presence::remove_watch`].
    ///
    /// # Errors
    /// [`Error::TooMany`] when the caller or a user has reached the limit of watches.
    pub(super) fn add_watches(
        &self,
        users: &[TenantUser],
        caller: Option<&CallerKey>,
        limits: WatchLimits,
        unwatch: impl Fn(&TenantUser),
    ) -> Result<Vec<Arc<Board>>, Error> {
        self.add_to_caller(caller, limits.of_caller)?;
        let mut boards = Vec::new();
        for user in users {
            match self.add_to_user(user, limits.of_user) {
                Ok(board) => boards.push(board),
                Err(error) => {
                    self.remove_watch(boards.iter().map(|board: &Arc<Board>| &board.user), caller, unwatch);
                    return Err(error);
                }
            }
        }
        Ok(boards)
    }

    fn add_to_user(&self, user: &TenantUser, most: usize) -> Result<Arc<Board>, Error> {
        let mut boards = self.shard(user).boards.lock();
        let new = || WatchedUser { board: Arc::new(Board::new(user.clone())), watches: 0 };
        let watched = boards.entry(user.clone()).or_insert_with(new);
        if most > 0 && watched.watches >= most {
            return Err(Error::too_many(Limit::UserWatchers));
        }
        watched.watches += 1;
        Ok(watched.board.clone())
    }

    /// Removes a watch of some users. Removes the board of a user with the last watch, and then calls `unwatch`.
    pub(super) fn remove_watch<'a>(
        &self,
        users: impl Iterator<Item = &'a TenantUser>,
        caller: Option<&CallerKey>,
        unwatch: impl Fn(&TenantUser),
    ) {
        self.remove_from_caller(caller);
        for user in users {
            let shard = self.shard(user);
            if shard.remove_from(user) {
                unwatch(user);
                shard.unwatching.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Whether the end of the last watch may still be on its way to other nodes. A new watch waits for that: if it was told first, this
    /// node would stop to follow a user that is watched.
    pub(super) fn is_unwatching(&self, user: &TenantUser) -> bool {
        self.shard(user).unwatching.load(Ordering::Acquire) > 0
    }

    /// Marks a device that came, went or began a new page. Calls may be late or repeated: the board is checked against the state of
    /// the device at that time.
    pub(super) fn changed(&self, deadlines: &Deadlines, address: &TenantAddress, now: Millis) {
        let board = self.shard(&address.user).boards.lock().get(&address.user).map(|watched| watched.board.clone());
        if let Some(board) = board {
            board.mark(&address.device, now);
            board.schedule(deadlines, now);
        }
    }

    /// Ends the watches of one shard. Returns their wakers.
    pub(super) fn end(&self, shard: usize, reason: EndReason) -> Vec<Waker> {
        let boards: Vec<_> = self.shards[shard].boards.lock().values().map(|watched| watched.board.clone()).collect();
        boards.iter().flat_map(|board| board.end(reason)).collect()
    }

    /// The number of all watches.
    pub(super) fn watches(&self) -> usize {
        let count = |boards: &Boards| boards.values().map(|watched| watched.watches).sum::<usize>();
        self.shards.iter().map(|shard| count(&shard.boards.lock())).sum()
    }

    fn add_to_caller(&self, caller: Option<&CallerKey>, most: usize) -> Result<(), Error> {
        let Some(caller) = caller.filter(|_| most > 0) else { return Ok(()) };
        let mut callers = self.callers.lock();
        let watches = callers.entry(caller.clone()).or_default();
        if *watches >= most {
            return Err(Error::too_many(Limit::CallerWatches));
        }
        *watches += 1;
        Ok(())
    }

    fn remove_from_caller(&self, caller: Option<&CallerKey>) {
        let Some(caller) = caller else { return };
        let mut callers = self.callers.lock();
        if let Some(watches) = callers.get_mut(caller) {
            *watches -= 1;
            if *watches == 0 {
                callers.remove(caller);
            }
        }
    }

    fn shard(&self, user: &TenantUser) -> &Shard {
        &self.shards[registry::shard_of(self.hasher.hash_one(user))]
    }
}

impl Shard {
    /// Removes a watch of a user. Says whether it was the last one: then the board is removed, too.
    fn remove_from(&self, user: &TenantUser) -> bool {
        let mut boards = self.boards.lock();
        let Some(watched) = boards.get_mut(user) else { return false };
        watched.watches -= 1;
        let is_last = watched.watches == 0;
        if is_last {
            boards.remove(user);
            self.unwatching.fetch_add(1, Ordering::Relaxed);
        }
        is_last
    }
}
