//! Attacks from one address while an honest client (the canary) posts from another one: each of its posts is delivered, and
//! answered within a second.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConnection, pki_types::ServerName},
};

use crate::{
    harness::{
        Connection, FORM, Process, Sse,
        tokens::{SECRET, file, token},
        tunnel::connector,
        until,
    },
    serve::tempfiles,
};

/// The honest client's address. The attacker's is 127.0.0.1.
const CANARY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// Posts while an attack runs.
const POSTS: usize = 40;

/// The time between two posts.
const STEP: Duration = Duration::from_millis(25);

/// So few connections that an attacker would take them all without a limit by address.
const FEW: [&str; 2] = ["--max-connections", "200"];

/// A daemon that counts every address.
fn daemon(options: &[&str]) -> Process {
    let secret = file("secret", SECRET);
    let own = ["--auth", "jwt", "--jwt-secret-file", &secret, "--address-limits", "all"];
    Process::start(&[&own, options].concat())
}

/// The honest client.
struct Canary {
    address: SocketAddr,
    bearer: String,
    phone: Sse,
    laptop: Connection,
}

impl Canary {
    async fn start(address: SocketAddr) -> Self {
        let bearer = format!("Bearer {}", token("bob/phone"));
        let mut phone = Connection::open_from(CANARY, address).await;
        phone.ask("GET /subscribe", &[("authorization", &bearer)]).await;
        assert_eq!(phone.head().await.status, 200);
        let laptop = Connection::open_from(CANARY, address).await;
        Self { address, bearer: format!("Bearer {}", token("bob/laptop")), phone: Sse::after_head(phone), laptop }
    }

    /// Posts, every fourth time over a new connection.
    async fn sing(&mut self) {
        for number in 0..POSTS {
            if number % 4 == 0 {
                self.laptop = Connection::open_from(CANARY, self.address).await;
            }
            let (began, data) = (Instant::now(), format!("data={number}"));
            let headers = [("authorization", self.bearer.as_str()), ("content-type", FORM)];
            let answer = self.laptop.request("POST /user/bob/device/phone", &headers, data.as_bytes()).await;
            assert_eq!(answer.status, 200, "post {number}: {answer:?}");
            assert!(began.elapsed() < Duration::from_secs(1), "post {number} took {:?}", began.elapsed());
            assert_eq!(self.phone.data().await, number.to_string());
            sleep(STEP).await;
        }
    }

    /// How many requests or connections a limit has refused, from the metrics.
    async fn limited(&self, limit: &str) -> u64 {
        let text = Connection::open_from(CANARY, self.address).await.request("GET /metrics", &[], b"").await.text();
        let line = format!("signal_limited_total{{limit=\"{limit}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    }
}

/// A request with a token.
fn request(head: &str, token: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("{head} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{headers}");
    format!("{head}content-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Sends a request over and over, as fast as it is answered, over connections that are opened again when they are closed.
async fn repeat(address: SocketAddr, request: Vec<u8>) {
    let mut answer = [0; 4096];
    loop {
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        while stream.write_all(&request).await.is_ok() && matches!(stream.read(&mut answer).await, Ok(1..)) {}
    }
}

/// Opens a connection, writes something and keeps it open. Opens another one when it is closed.
async fn keep(address: SocketAddr, first: Vec<u8>) {
    let mut answer = [0; 4096];
    loop {
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        if stream.write_all(&first).await.is_ok() {
            while matches!(stream.read(&mut answer).await, Ok(1..)) {}
        }
        // So that this process has time for the honest client, too.
        sleep(Duration::from_millis(50)).await;
    }
}

/// The tasks of an attacker, who stops when they are dropped.
fn attack<F: Future<Output = ()> + Send + 'static>(count: usize, task: impl Fn(usize) -> F) -> JoinSet<()> {
    (0..count).map(task).collect()
}

/// The honest client beside an attack. The attack goes on until `limit` has refused something of it.
async fn assert_served(canary: &mut Canary, _attack: JoinSet<()>, limit: &str) {
    canary.sing().await;
    until(|| canary.limited(limit), |refused| *refused > 0).await;
    canary.sing().await;
}

#[tokio::test]
async fn while_somebody_guesses_tokens_others_are_served() {
    let daemon = daemon(&[]);
    let (mut canary, address) = (Canary::start(daemon.address).await, daemon.address);
    let guesses = attack(20, |number| {
        let guess = token(&format!("bob/{number}")).replace('.', &format!("{number}."));
        repeat(address, request("POST /user/bob/device/phone", &guess, "", ""))
    });
    assert_served(&mut canary, guesses, "identity_failures").await;
}

#[tokio::test]
async fn while_somebody_floods_a_device_with_messages_others_are_served() {
    let daemon = daemon(&[]);
    let (mut canary, address) = (Canary::start(daemon.address).await, daemon.address);
    let form = format!("content-type: {FORM}\r\n");
    // To the attacker's own device, to an absent user, and malformed messages to the canary's phone.
    let floods = attack(12, |number| {
        let to = ["eve/device/x", "nobody/device/x", "bob/device/phone"][number % 3];
        let body = if number % 3 == 2 { "event=x&data=" } else { "data=flood" };
        repeat(address, request(&format!("POST /user/{to}"), &token("eve/x"), &form, body))
    });
    assert_served(&mut canary, floods, "send_rate").await;
}

#[tokio::test]
async fn while_somebody_opens_watches_others_are_served() {
    let daemon = daemon(&[]);
    let (mut canary, address) = (Canary::start(daemon.address).await, daemon.address);
    let watches = attack(200, |_| {
        keep(address, request("GET /user/bob/devices", &token("eve/x"), "accept: text/event-stream\r\n", ""))
    });
    assert_served(&mut canary, watches, "caller_watches").await;
}

#[tokio::test]
async fn while_somebody_opens_connections_others_are_served() {
    let daemon = daemon(&FEW);
    let (mut canary, address) = (Canary::start(daemon.address).await, daemon.address);
    let connections = attack(400, |number| {
        let first =
            [&b""[..], b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"][number % 3];
        keep(address, first.to_vec())
    });
    assert_served(&mut canary, connections, "address_connections").await;
}

#[tokio::test]
async fn while_somebody_begins_handshakes_others_are_served() {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = tempfiles("attacks", &identity);
    let daemon = daemon(&[&FEW[..], &["--tls-cert", &files[0], "--tls-key", &files[1]]].concat());
    let connector = connector(identity.cert.der(), None);
    let through = tunnel(daemon.address, connector.clone()).await;
    let (mut canary, address) = (Canary::start(through).await, daemon.address);
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(connector.config().clone(), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("writable");
    // The daemon computes its part of each handshake, and then waits for the client.
    let handshakes = attack(400, |_| keep(address, hello.clone()));
    assert_served(&mut canary, handshakes, "address_connections").await;
}

/// Plain connections on one side, and TLS from the canary's address on the other.
async fn tunnel(server: SocketAddr, connector: TlsConnector) -> SocketAddr {
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let connector = connector.clone();
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind((CANARY, 0).into())?;
                let name = "localhost".try_into().expect("a name");
                let mut encrypted = connector.connect(name, socket.connect(server).await?).await?;
                copy_bidirectional(&mut plain, &mut encrypted).await
            });
        }
    });
    ([127, 0, 0, 1], port).into()
}
