//! `GET /ice` and `GetIceServers`: who is told which servers, and the credentials for TURN.

use std::time::{SystemTime, UNIX_EPOCH};

use backend_signal::grpc::proto::{GetIceServersRequest, IceServer};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;
use serde_json::{Value, json};
use tonic::{Code, Status, metadata::MetadataValue};

use crate::harness::{
    Response, Server, claim, metric,
    routes::{Headers, with},
    tokens::{SECRET as TOKEN_SECRET, file, token},
    until, within,
};

const CLAIM: &str = "x-user-claim";
const SECRET: &str = "what coturn calls static-auth-secret";
const STUN: [&str; 2] = ["--stun", "stun:stun.example.org,stun:[2001:db8::1]:3478"];
const TURN: [&str; 2] =
    ["--turn", "turn:turn.example.org:3478?transport=udp,turns:turn.example.org:5349?transport=tcp"];

/// What the signature of a username must be.
fn signature(secret: &str, username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    STANDARD.encode(hmac::sign(&key, username.as_bytes()))
}

/// With TURN servers that have [`SECRET`].
async fn with_turn(options: &[&str]) -> Server {
    let secret = file("turn-secret", format!("{SECRET}\n"));
    Server::with(&[&TURN[..], &["--turn-secret-file", &secret], options].concat()).await
}

async fn over_http(server: &Server, headers: &Headers<'_>) -> Response {
    server.request("GET /ice", headers, b"").await
}

/// The servers, and in how many seconds they expire.
async fn over_grpc(server: &Server, headers: &Headers<'_>) -> Result<(Vec<IceServer>, i64), Status> {
    let answer =
        within(server.grpc().await.get_ice_servers(with(GetIceServersRequest {}, headers))).await?.into_inner();
    Ok((answer.ice_servers, answer.expires_in.expect("a time").seconds))
}

/// The last server of an answer.
fn turn_server(answer: &Response) -> Value {
    let answer: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
    answer["iceServers"].as_array().and_then(|servers| servers.last()).expect("a server").clone()
}

/// What follows the expiry in the username, which must be the same over both protocols, with a good signature.
async fn name(server: &Server, headers: &Headers<'_>) -> String {
    let json = turn_server(&over_http(server, headers).await);
    let (servers, _) = over_grpc(server, headers).await.expect("servers");
    let grpc = servers.last().expect("a server");
    let names = [
        (json["username"].as_str().expect("a username"), json["credential"].as_str().expect("a credential")),
        (grpc.username.as_str(), grpc.credential.as_str()),
    ]
    .map(|(username, credential)| {
        assert_eq!(credential, signature(SECRET, username), "{username}");
        username.split_once(':').expect("an expiry").1.to_owned()
    });
    assert_eq!(names[0], names[1]);
    names[0].clone()
}

#[tokio::test]
async fn the_answer_is_what_a_browser_takes_and_grpc_says_the_same() {
    let server = with_turn(&[&STUN[..], &["--turn-ttl", "10m"]].concat()).await;
    let bob = claim("bob/phone");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let before = now();
    let answer = over_http(&server, &[(CLAIM, &bob), ("origin", "https://app.example")]).await;
    let (servers, expires_in) = over_grpc(&server, &[(CLAIM, &bob)]).await.expect("servers");
    let expected = before + 600..=now() + 600;
    assert_eq!(answer.status, 200);
    for (header, value) in
        [("content-type", "application/json"), ("cache-control", "no-store"), ("access-control-allow-origin", "*")]
    {
        assert_eq!(answer.header(header), value, "{header}");
    }
    let username = turn_server(&answer)["username"].as_str().expect("a username").to_owned();
    let (stun, turn) = (STUN[1].split(',').collect::<Vec<_>>(), TURN[1].split(',').collect::<Vec<_>>());
    assert_eq!(
        serde_json::from_slice::<Value>(&answer.body).expect("JSON"),
        json!({
            "iceServers": [
                {"urls": stun},
                {"urls": turn, "username": username, "credential": signature(SECRET, &username)},
            ],
            "expires_in": 600,
        })
    );
    assert_eq!((servers.len(), expires_in), (2, 600));
    assert_eq!((servers[0].urls.join(","), servers[1].urls.join(",")), (STUN[1].to_owned(), TURN[1].to_owned()));
    assert_eq!([servers[0].username.as_str(), servers[0].credential.as_str()], ["", ""]);
    assert_eq!(servers[1].credential, signature(SECRET, &servers[1].username));
    for username in [&username, &servers[1].username] {
        let (expiry, name) = username.split_once(':').expect("an expiry");
        assert!(expected.contains(&expiry.parse().expect("a number")), "{username}");
        assert_eq!(name, "bob:phone");
    }
    let head = server.request("HEAD /ice", &[(CLAIM, &bob)], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(server.request("POST /ice", &[(CLAIM, &bob)], b"").await.status, 405);
}

/// Options, and what a caller gets without an identity, with one and with one that is not valid.
type Row<'a> = (&'a [&'a str], [u16; 3]);

#[tokio::test]
async fn turn_needs_an_identity_and_stun_alone_needs_none_where_no_other_route_does() {
    let (turn, tokens) = (file("turn", SECRET), file("tokens", TOKEN_SECRET));
    let (all, jwt) = (["--require-claim", "all"], ["--auth", "jwt", "--jwt-secret-file", &tokens]);
    let turn = [&TURN[..], &["--turn-secret-file", &turn]].concat();
    let rows: [Row<'_>; 11] = [
        (&[], [404, 404, 401]),
        (&STUN, [200, 200, 401]),
        (&turn, [401, 200, 401]),
        (&[&STUN[..], &turn].concat(), [401, 200, 401]),
        (&[&STUN[..], &all].concat(), [401, 200, 401]),
        (&all, [401, 404, 401]),
        (&jwt, [401, 404, 401]),
        (&[&STUN[..], &jwt].concat(), [401, 200, 401]),
        (&[&turn[..], &jwt].concat(), [401, 200, 401]),
        (&[&STUN[..], &["--auth", "none"]].concat(), [200, 200, 401]),
        (&[&turn[..], &["--auth", "none"]].concat(), [401, 200, 401]),
    ];
    let (bob, bearer) = (claim("bob/phone"), format!("Bearer {}", token("bob/phone")));
    for (options, statuses) in rows {
        let server = Server::with(options).await;
        let (valid, invalid) = if options.contains(&"jwt") {
            (("authorization", bearer.as_str()), ("authorization", "Bearer x"))
        } else {
            ((CLAIM, bob.as_str()), (CLAIM, "x"))
        };
        for (headers, status) in [vec![], vec![valid], vec![invalid]].into_iter().zip(statuses) {
            let answer = over_http(&server, &headers).await;
            let problem = match status {
                200 => String::new(),
                401 => "unauthenticated".to_owned(),
                _ => "no_ice_servers".to_owned(),
            };
            let found = if answer.status == 200 { String::new() } else { answer.problem() };
            assert_eq!((answer.status, found), (status, problem), "{options:?} {headers:?}");
            let grpc = over_grpc(&server, &headers).await;
            let code = match status {
                200 => Code::Ok,
                401 => Code::Unauthenticated,
                _ => Code::NotFound,
            };
            let found = grpc.as_ref().map_or_else(Status::code, |_| Code::Ok);
            assert_eq!(found, code, "{options:?} {headers:?}");
            if status == 401 {
                let metadata = grpc.expect_err("refused").metadata().get("www-authenticate").cloned();
                let challenge = answer.header("www-authenticate");
                assert_eq!(metadata.as_ref().map(MetadataValue::as_bytes), Some(challenge.as_bytes()), "{options:?}");
                assert!(!challenge.is_empty(), "{options:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_ticket_or_a_token_in_the_query_opens_a_stream_and_gives_no_credentials() {
    let tokens = file("tokens", TOKEN_SECRET);
    let server = with_turn(&["--auth", "jwt", "--jwt-secret-file", &tokens]).await;
    let bearer = format!("Bearer {}", token("bob/phone"));
    let ticket = server.request("POST /ticket", &[("authorization", &bearer)], b"").await;
    let ticket: Value = serde_json::from_slice(&ticket.body).expect("JSON");
    let ticket = ticket["ticket"].as_str().expect("a ticket");
    for query in [format!("ticket={ticket}"), format!("token={}", token("bob/phone"))] {
        let head = format!("GET /ice?{query}");
        assert_eq!(server.request(&head, &[("accept", "text/event-stream")], b"").await.status, 401, "{query:.10}");
    }
}

#[tokio::test]
async fn with_auth_none_the_query_names_the_user_of_the_credentials() {
    let server = with_turn(&["--auth", "none"]).await;
    let answer = server.request("GET /ice?user=bob", &[], b"").await;
    let server_of_bob = turn_server(&answer);
    let username = server_of_bob["username"].as_str().expect("a username");
    assert!(username.ends_with(":bob"), "{username}");
}

#[tokio::test]
async fn a_username_names_its_caller_and_no_other_can_have_the_same() {
    let server = with_turn(&[]).await;
    let claim = |user: &str, device: &str| json!({"userid": user, "clientid": device}).to_string();
    let (long, longest) = ("x".repeat(256), "y".repeat(240));
    for (claim, expected) in [
        (claim("bob", "phone"), "bob:phone"),
        (r#"{"userid":"bob"}"#.to_owned(), "bob"),
        (r#"{"userid":7,"clientid":8}"#.to_owned(), "7:8"),
        (claim("A-z_0.9~", "1"), "A-z_0.9~:1"),
        (claim("a:b", "c"), "a%3Ab:c"),
        (claim("a", "b:c"), "a:b%3Ac"),
        (claim("a%3Ab", "c"), "a%253Ab:c"),
        (claim("acme/bob", "sha256=x"), "acme%2Fbob:sha256%3Dx"),
        (claim("ana maria", r#"'"\"#), "ana%20maria:%27%22%5C"),
        (claim("bob@example.org", "+"), "bob%40example.org:%2B"),
        (claim("é", "📱"), "%C3%A9:%F0%9F%93%B1"),
        (claim(&long, &longest), &format!("{long}:{longest}")),
        (claim(&long, &format!("{longest}y")), "sha256=vN6m0_6DTsgsG7-5ZXw22mfmxw1cTe-hb16fkwbBc9A"),
    ] {
        assert_eq!(name(&server, &[(CLAIM, &claim)]).await, expected, "{claim}");
    }
}

#[tokio::test]
async fn a_device_that_only_the_request_names_is_not_in_the_username() {
    let server = with_turn(&[]).await;
    let bob = r#"{"userid":"bob"}"#;
    assert_eq!(name(&server, &[(CLAIM, bob), ("x-signal-device", "laptop")]).await, "bob");
    // An identity that names its device is bound to it.
    let phone = claim("bob/phone");
    let other = [(CLAIM, phone.as_str()), ("x-signal-device", "laptop")];
    assert_eq!(over_http(&server, &other).await.status, 403);
    assert_eq!(over_grpc(&server, &other).await.expect_err("bound").code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_username_tells_equal_ids_of_two_tenants_apart_and_who_has_no_tenant_gets_none() {
    let permissions = ["--tenant-claim", "org", "--allow", "listed:contacts", "--service-claim", "backend"];
    let server = with_turn(&permissions).await;
    let of = |org: &str| json!({"userid": "bob", "clientid": "phone", "org": org}).to_string();
    for (claim, tenant, expected) in [
        (of("acme"), None, "acme/bob:phone"),
        (of("globex"), None, "globex/bob:phone"),
        (of("a/b"), None, "a%2Fb/bob:phone"),
        (r#"{"userid":"shop","backend":true}"#.to_owned(), Some("acme"), "acme/shop"),
    ] {
        let tenant = tenant.map(|tenant| ("x-signal-tenant", tenant));
        let headers: Vec<_> = [(CLAIM, claim.as_str())].into_iter().chain(tenant).collect();
        assert_eq!(name(&server, &headers).await, expected, "{claim}");
    }
    let acme = of("acme");
    for headers in [
        &[(CLAIM, r#"{"userid":"bob"}"#)][..],
        &[(CLAIM, r#"{"userid":"bob"}"#), ("x-signal-tenant", "acme")],
        &[(CLAIM, r#"{"userid":"shop","backend":true}"#)],
        &[(CLAIM, &acme), ("x-signal-tenant", "globex")],
    ] {
        let answer = over_http(&server, headers).await;
        assert_eq!((answer.status, answer.problem().as_str()), (403, "forbidden"), "{headers:?}");
        assert_eq!(
            over_grpc(&server, headers).await.expect_err("refused").code(),
            Code::PermissionDenied,
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn a_changed_secret_signs_the_next_credentials_and_an_unusable_one_leaves_the_one_before() {
    let secret = file("turn-secret", SECRET);
    let server = Server::with(&[&TURN[..], &["--turn-secret-file", &secret]].concat()).await;
    let bob = claim("bob/phone");
    let is_signed_with = async |secret: &str| {
        let turn = turn_server(&over_http(&server, &[(CLAIM, &bob)]).await);
        turn["credential"] == signature(secret, turn["username"].as_str().expect("a username"))
    };
    let reloads = |outcome: &str| format!("signal_turn_secret_reloads_total{{outcome=\"{outcome}\"}}");
    let (used, refused) = (reloads("used"), reloads("refused"));
    assert!(is_signed_with(SECRET).await);
    std::fs::write(&secret, "another secret of TURN servers").expect("writable");
    until(|| metric(&server, &used), |count| *count == 1).await;
    assert!(is_signed_with("another secret of TURN servers").await);
    std::fs::write(&secret, "").expect("writable");
    server.reload.request();
    until(|| metric(&server, &refused), |count| *count == 1).await;
    assert!(is_signed_with("another secret of TURN servers").await);
    std::fs::write(&secret, SECRET).expect("writable");
    server.reload.request();
    until(|| metric(&server, &used), |count| *count == 2).await;
    assert!(is_signed_with(SECRET).await);
}

#[tokio::test]
async fn a_pipe_as_the_file_of_the_secret_is_read_once_and_blocks_nothing_later() {
    let pipe = file("turn-pipe", "");
    std::fs::remove_file(&pipe).expect("there");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, SECRET).expect("a reader")
    });
    let server = Server::with(&[&TURN[..], &["--turn-secret-file", &pipe]].concat()).await;
    writer.join().expect("written");
    let bob = claim("bob/phone");
    // Before this answer no task listens for the request.
    assert_eq!(name(&server, &[(CLAIM, &bob)]).await, "bob:phone");
    server.reload.request();
    let used = "signal_turn_secret_reloads_total{outcome=\"used\"}";
    until(|| metric(&server, used), |count| *count == 1).await;
    assert_eq!(name(&server, &[(CLAIM, &bob)]).await, "bob:phone");
}
