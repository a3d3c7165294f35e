//! `backend-signal` is the daemon through which two devices find each other before a WebRTC call.
//!
//! A device subscribes and gets a stream of messages. Any caller who is allowed to lists a user's devices and sends data to one of
//! them. One in-memory hub, an HTTP API (server-sent events and JSON) and a gRPC service, on one port.
//!
//! # The rooms, in reading order
//!
//! | Room | What it does |
//! | --- | --- |
//! | [`model`] | the nouns: ids, address, message, cursor; a value that exists is valid |
//! | [`error`] | everything that can go wrong: one enum, without status codes |
//! | [`budget`] | counts the bytes of messages and unsent responses against `--memory-budget` |
//! | [`auth`] | takes headers, URI and peer, makes a `Caller`; no other room can make one |
//! | [`hub`] | the domain: send, subscribe, list, watch; knows no protocol |
//! | [`rest`] | the HTTP API: routes, extractors, the event stream format, problems |
//! | [`grpc`] | the gRPC service: methods, conversion, status codes, streams |
//! | [`serve`] | the transport: accepts connections, speaks HTTP/1.1 and HTTP/2, cuts peers; knows no domain |
//! | [`admin`] | health, readiness and metrics routes |
//! | [`drain`] | stops the daemon; the only room that spawns tasks, and supervises those that must not die |
//! | [`telemetry`] | logs and metrics |
//! | [`config`] | parses the command line and the environment; no other room reads the environment |
//! | [`app`] | joins the rooms; decides how each request is handled, and has the router of both protocols |
//! | [`healthcheck`] | the subcommand that asks a running daemon whether it is alive |
//! | [`terminal`] | writes to standard output and standard error before the process exits |
//! | [`wall_clock`] | the time of day, clamped to the years 1970 to 9999 |
//! | `flat_map` | a stream that turns each item of another stream into any number of items |
//! | `json` | strict parsing of JSON objects from outside |
//!
//! Arrows point inwards: `rest` and `grpc` know `hub`, and `hub` knows neither of them. `tests/tidy.rs` checks this.
//!
//! # Where to look, and where to add
//!
//! | What | Where |
//! | --- | --- |
//! | a peer that does not read is cut | `serve/write_watchdog.rs` |
//! | a heartbeat | `hub/heartbeat.rs` says when, `hub/timekeeper.rs` wakes the stream, `rest/sse.rs` and `grpc/convert.rs` write it |
//! | a new option or subcommand | `config/serve_options.rs` or `config.rs`; `app.rs` hands the value to its room; a README row |
//! | a new error | `error.rs`; the compiler then asks for its codes in `rest/problem.rs` and `grpc/status.rs` |
//! | a new route | `rest.rs`, or `admin.rs` for operators; a gRPC method: the proto file and `grpc.rs` |
//! | a new kind of identity | a file beside `auth/claim.rs`, and `auth.rs`, which chooses by `--auth` |
//! | a new limit of a user or device | `hub/user_devices.rs`, `hub/presence.rs`, `hub/log.rs` |
//! | a new limit of a connection | `serve.rs` for options; a constant in the file of `serve` that applies it |
//! | a new metric | `telemetry/metrics.rs`, and `telemetry/metrics/hub_events.rs` for what happens in the hub; a README row |
//!
//! # A message's way
//!
//! `serve` accepts a connection. `rest` or `grpc` parses the request. `auth` makes the `Caller`. `Hub::send` finds the mailbox in
//! the registry, or asks the backplane. `Mailbox::push` numbers and stores the message and wakes the `Subscription`. `rest::sse` or
//! `grpc::convert` writes the message. Both protocols take the same steps in the same order.
//!
//! There are two shortcuts. A POST to a device and a gRPC `Send` come once for every message, so `app/dispatch.rs` calls their
//! handlers without the router. An event stream over HTTP/1.1 leaves hyper: `serve` writes the response to the bare socket, because
//! hyper's buffers would be most of the memory of an idle stream.
//!
//! # Invariants
//!
//! * A mailbox is a log of numbered messages, and a stream is a cursor into it. There is no second queue.
//! * Only `auth` makes a `Caller` or a `Subscriber`, and the hub takes nothing else.
//! * Locks are short and synchronous, no function holds two, and none is held across an await.
//! * A stream that ends late never touches the newer stream that took its place: removal compares generations.
//! * A task that must not die is supervised: if it does, the daemon drains and exits with an error.
//! * Everything that comes from a peer has a limit, in size and in time.
//! * No log, metric or error contains a claim, a token or data.

pub mod admin;
pub mod app;
pub mod auth;
pub mod budget;
pub mod config;
pub mod drain;
pub mod error;
mod flat_map;
pub mod grpc;
pub mod healthcheck;
pub mod hub;
mod json;
pub mod model;
pub mod rest;
pub mod serve;
pub mod telemetry;
pub mod terminal;
pub mod wall_clock;
