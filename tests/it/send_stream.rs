//! `SendStream`: one response for each request, in order, also after an error. A status says why the call ended.

use std::time::Duration;

use backend_signal::grpc::proto::{
    Outcome, SendRequest, SendStreamRequest, SendStreamResponse, send_stream_response::Result as Answer,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use crate::harness::{
    Server, claim,
    frames::{self, Frames},
    grpc::{Client, claimed, framed, message},
    http2::Http2,
    until, within,
};

/// An open call.
struct Sends {
    requests: mpsc::Sender<SendStreamRequest>,
    answers: Streaming<SendStreamResponse>,
}

impl Sends {
    /// Opens a call without a first request. `prepare` adds to the call's metadata.
    async fn open(
        client: &mut Client,
        prepare: impl FnOnce(&mut Request<ReceiverStream<SendStreamRequest>>),
    ) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(1_000);
        let mut request = Request::new(ReceiverStream::new(receiver));
        prepare(&mut request);
        let answers = within(client.send_stream(request)).await?.into_inner();
        Ok(Self { requests, answers })
    }

    async fn anonymous(server: &Server) -> Self {
        Self::open(&mut server.grpc().await, |_| {}).await.expect("a stream")
    }

    async fn ask(&self, send: SendRequest) {
        within(self.requests.send(SendStreamRequest { send: Some(send) })).await.expect("an open stream");
    }

    /// The next response: an outcome, or the code of an error. At the end of the call, its status.
    async fn answer(&mut self) -> Result<Result<Outcome, Code>, Status> {
        let answer = within(self.answers.message()).await?.ok_or_else(|| Status::ok("the end"))?;
        Ok(match answer.result.expect("one of both") {
            Answer::Sent(sent) => Ok(sent.outcome()),
            Answer::Error(error) => Err(Code::from(error.code)),
        })
    }

    /// Reads to the end of the call, and gives its status.
    async fn end(&mut self) -> Code {
        loop {
            if let Err(status) = self.answer().await {
                return status.code();
            }
        }
    }

    /// Sends requests until the call ends.
    fn send_endlessly(&self) {
        let requests = self.requests.clone();
        tokio::spawn(async move {
            let send = Some(message("bob/nobody", "", "x"));
            while requests.send(SendStreamRequest { send: send.clone() }).await.is_ok() {}
        });
    }
}

#[tokio::test]
async fn every_request_gets_a_response_in_order_and_an_error_does_not_end_the_call() {
    let server = Server::start().await;
    let mut phone = server.grpc_stream("bob/phone", "").await.expect("a stream");
    let mut sends = Sends::open(&mut server.grpc().await, |request| {
        *request.metadata_mut() = claimed("ana/laptop", ()).metadata().clone();
    })
    .await
    .expect("a stream");
    sends.ask(message("bob/phone", "offer", "one")).await;
    assert_eq!(sends.answer().await.expect("an answer"), Ok(Outcome::Delivered));
    sends.ask(message("bob/watch", "", "nobody there")).await;
    sends.ask(message("bob/phone", "", "")).await;
    within(sends.requests.send(SendStreamRequest { send: None })).await.expect("an open stream");
    sends.ask(message("bob/phone", "", "two")).await;
    for expected in
        [Err(Code::NotFound), Err(Code::InvalidArgument), Err(Code::InvalidArgument), Ok(Outcome::Delivered)]
    {
        assert_eq!(sends.answer().await.expect("an answer"), expected);
    }
    let first = phone.message().await;
    assert_eq!((first.event.as_str(), first.data.as_str()), ("offer", "one"));
    assert_eq!(first.sender.map(|from| (from.user, from.device)), Some(("ana".into(), "laptop".into())));
    assert_eq!(phone.data().await, "two");
    drop(sends.requests);
    assert!(within(sends.answers.message()).await.expect("OK at the end").is_none());
}

#[tokio::test]
async fn thousands_of_requests_at_once_are_answered_in_order() {
    let server = Server::start().await;
    let mut sends = Sends::anonymous(&server).await;
    let requests = sends.requests.clone();
    tokio::spawn(async move {
        for number in 0..5_000 {
            let data = if number % 3 == 0 { "" } else { "x" };
            let _ = requests.send(SendStreamRequest { send: Some(message("bob/watch", "", data)) }).await;
        }
    });
    for number in 0..5_000 {
        let expected = if number % 3 == 0 { Code::InvalidArgument } else { Code::NotFound };
        assert_eq!(sends.answer().await.expect("an answer"), Err(expected), "{number}");
    }
}

#[tokio::test]
async fn messages_arrive_in_the_order_of_their_requests() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let mut sends = Sends::anonymous(&server).await;
    // 60 messages fit into the mailbox, even if its stream is not polled in between.
    for number in 0..60 {
        sends.ask(message("bob/phone", "", &number.to_string())).await;
    }
    for number in 0..60 {
        assert_eq!(sends.answer().await.expect("an answer"), Ok(Outcome::Delivered), "{number}");
        assert_eq!(phone.data().await, number.to_string());
    }
}

#[tokio::test]
async fn an_error_has_the_code_and_the_message_of_a_single_send() {
    let server = Server::with(&["--memory-budget", "90000", "--stall-timeout", "50"]).await;
    let _phone = server.sse("bob/phone").await;
    let full = Http2::with_window(server.address, 10).await;
    let request = http::Request::get(full.uri("/subscribe")).header("x-user-claim", claim("bob/full"));
    let _unread = full.clone().send(request.body(axum::body::Body::empty()).expect("a request")).await;
    until(|| server.post("bob/full", "x"), |answer| answer.status == 429).await;
    let held = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let fraction = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    let mut client = server.grpc().await;
    let mut sends = Sends::open(&mut client, |_| {}).await.expect("a stream");
    for (request, code) in [
        (message("bob/phone", "", "x"), Code::Ok),
        (SendRequest { ttl: held, ..message("bob/away", "", "x") }, Code::Ok),
        (message("bob/..", "", "x"), Code::InvalidArgument),
        (message("/phone", "", "x"), Code::InvalidArgument),
        (message("bob/phone", "signal.end", "x"), Code::InvalidArgument),
        (message("bob/phone", "", ""), Code::InvalidArgument),
        (SendRequest { ttl: fraction, ..message("bob/phone", "", "x") }, Code::InvalidArgument),
        (SendRequest { to: None, ..message("bob/phone", "", "x") }, Code::InvalidArgument),
        (message("bob/watch", "", "x"), Code::NotFound),
        (message("bob/full", "", "x"), Code::ResourceExhausted),
        (message("bob/phone", "", &"x".repeat(95_000)), Code::Unavailable),
    ] {
        sends.ask(request.clone()).await;
        let answer = within(sends.answers.message()).await.expect("no end").and_then(|answer| answer.result);
        match within(client.send(request)).await {
            Ok(sent) => assert_eq!((answer, code), (Some(Answer::Sent(sent.into_inner())), Code::Ok)),
            Err(status) => {
                let Some(Answer::Error(error)) = answer else { panic!("{answer:?} instead of {status:?}") };
                assert_eq!(Code::from(error.code), code);
                // A single send says in its metadata when to try again.
                let time = error.message.strip_prefix(status.message()).expect("the same message");
                assert_eq!(time.starts_with(" Retry after "), status.metadata().contains_key("retry-after"), "{time}");
                assert_eq!(status.code(), code);
            }
        }
    }
}

#[tokio::test]
async fn an_identity_that_is_not_valid_is_the_status_of_the_call() {
    let server = Server::with(&["--require-claim", "all"]).await;
    let mut client = server.grpc().await;
    for claim in [None, Some("no claim")] {
        let refused = Sends::open(&mut client, |request| {
            let _ = claim.map(|claim| request.metadata_mut().insert("x-user-claim", claim.parse().expect("ASCII")));
        });
        assert_eq!(refused.await.map(|_| ()).expect_err("refused").code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_or_malformed_ends_the_call_after_the_responses_before_it() {
    let server = Server::with(&["--body-limit", "1000"]).await;
    let mut sends = Sends::anonymous(&server).await;
    sends.ask(message("bob/watch", "", "x")).await;
    sends.ask(message("bob/watch", "", &"x".repeat(2_000))).await;
    assert_eq!(sends.answer().await.expect("an answer"), Err(Code::NotFound));
    assert_eq!(sends.answer().await.expect_err("the end").code(), Code::OutOfRange);
    // A `SendRequest` where a `SendStreamRequest` is expected: the fields do not decode.
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
    let mut client = tonic::client::Grpc::new(within(channel.connect()).await.expect("listens"));
    client.ready().await.expect("ready");
    let codec = tonic_prost::ProstCodec::<SendRequest, SendStreamResponse>::default();
    let requests = Request::new(tokio_stream::iter([message("bob/phone", "", "x")]));
    let path = "/backend_signal.v1.Signal/SendStream".parse().expect("a path");
    let mut answers = within(client.streaming(requests, path, codec)).await.expect("a stream").into_inner();
    assert_eq!(within(answers.message()).await.expect_err("the end").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_deadline_ends_the_call_of_a_silent_client_and_of_one_that_sends_endlessly() {
    let server = Server::start().await;
    for sends_endlessly in [false, true] {
        let mut sends = Sends::open(&mut server.grpc().await, |request| {
            request.metadata_mut().insert("grpc-timeout", "300m".parse().expect("ASCII"));
        })
        .await
        .expect("a stream");
        if sends_endlessly {
            sends.send_endlessly();
        }
        assert_eq!(sends.end().await, Code::DeadlineExceeded, "{sends_endlessly}");
    }
}

#[tokio::test]
async fn a_drain_ends_the_call_of_a_silent_client_and_of_one_that_sends_endlessly() {
    let server = Server::with(&["--drain-window", "600"]).await;
    let (mut silent, mut talking) = (Sends::anonymous(&server).await, Sends::anonymous(&server).await);
    talking.send_endlessly();
    assert_eq!(talking.answer().await.expect("an answer"), Err(Code::NotFound));
    server.drain.start();
    assert_eq!(silent.end().await, Code::Unavailable);
    assert_eq!(talking.end().await, Code::Unavailable);
    // Neither client has ended its side of the call.
    server.stopped().await;
}

#[tokio::test]
async fn a_call_that_begins_during_a_drain_is_unavailable() {
    let server = Server::with(&["--drain-window", "3"]).await;
    let _open = [server.sse("bob/a").await, server.sse("bob/b").await, server.sse("bob/c").await];
    server.drain.start();
    until(|| server.request("GET /readyz", &[], b""), |answer| answer.status == 503).await;
    let mut sends = Sends::anonymous(&server).await;
    assert_eq!(sends.end().await, Code::Unavailable);
    server.stopped().await;
}

/// The body of a call with this number of requests.
fn body(requests: usize) -> Vec<u8> {
    framed(&SendStreamRequest { send: Some(message("bob/nobody", "", "x")) }).repeat(requests)
}

/// A peer that has opened a call, with a flow-control window of `window` bytes for the responses.
async fn peer(server: &Server, window: u32) -> Frames {
    let mut peer = Frames::open(server.address, &[(frames::INITIAL_WINDOW_SIZE, window)]).await;
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let block = frames::post("/backend_signal.v1.Signal/SendStream", &headers);
    peer.send(frames::HEADERS, frames::END_HEADERS, 1, &block).await;
    peer.next_of(frames::HEADERS).await.expect("an answer before the first request");
    peer
}

#[tokio::test]
async fn responses_to_requests_that_arrive_together_are_written_together() {
    let server = Server::start().await;
    let mut peer = peer(&server, 1 << 20).await;
    peer.send(frames::DATA, 0, 1, &body(100)).await;
    let (mut bytes, mut frames) = (Vec::new(), 0);
    let answer = 5 + SendStreamResponse {
        result: Some(Answer::Error(backend_signal::grpc::proto::SendError {
            code: Code::NotFound.into(),
            message: backend_signal::error::Error::NotConnected.detail().into(),
        })),
    }
    .encoded_len();
    while bytes.len() < 100 * answer {
        bytes.extend(peer.next_of(frames::DATA).await.expect("answers").payload);
        frames += 1;
    }
    assert_eq!(bytes.len(), 100 * answer);
    assert!(frames <= 4, "{frames} frames");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_responses_stops_its_requests_and_only_its_call_is_cut() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let mut peer = peer(&server, 10).await;
    // Almost as many bytes as the flow-control window of a new stream allows.
    let requests = 2_000;
    let body = body(requests);
    assert!((40_000..65_535).contains(&body.len()), "{}", body.len());
    for part in body.chunks(16_384) {
        peer.send(frames::DATA, 0, 1, part).await;
    }
    peer.next_of(frames::RST_STREAM).await.expect("the stream is cut");
    let metrics = server.request("GET /metrics", &[], b"").await.text();
    let label = "signal_sends_total{outcome=\"not_connected\"} ";
    let sent: usize = metrics.lines().find_map(|line| line.strip_prefix(label)?.parse().ok()).expect("a count");
    assert!((1..=300).contains(&sent), "{sent} of {requests}");
    peer.send(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 3, &frames::get("/healthz", &[])).await;
    peer.next_of(frames::HEADERS).await.expect("the connection lives on");
}

#[tokio::test]
async fn a_silent_client_that_has_read_every_response_is_not_cut() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let mut sends = Sends::anonymous(&server).await;
    for _ in 0..3 {
        sends.ask(message("bob/watch", "", "x")).await;
        assert_eq!(sends.answer().await.expect("an answer"), Err(Code::NotFound));
        // Longer than the stall timeout. No response is unread, so nothing is cut.
        let silence = tokio::time::timeout(Duration::from_millis(700), sends.answers.message());
        assert!(silence.await.is_err(), "the call was cut without an unread response");
    }
}
