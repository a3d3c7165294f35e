//! Tickets: `POST /ticket` gives one for a token, and it opens one event stream.

use serde_json::{Value, json};

use crate::harness::{
    Process, Response, Server, Sse,
    http2::Http2,
    metric,
    tokens::{SECRET, Signer, claims, encode, file, seconds_from_now, token},
    until, within,
};
use crate::{token_expiry, wall_clock};

/// Names and values of a request's headers.
type Headers<'a> = &'a [(&'a str, &'a str)];
/// Token, query, headers, and status and code of a refusal.
type Row<'a> = (&'a str, &'a str, Headers<'a>, Result<(), (u16, &'a str)>);

/// The options of a daemon that verifies tokens with [`SECRET`].
fn options() -> [String; 4] {
    ["--auth", "jwt", "--jwt-secret-file", &file("secret", SECRET)].map(str::to_owned)
}

async fn server(more: &[&str]) -> Server {
    let options = options();
    let options: Vec<_> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Server::with(&options).await
}

async fn post(server: &Server, token: &str) -> Response {
    server.request("POST /ticket", &[("authorization", &format!("Bearer {token}"))], b"").await
}

/// A ticket for `user/device`.
async fn ticket(server: &Server, device: &str) -> String {
    let answer = post(server, &token(device)).await;
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    answer["ticket"].as_str().expect("a ticket").to_owned()
}

/// The status of a request with a ticket.
async fn status(server: &Server, head: &str, accept: &str) -> u16 {
    server.request(head, &[("accept", accept)], b"").await.status
}

const STREAM: &str = "text/event-stream";

#[tokio::test]
async fn a_ticket_opens_one_stream_and_is_then_401_and_no_failed_identity() {
    let server = server(&[]).await;
    let answer = post(&server, &token("bob/phone")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.header("cache-control"), "no-store");
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(body["expires_in"], 30);
    let ticket = body["ticket"].as_str().expect("a ticket");
    let path = format!("/subscribe?ticket={ticket}");
    let phone = Sse::open(server.address, &path, &[]).await;
    assert_eq!((&phone.ready["user"], &phone.ready["device"]), (&json!("bob"), &json!("phone")));
    for path in
        [&path, &format!("/user/bob/devices?ticket={ticket}"), &format!("/subscribe?ticket={ticket}&format=none")]
    {
        let answer = server.request(&format!("GET {path}"), &[("accept", STREAM)], b"").await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthenticated"), "{path:.40}");
        assert!(answer.text().contains("POST /ticket"), "{}", answer.text());
    }
    assert_eq!(metric(&server, "signal_refused_identities_total").await, 0);
    let cursor = phone.leave();
    let path = format!("/subscribe?ticket={}&last_event_id={cursor}", self::ticket(&server, "bob/phone").await);
    assert_eq!(Sse::open(server.address, &path, &[]).await.ready["continuity"], "resumed");
}

#[tokio::test]
async fn only_a_request_that_opens_a_stream_uses_a_ticket_up() {
    let server = server(&["--user-watchers", "1"]).await;
    let ticket = ticket(&server, "bob/phone").await;
    let full = self::ticket(&server, "ana/phone").await;
    let bob = |query: &str| format!("/user/bob/devices?ticket={query}");
    let mut watch = Sse::open_plain(server.address, &bob(&full), &[("accept", STREAM)]).await;
    assert_eq!(watch.next().await.name, "signal.devices");
    for (head, accept, expected) in [
        (format!("HEAD /subscribe?ticket={ticket}"), STREAM, 405),
        (format!("GET /subscribe?ticket={ticket}&format=none"), STREAM, 400),
        (format!("GET /subscribe/ana/device/phone?ticket={ticket}"), STREAM, 403),
        (format!("GET /subscribe/bob/device/tv?ticket={ticket}"), STREAM, 403),
        (format!("GET /user/%00/devices?ticket={ticket}"), STREAM, 400),
        (format!("GET /devices?ticket={ticket}"), STREAM, 400),
        // Not a stream: the query is not read.
        (format!("GET /user/bob/devices?ticket={ticket}"), "application/json", 401),
        (format!("POST /ticket?ticket={ticket}"), STREAM, 401),
        (format!("POST /user/bob/device/phone?ticket={ticket}"), STREAM, 401),
        (format!("GET /none?ticket={ticket}"), STREAM, 404),
        // Over a limit the answer is 200 and a stream that has only `signal.end`.
        (format!("GET {}", bob(&ticket)), STREAM, 200),
    ] {
        assert_eq!(status(&server, &head, accept).await, expected, "{head:.40}");
    }
    // A stale page gets 204, and its ticket stays.
    let token = token("bob/phone");
    let old = Sse::open(server.address, &format!("/subscribe?token={token}"), &[]).await;
    let cursor = old.parser.last_event_id.clone();
    let new = Sse::open(server.address, &format!("/subscribe?token={token}"), &[]).await;
    let stale = format!("GET /subscribe?ticket={ticket}&last_event_id={cursor}");
    assert_eq!(status(&server, &stale, STREAM).await, 204);
    drop((old, new));
    let opened = Sse::open(server.address, &format!("/subscribe?ticket={ticket}"), &[]).await;
    assert_eq!(opened.ready["user"], "bob");
}

#[tokio::test]
async fn of_many_requests_with_the_same_ticket_one_opens_a_stream() {
    let server = server(&[]).await;
    let ticket = ticket(&server, "bob/phone").await;
    let requests = (0..20).map(|_| {
        let (address, path) = (server.address, format!("GET /subscribe?ticket={ticket}"));
        tokio::spawn(async move {
            let mut connection = crate::harness::Connection::open(address).await;
            connection.ask(&path, &[("accept", STREAM)]).await;
            (connection.head().await.status, connection)
        })
    });
    let mut statuses = Vec::new();
    let mut open = Vec::new();
    for request in requests.collect::<Vec<_>>() {
        let (status, connection) = within(request).await.expect("no panic");
        statuses.push(status);
        open.push(connection);
    }
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (200, &[401; 19][..]));
}

#[tokio::test]
async fn a_ticket_that_is_not_valid_is_401_and_a_failed_identity() {
    let server = server(&[]).await;
    let good = ticket(&server, "bob/phone").await;
    let other = self::server(&[]).await;
    let [first, second, third]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let forged = json!({"id": [u64::MAX, 1], "expires": seconds_from_now(60), "claims": claims("eve/phone")});
    let by_token_secret = Signer::secret(SECRET).sign(&json!({"alg": "HS256", "typ": "JWT"}), &forged);
    let bad = [
        ("a word", "x".to_owned()),
        ("a token", token("bob/phone")),
        ("signed with the secret of the tokens", by_token_secret),
        ("no algorithm", format!("{}.{second}.", encode(r#"{"alg":"none"}"#))),
        ("a changed signature", format!("{first}.{second}.A{}", &third[1..])),
        ("of another process", ticket(&other, "bob/phone").await),
        ("10 KiB", "x".repeat(10_000)),
    ];
    for (fault, ticket) in &bad {
        assert_eq!(status(&server, &format!("GET /subscribe?ticket={ticket}"), STREAM).await, 401, "{fault}");
    }
    assert_eq!(metric(&server, "signal_refused_identities_total").await, bad.len() as u64);
    // Nor is a ticket a token.
    assert_eq!(status(&server, &format!("GET /subscribe?token={good}"), STREAM).await, 401);
    let bearer = format!("Bearer {good}");
    for head in ["POST /ticket", "GET /user/bob/devices"] {
        assert_eq!(server.request(head, &[("authorization", &bearer)], b"").await.status, 401, "{head}");
    }
    assert_eq!(status(&server, &format!("GET /subscribe?ticket={good}&format=none"), STREAM).await, 400, "it is good");
}

#[tokio::test]
async fn a_ticket_needs_a_valid_token() {
    let server = server(&["--token-cookie", "session"]).await;
    let refused = server.request("POST /ticket", &[], b"").await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, r#"Bearer realm="backend-signal""#));
    let refused = post(&server, "x").await;
    let challenge = r#"Bearer realm="backend-signal", error="invalid_token""#;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, challenge));
    let mut nobody = claims("bob/phone");
    nobody["userid"] = json!("");
    let nobody = Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), &nobody);
    assert_eq!(post(&server, &nobody).await.status, 401);
    // Only a certificate gives such a user.
    for device in ["cert:backend/phone", "cert:/phone"] {
        let refused = post(&server, &token(device)).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, challenge), "{device}");
    }
    assert_eq!(post(&server, &token("certain/phone")).await.status, 200);
    let cookie = format!("session={}", token("bob/phone"));
    assert_eq!(server.request("POST /ticket", &[("cookie", &cookie)], b"").await.status, 200);
    assert_eq!(server.request("GET /ticket", &[], b"").await.status, 405);
    for auth in ["claim", "none"] {
        let without = Server::with(&["--auth", auth]).await.request("POST /ticket", &[], b"").await;
        assert_eq!((without.status, without.problem().as_str()), (404, "no_route"), "{auth}");
        assert!(without.text().contains("only with --auth jwt"), "{}", without.text());
    }
}

#[tokio::test]
async fn a_stream_that_a_ticket_opened_ends_when_its_token_does() {
    let server = server(&[]).await;
    let stream = token_expiry::opened(async |seconds| {
        let answer = post(&server, &token_expiry::short_lived("bob/phone", seconds)).await;
        if answer.status == 401 {
            return None;
        }
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(answer["expires_in"].as_i64().is_some_and(|left| left <= seconds), "{seconds}: {answer}");
        let path = format!("/subscribe?ticket={}", answer["ticket"].as_str().expect("a ticket"));
        token_expiry::try_open(&server, &path, &[]).await
    })
    .await;
    assert_eq!(within(stream.end()).await, "expired");
}

#[tokio::test]
async fn the_body_of_a_request_for_a_ticket_is_read_as_that_of_any_post_and_ignored() {
    let server = server(&[]).await;
    let bearer = format!("Bearer {}", token("bob/phone"));
    let (limit, json) = (102_400, ("content-type", "application/json"));
    let bodies: [(Headers<'_>, usize, u16); _] = [
        (&[], 0, 200),
        (&[json], 0, 200),
        (&[], 7, 200),
        (&[json], limit, 200),
        (&[("content-type", "text/plain")], 7, 200),
        (&[("content-encoding", "identity")], 7, 200),
        (&[("content-encoding", "gzip")], 7, 415),
        (&[json], limit + 1, 413),
        (&[], limit + 1, 413),
    ];
    for (headers, length, status) in bodies {
        let (headers, body) = ([headers, &[("authorization", &bearer)]].concat(), vec![b'x'; length]);
        let answer = server.request("POST /ticket", &headers, &body).await;
        assert_eq!(answer.status, status, "{length} bytes with {:?}", &headers[..headers.len() - 1]);
        let mut http2 = Http2::open(server.address).await;
        let mut request = http::Request::post(http2.uri("/ticket"));
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let answer = http2.send(request.body(body.into()).expect("a request")).await;
        assert_eq!(answer.status(), status, "{length} bytes with {:?} over HTTP/2", &headers[..headers.len() - 1]);
    }
    // As on every route, a fault of the identity comes first.
    let refused = server.request("POST /ticket", &[("content-encoding", "gzip")], &[b'x'; 7]).await;
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn a_request_for_a_ticket_names_its_caller_as_every_other_request_does() {
    let server = server(&["--tenant-claim", "org", "--service-claim", "backend"]).await;
    let sign = |claims: Value| {
        let mut claims = claims;
        claims["exp"] = json!(seconds_from_now(60));
        format!("Bearer {}", Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), &claims))
    };
    let bound = sign(json!({"userid": "bob", "clientid": "phone", "org": "a"}));
    let nowhere = sign(json!({"userid": "bob"}));
    let service = sign(json!({"userid": "bob", "backend": true}));
    let rows: [Row<'_>; _] = [
        (&bound, "", &[], Ok(())),
        (&bound, "?device=phone", &[("x-signal-device", "phone"), ("x-signal-tenant", "a")], Ok(())),
        (&bound, "?user=ana&ticket=x", &[], Ok(())),
        (&bound, "?device=tv", &[], Err((403, "forbidden"))),
        (&bound, "", &[("x-signal-device", "tv")], Err((403, "forbidden"))),
        (&bound, "", &[("x-signal-tenant", "b")], Err((403, "forbidden"))),
        (&bound, "?device=tv", &[("x-signal-device", "phone")], Err((400, "invalid_device"))),
        (&bound, "", &[("x-signal-device", "%ff")], Err((400, "invalid_device"))),
        (&bound, "", &[("x-signal-device", "phone"), ("x-signal-device", "phone")], Err((400, "invalid_device"))),
        (&bound, "", &[("x-signal-tenant", "%00")], Err((400, "invalid_tenant"))),
        (&nowhere, "", &[], Err((403, "forbidden"))),
        (&nowhere, "", &[("x-signal-tenant", "a")], Err((403, "forbidden"))),
        (&service, "", &[], Err((403, "forbidden"))),
        (&service, "", &[("x-signal-tenant", "a")], Ok(())),
    ];
    for (bearer, query, headers, expected) in rows {
        let headers = [headers, &[("authorization", bearer)]].concat();
        for route in ["POST /ticket", "GET /user/bob/devices"] {
            let answer = server.request(&format!("{route}{query}"), &headers, b"").await;
            let found = if answer.status == 200 { Ok(()) } else { Err((answer.status, answer.problem())) };
            let named = found.as_ref().copied().map_err(|(status, code)| (*status, code.as_str()));
            assert_eq!(named, expected, "{route}{query} {:?}", &headers[..headers.len() - 1]);
        }
    }
}

#[tokio::test]
async fn nodes_with_the_same_key_accept_each_others_tickets_each_once() {
    let key = file("ticket-key", "the same key on all nodes, 32 bytes or more\n");
    let same = file("ticket-key", "the same key on all nodes, 32 bytes or more");
    let (one, two) = (server(&["--ticket-key-file", &key]).await, server(&["--ticket-key-file", &same]).await);
    let path = format!("/subscribe?ticket={}", ticket(&one, "bob/phone").await);
    for node in [&one, &two] {
        assert_eq!(Sse::open(node.address, &path, &[]).await.ready["user"], "bob");
        assert_eq!(status(node, &format!("GET {path}"), STREAM).await, 401);
    }
    // Even with the same secret for both, a ticket is not accepted as a token, nor a token as a ticket.
    let secret = file("secret", SECRET);
    let both = server(&["--ticket-key-file", &secret]).await;
    let ticket = ticket(&both, "bob/phone").await;
    assert_eq!(status(&both, &format!("GET /subscribe?token={ticket}"), STREAM).await, 401);
    assert_eq!(status(&both, &format!("GET /subscribe?ticket={}", token("bob/phone")), STREAM).await, 401);
}

/// A process of its own, and the file that sets its clock. `None`: faketime is not installed.
fn daemon_with_clock() -> Option<(Process, String)> {
    if let Err(error) = wall_clock::faketime() {
        wall_clock::skip(&error);
        return None;
    }
    let clock = file("clock", "+0");
    let mut command = wall_clock::command_at("+0");
    command.env_remove("FAKETIME").env("FAKETIME_TIMESTAMP_FILE", &clock).env("FAKETIME_NO_CACHE", "1");
    let daemon = Process::spawn(command.args(["--port", "0", "--host", "127.0.0.1"]).args(options()));
    Some((daemon, clock))
}

#[tokio::test]
async fn a_ticket_is_401_after_30_s_and_no_failed_identity() {
    let Some((daemon, clock)) = daemon_with_clock() else { return };
    let ask = async |head: &str, headers: &[(&str, &str)]| {
        crate::harness::Connection::open(daemon.address).await.request(head, headers, b"").await
    };
    let mut claims = claims("bob/phone");
    claims["exp"] = json!(seconds_from_now(3_600));
    let bearer = format!("Bearer {}", Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), &claims));
    let answer = ask("POST /ticket", &[("authorization", &bearer)]).await;
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let path = format!("GET /subscribe?format=none&ticket={}", answer["ticket"].as_str().expect("a ticket"));
    assert_eq!(ask(&path, &[]).await.status, 400, "it is good");
    std::fs::write(&clock, "+31").expect("writable");
    let old = until(|| ask(&path, &[]), |answer| answer.status != 400).await;
    assert_eq!((old.status, old.problem().as_str()), (401, "unauthenticated"));
    assert!(old.text().contains("POST /ticket"), "{}", old.text());
    let metrics = ask("GET /metrics", &[]).await.text();
    assert!(metrics.contains("signal_refused_identities_total 0"), "{metrics}");
}

#[tokio::test]
async fn a_ticket_carries_the_tenant_and_the_users_that_its_token_lists_and_the_request_names_the_device() {
    let server = server(&["--tenant-claim", "org", "--allow", "listed:contacts"]).await;
    let ticket = async |contacts: &[&str]| {
        let claims = json!({"sub": "bob", "org": "a", "contacts": contacts, "exp": seconds_from_now(60)});
        let answer = post(&server, &Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), &claims)).await;
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        answer["ticket"].as_str().expect("a ticket").to_owned()
    };
    let watch = |user: &str, ticket: String| (format!("GET /user/{user}/devices?ticket={ticket}"), STREAM);
    let (head, accept) = watch("eve", ticket(&["ana"]).await);
    assert_eq!(status(&server, &head, accept).await, 403, "not listed");
    let (head, _) = watch("ana", ticket(&["ana"]).await);
    let mut ana = Sse::open_plain(server.address, &head["GET ".len()..], &[("accept", STREAM)]).await;
    assert_eq!(ana.next().await.data, "[]");
    // A user of another tenant with the same id is not seen.
    let other = json!({"sub": "ana", "org": "b", "clientid": "tv", "contacts": [], "exp": seconds_from_now(60)});
    let other = Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), &other);
    let _other = Sse::open(server.address, &format!("/subscribe?token={other}"), &[]).await;
    let same = json!({"sub": "ana", "org": "a", "clientid": "phone", "contacts": [], "exp": seconds_from_now(60)});
    let same = Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), &same);
    let _same = Sse::open(server.address, &format!("/subscribe?token={same}"), &[]).await;
    assert_eq!(ana.next().await.data, r#"{"device":"phone"}"#);
    let head = format!("GET /subscribe?ticket={}", ticket(&[]).await);
    let refused = server.request(&head, &[("accept", STREAM)], b"").await;
    assert_eq!((refused.status, refused.problem().as_str()), (400, "no_device"));
    let path = format!("{}&device=laptop", &head["GET ".len()..]);
    assert_eq!(Sse::open(server.address, &path, &[]).await.ready["device"], "laptop");
}

#[tokio::test]
async fn a_ticket_carries_the_claim_of_a_service() {
    let server = server(&["--service-claim", "backend", "--allow", "listed:contacts"]).await;
    for (backend, expected) in [(true, 200), (false, 403)] {
        let claims = json!({"sub": "shop", "backend": backend, "exp": seconds_from_now(60)});
        let answer = post(&server, &Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), &claims)).await;
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let path = format!("GET /user/bob/devices?ticket={}", answer["ticket"].as_str().expect("a ticket"));
        let mut connection = crate::harness::Connection::open(server.address).await;
        connection.ask(&path, &[("accept", STREAM)]).await;
        assert_eq!(connection.head().await.status, expected, "{backend}");
    }
}

#[tokio::test]
async fn beside_a_ticket_the_query_names_the_heartbeat_and_the_cursor() {
    let server = server(&[]).await;
    let path = format!("/subscribe?ticket={}&heartbeat=7", ticket(&server, "bob/phone").await);
    let first = Sse::open_plain(server.address, &path, &[("accept", STREAM)]).await;
    let ready = { first }.next().await;
    let (cursor, data) = (ready.id, serde_json::from_str::<Value>(&ready.data).expect("JSON"));
    assert_eq!((&data["heartbeat_ms"], &data["continuity"]), (&json!(7_000), &json!("new")));
    for name in ["last_event_id", "lastEventId"] {
        let path = format!("/subscribe?{name}={cursor}&ticket={}", ticket(&server, "bob/phone").await);
        assert_eq!(Sse::open(server.address, &path, &[]).await.ready["continuity"], "resumed", "{name}");
    }
}

#[tokio::test]
async fn a_used_ticket_stays_used_when_the_wall_clock_is_set_back() {
    let Some((daemon, clock)) = daemon_with_clock() else { return };
    let mut claims = claims("bob/phone");
    claims["exp"] = json!(seconds_from_now(3_600));
    let bearer = format!("Bearer {}", Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), &claims));
    let status = async |path: &str| {
        let mut connection = crate::harness::Connection::open(daemon.address).await;
        connection.ask(path, &[("accept", STREAM)]).await;
        connection.head().await.status
    };
    let ticket = async || {
        let connection = crate::harness::Connection::open(daemon.address).await;
        let answer = { connection }.request("POST /ticket", &[("authorization", &bearer)], b"").await;
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        format!("GET /subscribe?ticket={}", answer["ticket"].as_str().expect("a ticket"))
    };
    let used = ticket().await;
    assert_eq!(status(&used).await, 200);
    let unused = format!("{}&format=none", ticket().await);
    std::fs::write(&clock, "+60").expect("writable");
    until(|| status(&unused), |status| *status == 401).await;
    // Opening a stream forgets the tickets that are too old.
    assert_eq!(status(&ticket().await).await, 200);
    std::fs::write(&clock, "-5").expect("writable");
    until(|| status(&unused), |status| *status == 400).await;
    assert_eq!(status(&used).await, 401, "it was used");
    assert_eq!(status(&ticket().await).await, 200, "a new ticket is good");
}
