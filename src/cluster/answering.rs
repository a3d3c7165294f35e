//! What other nodes ask of this one.

use std::sync::Arc;

use super::{
    Move,
    directory::{Entry, NodeId, Phase},
    node::Node,
    peer_messages::{
        self, Adopted, Ask, BroadcastAsk, DeliveredSay, HoleAsk, Incoming, LARGEST_PARCEL, LiveAsk, LiveDevice,
        LiveSay, Notice, Plain, PushAsk, Pushed, Request, Say, TakeAsk, WireParcel, WireWaiting,
    },
    rules::{Rule, is_on},
    stubs::Stub,
    wire::{Channel, Published},
};
use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    hub::{Parcel, Placed, Sending, Taken},
    model::{DeviceId, Start},
};

impl Node {
    /// Takes what came in. Never waits: what takes long is a task of its own.
    pub(super) fn receive(self: &Arc<Self>, published: &Published) {
        match &published.channel {
            Channel::Answers(_) => {
                if let Some(reply) = peer_messages::read_reply(&published.bytes) {
                    self.asking.answer(reply);
                }
            }
            Channel::Presence(user) => {
                if let Some(device) = peer_messages::read_presence(&published.bytes) {
                    self.heard(user, &device);
                }
            }
            Channel::Requests(_) => match peer_messages::read_incoming(&published.bytes) {
                Some(Incoming::Request(request)) => self.answer(request),
                Some(Incoming::Notice(notice)) => self.notice(&notice),
                None => tracing::debug!("a request of an unknown form"),
            },
        }
    }

    fn notice(self: &Arc<Self>, notice: &Notice) {
        match notice {
            Notice::Moved(address, term) => {
                if is_on(Rule::ForgetsMovedStubs) {
                    self.stubs.remove(address, Some(*term));
                }
            }
            Notice::Yield(address, term) => {
                self.turns.yield_to(address, *term);
                self.give_up(address, *term);
            }
        }
    }

    fn answer(self: &Arc<Self>, request: Request) {
        let (from, token) = (NodeId(request.from), request.token);
        // Its sender has given up, so it must not have an effect.
        let is_late = request.sent_ms.saturating_add(request.patience_ms.into()) <= self.directory_ms();
        if is_late && is_on(Rule::DropsLateRequests) {
            tracing::debug!("a request that came too late is dropped");
            return;
        }
        let say = match request.ask {
            Some(Ask::Push(ask)) => self.answer_push(ask),
            Some(Ask::Take(ask)) => self.answer_take(from, &ask),
            Some(Ask::Hole(ask)) => self.answer_hole(ask),
            Some(Ask::Live(ask)) => self.answer_live(&ask),
            Some(Ask::Broadcast(ask)) => self.answer_broadcast(ask),
            Some(Ask::Adopt(ask)) => {
                let node = self.clone();
                self.spawn(async move {
                    let say = node.adopt(from, ask.mailboxes).await;
                    node.reply(from, token, say.into());
                });
                return;
            }
            None => Some(Plain::Unknown.into()),
        };
        self.reply(from, token, say.unwrap_or(Plain::Unknown.into()));
    }

    fn answer_push(self: &Arc<Self>, ask: PushAsk) -> Option<Say> {
        let (address, sending) = (ask.address.read()?, ask.sending());
        let (hub, term) = (self.hub(), ask.term);
        let Some(standing) = hub.standing(&address) else { return Some(self.not_here(&address, term)) };
        if self.pins.is_pinned(&address) {
            return Some(Plain::Moving.into());
        }
        if !self.is_usable(&standing) {
            let node = self.clone();
            self.spawn(async move { node.verify(&address, standing.term).await });
            return Some(Plain::Moving.into());
        }
        let message = hub.receive(ask.message.read()?);
        match hub.push_here(&address, &message, sending) {
            Some(answer) => Some(Say::Pushed(Pushed::from(answer).into())),
            None => Some(self.not_here(&address, term)),
        }
    }

    /// No mailbox is here. When nothing is on its way either, nothing stands behind the entry that sent the other node here.
    fn not_here(self: &Arc<Self>, address: &TenantAddress, term: u64) -> Say {
        if self.is_moving(address) {
            return Plain::Moving.into();
        }
        self.disown(address, term);
        Plain::NotHere.into()
    }

    fn answer_take(self: &Arc<Self>, from: NodeId, ask: &TakeAsk) -> Option<Say> {
        let (address, start) = (ask.address.read()?, Start::from(&ask.start));
        if self.parcel_lanes.is_full(from) {
            return Some(Plain::Busy.into());
        }
        let from_stub = || Some(self.give_from_stub(from, &address, ask.term));
        // Between taking the mailbox out and leaving the stub, others must see the device as on its way, not as absent.
        let Some(turn) = self.turns.try_take(&address) else { return from_stub() };
        if self.pins.is_pinned(&address) {
            return Some(Plain::Moving.into());
        }
        match self.hub().take(&address, is_on(Rule::NewerPagesStay).then_some(start), ask.term) {
            Taken::Parcel(mut parcel) => {
                parcel.shrink_to(LARGEST_PARCEL);
                let parcel = self.leave_stub(&address, ask.term, parcel);
                Some(self.give(from, &address, &parcel))
            }
            Taken::Refused => Some(Plain::Refused.into()),
            Taken::OtherTerm => Some(Plain::Moving.into()),
            Taken::NotHere if self.stubs.has(&address) => from_stub(),
            Taken::NotHere => {
                // Nothing is disowned while the device looks as if it were on its way.
                drop(turn);
                self.disown(&address, ask.term);
                Some(Plain::NotHere.into())
            }
        }
    }

    /// Gives the parcel of a term, when it is still here: its answer may have been lost.
    fn give_from_stub(&self, to: NodeId, address: &TenantAddress, term: u64) -> Say {
        let stub = self.stubs.of(address).filter(|stub| stub.term == term && is_on(Rule::RepeatsParcels));
        stub.and_then(Stub::into_parcel).map_or(Plain::Moving.into(), |parcel| self.give(to, address, &parcel))
    }

    fn give(&self, to: NodeId, address: &TenantAddress, parcel: &Parcel) -> Say {
        if let Some(on_way) = self.parcel_lanes.squeeze(to, parcel.memory_bytes(), self.link.nodes()) {
            self.stubs.occupy_lane(address, on_way);
        }
        Say::Parcel(WireParcel::from(parcel))
    }

    fn answer_hole(self: &Arc<Self>, ask: HoleAsk) -> Option<Say> {
        let address = ask.address.read()?;
        let waiting = ask.waiting.into_iter().filter_map(WireWaiting::read).collect();
        let taken = self.take_hole(&address, ask.epoch, waiting);
        Some(if taken { Plain::Ok.into() } else { self.not_here(&address, ask.term) })
    }

    fn answer_live(self: &Arc<Self>, ask: &LiveAsk) -> Option<Say> {
        let user = TenantUser::from_node(&ask.user).ok()?;
        let mut devices = Vec::new();
        for wanted in &ask.devices {
            let Ok(device) = DeviceId::new(&wanted.device) else { continue };
            match self.live_here(&user, device.clone()) {
                Some(here) => devices.push(here),
                None => self.disown(&TenantAddress { user: user.clone(), device }, wanted.term),
            }
        }
        Some(Say::Live(LiveSay { devices }))
    }

    /// What is here of a device: live, parked or on its way. `None`: nothing.
    pub(super) fn live_here(&self, user: &TenantUser, device: DeviceId) -> Option<LiveDevice> {
        let address = TenantAddress { user: user.clone(), device };
        match self.hub().standing(&address) {
            Some(standing) if self.is_usable(&standing) => Some(LiveDevice::of(&address.device, &standing, self.id)),
            Some(standing) => Some(LiveDevice::moving(&address.device, standing.term, self.id)),
            None => self.is_moving(&address).then(|| LiveDevice::moving(&address.device, 0, self.id)),
        }
    }

    fn answer_broadcast(self: &Arc<Self>, ask: BroadcastAsk) -> Option<Say> {
        let user = TenantUser::from_node(&ask.user).ok()?;
        let hub = self.hub();
        let message = hub.receive(ask.message.read()?);
        let (mut devices, mut refused) = (Vec::new(), Pushed::Unknown);
        for device in ask.devices.iter().filter_map(|device| DeviceId::new(device).ok()) {
            let address = TenantAddress { user: user.clone(), device };
            match hub.push_here(&address, &message, Sending::default()) {
                Some(Ok(_)) => devices.push(address.device.as_str().to_owned()),
                Some(Err(error)) if error != Error::NotConnected => refused = Pushed::from(Err(error)),
                Some(Err(_)) | None => {}
            }
        }
        Some(Say::Delivered(DeliveredSay { devices, refused: refused.into() }))
    }

    /// Moves mailboxes of a node that stops to this one.
    pub(super) async fn adopt(self: &Arc<Self>, from: NodeId, mailboxes: Vec<Adopted>) -> Plain {
        if self.phase() != Phase::Up {
            return Plain::Full;
        }
        let generation = self.link.generation();
        for Adopted { address, term, parcel } in mailboxes {
            let Some(address) = address.read() else { continue };
            let parcel = parcel.read();
            if self.hub().admit_parcel(parcel.memory_bytes()).is_err() {
                return Plain::Full;
            }
            let turn = self.turns.take(&address).await;
            if self.stubs.has(&address) {
                // It was adopted already, and has left again. This is an older copy.
                continue;
            }
            if let Some(standing) = self.hub().standing(&address) {
                // It was made without the directory, and may hold messages. The directory says which of the two yields; this copy is
                // dropped, because the other node still has its stub.
                self.verify(&address, standing.term).await;
                continue;
            }
            let era = self.link.era();
            match self.take_over_in(generation, &address, Entry { node: from, term }).await {
                Ok(Some(new)) => {
                    self.put(&turn, &address, Placed::Parcel(Box::new(parcel)), (new, era), Move::Adopted);
                }
                Ok(None) => {}
                // Those that were not moved are still the other node's.
                Err(_) => return Plain::Full,
            }
        }
        Plain::Ok
    }
}
