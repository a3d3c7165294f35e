//! An address that presents invalid identities gets each refusal later than the one before, over all protocols.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::harness::{
    Connection, FORM, PATIENCE, Server, Sse, claim,
    every_protocol::{PROTOCOLS, Protocol},
    http2::Http2,
    tokens::{SECRET, file, token},
    until, within,
};

const BAD: (&str, &str) = ("x-user-claim", "no claim");
const BEHIND_PROXY: [&str; 2] = ["--trusted-proxies", "127.0.0.1"];

/// How often a refusal waited, or came at once because others waited.
async fn limited(server: &Server) -> u64 {
    let text = server.metrics().await;
    let line = r#"signal_limited_total{limit="identity_failures"} "#;
    text.lines().find_map(|found| found.strip_prefix(line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn after_ten_failures_over_any_protocol_the_next_ones_wait_longer_and_longer() {
    let server = Server::with(&["--address-limits", "all"]).await;
    let (began, mut failures) = (Instant::now(), 0);
    while limited(&server).await == 0 {
        let answer = PROTOCOLS[failures % 5].send(server.address, "bob/phone", "x", &[BAD]).await;
        assert_eq!((answer.status, answer.retry_after), (401, None));
        failures += 1;
    }
    // The rate forgives one failure in six seconds.
    let forgiven = began.elapsed().as_secs() / 6;
    assert!((11..=11 + forgiven).contains(&(failures as u64)), "{failures}");
    for protocol in [Protocol::Grpc, Protocol::Http1] {
        let (began, before) = (Instant::now(), limited(&server).await);
        assert_eq!(protocol.send(server.address, "bob/phone", "x", &[BAD]).await.status, 401);
        let waited = limited(&server).await > before;
        assert!(waited && began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

/// Makes a refused request twice, each on a connection of its own. Returns how long the second answer took.
async fn refused_twice(address: SocketAddr, client: String, route: String, bad: (&str, &str)) -> Duration {
    let headers = [("x-forwarded-for", client.as_str()), ("accept", "text/event-stream"), bad];
    let ask = async || Connection::open(address).await.request(&route, &headers, b"").await;
    assert_eq!(ask().await.status, 401);
    let began = Instant::now();
    let answer = ask().await;
    assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthenticated"), "{route}");
    began.elapsed()
}

/// The same with a gRPC call, native or gRPC-Web.
async fn call_refused_twice(
    address: SocketAddr,
    client: String,
    path: String,
    content_type: &str,
    bad: (&str, &str),
) -> Duration {
    let mut connection = Http2::open(address).await;
    let mut ask = async || {
        let request = http::Request::post(connection.uri(&path))
            .header("content-type", content_type)
            .header("x-forwarded-for", &client)
            .header(bad.0, bad.1);
        let response = connection.send(request.body(axum::body::Body::empty()).expect("a request")).await;
        assert_eq!(response.headers()["grpc-status"], "16", "{path}");
    };
    ask().await;
    let began = Instant::now();
    ask().await;
    began.elapsed()
}

/// Waits for second answers, each of which must have been held back for a second.
async fn assert_waited(mut asked: JoinSet<(String, Duration)>) {
    while let Some(asked) = within(asked.join_next()).await {
        let (name, waited) = asked.expect("no panic");
        assert!(waited >= Duration::from_secs(1), "{name}: {waited:?}");
    }
}

#[tokio::test]
async fn the_refusals_of_every_route_and_method_wait() {
    let server = Server::with(&[&BEHIND_PROXY[..], &["--identity-failures", "1"]].concat()).await;
    let (address, mut asked) = (server.address, JoinSet::new());
    for (number, protocol) in PROTOCOLS.into_iter().enumerate() {
        asked.spawn(async move {
            let client = format!("192.0.2.{number}");
            let headers = [("x-forwarded-for", client.as_str()), BAD];
            assert_eq!(protocol.send(address, "bob/phone", "x", &headers).await.status, 401);
            let began = Instant::now();
            assert_eq!(protocol.send(address, "bob/phone", "x", &headers).await.status, 401);
            (format!("{protocol:?}"), began.elapsed())
        });
    }
    let routes = [
        "GET /subscribe",
        "GET /subscribe/bob/device/phone",
        "GET /user/bob/devices",
        "GET /devices?user=bob",
        "POST /user/bob/devices",
    ];
    for (number, route) in routes.into_iter().enumerate() {
        let client = format!("198.51.100.{number}");
        asked.spawn(async move { (route.to_owned(), refused_twice(address, client, route.to_owned(), BAD).await) });
    }
    let methods = ["SendStream", "Broadcast", "Subscribe", "ListDevices", "WatchDevices"];
    for (number, method) in methods.into_iter().enumerate() {
        let (client, path) = (format!("203.0.113.{number}"), format!("/backend_signal.v1.Signal/{method}"));
        asked.spawn(async move {
            (method.to_owned(), call_refused_twice(address, client, path, "application/grpc", BAD).await)
        });
    }
    assert_waited(asked).await;
    assert_eq!(limited(&server).await, 15);
}

/// A server that verifies tokens and believes a proxy, and one failure of an address is without a penalty.
async fn token_server() -> Server {
    let secret = file("secret", SECRET);
    let tokens = ["--auth", "jwt", "--jwt-secret-file", &secret, "--identity-failures", "1"];
    Server::with(&[&BEHIND_PROXY[..], &tokens].concat()).await
}

#[tokio::test]
async fn guessed_tokens_and_tickets_wait_on_every_route_that_takes_one_and_in_reflection() {
    let server = token_server().await;
    let (address, mut asked) = (server.address, JoinSet::new());
    let (bearer, nothing) = (("authorization", "Bearer guess"), ("x-nothing", "x"));
    let routes = [
        ("POST /ticket", bearer),
        ("GET /user/bob/devices", bearer),
        ("GET /ice", bearer),
        ("POST /user/bob/device/phone", bearer),
        ("GET /subscribe?token=guess", nothing),
        ("GET /subscribe?ticket=guess", nothing),
        ("GET /subscribe/bob/device/phone?token=guess", nothing),
        ("GET /user/bob/devices?token=guess", nothing),
        ("GET /user/bob/devices?ticket=guess", nothing),
        ("GET /devices?user=bob&token=guess", nothing),
        ("GET /devices?user=bob&ticket=guess", nothing),
    ];
    for (number, (route, bad)) in routes.into_iter().enumerate() {
        let client = format!("198.51.100.{number}");
        asked.spawn(async move { (route.to_owned(), refused_twice(address, client, route.to_owned(), bad).await) });
    }
    let methods = [
        "backend_signal.v1.Signal/Send",
        "backend_signal.v1.Signal/Subscribe",
        "backend_signal.v1.Signal/GetIceServers",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ];
    for (number, method) in methods.into_iter().enumerate() {
        for (kind, content_type) in ["application/grpc", "application/grpc-web+proto"].into_iter().enumerate() {
            let (client, path) = (format!("203.0.113.{}", 2 * number + kind), format!("/{method}"));
            asked.spawn(async move {
                let waited = call_refused_twice(address, client, path, content_type, bearer).await;
                (format!("{method} {content_type}"), waited)
            });
        }
    }
    assert_waited(asked).await;
    assert_eq!(limited(&server).await, 21);
}

#[tokio::test]
async fn a_spent_ticket_is_no_guess_and_does_not_wait() {
    let server = token_server().await;
    let client = ("x-forwarded-for", "192.0.2.1");
    let bearer = format!("Bearer {}", token("bob/phone"));
    let answer = server.request("POST /ticket", &[client, ("authorization", &bearer)], b"").await;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let ticket = answer["ticket"].as_str().expect("a ticket");
    let phone = Sse::open(server.address, &format!("/subscribe?ticket={ticket}"), &[client]).await;
    let headers = [client, ("accept", "text/event-stream")];
    for _ in 0..5 {
        let spent = server.request(&format!("GET /subscribe?ticket={ticket}"), &headers, b"").await;
        assert_eq!((spent.status, spent.problem().as_str()), (401, "unauthenticated"));
    }
    assert_eq!(limited(&server).await, 0);
    for guesses in 0..2 {
        assert_eq!(limited(&server).await, 0, "{guesses}");
        assert_eq!(server.request("GET /subscribe?ticket=guess", &headers, b"").await.status, 401);
    }
    assert_eq!(limited(&server).await, 1);
    drop(phone);
}

#[tokio::test]
async fn an_absent_identity_is_no_failure_and_neither_is_a_peer_that_is_not_trusted() {
    let options = ["--address-limits", "all", "--identity-failures", "1", "--require-claim", "all"];
    let server = Server::with(&options).await;
    let elsewhere = Server::with(&[&options[..], &["--trusted-proxies", "10.0.0.1"]].concat()).await;
    for _ in 0..5 {
        for protocol in PROTOCOLS {
            assert_eq!(protocol.send(server.address, "bob/phone", "x", &[]).await.status, 401);
            assert_eq!(protocol.send(elsewhere.address, "bob/phone", "x", &[BAD]).await.status, 401);
        }
        assert_eq!(server.request("GET /subscribe", &[], b"").await.status, 401);
    }
    assert_eq!((limited(&server).await, limited(&elsewhere).await), (0, 0));
}

#[tokio::test]
async fn sixteen_refusals_of_an_address_wait_more_are_429_and_a_valid_identity_is_served_meanwhile() {
    let options = ["--address-limits", "all", "--identity-failures", "1", "--drain-window", "20"];
    let server = Server::with(&options).await;
    let (began, (answered, mut answers)) = (Instant::now(), mpsc::channel(100));
    for count in 0..30 {
        let (address, answered) = (server.address, answered.clone());
        tokio::spawn(async move {
            let answer = PROTOCOLS[count % 5].send(address, "bob/phone", "x", &[BAD]).await;
            answered.send(answer).await.expect("the test reads");
        });
    }
    drop(answered);
    // One is within the limit, 16 wait, and 13 are answered at once.
    until(async || limited(&server).await, |count| *count == 29).await;
    // The first waits for 1 s, the second for 2 s, and so on up to 8 s. One that is over by now may have left its place to another.
    let over = match began.elapsed().as_secs() {
        seconds @ 0..8 => usize::try_from(seconds).expect("small"),
        _ => 13,
    };
    let ana = claim("ana/laptop");
    for protocol in PROTOCOLS {
        let answer = protocol.send(server.address, "bob/phone", "x", &[("x-user-claim", &ana)]).await;
        assert_eq!(answer.status, 404, "{protocol:?}");
    }
    // More than the places, if some of those are free again. Each would wait for about 8 s.
    let mut asked: JoinSet<_> = (0..20)
        .map(|_| {
            let address = server.address;
            async move {
                let headers = [BAD, ("content-type", FORM)];
                Connection::open(address).await.request("POST /user/bob/device/phone", &headers, b"data=x").await
            }
        })
        .collect();
    let refused = within(async {
        loop {
            let answer = asked.join_next().await.expect("one of 20 is refused").expect("no panic");
            if answer.status != 401 {
                return answer;
            }
        }
    })
    .await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "rate_limited"));
    drop(asked);
    // A drain does not wait for them.
    server.drain.start();
    let mut statuses = Vec::new();
    while let Some(answer) = timeout(PATIENCE, answers.recv()).await.expect("in time") {
        assert_eq!(answer.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds)), answer.status == 429);
        statuses.push(answer.status);
    }
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    let (late, too_many) = (count(401), count(429));
    assert!((17..=17 + over).contains(&late) && late + too_many == 30, "{late} and {too_many}, {over} were over");
}

#[tokio::test]
async fn the_body_of_a_refusal_that_waits_is_thrown_away_and_the_connection_goes_on() {
    let server = Server::with(&["--address-limits", "all", "--identity-failures", "1"]).await;
    let mut connection = Connection::open(server.address).await;
    let body = vec![b'x'; 50_000];
    for path in ["POST /user/bob/device/phone", "POST /user/bob/devices"] {
        let answer = connection.request(path, &[BAD, ("content-type", FORM)], &body).await;
        assert_eq!((answer.status, answer.header("connection")), (401, ""));
    }
    assert_eq!(limited(&server).await, 1);
    assert_eq!(connection.request("GET /user/bob/devices", &[], b"").await.status, 200);
}

#[tokio::test]
async fn zero_switches_the_limit_off_and_private_addresses_have_none() {
    for options in [&["--address-limits", "all", "--identity-failures", "0"][..], &[]] {
        let server = Server::with(options).await;
        for count in 0..30 {
            let answer = PROTOCOLS[count % 5].send(server.address, "bob/phone", "x", &[BAD]).await;
            assert_eq!(answer.status, 401);
        }
        assert_eq!(limited(&server).await, 0);
    }
}
