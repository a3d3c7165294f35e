//! What a client command writes: lines for people, or with --json one object a line.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use serde_json::{Value, json};

use super::{
    exit::Failure,
    id_text::{encoded, encoded_address, printable},
};
use crate::{
    grpc::proto::{Address, Continuity, Message, Ready},
    terminal, wall_clock,
};

/// How a command writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Printer {
    /// For people.
    Text,
    /// Only the data of messages, as it is.
    Raw,
    /// For programs.
    Json,
}

impl Printer {
    pub(super) fn new(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }

    /// Writes a result to standard output: `text`, or with --json `value`.
    pub(super) async fn result(self, text: &str, value: &Value) -> Result<(), Failure> {
        let line = if matches!(self, Self::Json) { value.to_string() } else { text.to_owned() };
        Ok(terminal::write_line(&line).await?)
    }

    /// Writes each id of a list on a line, or with --json the value.
    pub(super) async fn ids(self, ids: &[String], value: &Value) -> Result<(), Failure> {
        if matches!(self, Self::Json) {
            return self.result("", value).await;
        }
        for id in ids {
            self.result(&encoded(id), value).await?;
        }
        Ok(())
    }

    /// Writes a message that has come.
    pub(super) async fn message(self, message: &Message) -> Result<(), Failure> {
        let Message { cursor, sender, event, data, sent_at } = message;
        match self {
            Self::Raw => Ok(terminal::write_line(data).await?),
            Self::Text => {
                let sender = sender.as_ref().map_or_else(|| "anonymous".to_owned(), address_text);
                let event = if event.is_empty() { String::new() } else { format!(" {event}") };
                Ok(terminal::write_line(&format!("{sender}{event}: {}", printable(data))).await?)
            }
            Self::Json => {
                let from = sender.as_ref().map(|Address { user, device }| {
                    json!({"user": user, "device": Some(device).filter(|device| !device.is_empty())})
                });
                let event = Some(event).filter(|event| !event.is_empty());
                let line =
                    json!({"from": from, "event": event, "data": data, "sent_at": time(*sent_at), "cursor": cursor});
                self.result("", &line).await
            }
        }
    }

    /// Says that a device's stream is open.
    pub(super) fn connected(self, ready: &Ready) {
        let address = ready.address.clone().unwrap_or_default();
        let (continuity, text) = match ready.continuity() {
            Continuity::Resumed => ("resumed", "nothing is missing"),
            Continuity::Broken => ("broken", "messages may be missing"),
            Continuity::New | Continuity::Unspecified => ("new", "a new stream"),
        };
        let state = json!({"state": "connected", "user": address.user, "device": address.device,
            "continuity": continuity, "replayed": ready.replayed, "cursor": ready.cursor});
        self.state(&format!("connected as {}, {text}", address_text(&address)), &state);
    }

    /// Says that a stream was lost, and when the next attempt comes.
    pub(super) fn lost(self, failure: &Failure, wait: Duration) {
        let text = format!("lost: {}; next attempt in {:.1} s", failure.line, wait.as_secs_f64());
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.state(&text, &json!({"state": "lost", "reason": failure.line, "retry_ms": wait}));
    }

    /// Says why a command fails.
    pub(super) fn failure(self, failure: &Failure) {
        if !failure.line.is_empty() {
            self.state(&failure.line, &json!({"error": failure.line, "exit": failure.exit as u8}));
        }
    }

    /// Writes a line to standard error. Nothing depends on it, so it may fail.
    fn state(self, text: &str, value: &Value) {
        match self {
            Self::Json => terminal::note_raw(&value.to_string()),
            Self::Text | Self::Raw => terminal::note(&printable(text)),
        }
    }
}

/// `USER/DEVICE`, printable.
pub(super) fn address_text(address: &Address) -> String {
    printable(&encoded_address(&address.user, &address.device))
}

/// RFC 3339 with milliseconds, as in the envelope of an event stream.
fn time(at: Option<Timestamp>) -> Option<String> {
    let at = SystemTime::try_from(at?).ok()?;
    Some(humantime::format_rfc3339_millis(wall_clock::clamp(at)).to_string())
}
