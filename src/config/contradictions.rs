//! The combinations of options that are refused, each with the line that says so.

use super::{AuthMode, RequireClaim, ServeOptions};

/// Says which options do not go together. The line names their flags, so that the reader learns which variables they came from.
pub(super) fn find(options: &ServeOptions) -> Option<&'static str> {
    CONTRADICTIONS.iter().find(|(contradicts, _)| contradicts(options)).map(|(_, line)| *line)
}

type Contradiction = (fn(&ServeOptions) -> bool, &'static str);

const CONTRADICTIONS: &[Contradiction] = &[
    (|o| o.dev && o.auth != AuthMode::None, "--dev means --auth none; leave one of them out"),
    (|o| o.auth == AuthMode::Jwt, "--auth jwt is not implemented yet; use claim behind a forward-auth proxy"),
    (
        |o| o.require_claim == RequireClaim::All && o.auth == AuthMode::Jwt,
        "--auth jwt always requires an identity; leave out --require-claim",
    ),
    (
        |o| o.require_claim == RequireClaim::All && o.auth == AuthMode::None,
        "--require-claim all needs identities, and with --auth none there are none",
    ),
    (|o| o.endpoint.tls_cert.is_some() && o.tls_key.is_none(), "--tls-cert needs --tls-key"),
    (|o| o.endpoint.tls_cert.is_none() && o.tls_key.is_some(), "--tls-key needs --tls-cert"),
    (
        |o| o.tls_client_ca.is_some() && o.endpoint.tls_cert.is_none(),
        "--tls-client-ca needs TLS: --tls-cert and --tls-key",
    ),
];
