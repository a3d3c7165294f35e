//! TLS: certificates that change while the daemon runs, and many handshakes at once.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::rustls::{
    ClientConnection,
    pki_types::{CertificateDer, ServerName},
};

use crate::harness::{
    Connection, FORM, Process, Server, Sse, claim, path, process,
    tunnel::{Tunnel, connector},
    until, within,
};

/// A folder with `cert.pem` and `key.pem` of one test.
struct Files(PathBuf);

type Identity = rcgen::CertifiedKey<rcgen::KeyPair>;

impl Files {
    fn new(test: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{test}"));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("writable");
        Self(folder)
    }

    /// Replaces a file as a whole, so that the daemon never reads a part.
    fn write(&self, name: &str, text: &str) {
        let fresh = self.0.join("fresh");
        std::fs::write(&fresh, text).expect("writable");
        std::fs::rename(fresh, self.0.join(name)).expect("replaced");
    }

    /// The certificate comes last: while it is absent, a new key is no new fault.
    fn store(&self, identity: &Identity) {
        self.write("key.pem", &identity.signing_key.serialize_pem());
        self.write("cert.pem", &identity.cert.pem());
    }

    fn options(&self) -> [String; 4] {
        let path = |name| self.0.join(name).to_str().expect("UTF-8").to_owned();
        ["--tls-cert".to_owned(), path("cert.pem"), "--tls-key".to_owned(), path("key.pem")]
    }
}

fn identity() -> Identity {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate")
}

async fn serve(files: &Files) -> Server {
    Server::with(&files.options().each_ref().map(String::as_str)).await
}

/// Whether a new connection to the server gets this certificate.
async fn presents(server: std::net::SocketAddr, identity: &Identity) -> bool {
    let socket = within(TcpStream::connect(server)).await.expect("listens");
    let name = "localhost".try_into().expect("a name");
    within(connector(identity.cert.der(), None).connect(name, socket)).await.is_ok()
}

/// How often the files were read again: the counts of what is used and of what is refused.
async fn reloads(tunnel: &Tunnel) -> [u64; 2] {
    let text = Connection::open(tunnel.address).await.request("GET /metrics", &[], b"").await.text();
    ["used", "refused"].map(|outcome| {
        let name = format!("signal_certificate_reloads_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    })
}

async fn send(tunnel: &Tunnel, data: &str) -> u16 {
    let (post, body) = (format!("POST {}", path("bob/phone")), format!("data={data}"));
    let mut connection = Connection::open(tunnel.address).await;
    connection.request(&post, &[("content-type", FORM)], body.as_bytes()).await.status
}

async fn stream(tunnel: &Tunnel) -> Sse {
    Sse::open(tunnel.address, "/subscribe", &[("x-user-claim", &claim("bob/phone"))]).await
}

#[tokio::test]
async fn a_new_certificate_is_used_for_new_connections_and_drops_no_stream() {
    let (files, old, new) = (Files::new("renewed"), identity(), identity());
    files.store(&old);
    let server = serve(&files).await;
    let before = Tunnel::open(server.address, connector(old.cert.der(), None)).await;
    let mut stream = stream(&before).await;
    assert!(presents(server.address, &old).await);
    files.store(&new);
    until(|| presents(server.address, &new), |presents| *presents).await;
    assert!(!presents(server.address, &old).await);
    let after = Tunnel::open(server.address, connector(new.cert.der(), None)).await;
    assert_eq!(send(&after, "still here").await, 200);
    assert_eq!(stream.data().await, "still here");
    assert!(reloads(&after).await[0] >= 1);
}

/// Kubernetes and certbot replace a symbolic link, here of the folder. The files have old times.
#[cfg(unix)]
#[tokio::test]
async fn a_symbolic_link_that_points_to_other_files_is_noticed() {
    let (link, old, new) = (Files::new("link"), identity(), identity());
    let (first, second) = (Files::new("link-first"), Files::new("link-second"));
    first.store(&old);
    second.store(&new);
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for files in [&first, &second] {
        for name in ["cert.pem", "key.pem"] {
            let file = std::fs::File::options().write(true).open(files.0.join(name)).expect("a file");
            file.set_modified(long_ago).expect("a time");
        }
    }
    let point_to = |folder: &Files| {
        let fresh = link.0.join("fresh");
        std::os::unix::fs::symlink(&folder.0, &fresh).expect("a link");
        std::fs::rename(&fresh, link.0.join("data")).expect("replaced");
    };
    point_to(&first);
    let through_link = Files(link.0.join("data"));
    let server = serve(&through_link).await;
    assert!(presents(server.address, &old).await);
    point_to(&second);
    until(|| presents(server.address, &new), |presents| *presents).await;
}

#[tokio::test]
async fn a_request_reads_the_files_at_once_also_when_they_have_not_changed() {
    let (files, identity) = (Files::new("requested"), identity());
    files.store(&identity);
    let server = serve(&files).await;
    let tunnel = Tunnel::open(server.address, connector(identity.cert.der(), None)).await;
    assert_eq!(reloads(&tunnel).await, [0, 0]);
    for count in 1..=2 {
        server.reload.request();
        until(|| reloads(&tunnel), |reloads| *reloads == [count, 0]).await;
    }
}

#[tokio::test]
async fn new_files_that_cannot_be_used_are_one_line_for_each_change_and_the_old_ones_stay() {
    let (files, old, new) = (Files::new("broken"), identity(), identity());
    files.store(&old);
    let options =
        [&["--host", "127.0.0.1", "--port", "0", "--drain-window", "1"].map(str::to_owned)[..], &files.options()];
    let daemon = Process::spawn(process::command().args(options.concat()));
    let tunnel = Tunnel::open(daemon.address, connector(old.cert.der(), None)).await;
    let mut stream = stream(&tunnel).await;
    let certificate = new.cert.pem();
    let cut = &certificate[..certificate.len() / 2];
    let changes: [(&str, &dyn Fn()); _] = [
        ("cert.pem: the PEM is cut off", &|| files.write("cert.pem", cut)),
        ("cert.pem: the file is empty", &|| files.write("cert.pem", "")),
        ("key.pem: the private key does not belong", &|| files.write("cert.pem", &certificate)),
        ("cert.pem: No such file", &|| std::fs::remove_file(files.0.join("cert.pem")).expect("a file")),
    ];
    for (index, (_, change)) in changes.iter().enumerate() {
        change();
        let refused = index as u64 + 1;
        until(|| reloads(&tunnel), |reloads| *reloads == [0, refused]).await;
        // The same fault is found again and again, but said once.
        assert!(presents(daemon.address, &old).await);
    }
    // After SIGHUP the operator expects a line, so the same fault is logged once more.
    daemon.signal("HUP");
    until(|| reloads(&tunnel), |reloads| *reloads == [0, 5]).await;
    files.store(&new);
    daemon.signal("HUP");
    until(|| presents(daemon.address, &new), |presents| *presents).await;
    let after = Tunnel::open(daemon.address, connector(new.cert.der(), None)).await;
    assert_eq!(send(&after, "still here").await, 200);
    assert_eq!(stream.data().await, "still here");
    drop(stream);
    daemon.signal("TERM");
    let (code, log) = daemon.exited();
    let faults: Vec<_> = log.lines().filter(|line| line.contains("the ones from before stay in use")).collect();
    assert_eq!((code, faults.len()), (Some(0), 5), "{log}");
    let expected = changes.iter().map(|(fault, _)| *fault).chain(["cert.pem: No such file"]);
    for (line, fault) in faults.iter().zip(expected) {
        assert!(line.contains(fault), "{line}");
    }
    assert_eq!(log.matches("SIGHUP: ").count(), 2, "{log}");
}

/// The bytes with which a client begins a handshake.
fn client_hello(root: &CertificateDer<'static>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(connector(root, None).config().clone(), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("writable");
    hello
}

#[tokio::test]
async fn a_flood_of_handshakes_that_nobody_completes_leaves_others_served() {
    let (files, identity) = (Files::new("flood"), identity());
    files.store(&identity);
    let server = serve(&files).await;
    let tunnel = Tunnel::open(server.address, connector(identity.cert.der(), None)).await;
    let mut phone = stream(&tunnel).await;
    let mut connection = Connection::open(tunnel.address).await;
    let mut half_open = Vec::new();
    for _ in 0..1_000 {
        half_open.push(within(TcpStream::connect(server.address)).await.expect("listens"));
    }
    let hello = client_hello(identity.cert.der());
    for socket in &half_open {
        assert_eq!(socket.try_write(&hello).expect("an empty buffer"), hello.len());
    }
    // The server answers when it has computed its part; then it waits for the peer.
    let mut posts = 0;
    while !half_open.is_empty() {
        let began = std::time::Instant::now();
        let headers = [("content-type", FORM)];
        assert_eq!(connection.request("POST /user/bob/device/phone", &headers, b"data=x").await.status, 200);
        assert_eq!(phone.data().await, "x");
        assert!(began.elapsed().as_secs() < 1, "{:?}", began.elapsed());
        posts += 1;
        half_open.retain(|socket| socket.try_read(&mut [0; 64]).is_err());
    }
    // Without turns, 61 handshakes compute before each step of a post.
    assert!(posts > 20, "only {posts} posts were delivered while the server computed 1,000 handshakes");
}

#[tokio::test]
async fn an_address_that_opens_handshakes_over_and_over_does_not_stop_those_of_others() {
    const HALF_OPEN: usize = 1_000;
    const CONNECTIONS: usize = 5;
    let (files, identity) = (Files::new("fair"), identity());
    files.store(&identity);
    let own = files.options();
    let options = [&own.each_ref().map(String::as_str)[..], &["--address-limits", "all", "--address-connections", "0"]];
    let server = Server::with(&options.concat()).await;
    let (address, answered) = (server.address, Arc::new(AtomicUsize::new(0)));
    let hello: Arc<[u8]> = client_hello(identity.cert.der()).into();
    let mut attack: JoinSet<()> = (0..HALF_OPEN)
        .map(|_| {
            let (hello, answered) = (hello.clone(), answered.clone());
            async move {
                loop {
                    let mut socket = TcpStream::connect(address).await.expect("listens");
                    socket.write_all(&hello).await.expect("writable");
                    // The server has computed its part.
                    let _ = socket.read(&mut [0; 64]).await;
                    answered.fetch_add(1, Relaxed);
                }
            }
        })
        .collect();
    // The server has begun with them.
    until(async || answered.load(Relaxed), |answered| *answered > 0).await;
    let connector = connector(identity.cert.der(), None);
    let mut most = 0;
    for _ in 0..CONNECTIONS {
        let plain = Connection::open_from([127, 0, 0, 2].into(), address).await.stream;
        let before = answered.load(Relaxed);
        let name = "localhost".try_into().expect("a name");
        let mut canary = within(connector.connect(name, plain)).await.expect("a handshake");
        let head = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        within(canary.write_all(head)).await.expect("writable");
        let mut answer = [0; 12];
        within(canary.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        most = most.max(answered.load(Relaxed) - before);
    }
    attack.shutdown().await;
    // In one queue of all addresses, nearly all of the others would be first, and then those that were opened again meanwhile.
    assert!(most < HALF_OPEN / 2, "{most} handshakes of another address were first");
}
