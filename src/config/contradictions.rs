//! The combinations of options that are refused, each with the line that says so.

use super::{AuthMode, RequireClaim, ServeOptions};
use crate::limits::AddressSource;

/// Says which options do not go together. The line names their flags, so that the reader learns which variables they came from.
pub(super) fn find(options: &ServeOptions) -> Option<&'static str> {
    let found = CONTRADICTIONS.iter().find(|(contradicts, _)| contradicts(options)).map(|(_, line)| *line);
    found.or_else(|| options.nodes.contradiction(&options.given))
}

type Contradiction = (fn(&ServeOptions) -> bool, &'static str);

const CONTRADICTIONS: &[Contradiction] = &[
    (|o| o.dev && o.auth != AuthMode::None, "--dev means --auth none; leave one of them out"),
    (
        |o| o.auth == AuthMode::Jwt && o.tokens.key_sources() == 0,
        "--auth jwt needs a key: --jwt-secret-file, --jwt-public-key or --jwks",
    ),
    (|o| o.tokens.key_sources() > 1, "only one of --jwt-secret-file, --jwt-public-key and --jwks can be given"),
    (
        |o| o.tokens.jwks.is_some() && o.tokens.jwt_audience.is_empty(),
        "--jwks needs --jwt-audience: without it, a token that the same issuer made for another service would be accepted",
    ),
    (|o| is_without_tokens(o) && o.tokens.jwt_secret_file.is_some(), "--jwt-secret-file needs --auth jwt"),
    (|o| is_without_tokens(o) && o.tokens.jwt_public_key.is_some(), "--jwt-public-key needs --auth jwt"),
    (|o| is_without_tokens(o) && o.tokens.jwks.is_some(), "--jwks needs --auth jwt"),
    (|o| is_without_tokens(o) && !o.tokens.jwt_audience.is_empty(), "--jwt-audience needs --auth jwt"),
    (|o| is_without_tokens(o) && !o.tokens.jwt_issuer.is_empty(), "--jwt-issuer needs --auth jwt"),
    (|o| is_without_tokens(o) && o.tokens.jwt_user_claim.is_some(), "--jwt-user-claim needs --auth jwt"),
    (|o| is_without_tokens(o) && o.given.has("--jwt-device-claim"), "--jwt-device-claim needs --auth jwt"),
    (|o| is_without_tokens(o) && o.tokens.token_cookie.is_some(), "--token-cookie needs --auth jwt"),
    (|o| is_without_tokens(o) && o.tokens.ticket_key_file.is_some(), "--ticket-key-file needs --auth jwt"),
    (
        |o| o.require_claim == RequireClaim::All && o.auth == AuthMode::Jwt,
        "--auth jwt always requires an identity; leave out --require-claim",
    ),
    (
        |o| o.require_claim == RequireClaim::All && o.auth == AuthMode::None,
        "--require-claim all needs identities, and with --auth none there are none",
    ),
    (
        |o| o.client_address != AddressSource::XForwardedFor && o.trusted_proxies.is_empty(),
        "--client-address needs --trusted-proxies: no other peer is believed",
    ),
    (
        |o| !o.ice.turn.is_empty() && o.ice.turn_secret_file.is_none(),
        "--turn needs --turn-secret-file: a TURN server without credentials relays for everybody",
    ),
    (|o| o.ice.turn.is_empty() && o.ice.turn_secret_file.is_some(), "--turn-secret-file needs --turn"),
    (|o| o.ice.turn.is_empty() && o.given.has("--turn-ttl"), "--turn-ttl needs --turn"),
    (|o| o.endpoint.tls_cert.is_some() && o.tls_key.is_none(), "--tls-cert needs --tls-key"),
    (|o| o.endpoint.tls_cert.is_none() && o.tls_key.is_some(), "--tls-key needs --tls-cert"),
    (
        |o| o.tls_client_ca.is_some() && o.endpoint.tls_cert.is_none(),
        "--tls-client-ca needs TLS: --tls-cert and --tls-key",
    ),
];

fn is_without_tokens(options: &ServeOptions) -> bool {
    options.auth != AuthMode::Jwt
}
