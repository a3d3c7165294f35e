//! Requests to other nodes: sends one, and waits for its answer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    Happened, RequestKind, RequestOutcome,
    directory::{Fault, NodeId},
    lanes::{Lanes, OnWay},
    node::Node,
    peer_messages::{Ask, Plain, Reply, Request, Say},
    wire::Channel,
};

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// It was not sent: the link is down.
    Down,
    /// It may have been sent when the link went down.
    Lost,
    /// The node did not answer in time.
    Silent,
    /// Nobody listens on the channel of the node.
    NoLink,
}

/// The requests that wait for an answer.
#[derive(Default)]
pub(super) struct Asking {
    tokens: AtomicU64,
    open: Mutex<BTreeMap<u64, oneshot::Sender<Say>>>,
    /// The requests that are not answered are on their way.
    lanes: Lanes,
}

impl Asking {
    /// Hands an answer to the request that waits for it.
    pub(super) fn answer(&self, reply: Reply) {
        let asker = self.open.lock().remove(&reply.token);
        if let (Some(asker), Some(say)) = (asker, reply.say) {
            // Fails when the request has just timed out.
            let _ = asker.send(say);
        }
    }

    /// The link went down: no request gets an answer.
    pub(super) fn give_up(&self) {
        self.open.lock().clear();
    }
}

/// A request that waits for its answer. Dropping it forgets it.
struct OpenRequest<'a> {
    asking: &'a Asking,
    token: u64,
}

impl Drop for OpenRequest<'_> {
    fn drop(&mut self) {
        self.asking.open.lock().remove(&self.token);
    }
}

impl Node {
    /// Asks another node, and waits for the answer for at most `patience`.
    pub(super) async fn ask(&self, node: NodeId, ask: Ask, patience: Duration) -> Result<Say, NoAnswer> {
        let (began, kind) = (Instant::now(), kind(&ask));
        let answer = self.ask_until(node, ask, patience, began + patience).await;
        let outcome = match &answer {
            Ok(_) => RequestOutcome::Answered,
            Err(NoAnswer::Silent) => RequestOutcome::Silent,
            Err(NoAnswer::NoLink) => RequestOutcome::NoLink,
            Err(NoAnswer::Down | NoAnswer::Lost) => RequestOutcome::Down,
        };
        self.observe(Happened::Asked(kind, outcome, began.elapsed()));
        answer
    }

    async fn ask_until(&self, node: NodeId, ask: Ask, patience: Duration, end: Instant) -> Result<Say, NoAnswer> {
        let Some(up) = self.link.up() else { return Err(NoAnswer::Down) };
        let token = self.asking.tokens.fetch_add(1, Ordering::Relaxed);
        let request = Request {
            token,
            from: self.id.0,
            sent_ms: self.directory_ms(),
            patience_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
            ask: Some(ask),
        };
        let bytes = request.to_bytes();
        let entered = timeout_at(end, self.asking.lanes.enter(node, bytes.len(), self.link.nodes())).await;
        let _on_way: Option<OnWay> = entered.map_err(|_| NoAnswer::Down)?;
        let _open = OpenRequest { asking: &self.asking, token };
        let (sender, mut answer) = oneshot::channel();
        self.asking.open.lock().insert(token, sender);
        let publish = up.wire.publish(Channel::Requests(node), bytes);
        let exchange = async {
            let lost = self.link.until_lost(&up);
            tokio::pin!(lost);
            tokio::select! {
                biased;
                () = &mut lost => return Err(NoAnswer::Lost),
                said = &mut answer => return said.map_err(|_| NoAnswer::Lost),
                sent = publish => match self.down_on_fault(&up, sent) {
                    Ok(0) => return Err(NoAnswer::NoLink),
                    Ok(_) => {}
                    Err(Fault::Down(_) | Fault::Reborn) => return Err(NoAnswer::Down),
                    Err(Fault::Late(_)) => return Err(NoAnswer::Lost),
                },
            }
            tokio::select! {
                biased;
                said = &mut answer => said.map_err(|_| NoAnswer::Lost),
                () = lost => Err(NoAnswer::Lost),
            }
        };
        timeout_at(end, exchange).await.unwrap_or(Err(NoAnswer::Silent))
    }

    /// Sends an answer. Nobody waits for it to arrive.
    pub(super) fn reply(self: &Arc<Self>, to: NodeId, token: u64, say: Say) {
        let Some(up) = self.link.up() else { return };
        let (node, bytes) = (self.clone(), Reply { token, say: Some(say) }.to_bytes());
        self.spawn(async move {
            let sent = up.wire.publish(Channel::Answers(to), bytes).await;
            let _ = node.down_on_fault(&up, sent);
        });
    }
}

impl From<Plain> for Say {
    fn from(plain: Plain) -> Self {
        Self::Plain(plain.into())
    }
}

fn kind(ask: &Ask) -> RequestKind {
    match ask {
        Ask::Push(_) => RequestKind::Push,
        Ask::Take(_) => RequestKind::Take,
        Ask::Hole(_) => RequestKind::Hole,
        Ask::Adopt(_) => RequestKind::Adopt,
        Ask::Live(_) => RequestKind::Live,
        Ask::Broadcast(_) => RequestKind::Broadcast,
    }
}
