//! The header `Idempotency-Key`, with which a sender can repeat a send.

use http::{HeaderMap, HeaderName};

use crate::{error::Invalid, model::IdempotencyKey};

/// The key of a send. A broadcast with one is refused by the hub.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Invalid> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let text = line.to_str().ok().filter(|_| lines.next().is_none()).ok_or(Invalid::IdempotencyKey)?;
    IdempotencyKey::new(text).map(Some)
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
