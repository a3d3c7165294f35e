//! `call-test`: two devices do what a call needs from the daemon, and a verdict says what works and how fast.

mod call_messages;
mod event_stream_check;
mod presence_check;
mod test_device;
mod verdict;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use tokio::time::Instant;

use self::{
    test_device::{TestDevice, random_device},
    verdict::{Checked, Verdict, fault},
};
use super::{
    channel::Channel,
    exit::{Exit, Failure},
    id_text::{NamedCaller, user_id},
    printer::{Printer, address_text},
    server_options::ServerOptions,
};
use crate::{
    grpc::proto::{Continuity, Outcome},
    model::UserId,
};

/// What `call-test` takes.
#[derive(Args, Clone, Debug)]
pub struct CallTestOptions {
    #[command(flatten)]
    pub(super) server: ServerOptions,

    /// User of the device that is called, for a daemon with --auth claim or none [default: the caller's own]
    #[arg(long, value_name = "USER", value_parser = user_id, conflicts_with_all = ["token_file", "peer_token_file"])]
    peer: Option<UserId>,

    /// File with the token of the device that is called [default: the caller's own]
    #[arg(long, value_name = "FILE")]
    peer_token_file: Option<PathBuf>,

    /// Check only gRPC, and not HTTP
    #[arg(long)]
    grpc_only: bool,
}

/// Runs all checks. A failure to connect has its own exit code; every other one is [`Exit::Fault`].
pub(super) async fn run(channel: Channel, options: CallTestOptions) -> Result<Exit, Failure> {
    let (caller, peer) = channels(&channel, &options)?;
    let mut verdict = Verdict::new(Printer::new(options.server.json));
    let began = Instant::now();
    let (mut caller, mut peer) = match connect(&caller, &peer).await {
        Ok(devices) => devices,
        Err(failure) => {
            verdict.record("connect", began, &Err(failure.clone())).await?;
            return Err(failure);
        }
    };
    let detail = format!("{} and {}", address_text(&caller.address), address_text(&peer.address));
    verdict.record("connect", began, &Ok(detail)).await?;
    let began = Instant::now();
    let checked = presence_check::check(&caller, &peer).await;
    verdict.record("presence", began, &checked).await?;
    let began = Instant::now();
    let checked = call_messages::check(&mut caller, &mut peer).await;
    verdict.record("handshake", began, &checked).await?;
    let began = Instant::now();
    let checked = resume(&mut caller, peer).await;
    verdict.record("resume", began, &checked).await?;
    if !options.grpc_only {
        let began = Instant::now();
        let checked = event_stream_check::check(&caller).await;
        verdict.record("event stream", began, &checked).await?;
    }
    verdict.end().await
}

async fn connect(caller: &Channel, peer: &Channel) -> Result<(TestDevice, TestDevice), Failure> {
    Ok((TestDevice::open(caller, "").await?, TestDevice::open(peer, "").await?))
}

/// The channels of both devices, whose ids are random: a run disturbs no device, and no other run.
fn channels(channel: &Channel, options: &CallTestOptions) -> Result<(Channel, Channel), Failure> {
    let server = &options.server;
    if server.device.is_some() || server.identity.as_ref().is_some_and(|identity| identity.device.is_some()) {
        return Err(Failure::new(Exit::Usage, "call-test chooses the devices itself: name only a user"));
    }
    let (mut caller, mut peer) = (channel.clone(), channel.clone());
    let has_token = server.current_token()?.is_some();
    if options.peer_token_file.is_some() {
        if !has_token {
            return Err(Failure::new(Exit::Usage, "--peer-token-file needs a token of the caller too"));
        }
        peer.options.token_file.clone_from(&options.peer_token_file);
    }
    let is_certified = server.is_certified()?;
    if (has_token || is_certified) && options.peer.is_some() {
        let line = "--peer has no place beside a token or a certificate; with a token use --peer-token-file";
        return Err(Failure::new(Exit::Usage, line));
    }
    if has_token || is_certified {
        caller.options.device = Some(random_device()?);
        peer.options.device = Some(random_device()?);
    } else {
        let own = server.identity.as_ref().map(|identity| identity.user.clone());
        let own = own.map_or_else(|| user_id("call-test"), Ok).map_err(|line| Failure::new(Exit::Usage, line))?;
        let other_user = options.peer.clone().unwrap_or_else(|| own.clone());
        caller.options.identity = Some(NamedCaller { user: own, device: Some(random_device()?) });
        peer.options.identity = Some(NamedCaller { user: other_user, device: Some(random_device()?) });
    }
    Ok((caller, peer))
}

/// Cuts the stream of the peer, sends to it meanwhile, and expects every message after it has come back.
async fn resume(caller: &mut TestDevice, peer: TestDevice) -> Checked {
    let (channel, address, cursor) = peer.cut();
    tokio::time::sleep(AWAY).await;
    for number in 1..=MISSED {
        match caller.send(&address, "call-test", &number.to_string(), HOLD).await? {
            Outcome::Delivered | Outcome::Held => {}
            Outcome::Unspecified => return fault("the daemon does not say what it did with a message"),
        }
    }
    let mut peer = TestDevice::open(&channel, &cursor).await?;
    if peer.continuity != Continuity::Resumed {
        return fault(format!("the device came back with its cursor, and the daemon says {:?}", peer.continuity));
    }
    for number in 1..=MISSED {
        let data = peer.receive().await?.data;
        if data != number.to_string() {
            return fault(format!("message {number} of {MISSED} came back wrong: lost, repeated or out of order"));
        }
    }
    Ok(format!("{MISSED} messages during a cut came in order"))
}

/// How long the device is away before it is sent something: the daemon has noticed the cut, unless a proxy hides it.
const AWAY: Duration = Duration::from_millis(300);

/// The messages during the cut.
const MISSED: usize = 3;

/// How long they are held if the daemon has noticed the cut.
const HOLD: u32 = 30;
