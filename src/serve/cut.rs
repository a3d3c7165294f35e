//! Ending one HTTP/2 stream from outside: while its peer does not read, nobody polls its body, so no time-out inside would fire.

use std::sync::Arc;

use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::drain::Drain;

/// Request extension of HTTP/2 requests: knows the task of the request's stream. Aborting it ends the stream with a reset, and is
/// harmless once the stream is over.
///
/// HTTP/1.1 needs none: there a peer that does not read holds up its own connection, and the connection's watchdog ends it.
#[derive(Clone, Debug, Default)]
pub struct Cut(Arc<Mutex<Option<AbortHandle>>>);

impl Cut {
    /// What ends the stream.
    #[must_use]
    pub fn handle(&self) -> Option<AbortHandle> {
        self.0.lock().clone()
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
        let armed = self.armed.lock().take().unwrap_or_default();
        // Locked meanwhile, because the task may ask for its handle before it is here.
        let mut handle = armed.0.lock();
        *handle = Some(self.drain.spawn(stream));
    }
}
