//! Converts the messages of the proto to the types of the model and back.

use std::time::{Duration, SystemTime};

use super::{
    proto::{self, subscribe_response::Kind},
    status,
};
use crate::{
    auth::TenantUser,
    error::{Error, Invalid},
    hub::{Change, Draft, Ready, StreamItem, UserSet, WatchItem},
    ice::{Credentials, IceConfiguration, IceServer, IceUrl},
    model::{self, Continuity, Cursor, Data, DeviceId, EndReason, EventName, IdempotencyKey, Message, Outcome, UserId},
};

/// The receiver and the message of a request to send.
pub(super) fn send_request(request: proto::SendRequest) -> Result<(model::Address, Draft), Error> {
    let to = request.to.unwrap_or_default();
    let to = model::Address::new(&to.user, &to.device)?;
    let ttl = request.ttl.map_or(Ok(Duration::ZERO), |ttl| whole_seconds(&ttl))?;
    let key = Some(&*request.idempotency_key).filter(|key| !key.is_empty()).map(IdempotencyKey::new).transpose()?;
    Ok((to, Draft { ttl, key, ..draft(&request.event, request.data)? }))
}

/// The receiving user and the message of a request to broadcast.
pub(super) fn broadcast_request(request: proto::BroadcastRequest) -> Result<(UserId, Draft), Error> {
    let user = UserId::new(&request.user)?;
    Ok((user, draft(&request.event, request.data)?))
}

/// The user that a request names.
pub(super) fn user(id: &str) -> Result<UserId, Error> {
    Ok(UserId::new(id)?)
}

/// The users that a watch names.
pub(super) fn users(ids: &[String]) -> Result<UserSet, Error> {
    Ok(UserSet::new(ids.iter().map(|id| UserId::new(id)))?)
}

/// The heartbeat that a client asked for. A negative one is zero.
pub(super) fn heartbeat(asked: Option<prost_types::Duration>) -> Option<Duration> {
    asked.map(|asked| Duration::try_from(asked).unwrap_or_default())
}

fn draft(event: &str, data: String) -> Result<Draft, Error> {
    let event = if event.is_empty() { None } else { Some(EventName::new(event)?) };
    Ok(Draft { event, data: Data::new(data)?, ttl: Duration::ZERO, key: None })
}

/// Accepts only whole seconds, because the `TTL` header of the HTTP API has no fractions.
fn whole_seconds(ttl: &prost_types::Duration) -> Result<Duration, Invalid> {
    if ttl.nanos != 0 {
        return Err(Invalid::Ttl);
    }
    u64::try_from(ttl.seconds).map(Duration::from_secs).map_err(|_| Invalid::Ttl)
}

pub(super) fn send_response(outcome: Outcome) -> proto::SendResponse {
    let outcome = match outcome {
        Outcome::Delivered => proto::Outcome::Delivered,
        Outcome::Held => proto::Outcome::Held,
    };
    proto::SendResponse { outcome: outcome.into() }
}

/// The response to one request of `SendStream`.
pub(super) fn send_stream_response(outcome: Result<Outcome, Error>) -> proto::SendStreamResponse {
    use proto::send_stream_response::Result as SendResult;
    let result = match outcome {
        Ok(outcome) => SendResult::Sent(send_response(outcome)),
        Err(error) => {
            SendResult::Error(proto::SendError { code: status::code(error).into(), message: status::text(error) })
        }
    };
    proto::SendStreamResponse { result: Some(result) }
}

pub(super) fn ready(ready: &Ready, heartbeat: Duration) -> proto::SubscribeResponse {
    let continuity = match ready.continuity {
        Continuity::New => proto::Continuity::New,
        Continuity::Resumed => proto::Continuity::Resumed,
        Continuity::Broken => proto::Continuity::Broken,
    };
    response(Kind::Ready(proto::Ready {
        address: Some(device_of(&ready.address.user, &ready.address.device)),
        cursor: ready.cursor.to_string(),
        continuity: continuity.into(),
        replayed: ready.replayed,
        heartbeat: prost_types::Duration::try_from(heartbeat).ok(),
    }))
}

pub(super) fn event(event: &StreamItem, now: SystemTime) -> proto::SubscribeResponse {
    response(match event {
        StreamItem::Message(cursor, shared) => Kind::Message(message(*cursor, shared)),
        StreamItem::Ping => Kind::Ping(ping(now)),
        StreamItem::End(reason) => Kind::End(end(*reason)),
    })
}

/// The responses for one item of a watch.
pub(super) fn watch_item(item: &WatchItem, now: SystemTime) -> Vec<proto::WatchDevicesResponse> {
    use proto::watch_devices_response::Kind;
    let kinds = match item {
        WatchItem::Devices(user, devices) => {
            vec![Kind::Devices(proto::DeviceList { user: user.id().to_owned(), devices: ids(devices) })]
        }
        WatchItem::Changes(user, changes) => changes
            .iter()
            .map(|change| match change {
                Change::Online(device) => Kind::Online(device_of(user, device)),
                Change::Offline(device) => Kind::Offline(device_of(user, device)),
            })
            .collect(),
        WatchItem::Ping => vec![Kind::Ping(ping(now))],
        WatchItem::End(reason) => vec![Kind::End(end(*reason))],
    };
    kinds.into_iter().map(|kind| proto::WatchDevicesResponse { kind: Some(kind) }).collect()
}

/// The credentials of a STUN server are empty texts.
pub(super) fn ice_configuration(configuration: IceConfiguration<'_>) -> proto::GetIceServersResponse {
    let server = |IceServer { urls, credentials }: IceServer<'_>| {
        let (username, credential) = credentials.map(|Credentials { username, password }| (username, password)).unzip();
        proto::IceServer {
            urls: urls.iter().map(IceUrl::as_str).map(str::to_owned).collect(),
            username: username.unwrap_or_default(),
            credential: credential.unwrap_or_default(),
        }
    };
    proto::GetIceServersResponse {
        ice_servers: configuration.servers.into_iter().map(server).collect(),
        expires_in: prost_types::Duration::try_from(configuration.expires_in).ok(),
    }
}

pub(super) fn ids(devices: &[DeviceId]) -> Vec<String> {
    devices.iter().map(DeviceId::as_str).map(str::to_owned).collect()
}

fn message(cursor: Cursor, message: &Message) -> proto::Message {
    proto::Message {
        cursor: cursor.to_string(),
        sender: message.from.as_ref().map(sender),
        event: message.event.as_ref().map(|event| event.as_str().to_owned()).unwrap_or_default(),
        data: message.data.as_str().to_owned(),
        sent_at: Some(message.sent_at.into()),
    }
}

fn ping(now: SystemTime) -> proto::Ping {
    proto::Ping { at: Some(now.into()) }
}

fn end(reason: EndReason) -> proto::End {
    let reason = match reason {
        EndReason::Superseded => proto::EndReason::Superseded,
        EndReason::Draining => proto::EndReason::Draining,
        EndReason::Expired => proto::EndReason::Expired,
    };
    proto::End { reason: reason.into() }
}

/// The device is empty for a sender without one.
fn sender(sender: &model::Sender) -> proto::Address {
    let device = sender.device.as_ref().map_or("", DeviceId::as_str);
    proto::Address { user: sender.user.as_str().to_owned(), device: device.to_owned() }
}

fn device_of(user: &TenantUser, device: &DeviceId) -> proto::Address {
    proto::Address { user: user.id().to_owned(), device: device.as_str().to_owned() }
}

fn response(kind: Kind) -> proto::SubscribeResponse {
    proto::SubscribeResponse { kind: Some(kind) }
}
