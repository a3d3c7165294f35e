//! The connection of one stream, as both ends see it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use super::world::World;
use crate::{
    cluster::directory::NodeId,
    model::{Continuity, Cursor},
};

pub(super) struct Connected {
    pub(super) node: NodeId,
    frames: Mutex<VecDeque<Frame>>,
    arrived: Notify,
    /// When the server ended it, or was killed.
    ended: OnceLock<Instant>,
    /// The client has closed it.
    closed: AtomicBool,
    closing: Notify,
    /// When the client read that it began.
    begun: OnceLock<Instant>,
}

pub(super) enum Frame {
    Ready(Cursor, Continuity),
    Message(Cursor, u64),
    /// 204.
    Superseded,
    /// Any other end.
    End,
}

impl Connected {
    pub(super) fn new(node: NodeId) -> Arc<Self> {
        Arc::new(Self {
            node,
            frames: Mutex::default(),
            arrived: Notify::new(),
            ended: OnceLock::new(),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            begun: OnceLock::new(),
        })
    }

    /// The client has read that it began, and knows of no end.
    pub(super) fn is_live(&self) -> bool {
        self.has_begun() && !self.is_ended() && !self.closed.load(Ordering::Acquire)
    }

    pub(super) fn begin(&self) {
        let _ = self.begun.set(Instant::now());
    }

    pub(super) fn begun(&self) -> Option<Instant> {
        self.begun.get().copied()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun().is_some()
    }

    pub(super) fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    fn is_ended(&self) -> bool {
        self.ended().is_some()
    }

    pub(super) fn put(&self, frame: Frame) {
        if !self.is_ended() && !self.closed.load(Ordering::Acquire) {
            self.frames.lock().push_back(frame);
            self.arrived.notify_one();
        }
    }

    pub(super) fn end(&self) {
        let _ = self.ended.set(Instant::now());
        self.arrived.notify_one();
        self.closing.notify_one();
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.notify_one();
    }

    /// Waits until the server notices that the client has left.
    pub(super) async fn left(&self, world: &World) {
        while !self.closed.load(Ordering::Acquire) && !self.is_ended() {
            self.closing.notified().await;
        }
        sleep(world.random_ms(0, 400)).await;
    }

    /// The next frame, until a time. `None`: the server has ended the stream, or the time is over.
    pub(super) async fn next(&self, until: Instant) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.lock().pop_front() {
                return Some(frame);
            }
            if self.is_ended() || Instant::now() >= until {
                return None;
            }
            let _ = timeout_at(until, self.arrived.notified()).await;
        }
    }
}
