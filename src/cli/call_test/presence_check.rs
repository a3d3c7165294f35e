//! Whether the daemon says who is connected: a list, and a watch that sees a device come and go.

use tokio::time::{Instant, timeout};
use tonic::Streaming;

use super::{
    test_device::{SOON, TestDevice, random_device},
    verdict::{Checked, fault, millis},
};
use crate::cli::{channel::within, reconnect::next};
use crate::{
    cli::exit::Failure,
    grpc::proto::{ListDevicesRequest, WatchDevicesRequest, WatchDevicesResponse, watch_devices_response::Kind},
};

/// The caller lists and watches the devices of the peer's user, while a guest of that user comes and goes.
pub(super) async fn check(caller: &TestDevice, peer: &TestDevice) -> Checked {
    let user = &peer.address.user;
    let mut signal = caller.signal.clone();
    let request = caller.channel.request(ListDevicesRequest { user: user.clone() })?;
    let devices = within(signal.list_devices(request)).await?.into_inner().devices;
    if !devices.contains(&peer.address.device) {
        return fault("the list of connected devices lacks a device that is connected");
    }
    let request = WatchDevicesRequest { users: vec![user.clone()], heartbeat: None };
    let mut watch = within(signal.watch_devices(caller.channel.request(request)?)).await?.into_inner();
    wait_for(&mut watch, |kind| matches!(kind, Kind::Devices(list) if list.devices.contains(&peer.address.device)))
        .await?;
    let mut channel = peer.channel.clone();
    let guest = random_device()?;
    match &mut channel.options.identity {
        Some(identity) => identity.device = Some(guest.clone()),
        None => channel.options.device = Some(guest.clone()),
    }
    let began = Instant::now();
    let device = TestDevice::open(&channel, "").await?;
    wait_for(&mut watch, |kind| matches!(kind, Kind::Online(address) if address.device == guest.as_str())).await?;
    let came = millis(began.elapsed());
    let began = Instant::now();
    drop(device);
    wait_for(&mut watch, |kind| matches!(kind, Kind::Offline(address) if address.device == guest.as_str())).await?;
    let left = millis(began.elapsed());
    Ok(format!("a watch saw a device come after {came:.1} ms and leave after {left:.1} ms"))
}

async fn wait_for(watch: &mut Streaming<WatchDevicesResponse>, wish: impl Fn(&Kind) -> bool) -> Result<(), Failure> {
    let wait = async {
        loop {
            if next(watch).await?.kind.as_ref().is_some_and(&wish) {
                return Ok(());
            }
        }
    };
    match timeout(SOON, wait).await {
        Ok(seen) => seen,
        Err(_) => fault(format!("a watch did not show a change of the devices within {} s", SOON.as_secs())),
    }
}
