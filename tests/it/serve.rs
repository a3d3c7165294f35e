//! The transport against peers that are silent, slow or malformed, and TLS.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer},
};

use crate::harness::{Connection, FORM, Server, claim, until, within};

#[tokio::test]
async fn silence_and_slow_heads_are_closed() {
    let server = Server::with(&["--header-timeout", "0.3"]).await;
    for first in ["", "P", "PRI * H", "GET / HTTP/1.1\r\nhost: x\r\n", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let began = Instant::now();
        let mut connection = Connection::open(server.address).await;
        connection.write(first.as_bytes()).await;
        connection.closed().await;
        assert!(began.elapsed().as_millis() >= 250, "{first}");
    }
    // One byte every 50 ms never completes the head.
    let mut slow = Connection::open(server.address).await;
    slow.write(b"G").await;
    within(async {
        while timeout(Duration::from_millis(50), slow.stream.readable()).await.is_err() {
            // Fails when the server closes at this moment; the next turn of the loop sees that.
            let _ = slow.stream.try_write(b"G");
        }
    })
    .await;
    assert_eq!(slow.closed().await, b"");
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    let one = "GET /user/bob/devices HTTP/1.1\r\nhost: x\r\n\r\n";
    let two = "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n";
    connection.write([one, two, one].concat().as_bytes()).await;
    for status in [200, 404, 200] {
        assert_eq!(connection.response(false).await.status, status);
    }
    for _ in 0..3 {
        assert_eq!(connection.request("GET /healthz", &[], b"").await.status, 200);
    }
}

#[tokio::test]
async fn a_refused_request_leaves_the_connection_usable() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    for _ in 0..2 {
        for (headers, status) in
            [(&[("x-user-claim", "no claim")][..], 401), (&[("content-type", "text/plain")], 415), (&[], 415)]
        {
            assert_eq!(connection.request("POST /user/bob/device/phone", headers, b"data=x").await.status, status);
        }
    }
}

#[tokio::test]
async fn requests_that_could_be_smuggled_are_400() {
    let server = Server::start().await;
    for head in [
        "POST /user/a/device/b HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "POST /user/a/device/b HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost : x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: b\r\n c\r\n\r\n",
    ] {
        let mut connection = Connection::open(server.address).await;
        connection.write(head.as_bytes()).await;
        assert_eq!(connection.response(false).await.status, 400, "{head}");
        connection.closed().await;
    }
}

#[tokio::test]
async fn a_head_over_the_limit_is_431() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(40_000));
    connection.write(head.as_bytes()).await;
    assert_eq!(connection.response(false).await.status, 431);
}

#[tokio::test]
async fn a_device_that_disconnects_is_not_listed_any_more() {
    let server = Server::start().await;
    let claim = claim("bob/phone");
    for _ in 0..2 {
        let stream = server.sse("bob/phone").await;
        drop(stream);
        until(|| server.devices("bob"), |devices| devices == "[]").await;
        let mut connection = Connection::open(server.address).await;
        connection.ask("GET /subscribe", &[("x-user-claim", &claim)]).await;
        connection.head().await;
        connection.stream.set_zero_linger().expect("an open socket");
        drop(connection);
        until(|| server.devices("bob"), |devices| devices == "[]").await;
    }
}

#[tokio::test]
async fn http_1_0_and_upgrades_are_plain_requests() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    connection.write(b"GET /user/bob/devices HTTP/1.0\r\n\r\n").await;
    let text = String::from_utf8(connection.closed().await).expect("UTF-8");
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("[]"), "{text}");
    let headers = [("connection", "upgrade"), ("upgrade", "h2c"), ("content-type", FORM)];
    assert_eq!(server.request("GET /healthz", &headers, b"").await.status, 200);
}

#[tokio::test]
async fn tls_speaks_both_versions_of_http_by_alpn() {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = tempfiles("alpn", &identity);
    let server = Server::with(&["--tls-cert", &files[0], "--tls-key", &files[1]]).await;
    // The answer to an HTTP/2 preface begins with a SETTINGS frame: three bytes of length, then the type 4.
    for (protocol, first, expected) in [
        (&b"http/1.1"[..], &b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], (0, &b"HTTP/1.1 200"[..])),
        (b"h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", (3, &[4, 0, 0, 0, 0, 0])),
    ] {
        let socket = within(TcpStream::connect(server.address)).await.expect("listens");
        let name = "localhost".try_into().expect("a name");
        let mut stream =
            within(connector(identity.cert.der(), protocol).connect(name, socket)).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream.write_all(first).await.expect("writable");
        let (skipped, expected) = expected;
        let mut answer = vec![0; skipped + expected.len()];
        within(stream.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer[skipped..], expected);
    }
}

pub fn connector(root: &CertificateDer<'static>, protocol: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Writes the certificate and the key to files in cargo's directory for test output; gives their paths.
pub fn tempfiles(test: &str, identity: &rcgen::CertifiedKey<rcgen::KeyPair>) -> [String; 2] {
    [("certificate.pem", identity.cert.pem()), ("key.pem", identity.signing_key.serialize_pem())].map(|(name, text)| {
        let path = format!("{}/{test}-{name}", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&path, text).expect("writable");
        path
    })
}
