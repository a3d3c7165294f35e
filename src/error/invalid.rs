//! The parts of a request that can have the wrong shape.

/// Which part of a request has the wrong shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// The id of a user.
    User,
    /// The list of users: none, or too many.
    Users,
    /// The id of a device.
    Device,
    /// Two places of the request name different devices.
    Devices,
    /// A subscribe names no device, and its identity has none.
    NoDevice,
    /// The id of a tenant.
    Tenant,
    /// The name of an event.
    Event,
    /// The data is absent, null or empty.
    Data,
    /// A form has no data. Perhaps it is JSON: curl calls every body a form.
    FormData,
    /// The body cannot be parsed.
    Body,
    /// The time to live is not a whole number of seconds, zero or more.
    Ttl,
    /// The key of a send that may be repeated.
    IdempotencyKey,
    /// A broadcast has a key, but a broadcast cannot be repeated.
    BroadcastKey,
    /// The stream format does not exist.
    Format,
    /// The request names no host, more than one, or a host that is not valid.
    Host,
    /// With `--dev`: the request is for a host that is not this machine.
    ForeignHost,
}

impl Invalid {
    /// The stable name of the error, as [`Error::code`](super::Error::code).
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::User => "invalid_user",
            Self::Device | Self::Devices => "invalid_device",
            Self::NoDevice => "no_device",
            Self::Tenant => "invalid_tenant",
            Self::Event => "invalid_event",
            Self::Data | Self::FormData => "no_data",
            Self::Body => "malformed_body",
            Self::Ttl => "invalid_ttl",
            Self::IdempotencyKey | Self::BroadcastKey => "invalid_idempotency_key",
            Self::Users => "invalid_users",
            Self::Format => "invalid_format",
            Self::Host | Self::ForeignHost => "invalid_host",
        }
    }

    /// As [`Error::detail`](super::Error::detail).
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::User => "A user id has 1 to 256 bytes of UTF-8, no control characters, and is not \".\" or \"..\".",
            Self::Users => "Name at least 1 user and at most 64.",
            Self::Device => {
                "A device id has 1 to 256 bytes of UTF-8, no control characters, and is not \".\" or \"..\"."
            }
            Self::Devices => {
                "The path, the query parameter device and the header X-Signal-Device name different devices."
            }
            Self::NoDevice => {
                "The identity is a user without a device. Name the device: /subscribe/{user}/device/{device}, the query \
                 parameter device, or the header X-Signal-Device. A parameter device that is empty, cannot be decoded or is there \
                 twice counts as absent."
            }
            Self::Tenant => {
                "A tenant id has 1 to 256 bytes of UTF-8, no control characters, and is not \".\" or \"..\"."
            }
            Self::Event => {
                "An event name has 1 to 64 characters of A-Z a-z 0-9 . _ : - and is not \"error\", \"open\" or a name that begins \
                 with \"signal.\"."
            }
            Self::Data => "The field data is required and must not be empty.",
            Self::FormData => {
                "The body was read as a form, which needs the field data. For JSON send content-type: application/json."
            }
            Self::Body => "The body must be a JSON object, a form or a protobuf message with the documented fields.",
            Self::Ttl => "The time to live must be a whole number of seconds, zero or more.",
            Self::IdempotencyKey => {
                "An Idempotency-Key has 1 to 64 visible ASCII characters, and a request has only one."
            }
            Self::BroadcastKey => {
                "A broadcast takes no Idempotency-Key: a repeat would reach other devices. To repeat safely, send to each device."
            }
            Self::Host => "The request must have one Host header with one valid host.",
            Self::ForeignHost => {
                "With --dev this server answers only for localhost and loopback addresses, so that no page of another site can \
                 reach it by a name that leads to this machine (DNS rebinding). For another name use --auth none without --dev."
            }
            Self::Format => "The format must be plain, envelope or legacy.",
        }
    }
}
