//! Ending one HTTP/2 stream from outside: while its peer does not read, nobody polls its body, so no time-out inside would fire.

use std::sync::{Arc, OnceLock};

use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::drain::Drain;

/// Request extension of HTTP/2 requests: ends the stream with a reset. Harmless once the stream is over.
///
/// HTTP/1.1 needs none: there a peer that does not read holds up its own connection, and the connection's watchdog ends it.
#[derive(Clone, Debug, Default)]
pub struct Cut(Arc<OnceLock<AbortHandle>>);

impl Cut {
    /// Ends the stream.
    pub fn cut(&self) {
        // It is known a moment after the stream's task has begun, and nobody is cut before he kept somebody waiting.
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

/// Runs the streams of one HTTP/2 connection as tracked tasks, bare, because a task is most of what an idle stream costs.
///
/// hyper calls the service and then at once executes the stream's future, both from the connection's task; so the cut that
/// was armed last belongs to the future that comes next.
#[derive(Clone)]
pub(super) struct Streams {
    drain: Drain,
    armed: Arc<Mutex<Option<Cut>>>,
}

impl Streams {
    pub(super) fn new(drain: Drain) -> Self {
        Self { drain, armed: Arc::default() }
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
        let armed = self.armed.lock().take();
        let task = self.drain.spawn(stream);
        if let Some(Cut(of)) = armed {
            of.get_or_init(|| task);
        }
    }
}
