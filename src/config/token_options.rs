//! The options of `--auth jwt`: which tokens are accepted, and what they say.

use std::path::PathBuf;

use clap::Args;
use http::Uri;

use super::values::{cookie_name, jwks, not_empty};

/// Which tokens are accepted, and which of their claims say who the caller is.
#[derive(Args, Clone, Debug)]
pub struct TokenOptions {
    /// Secret that tokens are signed with (HS256, HS384, HS512), at least 32 bytes. One line end at the end of the file is not part
    /// of it
    #[arg(long, env = "SIGNAL_JWT_SECRET_FILE", value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,

    /// Public key of whoever signs tokens, PEM: RSA, EC (P-256 or P-384) or Ed25519
    #[arg(long, env = "SIGNAL_JWT_PUBLIC_KEY", value_name = "FILE")]
    pub jwt_public_key: Option<PathBuf>,

    /// Key set of whoever signs tokens (JWKS); needs --jwt-audience
    #[arg(long, env = "SIGNAL_JWKS", value_name = "FILE|https://...", value_parser = jwks)]
    pub jwks: Option<Jwks>,

    /// A token must be for one of these (claim `aud`)
    #[arg(long, env = "SIGNAL_JWT_AUDIENCE", value_name = "AUDIENCE,...", value_delimiter = ',', value_parser = not_empty)]
    pub jwt_audience: Vec<String>,

    /// A token must come from one of these (claim `iss`). Empty: from anybody who has the key
    #[arg(long, env = "SIGNAL_JWT_ISSUER", value_name = "ISSUER,...", value_delimiter = ',', value_parser = not_empty)]
    pub jwt_issuer: Vec<String>,

    /// Claim that names the user. Without this option: userid, or sub where there is no userid
    #[arg(long, env = "SIGNAL_JWT_USER_CLAIM", value_name = "CLAIM", value_parser = not_empty)]
    pub jwt_user_claim: Option<String>,

    /// Claim that names the only device that the caller may be; a token without it leaves the device to the request
    #[arg(long, env = "SIGNAL_JWT_DEVICE_CLAIM", value_name = "CLAIM", default_value = "clientid",
          value_parser = not_empty)]
    pub jwt_device_claim: String,

    /// Cookie that may have the token
    #[arg(long, env = "SIGNAL_TOKEN_COOKIE", value_name = "NAME", value_parser = cookie_name)]
    pub token_cookie: Option<String>,

    /// Key that tickets are signed with, at least 32 bytes: the same on all nodes behind one name. Without it, each process has a random one
    #[arg(long, env = "SIGNAL_TICKET_KEY_FILE", value_name = "FILE")]
    pub ticket_key_file: Option<PathBuf>,
}

/// Where a key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jwks {
    /// In a file.
    File(PathBuf),
    /// At an https URL.
    Url(Uri),
}

impl TokenOptions {
    /// Says in one line which options do not go together.
    pub(super) fn check(&self, is_jwt: bool) -> Result<(), String> {
        let Self { jwt_secret_file, jwt_public_key, jwks, .. } = self;
        let keys = [jwt_secret_file.is_some(), jwt_public_key.is_some(), jwks.is_some()];
        let keys = keys.iter().filter(|is_given| **is_given).count();
        let wrong = match (is_jwt, keys) {
            (false, _) => match self.given() {
                Some(option) => return Err(format!("{option} needs --auth jwt")),
                None => return Ok(()),
            },
            (true, 0) => "--auth jwt needs a key: --jwt-secret-file, --jwt-public-key or --jwks",
            (true, 1) if jwks.is_some() && self.jwt_audience.is_empty() => {
                "--jwks needs --jwt-audience: without it, a token that the same issuer made for another service would be accepted"
            }
            (true, 1) => return Ok(()),
            (true, _) => "only one of --jwt-secret-file, --jwt-public-key and --jwks can be given",
        };
        Err(wrong.to_owned())
    }

    /// The first option that is given.
    fn given(&self) -> Option<&'static str> {
        let options = [
            ("--jwt-secret-file", self.jwt_secret_file.is_some()),
            ("--jwt-public-key", self.jwt_public_key.is_some()),
            ("--jwks", self.jwks.is_some()),
            ("--jwt-audience", !self.jwt_audience.is_empty()),
            ("--jwt-issuer", !self.jwt_issuer.is_empty()),
            ("--jwt-user-claim", self.jwt_user_claim.is_some()),
            ("--token-cookie", self.token_cookie.is_some()),
            ("--ticket-key-file", self.ticket_key_file.is_some()),
        ];
        options.into_iter().find_map(|(option, is_given)| is_given.then_some(option))
    }
}
