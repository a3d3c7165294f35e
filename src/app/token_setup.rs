//! From the options: builds what verifies tokens, and names the claims that the daemon reads (also for the claim header).

use std::{io, sync::Arc};

use super::inputs::about;
use crate::{
    auth::{ClaimNames, Expected, Tickets, Tokens},
    config::{AuthMode, Jwks, PermissionOptions, ServeOptions, TokenOptions},
    drain::Drain,
    key_refresh::{KeyRefresh, KeySource},
    secret_file::{read_secret, unusable},
};

/// What verifies tokens, and the task that reads the keys again. `None` without `--auth jwt`.
pub(super) fn tokens(options: &ServeOptions, drain: &Drain) -> io::Result<Option<(Tokens, KeyRefresh)>> {
    let tokens = &options.tokens;
    let Some(source) = source(tokens).filter(|_| options.auth == AuthMode::Jwt) else { return Ok(None) };
    let expected = Expected { audiences: tokens.jwt_audience.clone(), issuers: tokens.jwt_issuer.clone() };
    let option = option(&source);
    let refresh = KeyRefresh::new(source, expected, drain.clone()).map_err(|error| about(option, &error))?;
    let ticket_key = tokens.ticket_key_file.as_deref().map(read_secret).transpose();
    let ticket_key = ticket_key.map_err(|error| about(TICKET_KEY, &error))?;
    let tickets = Tickets::new(ticket_key.as_deref()).map_err(|reason| match &tokens.ticket_key_file {
        Some(file) => about(TICKET_KEY, &unusable(file, &reason)),
        None => io::Error::other(reason),
    })?;
    let tokens = Tokens { keys: refresh.keys(), tickets: Arc::new(tickets), cookie: tokens.token_cookie.clone() };
    Ok(Some((tokens, refresh)))
}

/// The claims of a token, or of the claim header, that are read.
pub(super) fn claim_names(options: &ServeOptions) -> ClaimNames {
    let PermissionOptions { tenant_claim: tenant, allow: listed, service_claim: service } = options.permissions.clone();
    let names = ClaimNames { tenant, listed, service, ..ClaimNames::default() };
    if options.auth != AuthMode::Jwt {
        return names;
    }
    let TokenOptions { jwt_user_claim, jwt_device_claim, .. } = options.tokens.clone();
    let (user, user_fallback) = match jwt_user_claim {
        Some(user) => (user, None),
        None => (names.user, Some("sub".to_owned())),
    };
    ClaimNames { user, user_fallback, device: jwt_device_claim, ..names }
}

const TICKET_KEY: &str = "--ticket-key-file";

/// The option that names the source.
fn option(source: &KeySource) -> &'static str {
    match source {
        KeySource::Secret(_) => "--jwt-secret-file",
        KeySource::PublicKey(_) => "--jwt-public-key",
        KeySource::JwksFile(_) | KeySource::JwksUrl(_) => "--jwks",
    }
}

fn source(options: &TokenOptions) -> Option<KeySource> {
    let secret = || options.jwt_secret_file.clone().map(KeySource::Secret);
    let public_key = || options.jwt_public_key.clone().map(KeySource::PublicKey);
    let jwks = || {
        options.jwks.clone().map(|jwks| match jwks {
            Jwks::File(file) => KeySource::JwksFile(file),
            Jwks::Url(url) => KeySource::JwksUrl(url),
        })
    };
    secret().or_else(public_key).or_else(jwks)
}
