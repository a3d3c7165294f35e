//! A TURN server with the secret of the daemon: a real coturn takes the credentials, until they expire.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use super::{blocks, options, section};
use crate::{
    harness::{
        Connection, Process, claim, process,
        tunnel::{Tunnel, connector},
        turn::{Allocation, Coturn},
        until,
    },
    wall_clock::{command_at, faketime, skip},
};

const SECRET: &str = "5f2d7c1e9a3b4c6d8e0f1a2b3c4d5e6f";

/// The daemon and coturn as the page shows them.
struct SetUp {
    coturn: Coturn,
    daemon: Process,
    folder: String,
    /// A TLS client that trusts the certificate of coturn.
    tls: Tunnel,
}

impl SetUp {
    async fn start(name: &str) -> Option<Self> {
        let page = section("A TURN server");
        let folder = format!("{}/turn-server-{name}", env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(&folder).expect("writable");
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let write = |name: &str, text: String| std::fs::write(format!("{folder}/{name}"), text).expect("writable");
        write("cert.pem", identity.cert.pem());
        write("key.pem", identity.signing_key.serialize_pem());
        write("turn-secret", format!("{SECRET}\n"));
        let configuration = blocks(page, "ini")[0]
            .replace("listening-port=3478", "listening-port={port}")
            .replace("tls-listening-port=5349", "tls-listening-port={tls port}")
            .replace("/etc/coturn", &folder)
            .replace("static-auth-secret=...", &format!("static-auth-secret={SECRET}"));
        let coturn = Coturn::start(name, &configuration).await?;
        let daemon = Process::spawn(process::command().args(options(page, 0, &folder)));
        let tls = Tunnel::open(coturn.tls_address, connector(identity.cert.der(), None)).await;
        Some(Self { coturn, daemon, folder, tls })
    }

    /// The options of a daemon with another file of the secret, and more options.
    fn options(&self, secret: &str, more: &[&str]) -> Vec<String> {
        let mut options = options(section("A TURN server"), 0, &self.folder);
        let given = options.iter().position(|word| word == "--turn-secret-file").expect("--turn-secret-file");
        secret.clone_into(&mut options[given + 1]);
        options.extend(more.iter().map(|&word| word.to_owned()));
        options
    }
}

/// What a caller gets for TURN from a daemon.
async fn credentials(daemon: SocketAddr, claim: &str) -> (String, String) {
    let answer = Connection::open(daemon).await.request("GET /ice", &[("x-user-claim", claim)], b"").await;
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let turn = &answer["iceServers"][1];
    let text = |name: &str| turn[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned();
    (text("username"), text("credential"))
}

#[tokio::test]
async fn coturn_gives_a_relay_for_the_credentials_over_udp_tcp_and_tls_and_none_for_others() {
    let Some(set_up) = SetUp::start("relay").await else { return };
    let (address, tls) = (set_up.coturn.address, set_up.tls.address);
    let (user, password) = credentials(set_up.daemon.address, &claim("bob/phone")).await;
    let mut udp = Allocation::over_udp(address, &user, &password).await.expect("a relay");
    let _tcp = Allocation::over_tcp(address, &user, &password).await.expect("a relay");
    let _tls = Allocation::over_tcp(tls, &user, &password).await.expect("a relay");
    // To the peers of a call, but not into the network of the server.
    assert_eq!(udp.permit(Ipv4Addr::new(192, 0, 2, 1)).await, Ok(()));
    for denied in
        [[10, 0, 0, 1], [172, 31, 0, 1], [192, 168, 0, 1], [169, 254, 169, 254], [127, 0, 0, 1], [100, 64, 0, 1]]
    {
        assert_eq!(udp.permit(denied.into()).await, Err(403), "{denied:?}");
    }
    let (_, of_eve) = credentials(set_up.daemon.address, &claim("eve/phone")).await;
    let (expiry, name) = user.split_once(':').expect("an expiry");
    let later = format!("{}:{name}", expiry.parse::<u64>().expect("a number") + 1);
    let wrong = set_up.folder.clone() + "/wrong-secret";
    std::fs::write(&wrong, "another secret of at least 16 bytes").expect("writable");
    let other = Process::spawn(process::command().args(set_up.options(&wrong, &[])));
    let (of_other, signed_by_other) = credentials(other.address, &claim("bob/phone")).await;
    for (why, user, password) in [
        ("the password of somebody else", &user, &of_eve),
        ("a later expiry", &later, &password),
        ("another secret", &of_other, &signed_by_other),
        ("no password", &user, &String::new()),
    ] {
        assert_eq!(Allocation::over_udp(address, user, password).await.err(), Some(401), "UDP: {why}");
        assert_eq!(Allocation::over_tcp(address, user, password).await.err(), Some(401), "TCP: {why}");
    }
}

#[tokio::test]
async fn coturn_gives_a_relay_to_every_user_whatever_the_ids() {
    let Some(set_up) = SetUp::start("ids").await else { return };
    let long = "é".repeat(128);
    for (user, device) in [("ana maria", r#"'"\"#), ("a:b", "c:d"), ("büro", "📱"), ("a/b%3A", "..."), (&long, &long)]
    {
        let claim = json!({"userid": user, "clientid": device}).to_string();
        // As a header: what is not ASCII is escaped, as JSON may.
        let escape = |c: char| if c.is_ascii() { c.to_string() } else { escaped(c) };
        let claim: String = claim.chars().map(escape).collect();
        let (user, password) = credentials(set_up.daemon.address, &claim).await;
        assert!(Allocation::over_udp(set_up.coturn.address, &user, &password).await.is_ok(), "{user}");
    }
    let (user, password) = credentials(set_up.daemon.address, r#"{"userid":"bob"}"#).await;
    assert!(Allocation::over_udp(set_up.coturn.address, &user, &password).await.is_ok(), "{user}");
}

/// A character as JSON may write it.
fn escaped(c: char) -> String {
    let units: Vec<_> = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
    units.concat()
}

#[tokio::test]
async fn coturn_refuses_credentials_that_have_expired_and_goes_on_with_a_relay_that_was_given_before() {
    let Some(set_up) = SetUp::start("expiry").await else { return };
    let (address, secret) = (set_up.coturn.address, set_up.folder.clone() + "/turn-secret");
    let bob = claim("bob/phone");
    let daemon = Process::spawn(process::command().args(set_up.options(&secret, &["--turn-ttl", "3"])));
    // Again on a machine that stood still for 3 s.
    let attempt = async || {
        let (user, password) = credentials(daemon.address, &bob).await;
        (Allocation::over_udp(address, &user, &password).await, user, password)
    };
    let (relay, user, password) = until(attempt, |(relay, ..)| relay.is_ok()).await;
    let again = async || Allocation::over_tcp(address, &user, &password).await.err();
    until(again, |error| *error == Some(401)).await;
    assert_eq!(Allocation::over_udp(address, &user, &password).await.err(), Some(401));
    let mut relay = relay.unwrap_or_else(|code| panic!("{code}"));
    assert_eq!(relay.permit(Ipv4Addr::new(192, 0, 2, 1)).await, Ok(()), "the call goes on");
    assert!(until(attempt, |(relay, ..)| relay.is_ok()).await.0.is_ok());
}

#[tokio::test]
async fn coturn_refuses_the_credentials_of_a_daemon_whose_clock_is_two_hours_late() {
    if let Err(error) = faketime() {
        return skip(&error);
    }
    let Some(set_up) = SetUp::start("clock").await else { return };
    let options = set_up.options(&(set_up.folder.clone() + "/turn-secret"), &[]);
    let late = Process::spawn(command_at("-2h").args(&options));
    let (user, password) = credentials(late.address, &claim("bob/phone")).await;
    assert_eq!(Allocation::over_udp(set_up.coturn.address, &user, &password).await.err(), Some(401));
    let right = Process::spawn(command_at("+0").args(&options));
    let (user, password) = credentials(right.address, &claim("bob/phone")).await;
    assert!(Allocation::over_udp(set_up.coturn.address, &user, &password).await.is_ok());
}

#[tokio::test]
async fn coturns_quota_holds_for_a_user_however_many_credentials_it_asks_for() {
    let Some(set_up) = SetUp::start("quota").await else { return };
    let address = set_up.coturn.address;
    let allocate = async |claim: &str| {
        let (user, password) = credentials(set_up.daemon.address, claim).await;
        Allocation::over_tcp(address, &user, &password).await
    };
    let quota = section("A TURN server").lines().find_map(|line| line.strip_prefix("user-quota=")).expect("a quota");
    let mut relays = Vec::new();
    for count in 0..quota.parse().expect("a number") {
        relays.push(allocate(r#"{"userid":"eve"}"#).await.unwrap_or_else(|code| panic!("{count}: {code}")));
    }
    assert_eq!(allocate(r#"{"userid":"eve"}"#).await.err(), Some(486));
    assert!(allocate(r#"{"userid":"bob"}"#).await.is_ok());
}
