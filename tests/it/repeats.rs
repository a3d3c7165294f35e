//! A send that is repeated with its idempotency key: over both protocols, after a lost answer, and from the command line.

use std::net::SocketAddr;

use backend_signal::grpc::proto::{
    Outcome, SendRequest, SendStreamRequest, send_stream_response::Result as SendResult,
};
use tokio::{
    io::{copy, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tonic::Code;

use crate::harness::{
    Connection, FORM, Response, Server, claim,
    cli::{Running, against, run},
    grpc::{claimed, message},
    path, within,
};

/// A form that is posted to a device with these headers.
async fn post(server: &Server, device: &str, data: &str, headers: &[(&str, &str)]) -> Response {
    let headers = [&[("content-type", FORM)], headers].concat();
    server.request(&format!("POST {}", path(device)), &headers, format!("data={data}").as_bytes()).await
}

/// A message over gRPC with a key.
fn keyed(device: &str, data: &str, key: &str) -> SendRequest {
    SendRequest { idempotency_key: key.into(), ..message(device, "", data) }
}

async fn send(server: &Server, request: tonic::Request<SendRequest>) -> Result<Outcome, Code> {
    let sent = within(server.grpc().await.send(request)).await;
    sent.map(|sent| sent.into_inner().outcome()).map_err(|status| status.code())
}

/// Sends over one call of `SendStream`.
async fn send_stream(server: &Server, requests: Vec<SendRequest>) -> Vec<Result<Outcome, Code>> {
    let requests = requests.into_iter().map(|send| SendStreamRequest { send: Some(send) }).collect::<Vec<_>>();
    let mut client = server.grpc().await;
    let answers = within(client.send_stream(tokio_stream::iter(requests))).await;
    let mut answers = answers.expect("a call").into_inner();
    let mut outcomes = Vec::new();
    while let Some(answer) = within(answers.message()).await.expect("OK") {
        outcomes.push(match answer.result.expect("sent or an error") {
            SendResult::Sent(sent) => Ok(sent.outcome()),
            SendResult::Error(error) => Err(Code::from(error.code)),
        });
    }
    outcomes
}

#[tokio::test]
async fn a_repeat_in_either_protocol_gets_the_first_outcome_and_is_not_delivered() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let ana = claim("ana/laptop");
    // A request with an origin takes the router, one without skips it.
    for more in [&[][..], &[("origin", "https://app.example")]] {
        for _ in 0..2 {
            let headers = [&[("x-user-claim", ana.as_str()), ("idempotency-key", "1")], more].concat();
            assert_eq!(post(&server, "bob/phone", "first", &headers).await.status, 200);
        }
    }
    for _ in 0..2 {
        let request = claimed("ana/laptop", keyed("bob/phone", "over gRPC", "1"));
        assert_eq!(send(&server, request).await, Ok(Outcome::Delivered));
    }
    let request = claimed("ana/laptop", keyed("bob/phone", "second", "2"));
    assert_eq!(send(&server, request).await, Ok(Outcome::Delivered));
    let request = claimed("ana/phone", keyed("bob/phone", "of another caller", "1"));
    assert_eq!(send(&server, request).await, Ok(Outcome::Delivered));
    let requests = ["of nobody", "again", "anew"].into_iter().zip(["1", "1", ""]);
    let requests = requests.map(|(data, key)| keyed("bob/phone", data, key)).collect();
    assert_eq!(send_stream(&server, requests).await, [Ok(Outcome::Delivered); 3]);
    assert_eq!(post(&server, "bob/phone", "of nobody over HTTP", &[("idempotency-key", "1")]).await.status, 200);
    assert_eq!(server.post("bob/phone", "the end").await.status, 200);
    for expected in ["first", "second", "of another caller", "of nobody", "anew", "the end"] {
        assert_eq!(phone.data().await, expected);
    }
}

#[tokio::test]
async fn a_repeat_of_a_held_message_is_held_once_also_after_its_device_has_come() {
    let server = Server::start().await;
    let held = [("ttl", "30"), ("idempotency-key", "1")];
    let ttl = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let over_grpc = SendRequest { ttl, ..keyed("bob/phone", "over gRPC", "1") };
    let repeat = async || {
        let answer = post(&server, "bob/phone", "call me", &held).await;
        assert_eq!((answer.status, answer.header("ttl")), (202, "30"));
        assert_eq!(send(&server, tonic::Request::new(over_grpc.clone())).await, Ok(Outcome::Held));
    };
    repeat().await;
    let mut phone = server.sse("bob/phone").await;
    repeat().await;
    assert_eq!(server.post("bob/phone", "the end").await.status, 200);
    assert_eq!((phone.data().await.as_str(), phone.data().await.as_str()), ("call me", "the end"));
}

#[tokio::test]
async fn a_refused_send_may_succeed_under_the_same_key() {
    let server = Server::start().await;
    assert_eq!(post(&server, "bob/phone", "x", &[("idempotency-key", "1")]).await.status, 404);
    assert_eq!(send(&server, tonic::Request::new(keyed("bob/phone", "x", "2"))).await, Err(Code::NotFound));
    let mut phone = server.sse("bob/phone").await;
    for key in ["1", "2"] {
        assert_eq!(post(&server, "bob/phone", key, &[("idempotency-key", key)]).await.status, 200);
        assert_eq!(phone.data().await, key);
    }
}

#[tokio::test]
async fn a_key_that_is_empty_too_long_not_visible_ascii_or_there_twice_is_refused_and_nothing_is_sent() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let (longest, too_long) = ("x".repeat(64), "x".repeat(65));
    for (key, code) in [("a b", 400), ("\u{e9}", 400), (&too_long, 400), (&longest, 200), ("!\"#~", 200)] {
        let answer = post(&server, "bob/phone", key, &[("idempotency-key", key)]).await;
        assert_eq!(answer.status, code, "{key}");
        if code == 400 {
            assert_eq!(answer.problem(), "invalid_idempotency_key", "{key}");
        } else {
            assert_eq!(phone.data().await, key);
        }
        let expected = if code == 400 { Err(Code::InvalidArgument) } else { Ok(Outcome::Delivered) };
        assert_eq!(send(&server, tonic::Request::new(keyed("bob/phone", key, key))).await, expected, "{key}");
        assert_eq!(send_stream(&server, vec![keyed("bob/phone", key, key)]).await, [expected], "{key}");
    }
    let twice = [("idempotency-key", "1"), ("idempotency-key", "1")];
    for headers in [&[("idempotency-key", "")][..], &twice] {
        let answer = post(&server, "bob/phone", "x", headers).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid_idempotency_key"), "{headers:?}");
    }
    assert_eq!(server.post("bob/phone", "the end").await.status, 200);
    assert_eq!(phone.data().await, "the end");
}

#[tokio::test]
async fn a_broadcast_with_a_key_is_refused_and_reaches_nobody() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let headers = [("content-type", FORM), ("idempotency-key", "1")];
    let answer = server.request("POST /user/bob/devices", &headers, b"data=x").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid_idempotency_key"));
    assert_eq!(server.post("bob/phone", "the end").await.status, 200);
    assert_eq!(phone.data().await, "the end");
}

#[tokio::test]
async fn a_page_of_another_site_may_send_the_header() {
    let server = Server::start().await;
    let headers = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,idempotency-key"),
    ];
    let answer = server.request("OPTIONS /user/bob/device/phone", &headers, b"").await;
    assert_eq!((answer.status, answer.header("access-control-allow-headers")), (204, headers[2].1));
}

/// A proxy that swallows all answers of the first connection and ends it after the word, and forwards all later ones.
async fn swallow_first(upstream: SocketAddr) -> (SocketAddr, tokio::sync::oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (end, ended) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a client");
        let mut server = TcpStream::connect(upstream).await.expect("listens");
        {
            let ((mut from_client, _), (mut from_server, mut to_server)) = (client.split(), server.split());
            let mut sink = tokio::io::sink();
            tokio::select! {
                _ = copy(&mut from_client, &mut to_server) => {}
                _ = copy(&mut from_server, &mut sink) => {}
                _ = ended => {}
            }
        }
        drop((client, server));
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(upstream).await.expect("listens");
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    (address, end)
}

#[tokio::test]
async fn the_command_line_sends_again_with_its_key_when_the_answer_was_lost() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let (proxy, cut) = swallow_first(server.address).await;
    let mut sending = Running::spawn(&mut against(proxy, &["send", "bob/phone", "hello"]));
    assert_eq!(phone.data().await, "hello");
    cut.send(()).expect("the proxy waits");
    assert_eq!(sending.line().await, "delivered");
    assert_eq!(sending.ended().await, (Some(0), Vec::new()));
    assert_eq!(server.post("bob/phone", "the end").await.status, 200);
    assert_eq!(phone.data().await, "the end");
}

#[tokio::test]
async fn the_command_line_sends_under_the_key_that_it_is_given() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    for _ in 0..2 {
        let sent = run(server.address, &["send", "bob/phone", "hello", "--idempotency-key", "1"]).await;
        assert_eq!(sent, (0, "delivered\n".to_owned(), String::new()));
    }
    let (exit, _, err) = run(server.address, &["send", "bob/phone", "hello", "--idempotency-key", "a b"]).await;
    assert!(exit == 2 && err.contains("1 to 64 visible ASCII characters"), "{err}");
    assert_eq!(run(server.address, &["send", "bob/phone", "the end"]).await.0, 0);
    assert_eq!((phone.data().await.as_str(), phone.data().await.as_str()), ("hello", "the end"));
}

#[tokio::test]
async fn a_post_whose_answer_was_lost_is_delivered_once() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let headers = [("content-type", FORM), ("idempotency-key", "1"), ("content-length", "8")];
    let mut lost = Connection::open(server.address).await;
    lost.ask("POST /user/bob/device/phone", &headers).await;
    lost.write(b"data=one").await;
    assert_eq!(phone.data().await, "one");
    drop(lost);
    assert_eq!(post(&server, "bob/phone", "one", &[("idempotency-key", "1")]).await.status, 200);
    assert_eq!(server.post("bob/phone", "the end").await.status, 200);
    assert_eq!(phone.data().await, "the end");
}
