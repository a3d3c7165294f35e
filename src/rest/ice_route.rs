//! `GET /ice`: the STUN and TURN servers for the calls of the caller, as `new RTCPeerConnection` takes them.

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde::Serialize;

use super::{
    Api, Problem,
    extract::{credentials_without_query, peer_of},
    json_response,
};
use crate::{
    ice::{IceConfiguration, IceServer, IceUrl},
    wall_clock,
};

/// `RTCConfiguration`, and `expires_in`, which browsers ignore.
#[derive(Serialize)]
struct Configuration<'a> {
    #[serde(rename = "iceServers")]
    ice_servers: Vec<Server<'a>>,
    expires_in: u64,
}

/// `RTCIceServer`. A browser refuses a TURN server without credentials, so both of them are there or none.
#[derive(Serialize)]
struct Server<'a> {
    urls: Vec<&'a str>,
    #[serde(flatten)]
    credentials: Option<Credentials<'a>>,
}

#[derive(Serialize)]
struct Credentials<'a> {
    username: &'a str,
    credential: &'a str,
}

pub(super) async fn servers(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let credentials = credentials_without_query(peer_of(request.extensions())?, &request);
    let identify = || api.auth.ice_caller(&credentials);
    let caller = api.auth.with_new_keys(identify(), identify).await?;
    Ok(json_response(&document(&api.ice.for_caller(&caller, wall_clock::now())?)))
}

fn document<'a>(configuration: &'a IceConfiguration<'_>) -> Configuration<'a> {
    let ice_servers = configuration.servers.iter().map(server).collect();
    Configuration { ice_servers, expires_in: configuration.expires_in.as_secs() }
}

fn server<'a>(IceServer { urls, credentials }: &'a IceServer<'_>) -> Server<'a> {
    let urls = urls.iter().map(IceUrl::as_str).collect();
    let credentials = credentials.as_ref();
    Server { urls, credentials: credentials.map(|it| Credentials { username: &it.username, credential: &it.password }) }
}
