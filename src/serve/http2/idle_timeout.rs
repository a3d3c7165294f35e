//! Connections of HTTP/2 without a stream: they answer PINGs for as long as they like, and take a place.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::unsent_limit::UnsentLimit;

/// Tells when a connection has had no stream for so long, or a quarter longer: it looks four times, and is not told of streams.
pub(in crate::serve) struct IdleTimeout {
    quarter: Duration,
    look: Pin<Box<Sleep>>,
    account: Arc<UnsentLimit>,
    /// StreamTasks until the last look.
    opened: usize,
    quiet: u32,
}

impl IdleTimeout {
    pub(in crate::serve) fn new(limit: Duration, account: Arc<UnsentLimit>) -> Self {
        let quarter = limit / QUARTERS;
        Self { quarter, look: Box::pin(sleep(quarter)), account, opened: 0, quiet: 0 }
    }

    /// Ready when the connection has had no stream for too long.
    pub(in crate::serve) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.look.as_mut().poll(cx));
            let (opened, open) = self.account.streams();
            let quiet = open == 0 && opened == std::mem::replace(&mut self.opened, opened);
            self.quiet = if quiet { self.quiet + 1 } else { 0 };
            if self.quiet >= QUARTERS {
                return Poll::Ready(());
            }
            self.look.as_mut().reset(Instant::now() + self.quarter);
        }
    }
}

const QUARTERS: u32 = 4;
