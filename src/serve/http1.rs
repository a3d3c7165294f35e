//! HTTP/1.1 of one connection.

pub(super) mod counted_body;
pub(super) mod detach;
pub(super) mod response_kind;
pub(super) mod stream_writer;
pub(super) mod timer;
