//! `devices` and `watch`: which devices of a user are connected, once or with every change.

use clap::Args;
use serde_json::json;

use super::{
    channel::{Channel, within},
    exit::{Exit, Failure},
    id_text::{encoded, printable, user_id},
    printer::{Printer, address_text},
    reconnect::{Begun, HEARTBEAT, ended, keep_open, next},
    server_options::ServerOptions,
};
use crate::{
    grpc::proto::{ListDevicesRequest, WatchDevicesRequest, watch_devices_response::Kind},
    model::UserId,
};

/// What `devices` takes.
#[derive(Args, Clone, Debug)]
pub struct DevicesOptions {
    #[command(flatten)]
    pub(super) server: ServerOptions,

    /// Whose devices; in an id, %2F is a slash and %25 a percent sign
    #[arg(value_name = "USER", value_parser = user_id)]
    user: UserId,
}

/// What `watch` takes.
#[derive(Args, Clone, Debug)]
pub struct WatchOptions {
    #[command(flatten)]
    pub(super) server: ServerOptions,

    /// Whose devices, at most 64 users; in an id, %2F is a slash and %25 a percent sign
    #[arg(value_name = "USER", required = true, num_args = 1..=64, value_parser = user_id)]
    users: Vec<UserId>,
}

/// Writes the connected devices of a user.
pub(super) async fn list(channel: Channel, options: DevicesOptions) -> Result<Exit, Failure> {
    let user = options.user.as_str().to_owned();
    let request = channel.request(ListDevicesRequest { user: user.clone() })?;
    let devices = within(channel.signal().list_devices(request)).await?.into_inner().devices;
    let line = json!({"user": user, "devices": devices});
    Printer::new(options.server.json).ids(&devices, &line).await?;
    Ok(Exit::Done)
}

/// Writes the lists of all users, then every change. After a cut the lists come again.
pub(super) async fn watch(channel: Channel, options: WatchOptions) -> Result<Exit, Failure> {
    let printer = Printer::new(options.server.json);
    let users: Vec<_> = options.users.iter().map(|user| user.as_str().to_owned()).collect();
    keep_open(printer, async |begun| follow(&channel, printer, users.clone(), begun).await).await
}

async fn follow(channel: &Channel, printer: Printer, users: Vec<String>, begun: &mut Begun) -> Result<Exit, Failure> {
    let token = channel.options.current_token()?;
    let request = channel.request(WatchDevicesRequest { users, heartbeat: Some(HEARTBEAT) })?;
    let mut signal = channel.signal();
    let mut responses = within(signal.watch_devices(request)).await?.into_inner();
    loop {
        let (text, line) = match next(&mut responses).await?.kind {
            Some(Kind::Devices(list)) => {
                begun.set();
                let devices: Vec<_> = list.devices.iter().map(|device| encoded(device)).collect();
                let devices = if devices.is_empty() { "none".to_owned() } else { devices.join(", ") };
                (
                    format!("{}: {devices}", printable(&encoded(&list.user))),
                    json!({"event": "devices", "user": list.user, "devices": list.devices}),
                )
            }
            Some(Kind::Online(address)) => (
                format!("+ {}", address_text(&address)),
                json!({"event": "online", "user": address.user, "device": address.device}),
            ),
            Some(Kind::Offline(address)) => (
                format!("- {}", address_text(&address)),
                json!({"event": "offline", "user": address.user, "device": address.device}),
            ),
            Some(Kind::End(end)) => return Err(ended(end, token.as_ref(), &channel.options)),
            Some(Kind::Ping(_)) | None => continue,
        };
        printer.result(&text, &line).await?;
    }
}
