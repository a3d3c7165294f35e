//! `backend-signal` is the daemon through which two devices find each other before a WebRTC call.
//!
//! A device subscribes and gets a stream of messages. A caller lists a user's devices and sends data to one of them. One in-memory
//! hub, an HTTP API (server-sent events and JSON) and a gRPC service, on one port.
//!
//! # The rooms, in reading order
//!
//! | Room | What it does |
//! | --- | --- |
//! | [`model`] | the nouns: ids, address, message, cursor. Their constructors check, so a value never needs a second check |
//! | [`error`] | everything that can go wrong: one enum, without status codes |
//! | [`budget`] | counts the bytes of messages and unsent responses against `--memory-budget` |
//! | [`limits`] | rates and counts by caller and by address; finds the address of a client behind proxies |
//! | [`auth`] | identifies the caller from headers, URI and IP address; only this room can make a `Caller` |
//! | [`hub`] | the domain: send, subscribe, list, watch; knows no protocol |
//! | [`cluster`] | the hub's way to other nodes, over Redis or Valkey; without `--redis` not a line of it runs |
//! | [`ice`] | the STUN and TURN servers that callers are told of, and credentials for TURN |
//! | [`rest`] | the HTTP API: routes, extractors, the event stream format, problems |
//! | [`grpc`] | the gRPC service: methods, conversion, status codes, streams |
//! | [`serve`] | the transport: accepts connections, speaks HTTP/1.1 and HTTP/2, cuts peers; knows no domain |
//! | [`admin`] | health, readiness and metrics routes |
//! | [`web`] | the files for browsers and tools: the console, `client.js` and the description of the API (from the folder `web`), embedded |
//! | [`drain`] | stops the daemon; every task is spawned through it; supervises those that must not die |
//! | [`reload`] | the request to read files again (SIGHUP) |
//! | [`telemetry`] | logs and metrics |
//! | [`key_refresh`] | reads the keys of tokens from their file or URL, again and again |
//! | [`secret_file`] | reads files with secrets and keys |
//! | [`config`] | parses the command line and the environment; no other room reads the environment |
//! | [`app`] | builds the daemon from the rooms; refuses or routes each request, for both protocols |
//! | [`cli`] | the client commands, such as `send` and `subscribe`: a gRPC client of a running daemon |
//! | [`healthcheck`] | the subcommand that asks a running daemon whether it is alive |
//! | [`terminal`] | writes to standard output and standard error before the process exits |
//! | [`wall_clock`] | the time of day, safe to format |
//! | `flat_map` | (private) a stream that turns each item of another stream into any number of items |
//! | `media_type` | (private) compares media types as RFC 9110 says, for both protocols |
//! | `form` | (private) parses forms: bodies strictly, queries leniently |
//! | `json` | (private) strict parsing of JSON objects from outside |
//!
//! Dependencies point inwards: `rest` and `grpc` know `hub`, and `hub` knows neither of them. `tests/tidy.rs` checks this.
//!
//! # Where to look, and where to add
//!
//! | What | Where |
//! | --- | --- |
//! | a peer that does not read is cut | `serve/write_watchdog.rs` decides; `serve/watched_socket.rs` ends a connection, `serve/http2/stream_tasks.rs` an HTTP/2 stream |
//! | a client that vanished is noticed | TCP keep-alive in `serve/socket.rs`, PING in `serve/http2.rs` |
//! | a heartbeat | `hub/heartbeat.rs` says when, `hub/timekeeper.rs` wakes the stream, `rest/sse.rs` and `grpc/convert.rs` write it; `rest/subscribe.rs` has the default of the `legacy` format |
//! | a repeated send is not delivered twice | `rest/extract.rs` and `grpc/convert.rs` read its key, `hub/repeats.rs` remembers the outcome; `cli/send_command.rs` and `web/client.js` repeat |
//! | a new option or subcommand | `config/serve_options.rs` (tokens: `config/token_options.rs`, permissions: `config/permission_options.rs`, STUN and TURN: `config/ice_options.rs`, other nodes: `config/redis_options.rs`), parsers of values in `config/values.rs`, what it contradicts in `config/contradictions.rs`; `app.rs` hands the value to its room, a file is read in `app/inputs.rs`; a row in `docs/reference.md`. A subcommand: `config.rs`, `main.rs` |
//! | an engine for more nodes beside Redis | the traits `Engine` and `Directory` of `cluster/wire.rs` and `cluster/directory.rs`; `app/redis_setup.rs`, `app/clustering.rs` |
//! | a new client command | `cli/client_commands.rs` and a file beside it; a section in `docs/cli.md` |
//! | a warning at start | `app/start_report.rs` |
//! | a new error | `error.rs`; the compiler then asks for its codes in `rest/problem.rs` and `grpc/status.rs`; a row in `docs/reference.md`, a code in `web/openapi.json` |
//! | a new route | `rest.rs`, or `admin.rs` for operators; a GET with an effect also in `app/cross_site.rs`, a new HTTP method in `app/cors.rs` and `app/cross_site.rs` (`app/router.rs` joins the routes); a row in `docs/http.md`, an operation in `web/openapi.json` |
//! | a new file for browsers | the folder `web`; `web.rs` embeds it |
//! | a new gRPC method | `proto/backend_signal/v1/signal.proto` (then `cargo check --features generate`), `grpc.rs` (`METHODS` says which identity it needs), `grpc/convert.rs`; a row in `docs/grpc.md` |
//! | a new claim, or a rule of who may reach whom | `auth/claims.rs` reads it, `auth/permission.rs` puts it into the `Caller`, `Caller::reach` in `auth/caller.rs` decides; its name: `config/permission_options.rs`, `claim_names` in `app/token_setup.rs` |
//! | a new kind of identity, place of a token or signature algorithm | `AuthMode` in `config/serve_options.rs`, `Mode` in `auth.rs`, a file beside `auth/claim.rs`, `auth/challenge.rs`; `app.rs` joins them. A place of a token: `auth/token_source.rs`, the texts in `error/identity_fault.rs`. An algorithm: `auth/signatures.rs` verifies, `auth/key_set.rs` accepts its keys |
//! | a new limit of a user or device | `Limits` in `hub/limit_settings.rs`, from `app.rs`; `hub/user_devices.rs`, `hub/presence.rs` or `hub/log.rs` counts |
//! | a new limit of a caller or an address | a file of `limits`; `ClientAddresses::counted` says which addresses count. Rates of messages are checked in `hub/sending.rs`, connections in `serve/connection.rs`, refused identities in `app/failed_identities.rs`. A name in `error/limit.rs`; an option |
//! | a new limit of a request | `Settings` in `rest.rs` and `rest/body.rs`; `grpc.rs` and `grpc/deadline.rs` |
//! | a new limit of memory | `budget.rs`; `hub/eviction.rs` drops messages, `serve/write_watchdog.rs` cuts streams |
//! | which address a connection has | `serve/connection.rs` admits it, `serve/proxy_protocol.rs` reads what a TCP proxy says |
//! | a new limit of a connection | `Settings` in `serve.rs` for options; else a constant in the file of `serve` that applies it |
//! | a new file that is read again when it changes, or on SIGHUP | its room gets a `Reload` of `reload.rs`, as `serve/tls.rs` and `ice/turn_secret.rs` do |
//! | a new metric | `telemetry/metrics.rs`, for hub events `telemetry/metrics/hub_events.rs`, of other nodes `telemetry/metrics/cluster_metrics.rs`; a gauge: also `Levels` there and `admin.rs`; a row in `docs/reference.md` |
//! | a webhook on hub events | implement `Observer` of `hub/observer.rs`; `app.rs` hands the hub one observer, so combine two into one |
//!
//! # A message's way
//!
//! `serve` accepts a connection. `auth` makes the `Caller`. `rest` or `grpc` parses the message. `Hub::send` checks the rate of the
//! caller (`limits`), then finds the mailbox in
//! the registry, or asks the backplane. `Mailbox::push` numbers and stores the message, and `Slot` wakes the `Subscription`.
//! `rest::sse` or `grpc::convert` writes the message. Both protocols take the same steps in the same order.
//!
//! There are two fast paths. First: a POST to a device and a gRPC `Send` come once for every message, so `app/dispatch.rs` calls
//! their handlers without the router. Second: a streaming response over HTTP/1.1 leaves hyper. `serve` writes it to the connection
//! itself, because hyper's buffers would be most of the memory of an idle stream.
//!
//! # Invariants
//!
//! * A mailbox is a log of numbered messages, and a stream is a cursor into it. There is no second queue.
//! * Only `auth` makes a `Caller` or a `Subscriber`, and every hub function that subscribes, sends, lists or watches takes one.
//! * The hub knows users only as `TenantUser`: a user in its tenant, whom the caller may reach. Only `Caller::reach` makes one.
//! * Locks are short and synchronous. No function holds two locks, and no lock is held across an await.
//! * A stream that ends late never removes the newer stream of its device: removal compares their generations.
//! * A task that must not die is supervised: if it does, the daemon drains and exits with an error.
//! * Everything that comes from a peer has a limit, in size and in time.
//! * No log, metric or error contains a claim, a token or data.

pub mod admin;
pub mod app;
pub mod auth;
pub mod budget;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod drain;
pub mod error;
mod flat_map;
mod form;
pub mod grpc;
pub mod healthcheck;
pub mod hub;
pub mod ice;
mod json;
pub mod key_refresh;
pub mod limits;
mod media_type;
pub mod model;
pub mod reload;
pub mod rest;
pub mod secret_file;
pub mod serve;
pub mod telemetry;
pub mod terminal;
pub mod wall_clock;
pub mod web;
