//! The connections of one address: more than the limit are closed, and everybody else is served.

use std::net::IpAddr;

use crate::harness::{Connection, Server, until};

const FIRST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const SECOND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// Opens a connection that is served. `None` if the server closes it instead.
async fn open(server: &Server, client: IpAddr) -> Option<Connection> {
    let mut connection = Connection::open_from(client, server.address).await;
    // The server may have closed it already.
    let _ = connection.stream.try_write(b"GET /user/bob/devices HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut first = [0; 1];
    let read = crate::harness::within(connection.stream.peek(&mut first)).await;
    if read.is_ok_and(|length| length > 0) {
        assert_eq!(connection.response(false).await.status, 200);
        return Some(connection);
    }
    assert_eq!(connection.closed().await, b"");
    None
}

async fn limited(server: &Server) -> u64 {
    let text =
        Connection::open_from([127, 0, 0, 9].into(), server.address).await.request("GET /metrics", &[], b"").await;
    let line = r#"signal_limited_total{limit="address_connections"} "#;
    text.text().lines().find_map(|found| found.strip_prefix(line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn an_address_has_a_limited_number_of_connections_of_any_kind_and_others_are_served() {
    let server = Server::with(&["--address-limits", "all", "--address-connections", "3"]).await;
    // A stream, whose socket leaves the HTTP library, a silent connection, and one that had a request.
    let stream = server.sse("bob/phone").await;
    let silent = Connection::open(server.address).await;
    let asked = open(&server, FIRST).await.expect("the third");
    assert!(open(&server, FIRST).await.is_none());
    assert!(open(&server, FIRST).await.is_none());
    assert!(open(&server, SECOND).await.is_some());
    assert_eq!(limited(&server).await, 2);
    assert_eq!(server.address.ip(), FIRST);
    drop(stream);
    until(async || open(&server, FIRST).await.is_some(), |served| *served).await;
    drop(silent);
    let again = until(async || open(&server, FIRST).await, Option::is_some).await;
    drop((asked, again));
}

#[tokio::test]
async fn by_default_an_address_has_a_quarter_of_all_places_and_private_addresses_have_no_limit() {
    for (options, most) in [
        (&["--max-connections", "8", "--address-limits", "all"][..], 2),
        (&["--max-connections", "3", "--address-limits", "all"], 1),
        (&["--max-connections", "8", "--address-limits", "all", "--address-connections", "0"], 7),
        (&["--max-connections", "8"], 7),
        (&["--max-connections", "8", "--address-connections", "1"], 7),
    ] {
        let server = Server::with(options).await;
        let mut connections = Vec::new();
        while connections.len() < 7
            && let Some(connection) = open(&server, FIRST).await
        {
            connections.push(connection);
        }
        assert_eq!(connections.len(), most, "{options:?}");
    }
}

#[tokio::test]
async fn an_address_at_its_limit_does_not_get_the_places_for_health_checks() {
    let options = ["--max-connections", "4", "--address-limits", "all", "--address-connections", "2"];
    let server = Server::with(&options).await;
    let mut connections = Vec::new();
    for client in [FIRST, FIRST, SECOND, SECOND] {
        connections.push(open(&server, client).await.expect("a place"));
    }
    for _ in 0..20 {
        assert!(open(&server, FIRST).await.is_none());
    }
    let mut health = Connection::open_from([127, 0, 0, 3].into(), server.address).await;
    assert_eq!(health.request("GET /healthz", &[], b"").await.status, 200);
}

#[tokio::test]
async fn the_connections_of_a_trusted_proxy_have_no_limit_but_with_all() {
    let trusted = ["--trusted-proxies", "127.0.0.1", "--address-connections", "1"];
    for (more, served) in [(&[][..], true), (&["--address-limits", "all"], false)] {
        let server = Server::with(&[&trusted[..], more].concat()).await;
        let _first = open(&server, FIRST).await.expect("one");
        assert_eq!(open(&server, FIRST).await.is_some(), served);
    }
}
