//! Attacks of a stranger from one address, 127.0.0.1: guessed identities (row 15), sends (16), watches (17), connections (18), and
//! TLS handshakes that it leaves half done (19).

use std::{fs, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::sleep};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring},
};

use super::{
    scene::{Note, Scene, Task},
    swarm::{Caller, Counts, Swarm},
};
use crate::http1;

/// How long an attack goes on.
const LENGTH: Duration = Duration::from_secs(8);

/// Connections that guess or send at a time.
const CLERKS: u32 = 20;

/// The last byte of the address of all attackers of this file.
const NUMBER: u32 = 1;

/// Guesses identities: claims that are not valid.
pub fn guesses(scene: &Scene) -> io::Result<()> {
    post_for_ever(scene, "guessed identities", "/user/canary/device/c", "x-user-claim: nonsense\r\n")
}

/// Sends messages of one caller to an absent device.
pub fn sends(scene: &Scene) -> io::Result<()> {
    post_for_ever(scene, "sends of one caller", "/user/eve/device/absent?user=eve&device=x", "")
}

fn post_for_ever(scene: &Scene, what: &'static str, path: &'static str, headers: &'static str) -> io::Result<()> {
    let address = scene.server.address;
    scene.window(what, async {
        let counts = Arc::new(Counts::default());
        let _tasks: Vec<_> = (0..CLERKS).map(|_| Task::spawn(post(address, path, headers, counts.clone()))).collect();
        sleep(LENGTH).await;
        Ok(vec![Note(float(counts.pieces()) / LENGTH.as_secs_f64(), "answers a second")])
    })
}

async fn post(address: SocketAddr, path: &str, headers: &str, counts: Arc<Counts>) -> io::Result<()> {
    loop {
        let Ok(mut caller) = Caller::open(address, NUMBER).await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        while caller.post(path, headers, b"x").await.is_ok() {
            counts.piece(1);
        }
    }
}

/// Watches of the canary's devices.
pub fn watches(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    scene.window("10 x 1,000 watches", async {
        let swarm = Swarm::reading(address, 10, 1_000);
        let (counts, _tasks) = swarm.open(|_, _| "/user/canary/devices?user=eve&device=x".to_owned()).await?;
        sleep(LENGTH).await;
        Ok(vec![counts.note("of 10,000 watches kept")])
    })
}

/// Connections that say nothing.
pub fn connections(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    scene.window("18,000 silent connections", hold(address, Vec::new()))
}

/// Begins handshakes, and stops when the daemon has computed its part.
pub fn handshakes(scene: &Scene) -> io::Result<()> {
    let name = "localhost".try_into().map_err(io::Error::other)?;
    let mut client = ClientConnection::new(config(RootCertStore::empty())?, name).map_err(io::Error::other)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    let address = scene.server.address;
    scene.window("18,000 half-open handshakes", hold(address, hello))
}

/// Opens many connections, writes the same to each, and keeps them open.
async fn hold(address: SocketAddr, first: Vec<u8>) -> io::Result<Vec<Note>> {
    let mut open: Vec<TcpStream> = Vec::new();
    for _ in 0..18_000 {
        let mut stream = http1::connect(address, NUMBER, None).await?;
        // The daemon may have closed it already.
        let _ = stream.write_all(&first).await;
        open.push(stream);
    }
    sleep(LENGTH).await;
    let mut bytes = [0; 16 * 1_024];
    // An open one has brought nothing, or the daemon's part of the handshake.
    let mut is_open = |stream: &TcpStream| match stream.try_read(&mut bytes) {
        Ok(length) => length > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    };
    let still_open = open.iter().filter(|stream| is_open(stream)).count();
    Ok(vec![Note(float(still_open as u64), "of 18,000 still open")])
}

/// A certificate of the daemon, in files.
pub struct Identity {
    files: [String; 2],
    connector: TlsConnector,
}

impl Identity {
    pub fn make() -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
        let files = ["cert.pem", "key.pem"].map(|name| format!("{}/bench-{name}", env!("CARGO_TARGET_TMPDIR")));
        fs::write(&files[0], made.cert.pem())?;
        fs::write(&files[1], made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).map_err(io::Error::other)?;
        Ok(Self { files, connector: config(roots)?.into() })
    }

    /// The daemon's options.
    pub fn options(&self) -> [&str; 4] {
        ["--tls-cert", &self.files[0], "--tls-key", &self.files[1]]
    }

    /// A TLS client that trusts the certificate.
    pub fn connector(&self) -> TlsConnector {
        self.connector.clone()
    }
}

fn config(roots: RootCertStore) -> io::Result<Arc<ClientConfig>> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
