//! Callers that prove their identity with a client certificate.

use std::net::SocketAddr;

use axum::body::Body;
use backend_signal::grpc::proto::ListDevicesRequest;
use http::Request;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, DnValue, IsCa, KeyPair};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::{Code, transport::Channel};

use crate::{
    harness::{
        Connection, FORM, Process, Response, Server, Sse, claim,
        grpc::{Client, claimed, framed, message},
        http2::Http2,
        process,
        tokens::{SECRET, file, token},
        tunnel::{Tunnel, connector},
        within,
    },
    serve::tempfiles,
};

pub type Issuer = CertifiedIssuer<'static, KeyPair>;
pub type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

pub fn issuer() -> Issuer {
    issuer_named("Example CA")
}

fn issuer_named(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// A client certificate whose subject has these common names.
pub fn client(issuer: &Issuer, common_names: &[&str]) -> Identity {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // rcgen keeps one value of each type, so the second one has the same type as a custom one.
    let types = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
    for (kind, name) in types.into_iter().zip(common_names) {
        params.distinguished_name.push(kind, DnValue::Utf8String((*name).to_owned()));
    }
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
}

/// A client certificate that expired at the beginning of a year.
fn client_until(issuer: &Issuer, common_name: &str, year: i32) -> Identity {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
}

/// A server that asks for client certificates, and what its clients trust.
pub struct Asking {
    pub server: Server,
    root: CertificateDer<'static>,
}

impl Asking {
    pub async fn start(test: &str, issuer: &Issuer, options: &[&str]) -> Self {
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let [certificate, key] = tempfiles(test, &identity);
        let ca = format!("{}/{test}-ca.pem", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&ca, issuer.pem()).expect("writable");
        let tls = ["--tls-cert", &certificate, "--tls-key", &key, "--tls-client-ca", &ca];
        let server = Server::with(&[&tls, options].concat()).await;
        Self { server, root: identity.cert.der().clone() }
    }

    pub async fn tunnel(&self, client: Option<Identity>) -> Tunnel {
        Tunnel::open(self.server.address, connector(&self.root, client)).await
    }
}

async fn post(address: SocketAddr, headers: &[(&str, &str)]) -> Response {
    let headers = [&[("content-type", FORM)], headers].concat();
    Connection::open(address).await.request("POST /user/bob/device/phone", &headers, b"data=x").await
}

async fn post_http2(address: SocketAddr, headers: &[(&str, &str)]) -> u16 {
    let mut client = Http2::open(address).await;
    let mut request = Request::post(client.uri("/user/bob/device/phone")).header("content-type", FORM);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request.body(Body::from("data=x")).expect("a request")).await.status().as_u16()
}

async fn grpc(address: SocketAddr) -> Client {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URI");
    Client::new(within(endpoint.connect()).await.expect("listens"))
}

#[tokio::test]
async fn a_certificate_is_the_identity_of_a_caller_that_has_no_other() {
    let issuer = issuer();
    let asking = Asking::start("client-identity", &issuer, &["--require-claim", "all"]).await;
    let (backend, nobody) = (asking.tunnel(Some(client(&issuer, &["back end"]))).await, asking.tunnel(None).await);
    let subscribe = [("x-user-claim", &*claim("bob/phone"))];
    let mut phone = Sse::open(nobody.address, "/subscribe?format=envelope", &subscribe).await;
    let sender = |event: String| serde_json::from_str::<serde_json::Value>(&event).expect("JSON")["from"].clone();
    let certified = serde_json::json!({"user": "cert:back end", "device": null});

    assert_eq!(post(backend.address, &[]).await.status, 200);
    assert_eq!(sender(phone.data().await), certified, "over HTTP/1.1");
    assert_eq!(post_http2(backend.address, &[]).await, 200);
    assert_eq!(sender(phone.data().await), certified, "over HTTP/2");
    within(grpc(backend.address).await.send(message("bob/phone", "", "x"))).await.expect("sent");
    assert_eq!(sender(phone.data().await), certified, "over gRPC");
    let devices = Connection::open(backend.address).await.request("GET /user/bob/devices", &[], b"").await;
    assert_eq!((devices.status, devices.text().as_str()), (200, r#"["phone"]"#));

    // It has no device of its own, so the request names one.
    let events = [("accept", "text/event-stream")];
    let unnamed = Connection::open(backend.address).await.request("GET /subscribe", &events, b"").await;
    assert_eq!((unnamed.status, unnamed.problem().as_str()), (400, "no_device"));
    let mut service = Sse::open(backend.address, "/subscribe?device=one", &events).await;
    assert_eq!(service.ready["user"], "cert:back end");
    let head = "POST /user/cert:back%20end/device/one";
    let headers = [("content-type", FORM), subscribe[0]];
    assert_eq!(Connection::open(nobody.address).await.request(head, &headers, b"data=hello").await.status, 200);
    assert_eq!(service.data().await, "hello");

    // A claim wins over the certificate, also a claim that is not valid: that is 401.
    assert_eq!(post(backend.address, &[("x-user-claim", &claim("ana/laptop"))]).await.status, 200);
    assert_eq!(sender(phone.data().await), serde_json::json!({"user": "ana", "device": "laptop"}));
    assert_eq!(post(backend.address, &[("x-user-claim", "no claim")]).await.status, 401);

    // A client without a certificate is served, too.
    let absent = post(nobody.address, &[]).await;
    assert_eq!((absent.status, absent.problem().as_str()), (401, "unauthenticated"));
    assert_eq!(post_http2(nobody.address, &[]).await, 401);
    let listed = within(grpc(nobody.address).await.list_devices(ListDevicesRequest { user: "bob".into() })).await;
    assert_eq!(listed.expect_err("no identity").code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_certificate_that_does_not_name_one_user_is_a_failed_identity() {
    let issuer = issuer();
    let asking = Asking::start("client-names", &issuer, &["--auth", "claim"]).await;
    // Sending requires no identity here, so 401 is not for an absent one.
    let nobody = asking.tunnel(None).await;
    assert_eq!(post(nobody.address, &[]).await.status, 404);
    let too_long = "x".repeat(252);
    let table: [(&[&str], u16); _] = [
        (&["backend"], 404),
        (&[&too_long[1..]], 404),
        (&[], 401),
        (&["one", "two"], 401),
        (&["same", "same"], 401),
        (&[""], 401),
        (&["a\nb"], 401),
        (&["a\0b"], 401),
        (&[&too_long], 401),
    ];
    for (names, status) in table {
        let tunnel = asking.tunnel(Some(client(&issuer, names))).await;
        assert_eq!(post(tunnel.address, &[]).await.status, status, "{names:?} over HTTP/1.1");
        assert_eq!(post_http2(tunnel.address, &[]).await, status, "{names:?} over HTTP/2");
        let sent = within(grpc(tunnel.address).await.send(message("bob/phone", "", "x"))).await;
        let code = if status == 401 { Code::Unauthenticated } else { Code::NotFound };
        assert_eq!(sent.expect_err("nobody is connected").code(), code, "{names:?} over gRPC");
        let web = [("content-type", "application/grpc-web+proto")];
        let body = framed(&ListDevicesRequest { user: "bob".into() });
        let listed = Connection::open(tunnel.address).await;
        let listed = { listed }.request("POST /backend_signal.v1.Signal/ListDevices", &web, &body).await;
        let refused = listed.header("grpc-status") == (Code::Unauthenticated as u8).to_string();
        assert_eq!(refused, status == 401, "{names:?} over gRPC-Web: {listed:?}");
    }
}

#[tokio::test]
async fn no_claim_gives_a_user_that_only_a_certificate_can_give() {
    let issuer = issuer();
    let asking = Asking::start("client-reserved", &issuer, &[]).await;
    for certificate in [None, Some(client(&issuer, &["backend"]))] {
        let tunnel = asking.tunnel(certificate).await;
        for (device, status) in
            [("cert:backend/phone", 401), ("cert:/phone", 401), ("certain/phone", 404), ("CERT:x/y", 404)]
        {
            let claims = [("x-user-claim", &*claim(device))];
            assert_eq!(post(tunnel.address, &claims).await.status, status, "{device}");
            assert_eq!(post_http2(tunnel.address, &claims).await, status, "{device} over HTTP/2");
            let sent = within(grpc(tunnel.address).await.send(claimed(device, message("bob/phone", "", "x")))).await;
            let code = if status == 401 { Code::Unauthenticated } else { Code::NotFound };
            assert_eq!(sent.expect_err("nobody is connected").code(), code, "{device} over gRPC");
        }
    }
}

#[tokio::test]
async fn a_user_that_only_a_certificate_can_give_cannot_be_named_with_auth_none_either() {
    let issuer = issuer();
    let asking = Asking::start("client-named", &issuer, &["--auth", "none"]).await;
    let (backend, nobody) = (asking.tunnel(Some(client(&issuer, &["backend"]))).await, asking.tunnel(None).await);
    for (tunnel, user, refused) in [
        (&nobody, "cert:backend", true),
        (&nobody, "cert:", true),
        (&backend, "cert:other", true),
        (&backend, "cert:backend", false),
        (&backend, "bob", false),
        (&nobody, "certain", false),
    ] {
        let at = async |head: &str| Connection::open(tunnel.address).await.request(head, &[], b"").await.status;
        let expected = |passes| if refused { 401 } else { passes };
        let posted = at(&format!("POST /user/bob/device/phone?user={user}")).await;
        assert_eq!(posted, expected(400), "a message without data of {user}");
        assert_eq!(at(&format!("GET /user/bob/devices?user={user}")).await, expected(200), "a list for {user}");
        for head in [format!("GET /subscribe?device=one&user={user}"), format!("GET /subscribe/{user}/device/one")] {
            let mut connection = Connection::open(tunnel.address).await;
            connection.ask(&head, &[]).await;
            assert_eq!(connection.head().await.status, expected(200), "{head}");
        }
    }
    // The users of this list are not callers.
    assert_eq!(Connection::open(nobody.address).await.request("GET /devices?user=cert:a", &[], b"").await.status, 200);
}

#[tokio::test]
async fn pages_of_other_sites_cannot_use_the_certificate_of_their_visitor() {
    let issuer = issuer();
    let asking = Asking::start("client-cross-site", &issuer, &[]).await;
    let (backend, nobody) = (asking.tunnel(Some(client(&issuer, &["backend"]))).await, asking.tunnel(None).await);
    let (form, events, grpc) = (("content-type", FORM), ("accept", "text/event-stream"), GRPC);
    let list = framed(&ListDevicesRequest { user: "bob".into() });
    let requests: [Case; _] = [
        ("POST /user/bob/device/phone", form, b"data=x", 404),
        ("GET /subscribe?device=one", events, b"", 200),
        ("GET /user/bob/devices", events, b"", 200),
        ("GET /devices?user=bob", events, b"", 200),
        ("POST /backend_signal.v1.Signal/ListDevices", grpc, &list, 200),
    ];
    let evil = ("origin", "https://evil.example");
    let sites: [(&[(&str, &str)], bool); _] = [
        (&[], true),
        (&[("sec-fetch-site", "same-origin")], true),
        (&[("sec-fetch-site", "cross-site")], false),
        (&[("sec-fetch-site", "same-site"), evil], false),
        (&[evil], false),
    ];
    for (head, kind, body, status) in requests {
        for (site, passes) in sites {
            let mut connection = Connection::open(backend.address).await;
            let length = body.len().to_string();
            connection.ask(head, &[&[kind, ("content-length", &length)], site].concat()).await;
            connection.write(body).await;
            let answer = connection.head().await;
            let is_grpc = kind == GRPC;
            let expected = if passes || is_grpc { status } else { 403 };
            assert_eq!(answer.status, expected, "{head} {site:?}");
            let denied = (Code::PermissionDenied as u8).to_string();
            assert_eq!(answer.header("grpc-status") == denied, is_grpc && !passes, "{head} {site:?}");
        }
    }
    // Without a certificate and with a claim that a proxy sets, pages are not checked: the operator lists origins.
    let claimed = [("x-user-claim", &*claim("ana/laptop")), ("sec-fetch-site", "cross-site")];
    assert_eq!(post(nobody.address, &claimed).await.status, 404);
    // With a certificate, too, when a claim comes first: then the browser did not add the identity.
    assert_eq!(post(backend.address, &claimed).await.status, 404);
}

/// Method and path, a header, the body, and the status when it passes.
type Case<'a> = (&'static str, (&'static str, &'static str), &'a [u8], u16);

const GRPC: (&str, &str) = ("content-type", "application/grpc-web+proto");

#[tokio::test]
async fn a_certificate_of_another_authority_gets_no_connection() {
    let (issuer, other) = (issuer(), issuer());
    let asking = Asking::start("client-other", &issuer, &[]).await;
    let stranger = asking.tunnel(Some(client(&other, &["backend"]))).await;
    let mut connection = Connection::open(stranger.address).await;
    connection.ask("GET /healthz", &[]).await;
    assert_eq!(connection.closed().await, b"");
}

#[tokio::test]
async fn a_refused_certificate_is_a_warning_with_the_reason_and_without_its_owner() {
    let (issuer, anew, other) = (issuer(), issuer(), issuer_named("Other CA"));
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let [certificate, key] = tempfiles("client-refused", &identity);
    let ca = file("ca.pem", issuer.pem());
    for (refused, reason) in [
        (client(&other, &["s3cret"]), "none of the known authorities"),
        (client(&anew, &["s3cret"]), "another authority with a known name"),
        (client_until(&issuer, "s3cret", 2020), "it has expired"),
    ] {
        let options = ["--tls-cert", &certificate, "--tls-key", &key, "--tls-client-ca", &ca, "--drain-window", "1"];
        let daemon = Process::start(&options);
        let stranger = Tunnel::open(daemon.address, connector(identity.cert.der(), Some(refused))).await;
        for _ in 0..3 {
            let mut connection = Connection::open(stranger.address).await;
            connection.ask("GET /healthz", &[]).await;
            assert_eq!(connection.closed().await, b"");
        }
        daemon.signal("TERM");
        let (_, log) = daemon.exited();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("a client certificate was refused")).collect();
        assert!(lines.first().is_some_and(|line| line.contains("WARN") && line.contains(reason)), "{log}");
        assert!(!log.contains("s3cret"), "{log}");
    }
}

#[tokio::test]
async fn a_certificate_needs_no_proxy_and_a_claim_still_does() {
    let issuer = issuer();
    let options = ["--trusted-proxies", "192.0.2.0/24", "--require-claim", "all"];
    let asking = Asking::start("client-proxies", &issuer, &options).await;
    let (backend, nobody) = (asking.tunnel(Some(client(&issuer, &["backend"]))).await, asking.tunnel(None).await);
    assert_eq!(post(backend.address, &[]).await.status, 404);
    for tunnel in [&backend, &nobody] {
        assert_eq!(post(tunnel.address, &[("x-user-claim", &claim("ana/laptop"))]).await.status, 401);
    }
    assert_eq!(post(nobody.address, &[]).await.status, 401);
}

#[test]
fn an_authority_that_cannot_be_read_is_one_line_that_names_the_option() {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let [certificate, key] = tempfiles("client-ca-faults", &identity);
    let nowhere = format!("{}/no-such-ca.pem", env!("CARGO_TARGET_TMPDIR"));
    for (ca, reason) in [(&nowhere, "No such file"), (&key, "no certificate, but a private key")] {
        let options = ["check-config", "--tls-cert", &certificate, "--tls-key", &key, "--tls-client-ca", ca];
        let (code, _, log) = process::run(&options);
        assert_eq!((code, log.lines().count()), (Some(2), 1), "{log}");
        assert!(log.contains(&format!("--tls-client-ca: {ca}: ")) && log.contains(reason), "{log}");
    }
}

#[tokio::test]
async fn with_tokens_a_certificate_is_the_identity_of_a_caller_without_a_token() {
    let issuer = issuer();
    let secret = file("secret", SECRET);
    let asking = Asking::start("client-tokens", &issuer, &["--auth", "jwt", "--jwt-secret-file", &secret]).await;
    let (backend, nobody) = (asking.tunnel(Some(client(&issuer, &["backend"]))).await, asking.tunnel(None).await);
    let bearer = |token: &str| format!("Bearer {token}");
    let [good, bad, reserved] =
        [token("ana/laptop"), "x".to_owned(), token("cert:backend/x")].map(|text| bearer(&text));
    // What answers without a certificate, and with one.
    for (token, status) in
        [(None, [401, 404]), (Some(&good), [404; 2]), (Some(&bad), [401; 2]), (Some(&reserved), [401; 2])]
    {
        let headers: Vec<_> = token.map(|token| ("authorization", token.as_str())).into_iter().collect();
        for (tunnel, status) in [&nobody, &backend].into_iter().zip(status) {
            assert_eq!(post(tunnel.address, &headers).await.status, status, "{token:?}");
            assert_eq!(post_http2(tunnel.address, &headers).await, status, "{token:?} over HTTP/2");
        }
        // A ticket is for the caller of a token.
        let ticket = Connection::open(backend.address).await.request("POST /ticket", &headers, b"").await;
        assert_eq!(ticket.status, if token == Some(&good) { 200 } else { 401 }, "{token:?}");
    }
}

#[tokio::test]
async fn a_certificate_names_the_tenant_that_it_acts_in() {
    let issuer = issuer();
    let asking = Asking::start("client-tenant", &issuer, &["--tenant-claim", "org"]).await;
    let (backend, nobody) = (asking.tunnel(Some(client(&issuer, &["backend"]))).await, asking.tunnel(None).await);
    let bob = [("x-user-claim", r#"{"userid":"bob","clientid":"phone","org":"acme"}"#)];
    let mut phone = Sse::open(nobody.address, "/subscribe", &bob).await;
    for (tenant, status) in [(None, 403), (Some("globex"), 404), (Some("acme"), 200)] {
        let headers: Vec<_> = tenant.map(|tenant| ("x-signal-tenant", tenant)).into_iter().collect();
        assert_eq!(post(backend.address, &headers).await.status, status, "{tenant:?}");
    }
    assert_eq!(phone.data().await, "x");
}
