//! The options that say which daemon a client command talks to, and as whom.

use std::{fmt, path::PathBuf};

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{
    exit::{Exit, Failure},
    id_text::{NamedCaller, device_id, tenant_id},
};
use crate::{
    model::{DeviceId, TenantId},
    secret_file::read_secret,
};

/// Which daemon a command talks to, and as whom.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerOptions {
    /// Where the daemon is. A path goes before the paths of the daemon, for a proxy that removes it
    #[arg(long, env = "SIGNAL_URL", value_name = "URL", default_value = "http://localhost:1837", value_parser = server_url)]
    pub(super) url: Uri,

    /// Who you are, for a daemon with --auth claim or none, which believes it. In an id, %2F is a slash and %25 a percent sign
    #[arg(long = "as", value_name = "USER[/DEVICE]")]
    pub(super) identity: Option<NamedCaller>,

    /// Which device of the user you are, if the token names none
    #[arg(long, value_name = "DEVICE", value_parser = device_id, conflicts_with = "identity")]
    pub(super) device: Option<DeviceId>,

    /// File with the token that says who you are; it is read for each request. Without it, the variable `SIGNAL_TOKEN` may have the
    /// token
    #[arg(long, env = "SIGNAL_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,

    /// Certificates of the authorities to trust instead of the system's, PEM
    #[arg(long, env = "SIGNAL_CA", value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,

    /// Certificate that says who you are, for a daemon that asks for client certificates, PEM. Those of its authorities may follow
    #[arg(long, env = "SIGNAL_CERT", value_name = "FILE", requires = "key")]
    pub(super) cert: Option<PathBuf>,

    /// Private key of the certificate, PEM
    #[arg(long, env = "SIGNAL_KEY", value_name = "FILE", requires = "cert")]
    pub(super) key: Option<PathBuf>,

    /// Tenant to work in, for a backend whose identity names none
    #[arg(long, env = "SIGNAL_TENANT", value_name = "TENANT", value_parser = tenant_id)]
    pub(super) tenant: Option<TenantId>,

    /// Write JSON, one object a line: results to standard output, states and the error to standard error
    #[arg(long)]
    pub(super) json: bool,

    /// The variable `SIGNAL_TOKEN`. Not a flag, because everybody on the machine can see the flags of a process.
    #[arg(skip)]
    pub(super) token: Option<Token>,
}

/// A token, which no debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl ServerOptions {
    /// Takes the variable `SIGNAL_TOKEN`, unless a file has the token. Refuses two kinds of identity.
    pub(super) fn complete(&mut self, variable: Option<String>) -> Result<(), String> {
        let source = if self.token_file.is_some() { "--token-file" } else { "SIGNAL_TOKEN" };
        self.token = variable.filter(|_| self.token_file.is_none()).map(Token);
        if self.identity.is_some() && (self.token.is_some() || self.token_file.is_some()) {
            return Err(format!(
                "{source} already says who you are, so --as has no place; name the device with --device"
            ));
        }
        if self.cert.is_some() && self.url.scheme_str() != Some("https") {
            return Err("--cert needs a --url with https: without TLS nobody sees the certificate".to_owned());
        }
        Ok(())
    }

    /// Whether the caller is the user of the certificate, because nothing else says who it is.
    pub(super) fn is_certified(&self) -> Result<bool, Failure> {
        Ok(self.cert.is_some() && self.identity.is_none() && self.current_token()?.is_none())
    }

    /// The headers or metadata that say who the caller is. Reads the token file.
    pub(super) fn identity(&self) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(NamedCaller { user, device }) = &self.identity {
            let claim = match device {
                Some(device) => json!({"userid": user.as_str(), "clientid": device.as_str()}),
                None => json!({"userid": user.as_str()}),
            };
            headers.insert(CLAIM, value(&ascii(&claim.to_string()))?);
        }
        if let Some(Token(token)) = self.current_token()? {
            let mut bearer = value(&format!("Bearer {token}"))?;
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        if let Some(device) = &self.device {
            headers.insert(DEVICE, value(&utf8_percent_encode(device.as_str(), NON_ALPHANUMERIC).to_string())?);
        }
        if let Some(tenant) = &self.tenant {
            headers.insert(TENANT, value(&utf8_percent_encode(tenant.as_str(), NON_ALPHANUMERIC).to_string())?);
        }
        Ok(headers)
    }

    /// The token of the file as it is now, else that of the variable.
    pub(super) fn current_token(&self) -> Result<Option<Token>, Failure> {
        let Some(path) = &self.token_file else { return Ok(self.token.clone()) };
        let secret = read_secret(path).map_err(|error| Failure::new(Exit::Usage, error))?;
        let text = String::from_utf8(secret).ok().filter(|text| text.is_ascii());
        let text = text.ok_or_else(|| Failure::new(Exit::Usage, format!("{}: not a token", path.display())))?;
        Ok(Some(Token(text.trim().to_owned())))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

fn value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| Failure::new(Exit::Usage, "the token has characters that no token has"))
}

/// JSON with only ASCII: some proxies refuse or change other bytes in a header.
fn ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            ascii.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    ascii
}

/// The URL of a daemon: http or https, a host, perhaps a port and a path.
fn server_url(text: &str) -> Result<Uri, String> {
    let example = "not a URL such as http://localhost:1837 or https://signal.example";
    let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| example)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(example.to_owned());
    }
    if uri.query().is_some() || text.contains(['@', '#']) {
        return Err("a URL of a daemon has no user name, no query and no fragment".to_owned());
    }
    Ok(uri)
}

const CLAIM: HeaderName = HeaderName::from_static("x-user-claim");

const DEVICE: HeaderName = HeaderName::from_static("x-signal-device");

const TENANT: HeaderName = HeaderName::from_static("x-signal-tenant");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_daemon_is_http_or_https_with_a_host_and_perhaps_a_path() {
        for (text, uri) in [
            ("http://localhost:1837", "http://localhost:1837/"),
            ("https://signal.example/", "https://signal.example/"),
            ("https://[::1]:443/a/b/", "https://[::1]:443/a/b"),
        ] {
            assert_eq!(server_url(text).map(|uri| uri.to_string()).as_deref(), Ok(uri), "{text}");
        }
        for text in
            ["", "localhost:1837", "ws://a", "http://", "http://a b", "http://a?b", "http://u:p@a", "http://a#b", "/a"]
        {
            assert!(server_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_claim_is_ascii_and_reads_back_as_the_same_json() {
        let json = json!({"userid": "☎ é 😀", "clientid": "a\"b"});
        let ascii = ascii(&json.to_string());
        assert!(ascii.is_ascii(), "{ascii}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&ascii).unwrap(), json);
    }

    #[test]
    fn no_debug_output_shows_a_token() {
        assert_eq!(format!("{:?}", Token("secret".to_owned())), "Token");
    }
}
