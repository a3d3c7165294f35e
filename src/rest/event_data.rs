//! The JSON in the data of events: what a stream begins with, and a message in its envelope.

use std::time::Duration;

use serde::Serialize;

use super::sse::to_json;
use crate::{
    hub::Ready,
    model::{Continuity, DeviceId, Message, Sender},
};

/// The data of `signal.ready`.
pub(super) fn ready(ready: &Ready, heartbeat: Duration) -> String {
    to_json(&ReadyData {
        user: ready.address.user.id(),
        device: ready.address.device.as_str(),
        continuity: match ready.continuity {
            Continuity::New => "new",
            Continuity::Resumed => "resumed",
            Continuity::Broken => "broken",
        },
        replayed: ready.replayed,
        heartbeat_ms: heartbeat.as_millis(),
    })
}

/// The data of a message in the envelope format.
pub(super) fn envelope(message: &Message) -> String {
    to_json(&EnvelopeData {
        from: message.from.as_ref().map(SenderData::of),
        data: message.data.as_str(),
        sent_at: humantime::format_rfc3339_millis(message.sent_at).to_string(),
    })
}

#[derive(Serialize)]
struct ReadyData<'a> {
    user: &'a str,
    device: &'a str,
    continuity: &'static str,
    replayed: u32,
    heartbeat_ms: u128,
}

#[derive(Serialize)]
struct EnvelopeData<'a> {
    from: Option<SenderData<'a>>,
    data: &'a str,
    sent_at: String,
}

#[derive(Serialize)]
struct SenderData<'a> {
    user: &'a str,
    device: Option<&'a str>,
}

impl<'a> SenderData<'a> {
    fn of(sender: &'a Sender) -> Self {
        Self { user: sender.user.as_str(), device: sender.device.as_ref().map(DeviceId::as_str) }
    }
}
