//! `call-test`, the check of a deploy: what it says of a daemon that works, and of faults that proxies and set-ups have.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::harness::{
    Server,
    cli::{against, command, output, run},
    free_address,
    tokens::{SECRET, Signer, file, seconds_from_now},
};

const CHECKS: [&str; 5] = ["connect", "presence", "handshake", "resume", "event stream"];

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}

/// The names of the checks that failed, and what their lines say.
fn failed(out: &str) -> Vec<(String, String)> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let lines = lines(out);
    let failed = lines.iter().filter(|line| line["ok"] == false);
    failed.map(|line| (text(line, "check"), text(line, "detail"))).collect()
}

#[tokio::test]
async fn a_daemon_that_works_passes_every_check_in_every_identity_mode() {
    for options in [&[][..], &["--auth", "none"], &["--user-devices", "4"]] {
        let server = Server::with(options).await;
        let (exit, out, err) = run(server.address, &["call-test", "--json"]).await;
        assert_eq!((exit, err.as_str()), (0, ""), "{options:?}: {out}");
        let lines = lines(&out);
        let checks: Vec<_> = lines.iter().filter_map(|line| line["check"].as_str()).collect();
        assert_eq!(checks, CHECKS);
        assert!(lines[..5].iter().all(|line| line["ok"] == true && line["ms"].is_number()), "{out}");
        assert!(lines.len() == 6 && lines[5]["verdict"] == true && lines[5]["ms"].is_number(), "{out}");
        assert!(lines[2]["detail"].as_str().is_some_and(|detail| detail.starts_with("22 messages in order")), "{out}");
    }
    let server = Server::start().await;
    let (exit, out, _) = run(server.address, &["call-test", "--as", "a/b", "--grpc-only"]).await;
    assert_eq!((exit, out.as_str()), (2, ""), "the devices are its own");
    let (exit, out, _) = run(server.address, &["call-test", "--as", "a%2Fb", "--peer", "☎", "--grpc-only"]).await;
    assert_eq!((exit, out.lines().count()), (0, 5), "{out}");
    assert!(out.lines().next().is_some_and(|line| line.contains("a%2Fb/") && line.contains("☎/")), "{out}");
    assert!(out.lines().last().is_some_and(|line| line.starts_with("passed in ")), "{out}");
}

#[tokio::test]
async fn a_token_is_an_identity_for_both_devices_or_for_one_of_them() {
    let secret = file("call-test-secret", SECRET);
    let server = Server::with(&["--auth", "jwt", "--jwt-secret-file", &secret]).await;
    let sign = |user: &str| {
        let claims = serde_json::json!({"userid": user, "exp": seconds_from_now(60)});
        file("call-test-token", Signer::secret(SECRET).sign(&serde_json::json!({"alg": "HS256"}), &claims))
    };
    let [ana, bob] = ["ana", "bob"].map(sign);
    for peer in [&[][..], &["--peer-token-file", &bob]] {
        let (exit, out, err) =
            run(server.address, &[&["call-test", "--json", "--token-file", &ana], peer].concat()).await;
        assert_eq!((exit, err.as_str()), (0, ""), "{out}");
        let both = lines(&out)[0]["detail"].as_str().expect("a text").to_owned();
        assert_eq!(both.matches("bob/").count(), usize::from(!peer.is_empty()), "{both}");
    }
    let (exit, out, err) = run(server.address, &["call-test", "--json"]).await;
    assert_eq!((exit, failed(&out).len(), lines(&err)[0]["exit"].as_u64()), (5, 1, Some(5)), "{out}{err}");
    let (exit, _, err) = run(server.address, &["call-test", "--peer-token-file", &bob]).await;
    assert!(exit == 2 && err.contains("needs a token of the caller"), "{err}");
    let token = std::fs::read_to_string(&ana).expect("a file");
    let (exit, _, err) =
        output(against(server.address, &["call-test", "--peer", "bob"]).env("SIGNAL_TOKEN", token)).await;
    assert!(exit == 2 && err.contains("--peer-token-file"), "{err}");
}

#[tokio::test]
async fn a_daemon_that_forgets_what_a_device_missed_fails_the_check_of_resuming() {
    let server = Server::with(&["--hold-limit", "0.001", "--resume-window", "0.001"]).await;
    let (exit, out, err) = run(server.address, &["call-test", "--json", "--grpc-only"]).await;
    assert_eq!((exit, err.as_str()), (1, ""), "{out}");
    let failed = failed(&out);
    assert!(failed.len() == 1 && failed[0].0 == "resume", "{failed:?}");
    let verdict = lines(&out).pop().expect("a verdict");
    assert_eq!((&verdict["verdict"], &verdict["failed"]), (&Value::Bool(false), &serde_json::json!(["resume"])));
}

#[tokio::test]
async fn nobody_there_is_exit_code_7_and_a_failed_check() {
    let closed = free_address();
    let (exit, out, err) = output(&mut command(&["call-test", "--url", &format!("http://{closed}")])).await;
    assert_eq!((exit, out.lines().count(), err.lines().count()), (7, 1, 1), "{out}{err}");
    assert!(out.starts_with("FAIL  connect"), "{out}");
}

/// What a proxy answers to `GET /subscribe`.
const BAD_STREAMS: [(&str, &str); 5] = [
    ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404"),
    ("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi", "no event stream"),
    (
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n",
        "compressed",
    ),
    ("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1\r\n\r\n\n", "cut"),
    ("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", "buffer"),
];

#[tokio::test]
async fn a_proxy_that_spoils_event_streams_fails_that_check_and_no_other() {
    let server = Server::start().await;
    for (answer, reason) in BAD_STREAMS {
        let proxy = spoiling(server.address, answer).await;
        let (exit, out, err) = run(proxy, &["call-test", "--json"]).await;
        assert_eq!((exit, err.as_str()), (1, ""), "{out}");
        let failed = failed(&out);
        assert!(failed.len() == 1 && failed[0].0 == "event stream" && failed[0].1.contains(reason), "{failed:?}");
    }
}

/// A proxy that passes everything on, but answers `GET /subscribe` itself, and then is silent.
async fn spoiling(server: SocketAddr, answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 3];
                client.peek(&mut first).await?;
                if &first == b"GET" {
                    client.write_all(answer.as_bytes()).await?;
                    client.read_to_end(&mut Vec::new()).await?;
                    return Ok(());
                }
                let mut server = TcpStream::connect(server).await?;
                copy_bidirectional(&mut client, &mut server).await.map(drop)
            });
        }
    });
    address
}
