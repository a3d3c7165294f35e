//! The daemon over the wire: every promise of the README, in the real protocols, against a server on a free port.

#![expect(clippy::disallowed_methods, reason = "a test's tasks end with the test")]
#![expect(unreachable_pub, reason = "everything in a test binary is")]

mod address_connections;
mod cable;
mod caching;
mod calls;
mod cross_site;
mod cutting;
mod defaults;
mod drain;
mod errors;
mod failed_identities;
mod floods;
mod format;
mod full;
mod grpc;
mod grpc_web;
mod harness;
mod head_checks;
mod healthcheck;
mod hold;
mod http1_streams;
mod identity;
mod idle;
mod limits;
mod lost_sockets;
mod many_users;
mod media_types;
mod metrics;
mod options;
mod parity;
mod presence;
mod proxy_protocol;
mod rates;
mod readme;
mod reflection;
mod refusals;
mod request_frames;
mod rest;
mod resume;
mod send_stream;
mod serve;
mod stalls;
mod start;
mod stream;
mod takeover;
mod unread_responses;
mod user_limits;
mod wall_clock;
