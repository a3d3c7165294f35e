//! One of the devices of `call-test`.

use std::time::Duration;

use prost_types::Duration as ProtoDuration;
use tonic::Streaming;

use crate::cli::{
    channel::{Channel, Signal, within},
    exit::{Exit, Failure},
    reconnect::{HEARTBEAT, next},
};
use crate::{
    grpc::proto::{
        Address, Continuity, Message, Outcome, SendRequest, SubscribeRequest, SubscribeResponse,
        subscribe_response::Kind,
    },
    model::DeviceId,
};

/// A device with an open stream, on a connection of its own.
pub(super) struct TestDevice {
    pub(super) channel: Channel,
    pub(super) address: Address,
    pub(super) continuity: Continuity,
    /// The newest cursor.
    pub(super) cursor: String,
    pub(super) signal: Signal,
    responses: Streaming<SubscribeResponse>,
}

impl TestDevice {
    pub(super) async fn open(channel: &Channel, cursor: &str) -> Result<Self, Failure> {
        let mut signal = channel.signal();
        let request = channel.request(SubscribeRequest { cursor: cursor.to_owned(), heartbeat: Some(HEARTBEAT) })?;
        let mut responses = within(signal.subscribe(request)).await?.into_inner();
        let Some(Kind::Ready(ready)) = within(next(&mut responses)).await?.kind else {
            return Err(Failure::new(Exit::Fault, "a stream does not begin with `ready`"));
        };
        Ok(Self {
            channel: channel.clone(),
            continuity: ready.continuity(),
            cursor: ready.cursor,
            address: ready.address.unwrap_or_default(),
            signal,
            responses,
        })
    }

    /// Closes the connection in the middle of its stream. Gives what it takes to come back.
    pub(super) fn cut(self) -> (Channel, Address, String) {
        (self.channel, self.address, self.cursor)
    }

    /// `ttl`: how many seconds the message may be held. 0: not at all.
    pub(super) async fn send(&mut self, to: &Address, event: &str, data: &str, ttl: u32) -> Result<Outcome, Failure> {
        let request = SendRequest {
            to: Some(to.clone()),
            event: event.to_owned(),
            data: data.to_owned(),
            ttl: Some(ProtoDuration { seconds: ttl.into(), nanos: 0 }),
            idempotency_key: String::new(),
        };
        let request = self.channel.request(request)?;
        Ok(within(self.signal.send(request)).await?.into_inner().outcome())
    }

    /// The next message, which must come soon.
    pub(super) async fn receive(&mut self) -> Result<Message, Failure> {
        let receive = async {
            loop {
                match next(&mut self.responses).await?.kind {
                    Some(Kind::Message(message)) => return Ok(message),
                    Some(Kind::Ping(_)) => {}
                    other => {
                        let what = if matches!(other, Some(Kind::End(_))) { "end" } else { "something else" };
                        return Err(Failure::new(Exit::Fault, format!("the stream has {what} in place of a message")));
                    }
                }
            }
        };
        let message = tokio::time::timeout(SOON, receive)
            .await
            .map_err(|_| Failure::new(Exit::Fault, format!("a message did not come within {} s", SOON.as_secs())))??;
        self.cursor.clone_from(&message.cursor);
        Ok(message)
    }
}

/// An id that no other device has.
pub(super) fn random_device() -> Result<DeviceId, Failure> {
    let id = format!("call-test-{:016x}", fastrand::u64(..));
    DeviceId::new(&id).map_err(|_| Failure::new(Exit::Fault, "no id"))
}

/// Far longer than a message takes.
pub(super) const SOON: Duration = Duration::from_secs(5);
