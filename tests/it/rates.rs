//! The rates of sends: by caller, and by address for callers without an identity. Over a rate the answer says when to try again.

use std::time::Duration;

use backend_signal::grpc::proto::{SendStreamRequest, send_stream_response::Result as Answered};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::harness::{
    FORM, Process, Server, claim,
    every_protocol::{Answer, PROTOCOLS, Protocol},
    grpc::{claimed, message},
    within,
};

/// The answer to a caller that sends too fast.
const TOO_FAST: Answer = Answer { status: 429, retry_after: Some(1) };
/// The answer to an admitted message: nobody is connected.
const ADMITTED: Answer = Answer { status: 404, retry_after: None };

/// How many messages were admitted and refused.
#[derive(Default)]
struct Sent {
    admitted: usize,
    refused: u64,
}

/// Sends until a message is refused, a few at a time: one after another could be slower than the rate. Tokens come back meanwhile.
async fn until_refused(send: impl AsyncFn(usize) -> Answer) -> Sent {
    let mut total = Sent::default();
    for first in (0..100).step_by(5) {
        let some = tokio::join!(send(first), send(first + 1), send(first + 2), send(first + 3), send(first + 4));
        for answer in <[Answer; 5]>::from(some) {
            if answer == TOO_FAST {
                total.refused += 1;
            } else {
                assert_eq!(answer, ADMITTED);
                total.admitted += 1;
            }
        }
        if total.refused > 0 {
            return total;
        }
    }
    panic!("no message was refused");
}

/// The same over some protocols in turn.
async fn sent_over(server: &Server, protocols: &[Protocol], headers: &[(&str, &str)]) -> Sent {
    let send =
        async |count: usize| protocols[count % protocols.len()].send(server.address, "bob/phone", "x", headers).await;
    until_refused(send).await
}

/// Asserts that the number of admitted messages is the burst, plus at most the tokens that came back meanwhile.
fn assert_burst(admitted: usize, burst: usize, rate: f64, began: Instant) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
    let most = burst + (began.elapsed().as_secs_f64() * rate) as usize + 1;
    assert!((burst..=most).contains(&admitted), "{admitted} of {burst} to {most}");
}

async fn limited(server: &Server, limit: &str) -> u64 {
    let line = format!("signal_limited_total{{limit=\"{limit}\"}} ");
    let text = server.metrics().await;
    text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn the_messages_of_one_device_have_one_rate_over_all_protocols() {
    let server = Server::with(&["--send-rate", "1"]).await;
    let (ana, other) = (claim("ana/laptop"), claim("ana/phone"));
    let (ana, other) = ([("x-user-claim", ana.as_str())], [("x-user-claim", other.as_str())]);
    let began = Instant::now();
    let sent = sent_over(&server, &PROTOCOLS, &ana).await;
    assert_burst(sent.admitted, 4, 1.0, began);
    let mut refused = sent.refused;
    for protocol in PROTOCOLS {
        refused += sent_over(&server, &[protocol], &ana).await.refused;
    }
    assert_eq!(limited(&server, "send_rate").await, refused);
    assert_eq!(Protocol::Http1.send(server.address, "bob/phone", "x", &other).await, ADMITTED, "another device");
    assert_eq!(Protocol::Grpc.send(server.address, "bob/phone", "x", &[]).await, ADMITTED, "nobody");
    let headers = [ana[0], ("content-type", FORM)];
    let answer = async |body: &'static [u8]| server.request("POST /user/bob/device/phone", &headers, body).await;
    let mut codes = Vec::new();
    while codes.len() < 20 {
        codes.push(answer(b"data=x").await.problem());
    }
    assert!(codes.contains(&"rate_limited".to_owned()), "{codes:?}");
    // Identity and shape are checked before the rate, and such requests do not count.
    for _ in 0..10 {
        assert_eq!(answer(b"data=").await.status, 400);
        let headers = [("x-user-claim", "{}"), ("content-type", FORM)];
        assert_eq!(server.request("POST /user/bob/device/phone", &headers, b"data=x").await.status, 401);
    }
}

#[tokio::test]
async fn anonymous_messages_have_a_rate_by_address_and_private_addresses_have_none() {
    let server = Server::with(&["--trusted-proxies", "127.0.0.1", "--anonymous-send-rate", "1"]).await;
    let from = |address| [("x-forwarded-for", address)];
    let began = Instant::now();
    assert_burst(sent_over(&server, &PROTOCOLS, &from("192.0.2.1")).await.admitted, 5, 1.0, began);
    for protocol in PROTOCOLS {
        sent_over(&server, &[protocol], &from("192.0.2.1")).await;
        assert_eq!(protocol.send(server.address, "bob/phone", "x", &from("192.0.2.2")).await, ADMITTED);
    }
    let began = Instant::now();
    let network = [
        ("x-forwarded-for", "2001:db8:0:1::1"),
        ("x-forwarded-for", "2001:db8:0:1::2"),
        ("x-forwarded-for", "2001:db8:0:1:ffff::3"),
    ];
    let send = async |count: usize| Protocol::Http1.send(server.address, "bob/phone", "x", &[network[count % 3]]).await;
    assert_burst(until_refused(send).await.admitted, 5, 1.0, began);
    assert_eq!(Protocol::Http1.send(server.address, "bob/phone", "x", &from("2001:db8:0:2::1")).await, ADMITTED);
    for address in ["10.0.0.1", "::1", "fe80::1", "fd00::1"] {
        for _ in 0..10 {
            assert_eq!(Protocol::Http1.send(server.address, "bob/phone", "x", &from(address)).await, ADMITTED);
        }
    }
    for _ in 0..10 {
        assert_eq!(Protocol::Grpc.send(server.address, "bob/phone", "x", &[]).await, ADMITTED, "the proxy itself");
    }
}

#[tokio::test]
async fn with_all_every_address_counts_and_a_peer_that_is_not_trusted_cannot_name_another() {
    let server = Server::with(&["--address-limits", "all", "--anonymous-send-rate", "1"]).await;
    let began = Instant::now();
    let spoofed = async |count: usize| {
        let address = format!("192.0.2.{count}");
        let headers = [("x-forwarded-for", address.as_str()), ("forwarded", "for=198.51.100.1")];
        PROTOCOLS[count % 5].send(server.address, "bob/phone", "x", &headers).await
    };
    assert_burst(until_refused(spoofed).await.admitted, 5, 1.0, began);
    let ana = claim("ana/laptop");
    for _ in 0..10 {
        let headers = [("x-user-claim", ana.as_str())];
        assert_eq!(Protocol::Http2.send(server.address, "bob/phone", "x", &headers).await, ADMITTED, "an identity");
    }
}

#[tokio::test]
async fn forwarded_is_read_when_an_option_says_so() {
    let options = ["--trusted-proxies", "127.0.0.1", "--client-address", "forwarded", "--anonymous-send-rate", "1"];
    let server = Server::with(&options).await;
    let began = Instant::now();
    let forwarded = [("forwarded", r#"for=198.51.100.7, for="192.0.2.1:4711";proto=https"#)];
    let with_other = [("x-forwarded-for", "192.0.2.9"), ("forwarded", "for=192.0.2.1")];
    let send = async |count: usize| {
        Protocol::Grpc.send(server.address, "bob/phone", "x", [&forwarded[..], &with_other][count % 2]).await
    };
    assert_burst(until_refused(send).await.admitted, 5, 1.0, began);
    assert_eq!(
        Protocol::Http1.send(server.address, "bob/phone", "x", &[("forwarded", "for=192.0.2.2")]).await,
        ADMITTED
    );
}

#[tokio::test]
async fn a_broadcast_counts_as_one_message() {
    let server = Server::with(&["--send-rate", "1"]).await;
    let _devices = [server.sse("bob/a").await, server.sse("bob/b").await, server.sse("bob/c").await];
    let ana = claim("ana/laptop");
    let headers = [("x-user-claim", ana.as_str()), ("content-type", FORM)];
    let began = Instant::now();
    let post = async || server.request("POST /user/bob/devices", &headers, b"data=x").await;
    let mut count = 0;
    let mut refused = post().await;
    while refused.status == 200 && count < 100 {
        count += 1;
        refused = post().await;
    }
    assert_burst(count, 4, 1.0, began);
    assert_eq!((refused.status, refused.problem().as_str(), refused.header("retry-after")), (429, "rate_limited", "1"));
    let sends = server.metrics().await;
    assert!(sends.contains(r#"signal_sends_total{outcome="rate_limited"} 1"#), "{sends}");
}

/// Sends messages over one `SendStream` call. Returns the code and the text of each answer; the code of an admitted one is
/// `NotFound`.
async fn over_one_call(server: &Server, count: usize) -> Vec<(Code, String)> {
    let (requests, receiver) = mpsc::channel(1_000);
    let mut client = server.grpc().await;
    let mut answers = within(client.send_stream(claimed("ana/laptop", ReceiverStream::new(receiver))))
        .await
        .expect("a call")
        .into_inner();
    let mut found = Vec::new();
    for _ in 0..count {
        let request = SendStreamRequest { send: Some(message("bob/phone", "", "x")) };
        within(requests.send(request)).await.expect("an open call");
        match within(answers.message()).await.expect("an open call").and_then(|answer| answer.result) {
            Some(Answered::Error(error)) => found.push((Code::from(error.code), error.message)),
            other => panic!("{other:?}"),
        }
    }
    found
}

#[tokio::test]
async fn each_message_of_a_send_stream_counts_and_over_the_rate_the_call_goes_on() {
    let server = Server::with(&["--send-rate", "1"]).await;
    let began = Instant::now();
    let mut answers = over_one_call(&server, 8).await;
    let (limited, admitted): (Vec<_>, Vec<_>) =
        answers.drain(..).partition(|(code, _)| *code == Code::ResourceExhausted);
    assert_burst(admitted.len(), 4, 1.0, began);
    assert!(admitted.iter().all(|(code, _)| *code == Code::NotFound), "{admitted:?}");
    for (_, text) in limited {
        assert!(text.contains("--send-rate") && text.ends_with("Retry after 1 s."), "{text}");
    }
    // The same call is served again when its tokens are back.
    let (requests, receiver) = mpsc::channel(1_000);
    let mut client = server.grpc().await;
    let mut call = within(client.send_stream(claimed("eve/laptop", ReceiverStream::new(receiver))))
        .await
        .expect("a call")
        .into_inner();
    let mut refusals = 0;
    within(async {
        loop {
            let request = SendStreamRequest { send: Some(message("bob/phone", "", "x")) };
            requests.send(request).await.expect("an open call");
            match call.message().await.expect("an open call").and_then(|answer| answer.result) {
                Some(Answered::Error(error)) if error.code == i32::from(Code::ResourceExhausted) => refusals += 1,
                Some(Answered::Error(_)) if refusals > 0 => break,
                Some(Answered::Error(_)) => {}
                other => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn by_default_a_device_may_send_400_messages_at_once_and_zero_switches_the_limit_off() {
    let count = |answers: Vec<(Code, String)>| answers.iter().filter(|(code, _)| *code == Code::NotFound).count();
    let server = Server::start().await;
    let began = Instant::now();
    let admitted = count(over_one_call(&server, 2_000).await);
    if admitted < 2_000 {
        assert_burst(admitted, 400, 100.0, began);
    } else {
        assert!(began.elapsed() > Duration::from_secs(16), "2,000 messages at the rate of 100");
    }
    let options = ["--send-rate", "0", "--anonymous-send-rate", "0", "--address-limits", "all"];
    let server = Server::with(&options).await;
    assert_eq!(count(over_one_call(&server, 2_000).await), 2_000);
    for _ in 0..110 {
        assert_eq!(Protocol::Http1.send(server.address, "bob/phone", "x", &[]).await, ADMITTED);
    }
}

#[tokio::test]
async fn a_forwarding_header_from_a_peer_that_is_not_trusted_is_one_warning() {
    let process = Process::start(&["--drain-window", "1", "--trusted-proxies", "10.0.0.0/8", "--auth", "none"]);
    for headers in [[("x-forwarded-for", "192.0.2.1")], [("forwarded", "for=192.0.2.1")], [("x-forwarded-for", "x")]] {
        for protocol in PROTOCOLS {
            assert_eq!(protocol.send(process.address, "bob/phone", "x", &headers).await, ADMITTED);
        }
    }
    process.signal("TERM");
    let (_, log) = process.exited();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("--trusted-proxies")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    let says = ["WARN", "X-Forwarded-For", "is ignored"].map(|text| warnings[0].contains(text));
    assert_eq!(says, [true; 3], "{}", warnings[0]);
    assert!(!log.contains("192.0.2.1"), "{log}");
}

#[tokio::test]
async fn a_caller_that_names_another_device_in_each_message_has_one_rate() {
    let server = Server::with(&["--send-rate", "1"]).await;
    let began = Instant::now();
    let names = async |count: usize| {
        let device = format!("device-{count}");
        let headers = [("x-user-claim", r#"{"userid":"ana"}"#), ("x-signal-device", device.as_str())];
        PROTOCOLS[count % PROTOCOLS.len()].send(server.address, "bob/phone", "x", &headers).await
    };
    assert_burst(until_refused(names).await.admitted, 4, 1.0, began);
}
