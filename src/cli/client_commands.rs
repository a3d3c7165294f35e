//! The client commands, as clap reads them.

use clap::Subcommand;

use super::{
    call_test::CallTestOptions,
    ice_command::IceCommandOptions,
    send_command::{BroadcastOptions, SendOptions},
    server_options::ServerOptions,
    subscribe_command::SubscribeOptions,
    token_command::TokenCommandOptions,
    watch_command::{DevicesOptions, WatchOptions},
};

/// A client command, with the options for it.
#[derive(Clone, Debug, Subcommand)]
pub enum ClientCommand {
    /// Receive the messages of a device until a signal comes; resume after a cut
    #[command(after_help = EXIT_CODES)]
    Subscribe(SubscribeOptions),
    /// Send a message to a device
    #[command(after_help = EXIT_CODES)]
    Send(SendOptions),
    /// Send a message to all connected devices of a user, and write which ones got it
    #[command(after_help = EXIT_CODES)]
    Broadcast(BroadcastOptions),
    /// List the connected devices of a user
    #[command(after_help = EXIT_CODES)]
    Devices(DevicesOptions),
    /// List the connected devices of users, then every change until a signal comes
    #[command(after_help = EXIT_CODES)]
    Watch(WatchOptions),
    /// Show the STUN and TURN servers for a call, as JSON that `new RTCPeerConnection` takes
    #[command(after_help = EXIT_CODES)]
    Ice(IceCommandOptions),
    /// Check a deploy: two devices set up a call, resume after a cut, and use HTTP; a verdict with times
    #[command(after_help = EXIT_CODES)]
    CallTest(CallTestOptions),
    /// Make a token for development with the secret of a daemon
    #[command(after_help = EXIT_CODES)]
    Token(TokenCommandOptions),
}

impl ClientCommand {
    /// Sets what does not come from the command line. `token` is the variable `SIGNAL_TOKEN`.
    ///
    /// # Errors
    /// When options do not go together.
    pub(crate) fn complete(&mut self, token: Option<String>) -> Result<(), String> {
        self.server().map_or(Ok(()), |server| server.complete(token))
    }

    /// The options of the server; `token` needs none.
    pub(super) fn server(&mut self) -> Option<&mut ServerOptions> {
        match self {
            Self::Subscribe(options) => Some(&mut options.server),
            Self::Send(options) => Some(&mut options.server),
            Self::Broadcast(options) => Some(&mut options.server),
            Self::Devices(options) => Some(&mut options.server),
            Self::Watch(options) => Some(&mut options.server),
            Self::Ice(options) => Some(&mut options.server),
            Self::CallTest(options) => Some(&mut options.server),
            Self::Token(_) => None,
        }
    }

    /// Whether the command runs until a signal ends it.
    pub(super) fn is_endless(&self) -> bool {
        match self {
            Self::Subscribe(options) => options.count.is_none(),
            Self::Watch(_) => true,
            _ => false,
        }
    }

    /// Whether the command has nothing to do once nobody reads its output.
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::Subscribe(_) | Self::Watch(_))
    }
}

/// As in `docs/cli.md`.
const EXIT_CODES: &str = "Exit codes: 0 delivered or done, 1 a check failed or the output cannot be written, 2 usage, 3 held, \
    4 not connected, 5 refused, 6 full or limited, 7 unavailable or unknown, 8 superseded";
