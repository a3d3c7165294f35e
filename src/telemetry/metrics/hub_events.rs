//! Observes the hub: which event changes which metric.

use super::Metrics;
use crate::{
    error::Error,
    hub::{Event, Evicted, Observer},
    model::{Continuity, EndReason, Outcome},
};

impl Observer for Metrics {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Opened { continuity, replayed, .. } => self.stream_opened(continuity, replayed),
            Event::StreamRefused { error } => self.refused(error),
            Event::Ended { reason, .. } | Event::WatchEnded { reason, .. } => {
                if let Some(reason) = reason {
                    self.stream_ended(reason);
                }
            }
            Event::Sent { outcome, .. } => self.sent(outcome),
            Event::Written { latency, .. } => self.0.send_latency.observe(latency.as_secs_f64()),
            Event::BroadcastRefused { error, .. } => self.sent(Err(error)),
            Event::Expired { messages, .. } => {
                self.0.expired.inc_by(messages as u64);
            }
            Event::Evicted { kind, messages, .. } => self.evicted(kind, messages),
        }
    }
}

impl Metrics {
    fn stream_opened(&self, continuity: Continuity, replayed: u32) {
        let continuity = match continuity {
            Continuity::New => "new",
            Continuity::Resumed => "resumed",
            Continuity::Broken => "broken",
        };
        self.0.opened.get_or_create(&[("continuity", continuity)]).inc();
        self.0.replayed.inc_by(u64::from(replayed));
    }

    fn evicted(&self, kind: Evicted, messages: usize) {
        let kind = match kind {
            Evicted::Replay => "replayed",
            Evicted::Waiting => "held",
        };
        self.0.evicted.get_or_create(&[("kind", kind)]).inc_by(messages as u64);
    }

    fn stream_ended(&self, reason: EndReason) {
        let reason = match reason {
            EndReason::Superseded => "superseded",
            EndReason::Draining => "draining",
            EndReason::Expired => "expired",
        };
        self.0.ended.get_or_create(&[("reason", reason)]).inc();
    }

    fn refused(&self, error: Error) {
        if let Some(limit) = error.limit() {
            self.limited(limit);
        }
    }

    fn sent(&self, answer: Result<Outcome, Error>) {
        let outcome = match answer {
            Ok(Outcome::Delivered) => {
                self.0.delivered.inc();
                return;
            }
            Ok(Outcome::Held) => "held",
            Err(error) => {
                self.refused(error);
                error.code()
            }
        };
        self.0.sends.get_or_create(&[("outcome", outcome)]).inc();
    }
}
