//! The options of ICE servers: which STUN and TURN servers clients are told of.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::values::turn_ttl;
use crate::ice::IceUrl;

/// The servers that `GET /ice` names, and what credentials for them are made with.
#[derive(Args, Clone, Debug)]
pub struct IceOptions {
    /// STUN servers that clients are told of, such as stun:stun.example.org:3478
    #[arg(long, env = "SIGNAL_STUN", value_name = "URL,...", value_delimiter = ',', value_parser = IceUrl::stun)]
    pub stun: Vec<IceUrl>,

    /// TURN servers that clients with an identity are told of, such as turn:turn.example.org:3478?transport=udp; needs
    /// --turn-secret-file
    #[arg(long, env = "SIGNAL_TURN", value_name = "URL,...", value_delimiter = ',', value_parser = IceUrl::turn)]
    pub turn: Vec<IceUrl>,

    /// Secret that the TURN servers have too (coturn: static-auth-secret). One line end at the end of the file is not part of it
    #[arg(long, env = "SIGNAL_TURN_SECRET_FILE", value_name = "FILE")]
    pub turn_secret_file: Option<PathBuf>,

    /// How long credentials for TURN are good for. A call that has begun goes on after that
    #[arg(long, env = "SIGNAL_TURN_TTL", value_name = "SECONDS", default_value = "3600", value_parser = turn_ttl)]
    pub turn_ttl: Duration,
}
