//! `send` and `broadcast`: one message to one device, or to all connected devices of a user.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::{
    channel::{Channel, within},
    exit::{Exit, Failure},
    id_text::{address, user_id},
    printer::Printer,
    reconnect::Pauses,
    server_options::ServerOptions,
};
use crate::{
    error::Error,
    grpc::proto::{self, BroadcastRequest, Outcome, SendRequest, SendResponse},
    model::{Address, EventName, IdempotencyKey, UserId},
};

/// What `send` takes.
#[derive(Args, Clone, Debug)]
pub struct SendOptions {
    #[command(flatten)]
    pub(super) server: ServerOptions,

    #[command(flatten)]
    content: Content,

    /// Hold the message for so long if the device is not connected, in seconds or with a unit such as 2m; the daemon caps it
    #[arg(long, value_name = "SECONDS", value_parser = time_to_live)]
    ttl: Option<Duration>,

    /// Names this send: a repeat with the same key within 60 s is not delivered again [default: a random one]
    #[arg(long, value_name = "TEXT", value_parser = idempotency_key)]
    idempotency_key: Option<IdempotencyKey>,

    /// The device; in an id, %2F is a slash and %25 a percent sign
    #[arg(value_name = "USER/DEVICE", value_parser = address)]
    to: Address,

    /// The data; `-` reads it from standard input
    #[arg(value_name = "TEXT")]
    text: String,
}

/// What `broadcast` takes.
#[derive(Args, Clone, Debug)]
pub struct BroadcastOptions {
    #[command(flatten)]
    pub(super) server: ServerOptions,

    #[command(flatten)]
    content: Content,

    /// The user; in an id, %2F is a slash and %25 a percent sign
    #[arg(value_name = "USER", value_parser = user_id)]
    user: UserId,

    /// The data; `-` reads it from standard input
    #[arg(value_name = "TEXT")]
    text: String,
}

/// What both take.
#[derive(Args, Clone, Debug)]
struct Content {
    /// The kind of message, 1 to 64 of A-Z a-z 0-9 . _ : -
    #[arg(long, value_name = "NAME", value_parser = event_name)]
    event: Option<EventName>,
}

/// Sends to one device.
pub(super) async fn send(channel: Channel, options: SendOptions) -> Result<Exit, Failure> {
    let SendOptions { server, content, ttl, idempotency_key: key, to, text } = options;
    let request = SendRequest {
        to: Some(proto::Address { user: to.user.as_str().to_owned(), device: to.device.as_str().to_owned() }),
        event: content.event(),
        data: data(text).await?,
        ttl: ttl.and_then(|ttl| ttl.try_into().ok()),
        idempotency_key: key.map_or_else(random_key, |key| key.as_str().to_owned()),
    };
    let sent = repeated(&channel, request).await?;
    let (exit, outcome) = match sent.outcome() {
        Outcome::Delivered => (Exit::Done, "delivered"),
        Outcome::Held => (Exit::Held, "held"),
        Outcome::Unspecified => return Err(Failure::new(Exit::Unavailable, "the daemon does not say what it did")),
    };
    Printer::new(server.json).result(outcome, &json!({ "outcome": outcome })).await?;
    Ok(exit)
}

/// Sends, and sends again while nobody knows what came of it: with its key the message is delivered only once.
async fn repeated(channel: &Channel, request: SendRequest) -> Result<SendResponse, Failure> {
    let (mut pauses, mut attempts) = (Pauses::default(), 0);
    loop {
        attempts += 1;
        let failure = match within(channel.signal().send(channel.request(request.clone())?)).await {
            Err(failure) if failure.exit == Exit::Unavailable && attempts < ATTEMPTS => failure,
            sent => return sent.map(tonic::Response::into_inner),
        };
        let pause = pauses.next().max(failure.retry_after.unwrap_or_default());
        if pause > LONGEST_PAUSE {
            return Err(failure);
        }
        tokio::time::sleep(pause).await;
    }
}

fn random_key() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Sends to all connected devices of a user, and writes which ones got it.
pub(super) async fn broadcast(channel: Channel, options: BroadcastOptions) -> Result<Exit, Failure> {
    let BroadcastOptions { server, content, user, text } = options;
    let request = BroadcastRequest { user: user.as_str().to_owned(), event: content.event(), data: data(text).await? };
    let delivered = within(channel.signal().broadcast(channel.request(request)?)).await?.into_inner().delivered;
    Printer::new(server.json).ids(&delivered, &json!({ "delivered": delivered })).await?;
    Ok(Exit::Done)
}

impl Content {
    fn event(&self) -> String {
        self.event.as_ref().map(|event| event.as_str().to_owned()).unwrap_or_default()
    }
}

async fn data(text: String) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text);
    }
    let mut bytes = Vec::new();
    // Not std's, which would block the runtime, and with it the signals.
    let read = tokio::io::stdin().take(LARGEST + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| Failure::new(Exit::Usage, format!("cannot read standard input: {error}")))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::new(Exit::Refused, "standard input is larger than any message that a daemon accepts"));
    }
    String::from_utf8(bytes).map_err(|_| Failure::new(Exit::Refused, "standard input is not UTF-8"))
}

fn idempotency_key(text: &str) -> Result<IdempotencyKey, String> {
    IdempotencyKey::new(text).map_err(|invalid| Error::from(invalid).detail().to_owned())
}

fn event_name(text: &str) -> Result<EventName, String> {
    EventName::new(text).map_err(|invalid| Error::from(invalid).detail().to_owned())
}

/// A whole number of seconds, or of another unit, such as 2m.
fn time_to_live(text: &str) -> Result<Duration, &'static str> {
    let wrong = "not a time such as 30 (seconds) or 2m";
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).ok().filter(|ttl| ttl.subsec_nanos() == 0).ok_or(wrong),
    }
}

/// How often a message is sent at most.
const ATTEMPTS: u32 = 3;

/// A longer pause is not waited. With it all attempts take less than a minute, for which a mailbox remembers the key.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// More than the largest `--body-limit`.
const LARGEST: u64 = 1 << 20;
