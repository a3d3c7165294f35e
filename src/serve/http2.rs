//! HTTP/2 of one connection.

pub(super) mod control_frames;
pub(super) mod idle_timeout;
pub(super) mod read_budget;
pub(super) mod request_body;
pub(super) mod response_body;
pub(super) mod stream_tasks;
pub(super) mod unsent_limit;
pub(super) mod write_batching;
