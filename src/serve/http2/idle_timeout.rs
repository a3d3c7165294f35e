//! Closes HTTP/2 connections without a stream. They would hold a permit for as long as their peer answers PINGs.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::streams::Streams;

/// Ready when a connection has had no stream for the whole limit, or up to a quarter longer.
///
/// It checks four times within the limit, also a connection with streams: that costs less than a timer for each stream.
pub(super) struct IdleTimeout {
    quarter: Duration,
    next_check: Pin<Box<Sleep>>,
    streams: Arc<Streams>,
    /// Closed streams at the last check.
    closed: usize,
    idle_quarters: u32,
}

impl IdleTimeout {
    pub(super) fn new(limit: Duration, streams: Arc<Streams>) -> Self {
        let quarter = limit / QUARTERS;
        Self { quarter, next_check: Box::pin(sleep(quarter)), streams, closed: 0, idle_quarters: 0 }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.next_check.as_mut().poll(cx));
            let (open, closed) = (self.streams.open_streams(), self.streams.closed_streams());
            let is_idle = open == 0 && closed == self.closed;
            (self.closed, self.idle_quarters) = (closed, if is_idle { self.idle_quarters + 1 } else { 0 });
            if self.idle_quarters >= QUARTERS {
                return Poll::Ready(());
            }
            self.next_check.as_mut().reset(Instant::now() + self.quarter);
        }
    }
}

const QUARTERS: u32 = 4;
