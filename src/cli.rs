//! The client commands: `subscribe`, `send`, `broadcast`, `devices`, `watch`, `ice`, `call-test` and `token`, over gRPC.
//!
//! A command writes results to standard output and states to standard error. Its exit code says what came of it.

mod call_test;
mod channel;
mod client_commands;
mod exit;
mod ice_command;
mod id_text;
mod printer;
mod reconnect;
mod send_command;
mod server_options;
mod subscribe_command;
mod token_command;
mod watch_command;

use std::process::ExitCode;

use tokio::runtime::Builder;

pub use self::client_commands::ClientCommand;
use self::{
    channel::Channel,
    exit::{Exit, Failure},
    printer::Printer,
};
use crate::{
    drain::{Drain, StopSignals},
    terminal,
};

/// Runs a command to its end, or until a signal comes.
#[must_use]
pub fn run(mut command: ClientCommand, mut signals: StopSignals) -> ExitCode {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return terminal::fail(Exit::Fault as u8, error),
    };
    let printer = Printer::new(command.server().is_some_and(|server| server.json));
    let (only_reads, stopped) = (command.only_reads(), when_stopped(&command));
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = execute(command) => ended,
            () = signals.any() => stopped,
            () = terminal::reader_gone(), if only_reads => Ok(Exit::Done),
        }
    });
    // Dropping the runtime would wait for its threads that may still resolve the host name, or read standard input.
    runtime.shutdown_background();
    let exit = ended.unwrap_or_else(|failure| {
        printer.failure(&failure);
        failure.exit
    });
    ExitCode::from(exit as u8)
}

/// How a command ends that a signal stops.
fn when_stopped(command: &ClientCommand) -> Result<Exit, Failure> {
    if command.is_endless() {
        return Ok(Exit::Done);
    }
    Err(Failure::new(Exit::Unavailable, "stopped by a signal before the end; nobody knows what came of it"))
}

async fn execute(command: ClientCommand) -> Result<Exit, Failure> {
    let channel = |options: &server_options::ServerOptions| Channel::new(options.clone(), Drain::new());
    match command {
        ClientCommand::Subscribe(options) => subscribe_command::run(channel(&options.server)?, options).await,
        ClientCommand::Send(options) => send_command::send(channel(&options.server)?, options).await,
        ClientCommand::Broadcast(options) => send_command::broadcast(channel(&options.server)?, options).await,
        ClientCommand::Devices(options) => watch_command::list(channel(&options.server)?, options).await,
        ClientCommand::Watch(options) => watch_command::watch(channel(&options.server)?, options).await,
        ClientCommand::Ice(options) => ice_command::run(channel(&options.server)?).await,
        ClientCommand::CallTest(options) => call_test::run(channel(&options.server)?, options).await,
        ClientCommand::Token(options) => token_command::run(options).await,
    }
}
