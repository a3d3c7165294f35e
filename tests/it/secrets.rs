//! Secrets of a request are in no log, metric, error or answer: whatever the request is, and wherever in it they stand.

mod requests;

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
};

use backend_signal::telemetry::{self, LogFormat, LogLevel, Metrics};
use serde_json::json;

use self::requests::{Ask, Identity};
use crate::harness::{
    Connection, claim, process,
    tokens::{SECRET, Signer, file, seconds_from_now},
    until,
};

/// A daemon that logs everything, and its log.
struct Logging {
    child: Child,
    address: SocketAddr,
    /// Read all the time: a daemon whose log nobody reads drops lines.
    log: JoinHandle<String>,
}

impl Logging {
    fn start(options: &[&str]) -> Self {
        let mut command = process::command();
        command.args(["--port", "0", "--host", "127.0.0.1", "--log", "trace", "--drain-window", "0.1"]).args(options);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the executable");
        let mut lines = BufReader::new(child.stderr.take().expect("standard error"));
        let (sender, receiver) = mpsc::channel();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            while !log.contains("listening on ") {
                assert!(lines.read_line(&mut log).expect("UTF-8") > 0, "{log}");
            }
            let address = log.split("listening on ").nth(1).and_then(|rest| {
                rest.split(|c: char| c.is_whitespace() || c == '"').next()?.parse::<SocketAddr>().ok()
            });
            sender.send(address.expect("an address")).expect("the test waits");
            lines.read_to_string(&mut log).expect("UTF-8");
            log
        });
        let address = receiver.recv().expect("it listens");
        Self { child, address, log }
    }

    /// Stops the daemon. Gives its whole log.
    fn stop(mut self) -> String {
        let status = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(status.expect("kill").success());
        assert!(self.child.wait().expect("a child").success());
        self.log.join().expect("UTF-8")
    }
}

/// Random letters that no honest text contains.
fn secret() -> String {
    format!("zq{}", fastrand::u128(..))
}

/// The parts of a token that are secret. Its first part only names the algorithm.
fn parts(token: &str) -> Vec<String> {
    let parts: Vec<_> = token.split('.').skip(1).map(str::to_owned).collect();
    if parts.is_empty() { vec![token.to_owned()] } else { parts }
}

/// A token of a user, with a secret among its claims.
fn token(user: &str, signer: &Signer, seconds: i64) -> String {
    let claims = json!({"userid": user, "note": secret(), "exp": seconds_from_now(seconds)});
    signer.sign(&json!({"alg": "HS256"}), &claims)
}

/// Asserts that none of the texts contains any of the secrets.
fn assert_none<'a>(secrets: &BTreeSet<String>, texts: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (place, text) in texts {
        for secret in secrets {
            if let Some(at) = text.find(secret.as_str()) {
                let before = text[..at].rfind('\n').map_or(0, |end| end + 1);
                let line = text[before..].lines().next().unwrap_or_default();
                panic!("{place}: {secret} in {line:.400}");
            }
        }
    }
}

/// Statuses that must occur, so that every kind of request was really made.
const STATUSES: [u16; 10] = [200, 400, 401, 403, 404, 405, 408, 413, 415, 431];

/// Asks with every identity in every way, over both versions of HTTP, and over gRPC.
async fn assert_keeps_secrets(daemon: Logging, identities: Vec<Identity>, user: &str, statuses: &[u16]) {
    let mut ask = Ask::new(daemon.address, user);
    for identity in identities {
        ask.everything(&identity).await;
    }
    let Ask { secrets, answers, statuses: found, .. } = ask;
    for status in statuses {
        assert!(found.contains(status), "no request was {status}: {found:?}");
    }
    assert!(answers.len() > 100, "{}", answers.len());
    assert_none(&secrets, answers.iter().map(|(request, answer)| (request.as_str(), answer.as_str())));
    let metrics = Connection::open(daemon.address).await.request("GET /metrics", &[], b"").await.text();
    let log = daemon.stop();
    // The log and the metrics are not empty.
    assert!(log.matches("answered").count() > 100 && metrics.contains("signal_requests_total"), "{log:.1000}");
    let mut all = secrets;
    all.insert(user.to_owned());
    assert_none(&all, [("the log", log.as_str()), ("the metrics", metrics.as_str())]);
}

#[tokio::test]
async fn tokens_tickets_cookies_and_data_are_in_no_log_metric_or_answer() {
    let key = file("secret", SECRET);
    let daemon = Logging::start(&[
        "--auth",
        "jwt",
        "--jwt-secret-file",
        &key,
        "--token-cookie",
        "session",
        "--body-timeout",
        "0.5",
    ]);
    let (user, signer) = (secret(), Signer::secret(SECRET));
    let good = || token(&user, &signer, 60);
    let expired = || token(&user, &signer, -60);
    let forged = || token(&user, &Signer::secret("another secret of at least 32 bytes"), 60);
    let bearer = |token: String| Identity::header("authorization", &format!("Bearer {token}"), &parts(&token));
    let cookie = |token: String| Identity::header("cookie", &format!("a=b; session={token}"), &parts(&token));
    let query = |name: &str, token: String| Identity::query(name, &token, &parts(&token));
    let ticket = requests::ticket(daemon.address, &good()).await;
    let identities = vec![
        bearer(good()),
        bearer(expired()),
        bearer(forged()),
        bearer(secret()),
        cookie(good()),
        cookie(forged()),
        query("token", good()),
        query("token", expired()),
        query("token", secret()),
        query("ticket", ticket),
        query("ticket", secret()),
    ];
    assert_keeps_secrets(daemon, identities, &user, &STATUSES).await;
}

#[tokio::test]
async fn claims_are_in_no_log_metric_or_answer() {
    let daemon = Logging::start(&["--log-format", "json", "--body-timeout", "0.5", "--header-timeout", "0.5"]);
    let user = secret();
    let claim_with = |note: &str| {
        let claim = json!({"userid": user, "clientid": "phone", "note": note}).to_string();
        Identity::header("x-user-claim", &claim, &[note.to_owned(), claim.clone()])
    };
    let broken = format!("{}{}", claim("bob/phone"), secret());
    let identities = vec![
        claim_with(&secret()),
        Identity::header("x-user-claim", &broken, &[broken[broken.len() - 20..].to_owned()]),
        Identity::header("x_user_claim", &broken, &[broken[broken.len() - 20..].to_owned()]),
    ];
    assert_keeps_secrets(daemon, identities, &user, &STATUSES).await;
}

#[tokio::test]
async fn the_secret_of_turn_and_the_credentials_are_in_no_log_or_metric() {
    let (turn, next, user) = (secret(), secret(), secret());
    let key = file("turn", &turn);
    let daemon = Logging::start(&["--turn", "turn:turn.example.org", "--turn-secret-file", &key]);
    let claim = claim(&format!("{user}/phone"));
    let mut secrets = BTreeSet::from([turn, next.clone(), user]);
    let ask = async |head: &str, claim: &str, body: &[u8]| {
        let headers = [("x-user-claim", claim), ("content-type", "application/grpc-web+proto")];
        Connection::open(daemon.address).await.request(head, &headers, body).await
    };
    let credential = async || {
        let answer = ask("GET /ice", &claim, b"").await;
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        answer["iceServers"][0]["credential"].as_str().expect("a credential").to_owned()
    };
    let metrics = async || Connection::open(daemon.address).await.request("GET /metrics", &[], b"").await.text();
    let reloads = |outcome: &str| format!("signal_turn_secret_reloads_total{{outcome=\"{outcome}\"}} 1");
    let (taken, refused) = (reloads("used"), reloads("refused"));
    secrets.insert(credential().await);
    // The lines about a new secret are in the log, too.
    std::fs::write(&key, &next).expect("writable");
    until(metrics, |text| text.contains(&taken)).await;
    secrets.insert(credential().await);
    std::fs::write(&key, "").expect("writable");
    let grpc = ask("POST /backend_signal.v1.Signal/GetIceServers", &claim, b"\0\0\0\0\0").await;
    assert!(String::from_utf8_lossy(&grpc.body).contains("turn:turn.example.org"), "{grpc:?}");
    assert_eq!(ask("GET /ice", "nonsense", b"").await.status, 401);
    let metrics = until(metrics, |text| text.contains(&refused)).await;
    let log = daemon.stop();
    assert!(log.contains("read again") && log.contains("the file is empty"), "{log}");
    assert_none(&secrets, [("the log", log.as_str()), ("the metrics", metrics.as_str())]);
}

/// The test below runs this test in a process of its own.
#[test]
fn a_process_panics_with_a_secret() {
    #[expect(clippy::disallowed_methods, reason = "set only by the test below")]
    let Ok(secret) = std::env::var("PANIC_WITH") else { return };
    let log = telemetry::start(LogLevel::Trace, LogFormat::Human);
    telemetry::count_panics(Metrics::new());
    assert!(std::panic::catch_unwind(|| panic!("{secret}")).is_err());
    drop(log);
}

#[test]
fn a_panic_says_where_it_was_and_not_what_it_said() {
    let secret = secret();
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "secrets::a_process_panics_with_a_secret", "--nocapture"]).env("PANIC_WITH", &secret);
    let output = command.output().expect("this program");
    let [log, said] = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success() && log.contains("panic") && log.contains("secrets.rs:"), "{log}{said}");
    assert_none(&[secret].into(), [("standard error", &*log), ("standard output", &*said)]);
}
