//! The daemon alone, with a certificate and a key set in a file.

use std::{io::Write as _, process::Stdio, time::Duration};

use backend_signal::grpc::proto::{ListDevicesRequest, signal_client::SignalClient};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
};
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

use super::{blocks, daemon, section, with_alpn};
use crate::{
    harness::{
        Process, Sse,
        tokens::{RSA, Signer, jwks, rsa_jwk, seconds_from_now},
        tunnel::{Tunnel, connector},
        within,
    },
    readme,
};

/// The daemon as the page shows it, and what its users need.
struct SetUp {
    daemon: Process,
    /// A TLS client that trusts the daemon's certificate.
    connector: TlsConnector,
    /// The folder of `.curlrc`, which names the certificate to trust and the address of `signal.example.org`.
    home: String,
}

impl SetUp {
    fn start(name: &str) -> Self {
        let folder = format!("{}/alone-{name}", env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(&folder).expect("writable");
        let names = ["signal.example.org", "localhost"].map(str::to_owned);
        let identity = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let write = |name: &str, text: String| std::fs::write(format!("{folder}/{name}"), text).expect("writable");
        write("cert.pem", identity.cert.pem());
        write("key.pem", identity.signing_key.serialize_pem());
        write("jwks.json", jwks(&[rsa_jwk("one", RSA)]));
        let daemon = daemon(section("The daemon alone"), 0, &folder);
        let port = daemon.address.port();
        write(
            ".curlrc",
            format!("cacert = \"{folder}/cert.pem\"\nconnect-to = \"signal.example.org:443:127.0.0.1:{port}\"\n"),
        );
        Self { daemon, connector: connector(identity.cert.der(), None), home: folder }
    }
}

/// A token as an identity provider issues it.
fn token(user: &str) -> String {
    let claims = json!({
        "iss": "https://id.example.org", "aud": "signal", "sub": user, "iat": seconds_from_now(0), "exp": seconds_from_now(300),
    });
    Signer::rsa().sign(&json!({"alg": "RS256", "typ": "JWT", "kid": "one"}), &claims)
}

/// A command of the page that runs.
struct Running {
    output: BufReader<ChildStdout>,
    _child: Child,
}

impl Running {
    fn start(command: &str, home: &str, token: &str) -> Self {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("exec {command}")])
            .envs([("CURL_HOME", home), ("TOKEN", token)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a shell");
        Self { output: BufReader::new(child.stdout.take().expect("standard output")), _child: child }
    }

    /// Waits for a line with each of these texts, in this order.
    async fn expect(&mut self, texts: &[&str]) {
        let mut seen = String::new();
        for text in texts {
            let mut from = seen.len();
            while !seen[from..].contains(text) {
                from = seen.len();
                let length = within(self.output.read_line(&mut seen)).await.expect("UTF-8");
                assert!(length > 0, "ended without {text:?} after\n{seen}");
            }
        }
    }
}

#[tokio::test]
async fn every_command_of_the_page_does_what_it_says() {
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        #[expect(clippy::disallowed_methods, reason = "CI must have the tools")]
        let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!must, "with CI=true the commands of docs/production.md must run: curl is not installed");
        // Not `eprintln!`: the test harness hides its output.
        let _ = std::io::stderr().write_all(b"\nSKIPPED: the commands of docs/production.md: curl is not installed\n");
        return;
    }
    let (set_up, token) = (SetUp::start("commands"), token("bob"));
    let examples = blocks(section("The daemon alone"), "console");
    assert_eq!(examples.len(), 4);
    let mut streams = Vec::new();
    for example in examples {
        let (command, expected) = example.split_once('\n').expect("a command and its output");
        let command = command.strip_prefix("$ ").expect("a command after `$ `");
        let mut running = Running::start(command, &set_up.home, &token);
        running.expect(&expected.lines().collect::<Vec<_>>()).await;
        if command.contains("/subscribe") {
            streams.push(running);
        }
    }
    assert_eq!(streams.len(), 1);
    streams[0].expect(&["data: an offer"]).await;
}

#[tokio::test]
async fn grpcurl_takes_a_token_as_the_page_about_identities_says() {
    let path = readme::path();
    if !readme::is_there("grpcurl", &path) {
        return;
    }
    let (set_up, token) = (SetUp::start("grpcurl"), token("bob"));
    let plain = Tunnel::open(set_up.daemon.address, set_up.connector.clone()).await;
    let bearer = format!("Bearer {token}");
    let _phone = Sse::open(plain.address, "/subscribe?device=phone", &[("authorization", &bearer)]).await;
    let page = include_str!("../../../docs/identity.md");
    let command = page.lines().find(|line| line.starts_with("grpcurl ")).expect("a command");
    let trusting = format!("PATH={path} grpcurl -cacert {}/cert.pem -servername signal.example.org ", set_up.home);
    let command = command.replacen("grpcurl ", &trusting, 1);
    let command = command.replace("signal.example.org:443", &set_up.daemon.address.to_string());
    let mut child = Command::new("/bin/sh");
    child.args(["-c", &command]).env("TOKEN", &token).stdin(Stdio::null()).kill_on_drop(true);
    let output = within(child.output()).await.expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("\"phone\""), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_page_shows_how_to_look_at_a_token() {
    let page = section("The daemon alone");
    let command = page.split('`').find(|text| text.starts_with("cut ")).expect("a command between backticks");
    for user in ["bob", "bobo", "bobob"] {
        let output =
            std::process::Command::new("bash").args(["-c", command]).env("TOKEN", token(user)).output().expect("bash");
        let claims: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the claims");
        assert_eq!(claims["sub"], user);
    }
}

#[tokio::test]
async fn the_same_port_serves_grpc_and_the_page_with_tls_and_a_token() {
    let (set_up, token) = (SetUp::start("protocols"), token("ana"));
    let bearer = format!("Bearer {token}");
    let plain = Tunnel::open(set_up.daemon.address, set_up.connector.clone()).await;
    let _phone = Sse::open(plain.address, "/subscribe?device=phone", &[("authorization", &bearer)]).await;
    let http2 = Tunnel::open(set_up.daemon.address, with_alpn(&set_up.connector, b"h2")).await;
    let endpoint = Channel::from_shared(format!("http://{}", http2.address)).expect("a URI");
    let mut client =
        SignalClient::new(within(endpoint.timeout(Duration::from_secs(20)).connect()).await.expect("listens"));
    let mut request = tonic::Request::new(ListDevicesRequest { user: "ana".into() });
    assert_eq!(
        within(client.list_devices(tonic::Request::new(ListDevicesRequest { user: "ana".into() })))
            .await
            .expect_err("no token")
            .code(),
        tonic::Code::Unauthenticated
    );
    request.metadata_mut().insert("authorization", bearer.parse().expect("ASCII"));
    assert_eq!(within(client.list_devices(request)).await.expect("a list").into_inner().devices, ["phone"]);
}
