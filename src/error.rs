//! The taxonomy of what can go wrong: one enum, no status codes; each protocol has one table that turns it into its own.

/// Why a request was refused or a message not accepted.
///
/// Nothing here carries input of the request, so nothing of it can reach an answer or a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The request has the wrong shape.
    Invalid(Invalid),
    /// An identity was required or given, and it is not valid.
    Unauthenticated(Unproven),
    /// The identity is valid and may not do this.
    Forbidden,
    /// A page of another site made the request, and it may not act for its visitor.
    CrossSite,
    /// The device has no live stream, and the sender did not ask to hold.
    NotConnected,
    /// There is nothing at this path.
    NoRoute,
    /// The path exists and does not know this method.
    MethodNotAllowed,
    /// The body or message is over the limit.
    TooLarge,
    /// The body has a type or an encoding that is not read here.
    UnsupportedMedia,
    /// The request has a transfer coding that is not known here.
    UnsupportedCoding,
    /// The request did not arrive in time.
    SlowRequest,
    /// The device's mailbox has no room for another message that was not yet handed over.
    MailboxFull,
    /// The user or the caller has as many devices or watches as it may.
    TooMany,
    /// This node is stopping and takes no new work.
    Draining,
    /// All places for connections are taken.
    NoPlace,
    /// The messages of all mailboxes together have reached the memory budget.
    OverBudget,
    /// This node cannot tell where the device is.
    Unreachable,
    /// The owning node did not answer in time; the message may or may not have been accepted.
    UnknownOutcome,
    /// A newer page of the same device is connected; this one should stop coming back.
    Superseded,
    /// A fault of this server.
    Internal,
}

/// Which part of a request has the wrong shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A user's id.
    User,
    /// A device's id.
    Device,
    /// An event's name.
    Event,
    /// Absent, null or empty data.
    Data,
    /// A body that cannot be parsed.
    Body,
    /// A time to live that is not a whole number of seconds, zero or more.
    Ttl,
    /// A stream format that does not exist.
    Format,
    /// No host, two or more, or one that is none.
    Host,
}

/// What is wrong with an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// There is none, and the route requires one.
    Absent,
    /// It is not what an identity looks like.
    Malformed,
    /// It stands there more than once, or under a look-alike name.
    Ambiguous,
    /// It came from a peer that is not a trusted proxy.
    Untrusted,
}

impl Error {
    /// A stable, machine-readable name.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid(Invalid::User) => "invalid_user",
            Self::Invalid(Invalid::Device) => "invalid_device",
            Self::Invalid(Invalid::Event) => "invalid_event",
            Self::Invalid(Invalid::Data) => "no_data",
            Self::Invalid(Invalid::Body) => "malformed_body",
            Self::Invalid(Invalid::Ttl) => "invalid_ttl",
            Self::Invalid(Invalid::Format) => "invalid_format",
            Self::Invalid(Invalid::Host) => "invalid_host",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::CrossSite => "cross_site",
            Self::NotConnected => "not_connected",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia => "unsupported_media_type",
            Self::UnsupportedCoding => "unsupported_coding",
            Self::SlowRequest => "request_timeout",
            Self::MailboxFull => "mailbox_full",
            Self::TooMany => "too_many",
            Self::Draining => "draining",
            Self::NoPlace => "no_place",
            Self::OverBudget => "over_memory_budget",
            Self::Unreachable => "unreachable",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Superseded => "superseded",
            Self::Internal => "internal",
        }
    }

    /// One sentence for a person, the same for every request that ends this way.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Invalid(part) => part.detail(),
            Self::Unauthenticated(fault) => fault.detail(),
            Self::Forbidden => "The identity is valid, but it is not the one that this path belongs to.",
            Self::CrossSite => {
                "The request comes from a page of another site; list its origin in --cors-origins to let it in."
            }
            Self::NotConnected => "No live stream of the device is connected.",
            Self::NoRoute => "There is nothing at this path.",
            Self::MethodNotAllowed => "The path exists, but not with this method.",
            Self::TooLarge => "The request is larger than the limit of this server.",
            Self::UnsupportedMedia => {
                "The body must be application/json or application/x-www-form-urlencoded (on a gRPC path: a POST of \
                 application/grpc), without a content encoding."
            }
            Self::UnsupportedCoding => "The only transfer coding that this server knows is chunked, once.",
            Self::SlowRequest => "The request did not arrive in time.",
            Self::MailboxFull => "The device has too many messages waiting; try again later.",
            Self::TooMany => "There are as many devices or watches as one user or caller may have; try again later.",
            Self::Draining => "This server is stopping and takes no new work; try another one, or again later.",
            Self::NoPlace => "This server has as many connections as it may have; try again later.",
            Self::OverBudget => "This server holds as many messages as it may; try again later.",
            Self::Unreachable => "This server cannot tell where the device is connected; try again later.",
            Self::UnknownOutcome => "The server that holds the device did not answer in time; the outcome is unknown.",
            Self::Superseded => "A newer stream of the same device is connected.",
            Self::Internal => "The server failed; the fault is in its log.",
        }
    }
}

impl Invalid {
    fn detail(self) -> &'static str {
        match self {
            Self::User => "The user id must be 1 to 256 bytes of UTF-8 without control characters, and not . or ..",
            Self::Device => "The device id must be 1 to 256 bytes of UTF-8 without control characters, and not . or ..",
            Self::Event => "The event name must be 1 to 64 of A-Z a-z 0-9 . _ : - and not begin with signal.",
            Self::Data => "The field data is required and must not be empty.",
            Self::Body => "The body is not a JSON object, a form or a protobuf message of the expected shape.",
            Self::Ttl => "The time to live must be a whole number of seconds, zero or more.",
            Self::Host => "The request must name one host, in one valid header line.",
            Self::Format => "The format must be plain, envelope or legacy.",
        }
    }
}

impl Unproven {
    fn detail(self) -> &'static str {
        match self {
            Self::Absent => "This request needs an identity.",
            Self::Malformed => "The identity that was sent is not valid.",
            Self::Ambiguous => "The identity stands in more than one header line.",
            Self::Untrusted => "Requests are accepted from trusted proxies only.",
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for Error {}

impl From<Invalid> for Error {
    fn from(part: Invalid) -> Self {
        Self::Invalid(part)
    }
}

impl From<Unproven> for Error {
    fn from(fault: Unproven) -> Self {
        Self::Unauthenticated(fault)
    }
}
