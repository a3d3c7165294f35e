//! The options of `--auth jwt`: which tokens are accepted, and what they say.

use std::path::PathBuf;

use clap::Args;
use http::Uri;

use super::values::{claim, cookie_name, element, jwks};

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
    #[arg(long, env = "SIGNAL_JWT_AUDIENCE", value_name = "AUDIENCE,...", value_delimiter = ',', value_parser = element)]
    pub jwt_audience: Vec<String>,

    /// A token must come from one of these (claim `iss`). Empty: from anybody who has the key
    #[arg(long, env = "SIGNAL_JWT_ISSUER", value_name = "ISSUER,...", value_delimiter = ',', value_parser = element)]
    pub jwt_issuer: Vec<String>,

    /// Claim that names the user. Without this option: userid, or sub where there is no userid
    #[arg(long, env = "SIGNAL_JWT_USER_CLAIM", value_name = "CLAIM", value_parser = claim)]
    pub jwt_user_claim: Option<String>,

    /// Claim that names the only device that the caller may be; a token without it leaves the device to the request
    #[arg(long, env = "SIGNAL_JWT_DEVICE_CLAIM", value_name = "CLAIM", default_value = "clientid",
          value_parser = claim)]
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
    /// How many options say where the key is.
    pub(super) fn key_sources(&self) -> usize {
        let given = [self.jwt_secret_file.is_some(), self.jwt_public_key.is_some(), self.jwks.is_some()];
        given.iter().filter(|is_given| **is_given).count()
    }
}
