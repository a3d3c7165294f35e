//! `backend-signal` is the daemon through which two devices find each other before a WebRTC call.
//!
//! A device subscribes and gets a stream of messages; anyone allowed lists a user's devices and posts data to one of them.
//! One in-memory hub, an HTTP API (server-sent events and JSON) and a gRPC service, on one port.
//!
//! # The rooms, in reading order
//!
//! | Room | What it is for | What you change there |
//! | --- | --- | --- |
//! | [`model`] | the nouns: ids, address, message, cursor; a value that exists is valid | a new noun, a bound of an id |
//! | [`error`] | what can go wrong: one enum, no status codes | a new error: its variant, `code` and `detail` |
//! | [`budget`] | the bytes that messages and unsent responses take together | what counts against `--memory-budget` |
//! | [`auth`] | headers in, a `Caller` out; nobody else can make one | a new kind of identity |
//! | [`hub`] | send, subscribe, list: the whole domain, free of protocols | anything a message goes through |
//! | [`rest`] | the HTTP API: routes, extractors, the event stream format, problems | a new route; an error's HTTP status |
//! | [`grpc`] | the gRPC service: conversion, codes, streams | a new method; an error's gRPC code |
//! | [`serve`] | the accept loop and every limit of the transport; knows no domain | a socket option, a protocol limit |
//! | [`admin`] | health, readiness, metrics | what operators ask |
//! | [`drain`] | the soft and the hard stop; the only place that spawns; tasks that must not die | the order of stopping |
//! | [`telemetry`] | logs and every metric | a new metric |
//! | [`config`] | every flag and variable; alone reads the environment | a new option |
//! | [`app`] | joins the rooms; the one router of both protocols, and what stands before it | what a new option does |
//! | [`terminal`] | what the process says before it exits | |
//! | [`wall_clock`] | the time of day, within the years that have dates | |
//! | `json` | JSON objects from outside, strictly | |
//! | `hex` | hexadecimal digits | |
//!
//! Arrows point inwards: `rest` and `grpc` know `hub`, and `hub` knows neither. `tests/tidy.rs` holds this.
//!
//! # A message's way
//!
//! `serve` takes a connection, `rest` or `grpc` extracts and parses the request, `auth` gives the `Caller`, `Hub::send` finds
//! the mailbox in the registry (or asks the backplane), `Mailbox::push` numbers and stores the message, the `Subscription`
//! wakes, and `rest::sse` or `grpc::convert` writes it. Both protocols take the same steps in the same order.
//!
//! There are two short ways. A POST to a device and a gRPC `Send`, which come for every message, go past the router: `app`'s
//! dispatch calls their handlers. A stream of HTTP/1.1 goes past hyper: `serve` writes its response to the bare socket.
//!
//! # Invariants
//!
//! * A mailbox is a log of numbered messages, and a stream is a cursor into it. There is no second queue.
//! * Only `auth` makes a `Caller` or a `Subscriber`, and the hub takes nothing else.
//! * Locks are short and synchronous, no function holds two, and none is held across an await.
//! * A stream that ends late never touches the one that took its place: removal compares generations.
//! * A task that must not die is supervised: if it does, the daemon drains and exits with an error.
//! * Whatever comes from a peer has a limit, in size and in time.
//! * Claims, tokens and data are in no log, metric or error.

pub mod admin;
pub mod app;
pub mod auth;
pub mod budget;
pub mod config;
pub mod drain;
pub mod error;
pub mod grpc;
pub mod healthcheck;
mod hex;
pub mod hub;
mod json;
pub mod model;
pub mod rest;
pub mod serve;
pub mod telemetry;
pub mod terminal;
pub mod wall_clock;
