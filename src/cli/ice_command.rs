//! `ice`: the STUN and TURN servers for a call, as `new RTCPeerConnection` takes them.

use clap::Args;
use serde_json::{Value, json};

use super::{
    channel::{Channel, within},
    exit::{Exit, Failure},
    printer::Printer,
    server_options::ServerOptions,
};
use crate::grpc::proto::{GetIceServersRequest, IceServer};

/// What `ice` takes.
#[derive(Args, Clone, Debug)]
pub struct IceCommandOptions {
    #[command(flatten)]
    pub(super) server: ServerOptions,
}

/// Writes the servers as the JSON of `GET /ice`, also without `--json`: they are made for a program.
pub(super) async fn run(channel: Channel) -> Result<Exit, Failure> {
    let request = channel.request(GetIceServersRequest {})?;
    let answer = within(channel.signal().get_ice_servers(request)).await?.into_inner();
    let servers: Vec<_> = answer.ice_servers.iter().map(server).collect();
    let expires_in = answer.expires_in.map(|time| time.seconds);
    Printer::Json.result("", &json!({"iceServers": servers, "expires_in": expires_in})).await?;
    Ok(Exit::Done)
}

/// An `RTCIceServer`. A browser refuses empty credentials.
fn server(server: &IceServer) -> Value {
    let IceServer { urls, username, credential } = server;
    if username.is_empty() {
        return json!({ "urls": urls });
    }
    json!({"urls": urls, "username": username, "credential": credential})
}
