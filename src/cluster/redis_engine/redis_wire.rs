//! The wire on Redis: `PUBLISH`, and the pushes of the one connection.

use std::sync::Arc;

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

use super::{commands::Commands, key_names::RedisPrefix};
use crate::{
    auth::TenantUser,
    cluster::{
        directory::Answer,
        lost::Lost,
        wire::{Channel, Published, Wire},
    },
};

pub(super) struct RedisWire {
    pub(super) commands: Arc<Commands>,
    pub(super) prefix: RedisPrefix,
}

impl Wire for RedisWire {
    fn publish(&self, channel: Channel, bytes: Bytes) -> Answer<'_, usize> {
        Box::pin(async move {
            let mut command = redis::cmd("PUBLISH");
            command.arg(self.prefix.channel(&channel)).arg(&*bytes);
            match self.commands.call(&command).await? {
                Value::Int(receivers) => Ok(usize::try_from(receivers).unwrap_or(0)),
                _ => Err(self.commands.not_understood()),
            }
        })
    }

    fn subscribe<'a>(&'a self, user: &'a TenantUser) -> Answer<'a, ()> {
        Box::pin(async move {
            let channel = self.prefix.channel(&Channel::Presence(user.clone()));
            self.commands.subscribe(&[channel]).await
        })
    }

    fn unsubscribe<'a>(&'a self, user: &'a TenantUser) -> Answer<'a, ()> {
        Box::pin(async move {
            let channel = self.prefix.channel(&Channel::Presence(user.clone()));
            self.commands.unsubscribe(&[channel]).await
        })
    }
}

/// What the connection does with each push, in the task that reads: puts messages into the inbox, and never waits.
pub(super) fn receiver(
    prefix: RedisPrefix,
    inbox: mpsc::Sender<Published>,
    lost: Lost,
) -> impl Fn(PushInfo) -> Result<(), ()> + Send + Sync {
    move |PushInfo { kind, data }| {
        match kind {
            PushKind::Message => {
                if let Some(published) = read(&prefix, data) {
                    // What does not fit is lost, and after a loss nothing can be trusted.
                    inbox
                        .try_send(published)
                        .map_err(|_| lost.set("messages come faster than this node takes them"))?;
                }
            }
            PushKind::Disconnection => lost.set("the server closed the connection"),
            _ => {}
        }
        Ok(())
    }
}

fn read(prefix: &RedisPrefix, data: Vec<Value>) -> Option<Published> {
    let mut data = data.into_iter();
    match (data.next()?, data.next()?) {
        (Value::BulkString(channel), Value::BulkString(bytes)) => {
            Some(Published { channel: prefix.read_channel(&channel)?, bytes: bytes.into() })
        }
        _ => None,
    }
}
