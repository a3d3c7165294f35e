//! Builds what verifies tokens, from the options.

use std::{io, sync::Arc};

use crate::{
    auth::{ClaimNames, Expected, Tickets, Tokens},
    config::{AuthMode, Jwks, PermissionOptions, ServeOptions, TokenOptions},
    drain::Drain,
    key_refresh::{KeyRefresh, KeySource, read_secret},
};

/// `None`: no token is read. Also gives the task that reads the keys again.
pub(super) fn tokens(options: &ServeOptions, drain: &Drain) -> io::Result<Option<(Tokens, KeyRefresh)>> {
    let tokens = &options.tokens;
    let Some(source) = source(tokens).filter(|_| options.auth == AuthMode::Jwt) else { return Ok(None) };
    let expected = Expected { audiences: tokens.jwt_audience.clone(), issuers: tokens.jwt_issuer.clone() };
    let refresh = KeyRefresh::new(source, expected, drain.clone())?;
    let ticket_key = tokens.ticket_key_file.as_deref().map(read_secret).transpose()?;
    let tickets = Tickets::new(ticket_key.as_deref()).map_err(|reason| match &tokens.ticket_key_file {
        Some(file) => io::Error::other(format!("{}: {reason}", file.display())),
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
