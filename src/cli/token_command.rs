//! `token`: makes a token for development, which a daemon with the same secret accepts.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    exit::{Exit, Failure},
    id_text::NamedCaller,
};
use crate::{auth, secret_file::read_secret, terminal, wall_clock};

/// What `token` takes.
#[derive(Args, Clone, Debug)]
pub struct TokenCommandOptions {
    /// The secret of the daemon (its --jwt-secret-file), at least 32 bytes
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,

    /// The user, and perhaps the only device: the claims `userid` and `clientid`
    #[arg(long = "as", value_name = "USER[/DEVICE]")]
    identity: NamedCaller,

    /// How long the token is valid, in seconds or with a unit such as 8h
    #[arg(long, value_name = "SECONDS", default_value = "1h", value_parser = lifetime)]
    expires: Duration,

    /// One more claim, as often as needed; a value that is JSON is taken as JSON, anything else as text
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
}

/// Writes a token.
pub(super) async fn run(options: TokenCommandOptions) -> Result<Exit, Failure> {
    let usage = |line: String| Failure::new(Exit::Usage, line);
    let secret = read_secret(&options.secret_file).map_err(|error| usage(error.to_string()))?;
    let now = wall_clock::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut claims = Map::new();
    claims.insert("userid".to_owned(), json!(options.identity.user.as_str()));
    if let Some(device) = &options.identity.device {
        claims.insert("clientid".to_owned(), json!(device.as_str()));
    }
    claims.insert("iat".to_owned(), json!(now));
    claims.insert("exp".to_owned(), json!(now.saturating_add(options.expires.as_secs())));
    for (name, value) in options.claims {
        if claims.contains_key(&name) {
            return Err(usage(format!("the claim {name} is there twice")));
        }
        claims.insert(name, value);
    }
    let token = auth::development_token(&secret, &Value::Object(claims));
    let token = token.map_err(|reason| usage(format!("{}: {reason}", options.secret_file.display())))?;
    terminal::write_line(&token).await?;
    Ok(Exit::Done)
}

fn claim(text: &str) -> Result<(String, Value), &'static str> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("not NAME=VALUE")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()))))
}

fn lifetime(text: &str) -> Result<Duration, &'static str> {
    let lifetime = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text).map_err(|_| "not a time such as 3600 (seconds) or 8h")?,
    };
    if lifetime.as_secs() == 0 { Err("must be at least 1 second") } else { Ok(lifetime) }
}
