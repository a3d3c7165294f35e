//! Where the keys of tokens come from: files that change, and a key set at an https URL that rotates or fails.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, rustls};

use crate::harness::{
    Connection, Process, Response, Server, Sse, metric, process,
    tokens::{
        OTHER_RSA, OTHER_RSA_PUBLIC, RSA, RSA_PUBLIC, SECRET, Signer, encode, file, jwks, rsa_jwk, seconds_from_now,
        token,
    },
    until,
};

/// The id of a key, and the key with this id.
type WeakKey = (&'static str, fn(&str) -> Value);

/// Keys of a set with which no token is safe, or none can be verified.
const WEAK: [WeakKey; 7] = [
    ("secret", |id| json!({"kty": "oct", "kid": id, "k": encode([7; 31])})),
    ("modulus", |id| json!({"kty": "RSA", "kid": id, "n": encode([0xff; 255]), "e": "AQAB"})),
    ("padding", |id| json!({"kty": "RSA", "kid": id, "n": encode([&[0; 1][..], &[0xff; 255]].concat()), "e": "AQAB"})),
    ("huge", |id| json!({"kty": "RSA", "kid": id, "n": encode([0xff; 1_025]), "e": "AQAB"})),
    ("exponent", |id| json!({"kty": "RSA", "kid": id, "n": encode([0xff; 256]), "e": "AQ"})),
    ("point", |id| json!({"kty": "EC", "crv": "P-256", "kid": id, "x": encode([1; 31]), "y": encode([1; 31])})),
    ("ed25519", |id| json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode([1; 31])})),
];

/// A token of `bob/phone` for the audience `signal`, signed with a key of a set.
fn signed(signer: &Signer, key: &str) -> String {
    let claims = json!({"userid": "bob", "clientid": "phone", "aud": "signal", "exp": seconds_from_now(60)});
    signer.sign(&json!({"alg": "RS256", "kid": key}), &claims)
}

async fn list(address: SocketAddr, token: &str) -> Response {
    let bearer = format!("Bearer {token}");
    Connection::open(address).await.request("GET /user/bob/devices", &[("authorization", &bearer)], b"").await
}

#[test]
fn options_of_tokens_that_cannot_work_are_one_line_at_the_start() {
    let [secret, rsa, private] =
        [("secret", SECRET), ("rsa.pem", RSA_PUBLIC), ("private.pem", RSA)].map(|(name, content)| file(name, content));
    let set = file("set", jwks(&[rsa_jwk("a", RSA)]));
    let short = file("short", "31 bytes are too few for HS256.");
    let short_with_end = file("short", "31 bytes are too few for HS256.\n");
    let empty = file("empty", "");
    let large = file("large", vec![b' '; 64 * 1024 + 1]);
    let other_curve = file("curve.pem", include_str!("keys/other-curve.pub.pem"));
    let short_rsa = file("short.pem", include_str!("keys/short-rsa.pub.pem"));
    let no_keys = file("no-keys", jwks(&[]));
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate").cert.pem();
    let certificate = file("certificate.pem", certificate);
    let bare_key = file("bare-key", rsa_jwk("a", RSA).to_string());
    let encryption = file("encryption", {
        let mut key = rsa_jwk("a", RSA);
        key["use"] = Value::from("enc");
        jwks(&[key])
    });
    let weak = file("weak", jwks(&WEAK.map(|(id, key)| key(id))));
    let long_der = file("long-der.pem", include_str!("keys/rsa-1984.pub.pem"));
    let audience = ["--jwt-audience", "signal"];
    for (options, reason) in [
        (vec!["--auth", "jwt"], "--jwt-secret-file, --jwt-public-key or --jwks"),
        (vec!["--auth", "jwt", "--jwt-secret-file", &secret, "--jwt-public-key", &rsa], "only one of"),
        (vec!["--auth", "jwt", "--jwks", &set], "--jwt-audience"),
        (vec!["--jwt-secret-file", &secret], "--auth jwt"),
        (vec!["--auth", "none", "--token-cookie", "a"], "--auth jwt"),
        (vec!["--auth", "jwt", "--jwt-secret-file", &short], "32 bytes"),
        (vec!["--auth", "jwt", "--jwt-secret-file", &short_with_end], "32 bytes"),
        (vec!["--auth", "jwt", "--jwt-secret-file", &empty], &empty),
        (vec!["--auth", "jwt", "--jwt-secret-file", &large], "64 KiB"),
        (vec!["--auth", "jwt", "--jwt-secret-file", "/no/such/file"], "/no/such/file: No such file"),
        (vec!["--auth", "jwt", "--jwt-secret-file", &secret, "--ticket-key-file", &short], &short),
        (vec!["--auth", "jwt", "--jwt-secret-file", &secret, "--ticket-key-file", "/no/such/file"], "/no/such/file"),
        (vec!["--auth", "jwt", "--jwt-secret-file", &secret, "--token-cookie", "a b"], "cookie"),
        (vec!["--auth", "jwt", "--jwt-secret-file", &secret, "--jwt-issuer", ""], "empty"),
        (vec!["--auth", "jwt", "--jwt-public-key", &secret], "not a public key in PEM"),
        (vec!["--auth", "jwt", "--jwt-public-key", &private], "private"),
        (vec!["--auth", "jwt", "--jwt-public-key", &certificate], "openssl x509 -pubkey -noout"),
        (vec!["--auth", "jwt", "--jwt-public-key", &other_curve], "P-256"),
        (vec!["--auth", "jwt", "--jwt-public-key", &short_rsa], "2048 to 8192 bits"),
        (vec!["--auth", "jwt", "--jwt-public-key", &long_der], "2048 to 8192 bits"),
        ([&["--auth", "jwt", "--jwks", &weak][..], &audience].concat(), "no key"),
        ([&["--auth", "jwt", "--jwks", &no_keys][..], &audience].concat(), "no key"),
        ([&["--auth", "jwt", "--jwks", &bare_key][..], &audience].concat(), r#"{"keys":[...]}"#),
        ([&["--auth", "jwt", "--jwks", &encryption][..], &audience].concat(), "no key"),
        ([&["--auth", "jwt", "--jwks", &rsa][..], &audience].concat(), "not a JSON Web Key Set"),
        ([&["--auth", "jwt", "--jwks", "http://id.example/keys"][..], &audience].concat(), "https"),
        ([&["--auth", "jwt", "--jwks", "https://"][..], &audience].concat(), "https URL"),
    ] {
        let (code, _, log) = process::run(&[&["--port", "0", "--host", "127.0.0.1"][..], &options].concat());
        assert_eq!((code, log.lines().count()), (Some(2), 1), "{options:?}: {log}");
        assert!(log.contains(reason), "{options:?}: {log}");
        assert!(!log.contains("31 bytes are too few"), "a secret in the log: {log}");
    }
}

#[tokio::test]
async fn a_key_file_is_read_again_when_it_changes_and_a_bad_one_leaves_the_keys() {
    let (old, new) = (Signer::rsa(), Signer::other_rsa());
    let pem = file("key.pem", RSA_PUBLIC);
    let plain = |signer: &Signer| {
        let claims = json!({"userid": "bob", "clientid": "phone", "exp": seconds_from_now(60)});
        signer.sign(&json!({"alg": "RS256"}), &claims)
    };
    let server = Server::with(&["--auth", "jwt", "--jwt-public-key", &pem]).await;
    assert_eq!(list(server.address, &plain(&old)).await.status, 200);
    std::fs::write(&pem, OTHER_RSA_PUBLIC).expect("writable");
    let newer = plain(&new);
    until(|| list(server.address, &newer), |answer| answer.status == 200).await;
    assert_eq!(list(server.address, &plain(&old)).await.status, 401);
    std::fs::write(&pem, "-----BEGIN PUBLIC KEY-----\n").expect("writable");
    // Serves as a clock: when the change of this file is noticed, the bad file was checked, too.
    let secret = file("secret", SECRET);
    let other = Server::with(&["--auth", "jwt", "--jwt-secret-file", &secret]).await;
    std::fs::write(&secret, "another secret of at least 32 bytes").expect("writable");
    let bob = token("bob/phone");
    until(|| list(other.address, &bob), |answer| answer.status == 401).await;
    assert_eq!(list(server.address, &plain(&new)).await.status, 200);
}

#[tokio::test]
async fn a_secret_in_a_key_set_needs_32_bytes_as_one_in_a_file_does() {
    let secret = |bytes: usize| json!({"kty": "oct", "kid": bytes.to_string(), "k": encode(vec![7; bytes])});
    let set = file("set", jwks(&[secret(31), secret(32)]));
    let server = Server::with(&["--auth", "jwt", "--jwks", &set, "--jwt-audience", "signal"]).await;
    for (bytes, status) in [(31, 401), (32, 200)] {
        let claims = json!({"userid": "bob", "aud": "signal", "exp": seconds_from_now(60)});
        let token = Signer::secret(vec![7; bytes]).sign(&json!({"alg": "HS256", "kid": bytes.to_string()}), &claims);
        assert_eq!(list(server.address, &token).await.status, status, "{bytes} bytes");
    }
}

#[tokio::test]
async fn a_token_that_names_no_key_is_tried_with_the_first_8_keys_of_its_kind_and_a_start_says_so() {
    let secret = |id: u8| json!({"kty": "oct", "kid": id.to_string(), "k": encode([id; 32])});
    let others = vec![rsa_jwk("rsa", RSA); 8];
    let keys: Vec<_> = others.into_iter().chain((0..10).map(secret)).collect();
    let set = file("set", jwks(&keys));
    let options = ["--auth", "jwt", "--jwks", &set, "--jwt-audience", "signal"];
    let server = Server::with(&options).await;
    for (id, named, status) in [(0, false, 200), (7, false, 200), (8, false, 401), (8, true, 200), (9, true, 200)] {
        let claims = json!({"userid": "bob", "aud": "signal", "exp": seconds_from_now(60)});
        let mut header = json!({"alg": "HS256"});
        if named {
            header["kid"] = Value::from(id.to_string());
        }
        let token = Signer::secret([id; 32]).sign(&header, &claims);
        assert_eq!(list(server.address, &token).await.status, status, "key {id}, named: {named}");
    }
    let few = file("set", jwks(&keys[..16]));
    for (set, warnings) in [(&set, 1), (&few, 0)] {
        let (code, _, log) = process::run(
            &[&["check-config", "--host", "127.0.0.1", "--jwks", set][..], &options[..2], &options[4..]].concat(),
        );
        assert_eq!((code, log.matches("only the first 8").count()), (Some(0), warnings), "{log}");
    }
    let many: Vec<_> = (0..=255).map(secret).chain([rsa_jwk("rsa", RSA)]).collect();
    let many = file("set", jwks(&many));
    let (code, _, log) = process::run(&[&["check-config", "--jwks", &many][..], &options[..2], &options[4..]].concat());
    assert!(code == Some(2) && log.contains("more than 256 keys"), "{log}");
}

#[tokio::test]
async fn in_a_drain_an_unknown_key_is_503_at_once_and_no_failed_identity() {
    let set = file("set", jwks(&[rsa_jwk("a", RSA)]));
    let options = ["--auth", "jwt", "--jwks", &set, "--jwt-audience", "signal", "--drain-window", "20"];
    let server = Server::with(&options).await;
    // Keeps the daemon from stopping at once.
    let open = Sse::open(server.address, &format!("/subscribe?token={}", signed(&Signer::rsa(), "a")), &[]).await;
    let mut connection = Connection::open(server.address).await;
    assert_eq!(connection.request("GET /readyz", &[], b"").await.status, 200);
    server.drain.start();
    let mut connection = Connection::open(server.address).await;
    let bearer = format!("Bearer {}", signed(&Signer::other_rsa(), "new"));
    let answer = connection.request("GET /user/bob/devices", &[("authorization", &bearer)], b"").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "draining"));
    assert_eq!(metric(&server, "signal_refused_identities_total").await, 0);
    drop(open);
}

#[tokio::test]
async fn a_key_that_is_new_in_the_file_is_found_by_the_first_token_that_names_it() {
    let (a, b) = (Signer::rsa(), Signer::other_rsa());
    let set = file("set", jwks(&[rsa_jwk("a", RSA)]));
    let server = Server::with(&["--auth", "jwt", "--jwks", &set, "--jwt-audience", "signal"]).await;
    assert_eq!(list(server.address, &signed(&a, "a")).await.status, 200);
    // A replaced file, as Kubernetes and editors write it.
    let next = file("set", jwks(&[rsa_jwk("a", RSA), rsa_jwk("b", OTHER_RSA)]));
    std::fs::rename(next, &set).expect("the same folder");
    // Any status but 200 would end an EventSource for good.
    let path = format!("/subscribe?token={}", signed(&b, "b"));
    assert_eq!(Sse::open(server.address, &path, &[]).await.ready["user"], "bob");
    assert_eq!(list(server.address, &signed(&a, "a")).await.status, 200);
    // The wrong key for an id, and a token without an id.
    assert_eq!(list(server.address, &signed(&b, "a")).await.status, 401);
    let claims = json!({"sub": "bob", "aud": "signal", "exp": seconds_from_now(60)});
    assert_eq!(list(server.address, &b.sign(&json!({"alg": "RS256"}), &claims)).await.status, 200);
}

/// What a server of a key set answers.
#[derive(Clone)]
enum Answer {
    /// These bytes, and then the end of the connection.
    Bytes(Vec<u8>),
    /// Nothing.
    Silence,
}

/// A server of a key set over TLS.
struct KeyServer {
    url: String,
    /// The file with its authority.
    authority: String,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<AtomicUsize>,
}

impl KeyServer {
    async fn start(answer: Answer) -> Self {
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(identity.signing_key.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![identity.cert.der().clone()], key)
            .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}/keys", listener.local_addr().expect("an address").port());
        let authority = file("authority.pem", identity.cert.pem());
        let (answer, requests) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let server = Self { url, authority, answer: answer.clone(), requests: requests.clone() };
        tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let (acceptor, answer, requests) = (acceptor.clone(), answer.clone(), requests.clone());
                tokio::spawn(async move {
                    let Ok(socket) = acceptor.accept(socket).await else { return };
                    requests.fetch_add(1, Ordering::SeqCst);
                    let answer = answer.lock().expect("no panic").clone();
                    respond(socket, answer).await;
                });
            }
        });
        server
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock().expect("no panic") = answer;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// A daemon with these keys.
    fn daemon(&self) -> Process {
        let mut command = process::command();
        command.env("SSL_CERT_FILE", &self.authority).args(["--port", "0", "--host", "127.0.0.1"]);
        command.args(["--auth", "jwt", "--jwks", &self.url, "--jwt-audience", "signal"]);
        Process::spawn(&mut command)
    }
}

async fn respond(mut socket: impl AsyncRead + AsyncWrite + Unpin, answer: Answer) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    match answer {
        // The daemon may close before it has read all.
        Answer::Bytes(bytes) => drop(socket.write_all(&bytes).await),
        Answer::Silence => std::future::pending().await,
    }
    let _ = socket.shutdown().await;
}

fn ok(body: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

#[tokio::test]
async fn a_key_set_that_rotates_is_fetched_when_a_token_names_a_new_key_but_not_for_every_invented_one() {
    let (a, b) = (Signer::rsa(), Signer::other_rsa());
    let keys =
        KeyServer::start(ok(&jwks(&[rsa_jwk("a", RSA), json!({"kty": "oct", "kid": "public", "k": "AAAA"})]))).await;
    let daemon = keys.daemon();
    assert_eq!(list(daemon.address, &signed(&a, "a")).await.status, 200, "it waits for the first fetch");
    assert_eq!(keys.requests(), 1);
    keys.set(ok(&jwks(&[rsa_jwk("b", OTHER_RSA)])));
    let path = format!("/subscribe?token={}", signed(&b, "b"));
    assert_eq!(Sse::open(daemon.address, &path, &[]).await.ready["user"], "bob");
    assert_eq!(keys.requests(), 2);
    assert_eq!(list(daemon.address, &signed(&a, "a")).await.status, 401, "a removed key stops");
    for id in 0..20 {
        assert_eq!(list(daemon.address, &signed(&a, &id.to_string())).await.status, 401);
    }
    let everybody_knows = Signer::secret([0; 3]).sign(&json!({"alg": "HS256", "kid": "public"}), &json!({}));
    assert_eq!(list(daemon.address, &everybody_knows).await.status, 401);
    assert_eq!(keys.requests(), 2);
    assert_eq!(list(daemon.address, &signed(&b, "b")).await.status, 200);
}

/// How many times the keys were read again, and used or not.
async fn refreshes(address: SocketAddr) -> [String; 2] {
    let metrics = Connection::open(address).await.request("GET /metrics", &[], b"").await.text();
    ["used", "refused"].map(|outcome| {
        let name = format!("signal_key_refreshes_total{{outcome=\"{outcome}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("absent").to_owned()
    })
}

#[tokio::test]
async fn sighup_has_the_keys_read_again_at_once() {
    let (a, b) = (Signer::rsa(), Signer::other_rsa());
    let keys = KeyServer::start(ok(&jwks(&[rsa_jwk("a", RSA)]))).await;
    let daemon = keys.daemon();
    assert_eq!(list(daemon.address, &signed(&a, "a")).await.status, 200);
    assert_eq!(refreshes(daemon.address).await, ["1", "0"]);
    keys.set(ok(&jwks(&[rsa_jwk("b", OTHER_RSA)])));
    daemon.signal("HUP");
    until(|| refreshes(daemon.address), |counts| *counts == ["2", "0"]).await;
    assert_eq!(keys.requests(), 2);
    assert_eq!(list(daemon.address, &signed(&a, "a")).await.status, 401, "a removed key stops at once");
    keys.set(ok("{}"));
    daemon.signal("HUP");
    // The unknown key had the keys read once more.
    until(|| refreshes(daemon.address), |counts| *counts == ["3", "1"]).await;
    assert_eq!(list(daemon.address, &signed(&b, "b")).await.status, 200, "the keys from before stay");
    assert_eq!(ready(daemon.address).await, (200, DEGRADED.to_owned()));
}

async fn ready(address: SocketAddr) -> (u16, String) {
    let answer = Connection::open(address).await.request("GET /readyz", &[], b"").await;
    (answer.status, answer.text())
}

const DEGRADED: &str = "degraded: the keys of tokens could not be read\n";

/// Asserts that the daemon answers 503 while the server of its key set has this fault, and accepts tokens afterwards.
async fn answers_503_until_there_are_keys(fault: &'static str, answer: Answer) {
    let token = signed(&Signer::rsa(), "a");
    let keys = KeyServer::start(answer).await;
    let daemon = keys.daemon();
    let refused = list(daemon.address, &token).await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "no_keys"), "{fault}");
    assert_eq!(refused.header("retry-after"), "5", "{fault}");
    let path = format!("GET /subscribe?token={token}");
    let stream = [("accept", "text/event-stream")];
    let later = Connection::open(daemon.address).await.request(&path, &stream, b"").await;
    let text = later.text();
    assert!(later.status == 200 && text.contains("overloaded") && text.contains("retry: "), "{fault}: {text}");
    assert_eq!(ready(daemon.address).await, (200, DEGRADED.to_owned()), "{fault}");
    keys.set(ok(&jwks(&[rsa_jwk("a", RSA)])));
    until(|| list(daemon.address, &token), |answer| answer.status == 200).await;
    assert_eq!(ready(daemon.address).await, (200, "ready\n".to_owned()), "{fault}");
}

#[tokio::test]
async fn without_keys_the_answer_is_503_and_an_event_source_comes_back() {
    let good = jwks(&[rsa_jwk("a", RSA)]);
    let elsewhere = KeyServer::start(ok(&good)).await;
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.url);
    let large = format!(r#"{{"x":"{}","keys":[{}]}}"#, "x".repeat(64 * 1024), rsa_jwk("a", RSA));
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; 10 << 20]].concat();
    let rows = [
        ("no keys", ok(r#"{"keys":[]}"#)),
        ("nothing", ok("")),
        ("an error", Answer::Bytes(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_vec())),
        ("a redirect", Answer::Bytes(redirect.into_bytes())),
        ("too large", ok(&large)),
        ("10 MB", Answer::Bytes(endless)),
        ("half of it", Answer::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{".to_vec())),
        ("no HTTP", Answer::Bytes(b"\0".to_vec())),
        ("silence", Answer::Silence),
    ];
    // Together, because each waits for the next attempt.
    let rows = rows.map(|(fault, answer)| tokio::spawn(answers_503_until_there_are_keys(fault, answer)));
    for row in rows {
        row.await.expect("no panic");
    }
    assert_eq!(elsewhere.requests(), 0, "a redirect was followed");
}

#[tokio::test]
async fn a_key_set_of_a_server_that_no_authority_vouches_for_is_not_used() {
    let keys = KeyServer::start(ok(&jwks(&[rsa_jwk("a", RSA)]))).await;
    let mut command = process::command();
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    command.env("SSL_CERT_FILE", file("authority.pem", stranger.cert.pem()));
    command.args([
        "--port",
        "0",
        "--host",
        "127.0.0.1",
        "--auth",
        "jwt",
        "--jwks",
        &keys.url,
        "--jwt-audience",
        "signal",
    ]);
    let daemon = Process::spawn(&mut command);
    assert_eq!(list(daemon.address, &signed(&Signer::rsa(), "a")).await.status, 503);
    daemon.signal("TERM");
    let (code, log) = daemon.exited();
    assert!(code == Some(0) && log.contains("cannot read the keys of tokens"), "{log}");
    assert!(!log.contains(&token("bob/phone")[..20]), "{log}");
}
