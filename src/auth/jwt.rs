//! Verifies a token (JWT, RFC 7519): its signature, its times, its audience and its issuer.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Header, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::key_set::KeySet;
use crate::{error::IdentityFault, json, wall_clock};

/// What a token says, after its verification.
pub(super) struct Verified {
    /// The JSON object of its claims.
    pub(super) claims: Box<RawValue>,
    /// When it expires.
    pub(super) expires: SystemTime,
}

/// Times in seconds since 1970, perhaps with a fraction.
#[derive(Deserialize)]
struct Times {
    exp: f64,
    #[serde(default)]
    nbf: f64,
}

/// Verifies a token. The answer to a token that is not valid does not say which check failed; the log does, at `debug`.
///
/// `leeway`: for how long after its `exp` the token is good.
///
/// # Errors
/// The fault never contains a part of the token.
pub(super) fn verify(token: &[u8], keys: &KeySet, leeway: Duration) -> Result<Verified, IdentityFault> {
    // Before any cryptography, so that a long token costs nothing.
    if token.len() > MAX_LENGTH {
        return Err(refuse("length"));
    }
    let header = decode_header(token).map_err(|_| refuse("form"))?;
    if brings_its_own_key(&header) || header.crit.is_some() || has_long_key_id(&header) {
        return Err(refuse("header"));
    }
    // This one stays if no key is of the token's algorithm.
    let mut failed = "alg";
    let mut tried = keys.for_header(&header)?.map(|key| decode::<Box<RawValue>>(token, &key.decoding, &key.validation));
    let decoded = tried.find_map(|tried| tried.inspect_err(|error| failed = failed_check(error.kind(), failed)).ok());
    let claims = decoded.ok_or_else(|| refuse(failed))?.claims;
    let times: Times = json::object(claims.get().as_bytes()).map_err(|_| refuse("times"))?;
    let (expires, begins, now) = (time(times.exp), time(times.nbf), wall_clock::now());
    if now >= expires + leeway {
        refuse("exp");
        return Err(IdentityFault::ExpiredToken);
    }
    if begins > now + LEEWAY {
        return Err(refuse("nbf"));
    }
    Ok(Verified { claims, expires })
}

/// Logs which check a token did not pass, and nothing of the token.
pub(super) fn refuse(reason: &'static str) -> IdentityFault {
    tracing::debug!(reason, "token refused");
    IdentityFault::InvalidToken
}

/// The check that failed. Of several keys, the one that made the signature counts: for all others the signature is wrong.
fn failed_check(error: &ErrorKind, before: &'static str) -> &'static str {
    match error {
        ErrorKind::InvalidSignature if before == "alg" => "signature",
        ErrorKind::InvalidSignature => before,
        ErrorKind::InvalidAudience => "aud",
        ErrorKind::InvalidIssuer => "iss",
        ErrorKind::MissingRequiredClaim(name) => match name.as_str() {
            "aud" => "aud",
            "iss" => "iss",
            _ => "exp",
        },
        _ => "form",
    }
}

/// Whether the header names or contains a key. Such a key must not be used: a forger would name a key of their own.
fn brings_its_own_key(header: &Header) -> bool {
    header.jku.is_some() || header.jwk.is_some() || header.x5u.is_some() || header.x5c.is_some()
}

fn has_long_key_id(header: &Header) -> bool {
    header.kid.as_ref().is_some_and(|id| id.len() > MAX_KEY_ID)
}

/// A time within the years 1970 to 9999, as [`wall_clock::now`] gives it.
pub(super) fn time(seconds: f64) -> SystemTime {
    let since_1970 = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    SystemTime::UNIX_EPOCH + since_1970.min(wall_clock::LAST)
}

/// The length of the longest token, in bytes.
pub(super) const MAX_LENGTH: usize = 8 * 1024;

/// The length of the longest id of a key, in bytes.
const MAX_KEY_ID: usize = 128;

/// How much the clocks of the issuer and of the daemon may differ.
pub(super) const LEEWAY: Duration = Duration::from_secs(5);
