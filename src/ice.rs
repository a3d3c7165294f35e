//! ICE servers for WebRTC: the STUN and TURN servers of the options, with credentials for TURN that expire.

mod ice_url;
mod turn_secret;

use std::time::{Duration, SystemTime};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::digest::{SHA256, digest};

pub use self::{ice_url::IceUrl, turn_secret::TurnSecret};
use crate::{
    auth::Caller,
    error::{Error, IdentityFault},
};

/// The servers that callers are told.
pub struct IceServers {
    /// Need no credentials.
    pub stun: Vec<IceUrl>,
    /// `None`: only STUN, or nothing.
    pub turn: Option<Turn>,
}

/// The TURN servers, which all have the same secret.
pub struct Turn {
    /// Where they are.
    pub urls: Vec<IceUrl>,
    /// What they check credentials with.
    pub secret: TurnSecret,
    /// How long a credential is good for.
    pub ttl: Duration,
}

/// What one caller is told: the `RTCConfiguration` of its calls.
pub struct IceConfiguration<'a> {
    /// The servers: those for STUN, then those for TURN.
    pub servers: Vec<IceServer<'a>>,
    /// After this time the caller should ask again.
    pub expires_in: Duration,
}

/// Servers of one kind.
pub struct IceServer<'a> {
    /// Where they are: at least one.
    pub urls: &'a [IceUrl],
    /// `None` for STUN.
    pub credentials: Option<Credentials>,
}

/// What a TURN server asks for. Not `Debug`: nothing may log it.
pub struct Credentials {
    /// Begins with the time at which the credentials expire.
    pub username: String,
    /// The signature of the username.
    pub password: String,
}

impl IceServers {
    /// The servers for one caller, with credentials that expire [`Turn::ttl`] after `now`.
    ///
    /// # Errors
    /// [`Error::NoIceServers`] when there are none. Where there is TURN, [`Error::Unauthenticated`] for an anonymous caller, and as
    /// [`Caller::reach`] for a caller that may not even reach itself: whoever cannot call needs no relay.
    pub fn for_caller(&self, caller: &Caller, now: SystemTime) -> Result<IceConfiguration<'_>, Error> {
        let stun = IceServer { urls: &self.stun, credentials: None };
        let mut servers = if self.stun.is_empty() { Vec::new() } else { vec![stun] };
        let mut expires_in = DEFAULT_TTL;
        if let Some(turn) = &self.turn {
            servers.push(IceServer { urls: &turn.urls, credentials: Some(turn.credentials(caller, now)?) });
            expires_in = turn.ttl;
        }
        if servers.is_empty() { Err(Error::NoIceServers) } else { Ok(IceConfiguration { servers, expires_in }) }
    }
}

impl Turn {
    /// Credentials by the TURN REST convention, which coturn's `use-auth-secret` checks.
    fn credentials(&self, caller: &Caller, now: SystemTime) -> Result<Credentials, Error> {
        let expiry = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + self.ttl;
        let username = username(expiry.as_secs(), caller)?;
        let password = STANDARD.encode(self.secret.sign(username.as_bytes()));
        Ok(Credentials { username, password })
    }
}

/// `EXPIRY:USER:DEVICE`, or `EXPIRY:USER` without a device, or `EXPIRY:sha256=HASH` if that is too long. With tenants, `TENANT/USER`
/// stands for `USER`.
///
/// A TURN server counts its quotas by what follows the expiry. So two callers must never have the same text there: ids are
/// encoded, and the tenant is part of it. For the same reason the device is there only if the identity names it: otherwise a caller
/// could escape its quota by naming another device.
fn username(expiry: u64, caller: &Caller) -> Result<String, Error> {
    let user = caller.reach(caller.user().ok_or(IdentityFault::Absent)?)?;
    let mut name = encode(user.id());
    if let Some(tenant) = user.tenant() {
        name = format!("{}/{name}", encode(tenant));
    }
    if let Some(device) = caller.bound_device() {
        name = format!("{name}:{}", encode(device.as_str()));
    }
    let username = format!("{expiry}:{name}");
    if username.len() <= LONGEST_USERNAME {
        return Ok(username);
    }
    let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, name.as_bytes()));
    Ok(format!("{expiry}:sha256={hash}"))
}

fn encode(id: &str) -> String {
    utf8_percent_encode(id, ENCODED).to_string()
}

/// Every byte that may stand for something else in a username. coturn refuses spaces, quotes and backslashes, and a client may
/// normalise what is not ASCII (RFC 8489, section 9.2.2): then its signature would not be ours.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The most bytes of a username in STUN (RFC 8489, section 14.3).
const LONGEST_USERNAME: usize = 508;

/// After this time a caller that is told only of STUN should ask again: the operator may have changed the servers.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);
