//! Ending one HTTP/2 stream from outside: while its peer does not read, nobody polls its body, so no time-out inside would fire.

use std::sync::Arc;

use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::turns::Turns;
use crate::drain::Drain;

/// Request extension of HTTP/2 requests: ends the stream with a reset. Harmless once the stream is over.
///
/// HTTP/1.1 needs none: there a peer that does not read holds up its own connection, and the connection's watchdog ends it.
#[derive(Clone, Debug, Default)]
pub struct Cut(Arc<Notify>);

impl Cut {
    /// Ends the stream.
    pub fn cut(&self) {
        self.0.notify_one();
    }
}

/// Runs the streams of one HTTP/2 connection as tracked tasks, each beside its [`Cut`].
///
/// hyper calls the service and then at once executes the stream's future, both from the connection's task; so the cut that
/// was armed last belongs to the future that comes next.
#[derive(Clone)]
pub(super) struct Streams {
    drain: Drain,
    armed: Arc<Mutex<Option<Cut>>>,
    turns: Turns,
}

impl Streams {
    pub(super) fn new(drain: Drain, turns: Turns) -> Self {
        Self { drain, armed: Arc::default(), turns }
    }

    /// Makes the cut for the request at hand.
    pub(super) fn arm(&self) -> Cut {
        let cut = Cut::default();
        *self.armed.lock() = Some(cut.clone());
        cut
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let (armed, turn) = (self.armed.lock().take(), self.turns.enter());
        self.drain.spawn(async move {
            // From here on it is being served, whatever it waits for.
            drop(turn);
            match armed {
                Some(cut) => {
                    tokio::select! {
                        _ = stream => {}
                        () = cut.0.notified() => {}
                    }
                }
                None => drop(stream.await),
            }
        });
    }
}
