//! Presence: the boards of all watched users, and the limits of watches.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    task::Waker,
};

use parking_lot::Mutex;

use super::{board::Board, deadlines::Deadlines, registry, time::Millis};
use crate::{
    auth::{CallerKey, TenantAddress, TenantUser},
    error::{Error, Limit},
    model::EndReason,
};

type Boards = HashMap<TenantUser, WatchedUser>;

/// A board and the number of its watches.
struct WatchedUser {
    board: Arc<Board>,
    watches: usize,
}

/// The users that are watched. Other users have no board.
pub(super) struct Presence {
    shards: Box<[Mutex<Boards>]>,
    hasher: RandomState,
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
        let shards = (0..registry::SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), callers: Mutex::default() }
    }

    /// Adds a watch of some users: of all, or of none when there is an error. It counts once for its caller, and once for each user.
    ///
    /// # Errors
    /// [`Error::TooMany`] when the caller or a user has reached the limit of watches.
    pub(super) fn add_watches(
        &self,
        users: &[TenantUser],
        caller: Option<&CallerKey>,
        limits: WatchLimits,
    ) -> Result<Vec<Arc<Board>>, Error> {
        self.add_to_caller(caller, limits.of_caller)?;
        let mut boards = Vec::new();
        for user in users {
            match self.add_to_user(user, limits.of_user) {
                Ok(board) => boards.push(board),
                Err(error) => {
                    self.remove_watch(boards.iter().map(|board: &Arc<Board>| &board.user), caller);
                    return Err(error);
                }
            }
        }
        Ok(boards)
    }

    fn add_to_user(&self, user: &TenantUser, most: usize) -> Result<Arc<Board>, Error> {
        let mut boards = self.shard(user).lock();
        let new = || WatchedUser { board: Arc::new(Board::new(user.clone())), watches: 0 };
        let watched = boards.entry(user.clone()).or_insert_with(new);
        if most > 0 && watched.watches >= most {
            return Err(Error::too_many(Limit::UserWatchers));
        }
        watched.watches += 1;
        Ok(watched.board.clone())
    }

    /// Removes a watch of some users. Removes the board of a user with the last watch.
    pub(super) fn remove_watch<'a>(&self, users: impl Iterator<Item = &'a TenantUser>, caller: Option<&CallerKey>) {
        self.remove_from_caller(caller);
        for user in users {
            let mut boards = self.shard(user).lock();
            if let Some(watched) = boards.get_mut(user) {
                watched.watches -= 1;
                if watched.watches == 0 {
                    boards.remove(user);
                }
            }
        }
    }

    /// Marks a device that came, went or began a new page. Calls may be late or repeated: the board is checked against the state of
    /// the device at that time.
    pub(super) fn changed(&self, deadlines: &Deadlines, address: &TenantAddress, now: Millis) {
        let board = self.shard(&address.user).lock().get(&address.user).map(|watched| watched.board.clone());
        if let Some(board) = board {
            board.mark(&address.device, now);
            board.schedule(deadlines, now);
        }
    }

    /// Ends the watches of one shard. Returns their wakers.
    pub(super) fn end(&self, shard: usize, reason: EndReason) -> Vec<Waker> {
        let boards: Vec<_> = self.shards[shard].lock().values().map(|watched| watched.board.clone()).collect();
        boards.iter().flat_map(|board| board.end(reason)).collect()
    }

    /// The number of all watches.
    pub(super) fn watches(&self) -> usize {
        let count = |boards: &Boards| boards.values().map(|watched| watched.watches).sum::<usize>();
        self.shards.iter().map(|shard| count(&shard.lock())).sum()
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

    fn shard(&self, user: &TenantUser) -> &Mutex<Boards> {
        &self.shards[registry::shard_of(self.hasher.hash_one(user))]
    }
}
