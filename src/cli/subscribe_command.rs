//! `subscribe`: receives the messages of a device, and resumes after a cut.

use std::num::NonZeroU64;

use clap::Args;

use super::{
    channel::{Channel, within},
    exit::{Exit, Failure},
    printer::Printer,
    reconnect::{Begun, HEARTBEAT, ended, keep_open, next},
    server_options::ServerOptions,
};
use crate::grpc::proto::{SubscribeRequest, subscribe_response::Kind};

/// What `subscribe` takes.
#[derive(Args, Clone, Debug)]
pub struct SubscribeOptions {
    #[command(flatten)]
    pub(super) server: ServerOptions,

    /// End after this many messages, with exit code 0
    #[arg(long, value_name = "COUNT")]
    pub(super) count: Option<NonZeroU64>,

    /// Continue after this cursor of an earlier stream; --json shows the cursor of each message
    #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
    cursor: String,

    /// Write only the data of each message, as it is, and a line end
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

/// Ends after `--count` messages, or when the server or a signal ends it.
pub(super) async fn run(channel: Channel, options: SubscribeOptions) -> Result<Exit, Failure> {
    let printer = if options.raw { Printer::Raw } else { Printer::new(options.server.json) };
    let mut device = Device { channel, printer, cursor: options.cursor, left: options.count.map(NonZeroU64::get) };
    keep_open(printer, async |begun| device.receive(begun).await).await
}

struct Device {
    channel: Channel,
    printer: Printer,
    /// The newest cursor.
    cursor: String,
    /// How many messages are still to come, if there is a count.
    left: Option<u64>,
}

impl Device {
    /// One stream, from the cursor.
    async fn receive(&mut self, begun: &mut Begun) -> Result<Exit, Failure> {
        let options = &self.channel.options;
        let token = options.current_token()?;
        let request = SubscribeRequest { cursor: self.cursor.clone(), heartbeat: Some(HEARTBEAT) };
        let request = self.channel.request(request)?;
        let mut signal = self.channel.signal();
        let mut responses = within(signal.subscribe(request)).await?.into_inner();
        while self.left != Some(0) {
            match next(&mut responses).await?.kind {
                Some(Kind::Ready(ready)) => {
                    begun.set();
                    self.cursor.clone_from(&ready.cursor);
                    self.printer.connected(&ready);
                }
                Some(Kind::Message(message)) => {
                    self.printer.message(&message).await?;
                    self.cursor = message.cursor;
                    self.left = self.left.map(|left| left - 1);
                }
                Some(Kind::End(end)) => return Err(ended(end, token.as_ref(), options)),
                Some(Kind::Ping(_)) | None => {}
            }
        }
        Ok(Exit::Done)
    }
}
