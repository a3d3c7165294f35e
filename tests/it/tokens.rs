//! `--auth jwt`: which tokens are accepted, over which protocol, and where they may stand.

use axum::body::Body;
use backend_signal::grpc::proto::ListDevicesRequest;
use http::Request;
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{
    Connection, Process, Server, Sse, claim,
    http2::Http2,
    metric, routes,
    tokens::{
        self, OTHER_RSA, RSA, RSA_PUBLIC, SECRET, Signer, claims, encode, file, jwks, rsa_jwk, seconds_from_now, token,
    },
    within,
};

/// A daemon that verifies tokens with a secret.
async fn with_secret(options: &[&str]) -> Server {
    let secret = file("secret", SECRET);
    Server::with(&[&["--auth", "jwt", "--jwt-secret-file", &secret], options].concat()).await
}

/// A daemon with a JWKS of one RSA key with the id `a`, for the audience `signal` and the issuer `https://id.example`.
async fn with_key_set() -> Server {
    let set = file("jwks", jwks(&[rsa_jwk("a", RSA)]));
    // Space after a comma belongs to no name.
    let options = ["--jwt-audience", "other, signal", "--jwt-issuer", "https://elsewhere.example , https://id.example"];
    Server::with(&[&["--auth", "jwt", "--jwks", &set][..], &options].concat()).await
}

#[tokio::test]
async fn the_log_says_at_debug_which_check_refused_a_token_and_nothing_of_the_token() {
    let secret = file("secret", SECRET);
    let options =
        ["--auth", "jwt", "--jwt-secret-file", &secret, "--jwt-audience", "signal", "--jwt-issuer", "https://id"];
    let process = Process::start(&[&options[..], &["--log", "debug", "--tenant-claim", "org"]].concat());
    let valid =
        json!({"sub": "hidden", "org": "acme", "aud": "signal", "iss": "https://id", "exp": seconds_from_now(60)});
    let but = |name, value| with(&valid, name, value);
    let sign = |claims: &Value| Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), claims);
    let refused = [
        ("form", "hidden".to_owned()),
        ("signature", Signer::secret("another secret of at least 32 bytes").sign(&json!({"alg": "HS256"}), &valid)),
        ("alg", Signer::rsa().sign(&json!({"alg": "RS256"}), &valid)),
        ("aud", sign(&but("aud", json!("hidden")))),
        ("aud", sign(&but("aud", Value::Null))),
        ("iss", sign(&but("iss", json!("https://hidden")))),
        ("exp", sign(&but("exp", json!(seconds_from_now(-60))))),
        ("exp", sign(&but("exp", Value::Null))),
        ("nbf", sign(&but("nbf", json!(seconds_from_now(60))))),
        ("claims", sign(&but("org", json!(["hidden"])))),
    ];
    for (reason, token) in &refused {
        let bearer = format!("Bearer {token}");
        let mut connection = Connection::open(process.address).await;
        let answer = connection.request("GET /user/bob/devices", &[("authorization", &bearer)], b"").await;
        assert_eq!(answer.status, 401, "{reason}");
    }
    process.signal("TERM");
    let (_, log) = process.exited();
    let reasons = log.lines().filter_map(|line| line.split_once("token refused")?.1.split('"').nth(1));
    let reasons: Vec<_> = reasons.collect();
    assert_eq!(reasons, refused.each_ref().map(|(reason, _)| *reason), "{log}");
    assert!(!log.contains("hidden"), "{log}");
}

/// The statuses of a list over HTTP/1.1, of one over HTTP/2, and whether a gRPC call is UNAUTHENTICATED.
async fn ask(server: &Server, token: &str) -> [u16; 3] {
    let bearer = format!("Bearer {token}");
    let first = server.request("GET /user/bob/devices", &[("authorization", &bearer)], b"").await;
    if first.status == 401 {
        assert_eq!(first.problem(), "unauthenticated");
    }
    let mut second = Http2::open(server.address).await;
    let request = Request::get(second.uri("/user/bob/devices")).header("authorization", &bearer);
    let second = second.send(request.body(Body::empty()).expect("a request")).await;
    let mut request = tonic::Request::new(ListDevicesRequest { user: "bob".into() });
    request.metadata_mut().insert("authorization", bearer.parse().expect("ASCII"));
    let third = match within(server.grpc().await.list_devices(request)).await {
        Ok(_) => 200,
        Err(status) if status.code() == Code::Unauthenticated => 401,
        Err(status) => panic!("{status}"),
    };
    [first.status, second.status().as_u16(), third]
}

fn header() -> Value {
    json!({"alg": "RS256", "typ": "JWT", "kid": "a"})
}

fn valid() -> Value {
    json!({"sub": "ana", "aud": "signal", "iss": "https://id.example", "exp": seconds_from_now(60)})
}

/// The object with one more member, or with another value of it. `null` removes it.
fn with(object: &Value, name: &str, value: Value) -> Value {
    let mut object = object.clone();
    let members = object.as_object_mut().expect("an object");
    if value.is_null() {
        members.remove(name)
    } else {
        members.insert(name.to_owned(), value)
    };
    object
}

#[tokio::test]
async fn a_token_with_any_fault_is_401_over_every_protocol() {
    let server = with_key_set().await;
    let (signer, header, valid) = (Signer::rsa(), header(), valid());
    let good = signer.sign(&header, &valid);
    assert_eq!(ask(&server, &good).await, [200; 3]);
    let claim = |name: &str, value: Value| signer.sign(&header, &with(&valid, name, value));
    let head = |name: &str, value: Value| signer.sign(&with(&header, name, value), &valid);
    let [first, second, third]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let jwk = rsa_jwk("a", OTHER_RSA);
    let mut wrong = Vec::new();
    for (fault, bad) in [
        ("no algorithm", head("alg", json!("none"))),
        ("no algorithm, no signature", format!("{}.{second}.", encode(r#"{"alg":"none"}"#))),
        ("an unknown algorithm", head("alg", json!("RS257"))),
        ("the public key as a secret", Signer::secret(RSA_PUBLIC).sign(&with(&header, "alg", json!("HS256")), &valid)),
        ("another algorithm than the key's", head("alg", json!("PS256"))),
        ("another key", Signer::other_rsa().sign(&header, &valid)),
        ("an unknown key", head("kid", json!("b"))),
        ("a path as a key", head("kid", json!("../../../dev/null"))),
        ("a long id of a key", head("kid", json!("a".repeat(129)))),
        ("crit", head("crit", json!(["exp"]))),
        (
            "crit of something known",
            signer.sign(&with(&with(&header, "b64", json!(true)), "crit", json!(["b64"])), &valid),
        ),
        ("b64", head("b64", json!(false))),
        ("a URL of keys", head("jku", json!("https://evil.example/jwks"))),
        ("a URL of a certificate", head("x5u", json!("https://evil.example/key"))),
        ("its own key", Signer::other_rsa().sign(&with(&header, "jwk", jwk), &valid)),
        ("its own certificate", head("x5c", json!(["AAAA"]))),
        ("no end", claim("exp", Value::Null)),
        ("past", claim("exp", json!(seconds_from_now(-7)))),
        ("an end in 1960", claim("exp", json!(-300_000_000))),
        ("an end that is text", claim("exp", json!(seconds_from_now(60).to_string()))),
        ("an end twice", signer.sign_text(&header.to_string(), &valid.to_string().replacen('{', r#"{"exp":1,"#, 1))),
        ("not yet", claim("nbf", json!(seconds_from_now(20)))),
        ("a beginning that is text", claim("nbf", json!("0"))),
        ("no audience", claim("aud", Value::Null)),
        ("another audience", claim("aud", json!("elsewhere"))),
        ("other audiences", claim("aud", json!(["elsewhere", "Signal"]))),
        ("no issuer", claim("iss", Value::Null)),
        ("another issuer", claim("iss", json!("https://id.example/"))),
        ("no user", claim("sub", Value::Null)),
        ("a user that is not valid", claim("sub", json!(".."))),
        ("a userid that is not valid beside a sub", claim("userid", json!(""))),
        ("a device that is not valid", claim("clientid", json!([]))),
        ("an array of claims", signer.sign_text(&header.to_string(), r#"["bob"]"#)),
        ("claims that are not JSON", signer.sign_text(&header.to_string(), "{\"sub\":\"bob\"")),
        ("9 KiB", claim("x", json!("x".repeat(7_000)))),
        ("two parts", format!("{first}.{second}")),
        ("four parts", format!("{good}.{third}")),
        ("another payload", format!("{first}.{}.{third}", encode(valid.to_string().replace("ana", "eve")))),
        ("no signature", format!("{first}.{second}.")),
        ("white space in it", format!("{first}. {second}.{third}")),
        ("padding", format!("{first}.{second}.{third}=")),
        ("a word", "secret".to_owned()),
        ("nothing", String::new()),
    ] {
        let answers = ask(&server, &bad).await;
        wrong.extend((answers != [401; 3]).then_some((fault, answers)));
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(ask(&server, &good).await, [200; 3]);
}

#[tokio::test]
async fn a_token_whose_clock_is_5_s_off_is_accepted() {
    let (server, signer) = (with_key_set().await, Signer::rsa());
    for (claim, value) in [
        ("exp", json!(seconds_from_now(-2))),
        ("exp", json!(u64::MAX)),
        ("nbf", json!(seconds_from_now(3))),
        ("nbf", json!(-1)),
        ("aud", json!(["elsewhere", "signal"])),
    ] {
        let token = signer.sign(&header(), &with(&valid(), claim, value.clone()));
        assert_eq!(ask(&server, &token).await, [200; 3], "{claim} {value}");
    }
}

#[tokio::test]
async fn every_algorithm_verifies_with_a_key_of_its_family_and_with_no_other() {
    let generated = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &["ES256"][..]),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &["ES384"]),
        (&rcgen::PKCS_ED25519, &["EdDSA"]),
    ];
    let mut keys = vec![
        (
            Signer::secret(SECRET),
            "--jwt-secret-file",
            file("secret", format!("{SECRET}\n")),
            &["HS256", "HS384", "HS512"][..],
        ),
        (
            Signer::rsa(),
            "--jwt-public-key",
            file("rsa.pem", RSA_PUBLIC),
            &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        ),
    ];
    keys.extend(generated.map(|(kind, algorithms)| {
        let (signer, public) = Signer::generate(kind);
        (signer, "--jwt-public-key", file("public.pem", public), algorithms)
    }));
    let mut all = Vec::new();
    for (signer, _, _, algorithms) in &keys {
        all.extend(algorithms.iter().map(|algorithm| {
            // The id of a key says nothing where there is only one key.
            (*algorithm, signer.sign(&json!({"alg": algorithm, "kid": "any"}), &claims("bob/phone")))
        }));
    }
    for (_, option, key, algorithms) in &keys {
        let server = Server::with(&["--auth", "jwt", option, key]).await;
        for (algorithm, token) in &all {
            let expected = if algorithms.contains(algorithm) { 200 } else { 401 };
            let bearer = format!("Bearer {token}");
            let answer = server.request("GET /user/bob/devices", &[("authorization", &bearer)], b"").await;
            assert_eq!(answer.status, expected, "{algorithm} with {key}");
        }
        // Without an expected audience, a token for an audience is for somebody else (RFC 7519, section 4.1.3).
        let token = keys[0].0.sign(&json!({"alg": "HS256"}), &with(&claims("bob/phone"), "aud", json!("signal")));
        assert_eq!(ask(&server, &token).await, [401; 3]);
    }
}

#[tokio::test]
async fn tokens_as_well_known_issuers_make_them_work() {
    let set = file("jwks", jwks(&[json!({"kty": "oct"}), json!({"kty": "EC", "crv": "P-521"}), rsa_jwk("a", RSA)]));
    let (exp, signer) = (seconds_from_now(60), Signer::rsa());
    let key = file("rsa.pem", RSA_PUBLIC);
    let old = json!({"userid": "bob", "clientid": "phone", "iat": exp - 90, "exp": exp});
    let keycloak = json!({"exp": exp, "iat": exp - 300, "jti": "x", "iss": "https://id.example/realms/x", "aud": "signal",
        "sub": "f:1:bob", "typ": "Bearer", "azp": "app", "realm_access": {"roles": ["a"]}, "scope": "openid"});
    let auth0 = json!({"iss": "https://x.eu.auth0.com/", "sub": "auth0|bob", "aud": ["signal", "https://x.eu.auth0.com/userinfo"],
        "iat": exp - 300, "exp": exp, "azp": "app", "scope": "openid profile"});
    let firebase = json!({"iss": "https://securetoken.google.com/signal", "aud": "signal", "auth_time": exp - 300,
        "user_id": "bob", "sub": "bob", "iat": exp - 300, "exp": exp, "firebase": {"identities": {}, "sign_in_provider": "x"}});
    for (options, header, claims, user) in [
        (vec!["--jwt-public-key", &key], json!({"alg": "RS256", "typ": "JWT"}), old, "bob"),
        (
            vec!["--jwks", &set, "--jwt-audience", "signal"],
            json!({"alg": "RS256", "typ": "JWT", "kid": "a"}),
            keycloak,
            "f:1:bob",
        ),
        (
            vec!["--jwks", &set, "--jwt-audience", "signal"],
            json!({"alg": "RS256", "typ": "JWT", "kid": "a"}),
            auth0,
            "auth0|bob",
        ),
        (
            vec!["--jwks", &set, "--jwt-audience", "signal", "--jwt-issuer", "https://securetoken.google.com/signal"],
            json!({"alg": "RS256", "kid": "a", "typ": "JWT"}),
            firebase,
            "bob",
        ),
    ] {
        let device =
            if claims["clientid"].is_string() { claims.clone() } else { with(&claims, "clientid", json!("phone")) };
        let server = Server::with(&[&["--auth", "jwt"][..], &options].concat()).await;
        assert_eq!(ask(&server, &signer.sign(&header, &claims)).await, [200; 3], "{claims}");
        let path = format!("/subscribe?token={}", signer.sign(&header, &device));
        assert_eq!(Sse::open(server.address, &path, &[]).await.ready["user"], user);
    }
}

#[tokio::test]
async fn other_claims_may_name_the_user_and_the_device() {
    let server = with_secret(&["--jwt-user-claim", "https://x.example/user", "--jwt-device-claim", "dev"]).await;
    let exp = seconds_from_now(60);
    let claims = json!({"https://x.example/user": 7, "dev": "tv", "userid": "bob", "clientid": "phone", "exp": exp});
    let token = Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), &claims);
    let stream = Sse::open(server.address, &format!("/subscribe?token={token}"), &[]).await;
    assert_eq!((&stream.ready["user"], &stream.ready["device"]), (&json!("7"), &json!("tv")));
    assert_eq!(ask(&server, &tokens::token("bob/phone")).await, [401; 3], "without that claim");
}

#[tokio::test]
async fn the_first_place_that_has_a_token_decides_and_only_a_stream_may_have_it_in_its_url() {
    let server = with_secret(&["--token-cookie", "session"]).await;
    let (good, bad) = (token("bob/phone"), token("bob/phone") + "x");
    let bearer = |token: &str| format!("Bearer {token}");
    let cookie = |token: &str| format!("a=b; session={token}");
    // The format does not exist, so a valid identity gets 400 instead of a stream that stays open.
    let query = |token: &str| format!("GET /subscribe?format=none&token={token}");
    let plain = "GET /subscribe?format=none".to_owned();
    for (head, headers, status) in [
        (&plain, vec![("authorization", bearer(&good))], 400),
        (&plain, vec![("authorization", format!("bEARER   {good}"))], 400),
        (&plain, vec![("authorization", bearer(&bad))], 401),
        (&plain, vec![("authorization", "Basic YTpi".to_owned())], 401),
        (&plain, vec![("cookie", cookie(&good)), ("accept", "text/event-stream".to_owned())], 400),
        (
            &plain,
            vec![
                ("cookie", cookie(&good)),
                ("cookie", "session=".to_owned()),
                ("accept", "text/event-stream".to_owned()),
            ],
            401,
        ),
        (&query(&good), vec![], 400),
        (&query(&bad), vec![("cookie", cookie(&good))], 401),
        (&query(&good), vec![("cookie", cookie(&bad))], 400),
        (&query(&good), vec![("authorization", bearer(&bad))], 401),
        (&query(&bad), vec![("authorization", bearer(&good))], 400),
        (&query(&good), vec![("authorization", "Basic YTpi".to_owned())], 400),
        (&format!("GET /subscribe?format=none&token={good}&token={good}"), vec![], 401),
        (
            &"GET /subscribe?format=none&token=".to_owned(),
            vec![("cookie", cookie(&good)), ("accept", "text/event-stream".to_owned())],
            400,
        ),
        (&plain, vec![("x-user-claim", claim("bob/phone"))], 401),
        (&plain, vec![("authorization", bearer(&good)), ("x-user-claim", "no claim".to_owned())], 400),
        (&format!("GET /user/bob/devices?token={good}"), vec![], 401),
        (&format!("GET /user/bob/devices?token={good}"), vec![("accept", "text/html".to_owned())], 401),
        (&format!("POST /user/bob/device/phone?token={good}"), vec![("accept", "text/event-stream".to_owned())], 401),
        (&format!("POST /ticket?token={good}"), vec![("accept", "text/event-stream".to_owned())], 401),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(server.request(head, &headers, b"").await.status, status, "{head:.60} {headers:.40?}");
    }
}

#[tokio::test]
async fn every_route_needs_a_token_but_health_metrics_and_options() {
    let server = with_secret(&[]).await;
    for route in routes::routes() {
        assert_eq!(routes::answer(&server, &route, &[], "bob", "phone", "hi").await.status, 401, "{route}");
    }
    for head in ["POST /ticket", "GET /user/bob/devices", "GET /ice"] {
        let answer = server.request(head, &[], b"").await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthenticated"), "{head}");
        assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="backend-signal""#);
        assert!(answer.text().contains("Authorization: Bearer"), "{}", answer.text());
    }
    for (head, status) in [
        ("GET /healthz", 200),
        ("GET /readyz", 200),
        ("GET /metrics", 200),
        ("OPTIONS /subscribe", 204),
        ("OPTIONS /user/bob/devices", 204),
        ("HEAD /subscribe", 405),
    ] {
        assert_eq!(server.request(head, &[], b"").await.status, status, "{head}");
    }
    assert_eq!(metric(&server, "signal_refused_identities_total").await, 0, "an absent identity is no failed one");
    let bad = [("authorization", "Bearer x")];
    assert_eq!(server.request("GET /user/bob/devices", &bad, b"").await.status, 401);
    assert_eq!(metric(&server, "signal_refused_identities_total").await, 1);
}

#[tokio::test]
async fn trusted_proxies_refuse_nobody_who_has_a_token() {
    let server = with_secret(&["--trusted-proxies", "192.0.2.7"]).await;
    assert_eq!(ask(&server, &token("bob/phone")).await, [200; 3]);
}
