//! The PROXY protocol: a trusted proxy names its client before the client's first bytes, also before TLS. From others: error.

use std::{net::IpAddr, time::Duration};

use axum::body::Body;
use http::Request;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use crate::{
    harness::{Connection, FORM, Process, Response, Server, claim, http2::Http2, within},
    serve::{connector, tempfiles},
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXY: [&str; 4] = ["--trusted-proxies", "127.0.0.1", "--client-address", "proxy-protocol"];
const POST: &str = "POST /user/bob/device/phone";

/// The header of a connection over IPv4 from this client.
fn header(client: [u8; 4]) -> Vec<u8> {
    [SIGNATURE, &[0x21, 0x11, 0, 12], &client, &[10, 0, 0, 1, 0x30, 0x39, 1, 187]].concat()
}

fn local() -> Vec<u8> {
    [SIGNATURE, &[0x20, 0, 0, 0]].concat()
}

/// Posts on a new connection that begins with these bytes.
async fn post(server: &Server, begin: &[u8]) -> Response {
    let mut connection = Connection::open(server.address).await;
    connection.write(begin).await;
    // A proxy does not change this header of its client.
    let headers = [("content-type", FORM), ("x-forwarded-for", "198.51.100.7")];
    connection.request(POST, &headers, b"data=x").await
}

/// Posts until the rate of the client is used up.
async fn exhaust(server: &Server, begin: &[u8]) {
    for _ in 0..100 {
        if post(server, begin).await.status == 429 {
            return;
        }
    }
    panic!("no message was refused");
}

#[tokio::test]
async fn the_client_that_a_trusted_proxy_names_counts_and_not_the_proxy() {
    let server = Server::with(&[&PROXY[..], &["--anonymous-send-rate", "1"]].concat()).await;
    exhaust(&server, &header([192, 0, 2, 1])).await;
    assert_eq!(post(&server, &header([192, 0, 2, 2])).await.status, 404);
    for _ in 0..10 {
        assert_eq!(post(&server, &local()).await.status, 404, "the proxy's own");
        assert_eq!(post(&server, &header([10, 0, 0, 9])).await.status, 404, "a private address");
    }
    // Over HTTP/2, and with a header that comes byte by byte.
    let mut connection = Connection::open(server.address).await;
    for byte in header([192, 0, 2, 3]) {
        connection.write(&[byte]).await;
    }
    let mut http2 = Http2::over(connection.stream, 1 << 20).await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let request = Request::post(http2.uri("/user/bob/device/phone")).header("content-type", FORM);
        statuses.push(http2.send(request.body(Body::from("data=x")).expect("a request")).await.status().as_u16());
    }
    assert!(statuses.contains(&404) && statuses.contains(&429), "{statuses:?}");
    // The claim of the proxy is believed, because its own address is trusted.
    let mut connection = Connection::open(server.address).await;
    connection.write(&header([192, 0, 2, 4])).await;
    let ana = claim("ana/laptop");
    assert_eq!(connection.request("GET /user/bob/devices", &[("x-user-claim", &ana)], b"").await.status, 200);
}

#[tokio::test]
async fn the_header_comes_before_the_handshake_of_tls() {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = tempfiles("proxy-protocol", &identity);
    let options = ["--tls-cert", &files[0], "--tls-key", &files[1], "--anonymous-send-rate", "1"];
    let server = Server::with(&[&PROXY[..], &options].concat()).await;
    let connector = connector(identity.cert.der(), b"http/1.1");
    let ask = async |client: [u8; 4]| {
        let mut connection = Connection::open(server.address).await;
        connection.write(&header(client)).await;
        let name = "localhost".try_into().expect("a name");
        let mut tls = within(connector.connect(name, connection.stream)).await.expect("TLS");
        let request = format!("{POST} HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\ncontent-length: 6\r\n\r\ndata=x");
        within(tls.write_all(request.as_bytes())).await.expect("open");
        let mut status = [0; 12];
        within(tls.read_exact(&mut status)).await.expect("an answer");
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    let mut refused = false;
    for _ in 0..100 {
        refused |= ask([192, 0, 2, 1]).await == "429";
        if refused {
            break;
        }
    }
    assert!(refused, "no message was refused");
    assert_eq!(ask([192, 0, 2, 2]).await, "404");
}

#[tokio::test]
async fn a_trusted_proxy_must_send_a_valid_header_in_time() {
    let server = Server::with(&[&PROXY[..], &["--header-timeout", "2"]].concat()).await;
    let mut attempts = JoinSet::new();
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let of_length = |length: u16| [SIGNATURE, &[0x21, 0x11], &length.to_be_bytes()[..]].concat();
    for begin in [
        &b""[..],
        SIGNATURE,
        &SIGNATURE[..5],
        &header([192, 0, 2, 1])[..20],
        b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\n",
        &of_length(3),
        &of_length(u16::MAX),
        &[SIGNATURE, &[0x11, 0x11, 0, 0]].concat(),
        &[SIGNATURE, &[0x21, 0x77, 0, 0]].concat(),
    ] {
        for whole in [false, true] {
            let incomplete = header([192, 0, 2, 1]).starts_with(begin);
            let bytes = if whole && !incomplete { [begin, request].concat() } else { begin.to_vec() };
            let address = server.address;
            attempts.spawn(async move {
                let mut connection = Connection::open(address).await;
                connection.write(&bytes).await;
                assert_eq!(connection.closed().await, b"", "{bytes:?}");
            });
        }
    }
    while let Some(attempt) = within(attempts.join_next()).await {
        attempt.expect("closed");
    }
    let mut connection = Connection::open(server.address).await;
    connection.write(&[&header([192, 0, 2, 1]), &request[..]].concat()).await;
    assert_eq!(connection.response(false).await.status, 200, "the others are served");
}

#[tokio::test]
async fn a_header_from_a_peer_that_is_not_trusted_closes_the_connection_and_is_one_warning() {
    let process = Process::start(&[&PROXY[..], &["--drain-window", "1", "--auth", "none"]].concat());
    let elsewhere = IpAddr::from([127, 0, 0, 2]);
    for _ in 0..3 {
        let mut connection = Connection::open_from(elsewhere, process.address).await;
        connection.write(&[&header([192, 0, 2, 1]), &b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"[..]].concat()).await;
        assert_eq!(connection.closed().await, b"");
        let mut connection = Connection::open_from(elsewhere, process.address).await;
        assert_eq!(connection.request("GET /healthz", &[], b"").await.status, 200, "without a header");
    }
    process.signal("TERM");
    let (_, log) = process.exited();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("--trusted-proxies")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    let says = ["PROXY protocol", "closes its connection"].map(|text| warnings[0].contains(text));
    assert_eq!((says, warnings[0].contains("ignored")), ([true; 2], false), "{}", warnings[0]);
}

#[tokio::test]
async fn the_connections_of_a_named_client_are_limited() {
    let server = Server::with(&[&PROXY[..], &["--address-connections", "2"]].concat()).await;
    let open = async |client| {
        let mut connection = Connection::open(server.address).await;
        connection.write(&header(client)).await;
        connection
    };
    let ask = async |connection: &mut Connection| connection.request("GET /user/bob/devices", &[], b"").await.status;
    let mut kept = Vec::new();
    for client in [[192, 0, 2, 1], [192, 0, 2, 1], [192, 0, 2, 2]] {
        let mut connection = open(client).await;
        assert_eq!(ask(&mut connection).await, 200);
        kept.push(connection);
    }
    assert_eq!(open([192, 0, 2, 1]).await.closed().await, b"");
    kept.remove(0);
    within(async {
        loop {
            let connection = open([192, 0, 2, 1]).await;
            let _ = connection.stream.try_write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
            if connection.stream.peek(&mut [0; 1]).await.is_ok_and(|length| length > 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
