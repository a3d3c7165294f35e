//! The daemon works with a wall clock that is thousands of years wrong. Debian's `faketime` sets the clock.

use std::io::Write as _;

use backend_signal::grpc::proto::{
    ListDevicesRequest, SubscribeRequest, signal_client::SignalClient, subscribe_response::Kind,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::transport::Channel;

use crate::harness::{
    Connection, FORM, Process, Sse, claim,
    grpc::{Stream, claimed, message},
    http2::Http2,
    process, within,
};
use crate::serve::{connector, tempfiles};

#[tokio::test]
async fn before_1970_and_after_9999_everything_works_as_usual() {
    if let Err(error) = faketime() {
        return skip(&error);
    }
    for (time, date, sent_at) in [
        ("@1960-02-03 04:05:06", "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00"),
        ("@9999-12-31 23:59:59", "Fri, 31 Dec 9999 23:59:59 GMT", "9999-12-31T23:59:59"),
        ("+9000y", "Fri, 31 Dec 9999 23:59:59 GMT", "9999-12-31T23:59:59"),
    ] {
        assert_serves(time, date, sent_at).await;
        assert_speaks_tls(time).await;
    }
}

/// The path of faketime's library. The program `faketime` cannot run the daemon here: it stays alive when the daemon ends.
pub fn faketime() -> std::io::Result<String> {
    let output = process::command_of("faketime").args(["-f", "+1y", "printenv", "LD_PRELOAD"]).output()?;
    Ok(String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned())
}

/// The executable at a time of day.
pub fn command_at(time: &str) -> std::process::Command {
    let mut command = process::command();
    command.env("LD_PRELOAD", faketime().expect("faketime")).env("FAKETIME", time).env("TZ", "UTC");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    command
}

/// The daemon at a time of day.
fn at(time: &str, options: &[&str]) -> Process {
    Process::spawn(command_at(time).args(["--port", "0", "--host", "127.0.0.1"]).args(options))
}

async fn assert_serves(time: &str, date: &str, sent_at: &str) {
    let daemon = at(time, &["--heartbeat", "0.5"]);
    let mut phone =
        Sse::open(daemon.address, "/subscribe?format=envelope", &[("x-user-claim", &claim("bob/phone"))]).await;
    let endpoint = Channel::from_shared(format!("http://{}", daemon.address)).expect("a URI");
    let mut client = SignalClient::new(within(endpoint.connect()).await.expect("listens"));
    let mut laptop = Stream::open(&mut client, "bob/laptop", "").await.expect("a stream");
    let mut connection = Connection::open(daemon.address).await;
    let post = "POST /user/bob/device/phone";
    let answer = connection.request(post, &[("content-type", FORM)], b"data=x").await;
    assert_eq!((answer.status, answer.header("date")), (200, date), "{time}");
    let envelope: serde_json::Value = serde_json::from_str(&phone.data().await).expect("JSON");
    assert!(envelope["sent_at"].as_str().is_some_and(|text| text.starts_with(sent_at)), "{time}: {envelope}");
    within(client.send(message("bob/laptop", "", "y"))).await.expect("delivered");
    assert!(laptop.message().await.sent_at.is_some());
    while !matches!(laptop.next().await.expect("a response"), Some(Kind::Ping(_))) {}
    while phone.next().await.name != "signal.ping" {}
    let listed = within(client.list_devices(ListDevicesRequest { user: "bob".into() })).await;
    assert_eq!(listed.expect("a list").into_inner().devices, ["laptop", "phone"]);
    let mut http2 = Http2::open(daemon.address).await;
    let request = http::Request::get(http2.uri("/healthz")).body(axum::body::Body::empty()).expect("a request");
    assert_eq!(http2.send(request).await.headers()["date"], date, "{time}");
    drop(within(client.subscribe(claimed("bob/tablet", SubscribeRequest::default()))).await.expect("a stream"));
    let metrics = connection.request("GET /metrics", &[], b"").await.text();
    assert!(metrics.contains("signal_panics_total 0"), "{time}: {metrics}");
}

async fn assert_speaks_tls(time: &str) {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = tempfiles("wall-clock", &identity);
    let daemon = at(time, &["--tls-cert", &files[0], "--tls-key", &files[1]]);
    let socket = within(TcpStream::connect(daemon.address)).await.expect("listens");
    let name = "localhost".try_into().expect("a name");
    let stream = within(connector(identity.cert.der(), b"http/1.1").connect(name, socket)).await;
    let mut stream = stream.expect("a handshake");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("writable");
    let mut answer = [0; 12];
    within(stream.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200", "{time}");
    let port = daemon.address.port().to_string();
    let check = command_at(time).args(["healthcheck", "--port", &port, "--tls-cert", &files[0]]).output();
    let check = check.expect("the executable");
    assert_eq!(check.status.code(), Some(0), "{time}: {}", String::from_utf8_lossy(&check.stderr));
}

/// Prints that the test was skipped, past the test harness, which hides the output of passing tests. Fails with CI=true.
pub fn skip(absent: &std::io::Error) {
    #[expect(clippy::disallowed_methods, reason = "the environment says whether the tools may be absent")]
    let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!must, "with CI=true the test of a wrong wall clock must run: {absent}");
    let _ = std::io::stderr()
        .write_all(format!("\nSKIPPED: the test of a wrong wall clock needs faketime: {absent}\n").as_bytes());
}
