//! From the options: what the larger rooms are told.

use std::time::Duration;

use super::{inputs::Inputs, token_setup};
use crate::{
    auth::{self, Auth, Tokens},
    budget::Budget,
    config::{AuthMode, RequireClaim, ServeOptions},
    hub::Limits,
    limits::{ClientAddresses, SendRates},
    rest, serve,
    telemetry::Metrics,
};

/// The settings of `serve`.
pub(super) fn of_serve(
    options: &ServeOptions,
    inputs: Inputs,
    budget: Budget,
    addresses: ClientAddresses,
) -> serve::Settings {
    let max_connections = inputs.max_connections;
    serve::Settings {
        tls: inputs.tls,
        max_connections: max_connections.count(),
        address_connections: options.address_connections.unwrap_or(max_connections.of_address()),
        addresses,
        http1_takeover: options.http1_takeover,
        max_streams: options.max_streams,
        header_timeout: options.header_timeout,
        body_timeout: options.body_timeout,
        stall_timeout: options.stall_timeout,
        http2_idle_timeout: HTTP2_IDLE,
        budget,
    }
}

/// The settings of the HTTP API.
pub(super) fn of_rest(options: &ServeOptions) -> rest::Settings {
    rest::Settings {
        body_limit: options.body_limit as usize,
        body_timeout: options.body_timeout,
        heartbeat: options.heartbeat,
    }
}

/// The limits of the hub.
pub(super) fn of_hub(options: &ServeOptions, addresses: ClientAddresses) -> Limits {
    Limits {
        resume_window: options.resume_window,
        hold: options.hold_limit,
        hold_budget: options.hold_budget.unwrap_or(options.memory_budget / 4),
        user_devices: options.user_devices,
        user_held_devices: options.user_held_devices,
        user_watchers: options.user_watchers,
        caller_watches: options.caller_watches,
        send_rates: SendRates::new(options.send_rate, options.anonymous_send_rate, addresses),
    }
}

/// How callers are identified.
pub(super) fn of_auth(options: &ServeOptions, tokens: Option<Tokens>, metrics: Metrics) -> Auth {
    Auth {
        mode: match options.auth {
            AuthMode::None => auth::Mode::None,
            AuthMode::Claim => auth::Mode::Claim,
            AuthMode::Jwt => auth::Mode::Jwt,
        },
        require_all: options.require_claim == RequireClaim::All,
        require_for_ice: !options.ice.turn.is_empty(),
        claims: token_setup::claim_names(options),
        tokens,
        trusted_proxies: options.trusted_proxies.clone(),
        metrics,
    }
}

/// How long an HTTP/2 connection may stay open without a stream. Short, because an idle connection holds a permit.
const HTTP2_IDLE: Duration = Duration::from_secs(60);
