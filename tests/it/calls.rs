//! Every streaming method, also of health and reflection, ends when its client leaves, is cut when its client does not read, and
//! ends with a status on a drain. The tests find the methods in the descriptors.

use axum::body::{Body, Bytes};
use backend_signal::grpc::proto::{Address, SendRequest, SendStreamRequest, WatchDevicesRequest};
use http::{Request, Response};
use hyper::body::Incoming;
use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::{StreamExt as _, iter, wrappers::ReceiverStream};
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{Connection, Server, claim, grpc::framed, http2::Http2, metric, until, within};

/// A method whose responses are a stream.
struct Method {
    path: String,
    /// The requests are a stream, too.
    bidirectional: bool,
}

/// The streaming methods of the service, of health, and of both versions of reflection.
fn streaming() -> Vec<Method> {
    let ours = include_bytes!("../../proto/generated/signal.bin");
    let sets =
        [&ours[..], tonic_health::pb::FILE_DESCRIPTOR_SET, v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];
    let mut methods = Vec::new();
    for set in sets {
        for file in FileDescriptorSet::decode(set).expect("descriptors").file {
            for service in &file.service {
                let streams = service.method.iter().filter(|method| method.server_streaming());
                methods.extend(streams.map(|method| Method {
                    path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                    bidirectional: MethodDescriptorProto::client_streaming(method),
                }));
            }
        }
    }
    assert!(methods.len() >= 6, "too few methods were found");
    methods
}

impl Method {
    /// A first request that the method answers. For a method without a branch here, an empty message.
    fn request(&self) -> Vec<u8> {
        let to = Some(Address { user: "bob".into(), device: "nobody".into() });
        let send =
            Some(SendRequest { to, event: String::new(), data: "x".into(), ttl: None, idempotency_key: String::new() });
        if self.path.ends_with("/SendStream") {
            return framed(&SendStreamRequest { send });
        }
        if self.path.ends_with("/WatchDevices") {
            return framed(&WatchDevicesRequest { users: vec!["bob".into()], heartbeat: None });
        }
        if self.path.contains("reflection.v1.") {
            let message_request = Some(v1::server_reflection_request::MessageRequest::ListServices(String::new()));
            return framed(&v1::ServerReflectionRequest { host: String::new(), message_request });
        }
        if self.path.contains("reflection.v1alpha.") {
            let message_request = Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()));
            return framed(&v1alpha::ServerReflectionRequest { host: String::new(), message_request });
        }
        vec![0; 5]
    }

    /// Begins a call over HTTP/2. The request body of a bidirectional call stays open, and an error sent to it resets the stream.
    async fn over_http2(&self, connection: &Http2) -> (Response<Incoming>, Sender<std::io::Result<Bytes>>) {
        let (requests, receiver) = channel(1);
        let first = iter([Ok(Bytes::from(self.request()))]);
        let body = if self.bidirectional {
            Body::from_stream(first.chain(ReceiverStream::new(receiver)))
        } else {
            Body::from_stream(first)
        };
        let request = Request::post(connection.uri(&self.path)).header("content-type", "application/grpc");
        let request = request.header("te", "trailers").header("x-user-claim", claim("bob/phone"));
        let response = connection.clone().send(request.body(body).expect("a request")).await;
        assert_eq!(response.status(), 200, "{}", self.path);
        assert!(!response.headers().contains_key("grpc-status"), "{}: {:?}", self.path, response.headers());
        (response, requests)
    }

    /// Begins a call over HTTP/1.1 as gRPC-Web.
    async fn over_http1(&self, server: &Server) -> Connection {
        let mut connection = Connection::open(server.address).await;
        let (claim, body) = (claim("bob/phone"), self.request());
        let length = body.len().to_string();
        let framing =
            if self.bidirectional { ("transfer-encoding", "chunked") } else { ("content-length", length.as_str()) };
        let kind = ("content-type", "application/grpc-web+proto");
        connection.ask(&format!("POST {}", self.path), &[kind, ("x-user-claim", &claim), framing]).await;
        if self.bidirectional {
            connection.write(format!("{length:x}\r\n", length = body.len()).as_bytes()).await;
        }
        connection.write(&body).await;
        if self.bidirectional {
            connection.write(b"\r\n").await;
        }
        let head = connection.head().await;
        assert_eq!((head.status, head.header("grpc-status")), (200, ""), "{}: {head:?}", self.path);
        assert_eq!(head.header("transfer-encoding"), "chunked", "{}: the response must be chunked", self.path);
        connection
    }
}

/// The tasks of the runtime that this test and its server share. Each connection and each stream is a task.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// The number of tasks, once it has stayed the same for five reads.
async fn settled_tasks() -> usize {
    let mut before = (usize::MAX, 0);
    let same = || {
        before = (tasks(), if tasks() == before.0 { before.1 + 1 } else { 0 });
        std::future::ready(before)
    };
    until(same, |(_, times)| *times == 5).await.0
}

#[tokio::test]
async fn a_call_ends_when_its_client_goes_away() {
    let server = Server::start().await;
    for method in streaming() {
        let before = settled_tasks().await;
        let call = method.over_http1(&server).await;
        assert!(tasks() > before, "{}: no task", method.path);
        drop(call);
        until(async || tasks(), |tasks| *tasks <= before).await;
        let connection = Http2::open(server.address).await;
        let before = settled_tasks().await;
        let (response, requests) = method.over_http2(&connection).await;
        assert!(tasks() > before, "{}: no task", method.path);
        drop(response);
        // Only a bidirectional call reads this.
        let _ = requests.send(Err(std::io::ErrorKind::Other.into())).await;
        until(async || tasks(), |tasks| *tasks <= before).await;
    }
}

#[tokio::test]
async fn a_call_whose_responses_are_not_read_is_cut() {
    let server = Server::with(&["--stall-timeout", "0.4"]).await;
    for (cut, method) in streaming().iter().enumerate() {
        let connection = Http2::with_window(server.address, 1).await;
        let (call, _requests) = method.over_http2(&connection).await;
        until(|| metric(&server, "signal_stalled_streams_total"), |count| *count == cut as u64 + 1).await;
        let mut body = Body::new(call.into_body()).into_data_stream();
        let error = within(async {
            loop {
                match body.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error,
                    None => panic!("{}: a clean end", method.path),
                }
            }
        });
        let error = format!("{:?}", error.await);
        assert!(error.contains("CANCEL"), "{}: {error}", method.path);
    }
    until(|| metric(&server, "signal_unsent_bytes"), |bytes| *bytes == 0).await;
}

#[tokio::test]
async fn a_call_ends_with_a_status_when_the_server_stops() {
    for method in streaming() {
        let server = Server::with(&["--drain-window", "3"]).await;
        let connection = Http2::open(server.address).await;
        let (call, _requests) = method.over_http2(&connection).await;
        // A second `Subscribe` of the same device would end the first.
        let mut web = if method.path.ends_with("/Subscribe") { None } else { Some(method.over_http1(&server).await) };
        server.drain.start();
        let mut body = call.into_body();
        let status = within(async {
            while let Some(frame) = http_body_frame(&mut body).await {
                if let Ok(trailers) = frame.into_trailers() {
                    return trailers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse::<i32>().ok());
                }
            }
            None
        });
        let status = status.await.unwrap_or_else(|| panic!("{}: no status", method.path));
        assert!([0, 14].contains(&status), "{}: {status}", method.path);
        if let Some(web) = &mut web {
            let mut text = Vec::new();
            while let Some(chunk) = web.chunk().await {
                text.extend(chunk);
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            let status = text.split("grpc-status:").nth(1).unwrap_or_else(|| panic!("{}: {text}", method.path));
            assert!(["0", "14"].contains(&status.trim_start().split("\r\n").next().unwrap_or_default()), "{text}");
        }
    }
}

async fn http_body_frame(body: &mut Incoming) -> Option<hyper::body::Frame<Bytes>> {
    use hyper::body::Body as _;
    let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx)).await;
    frame.map(|frame| frame.expect("no reset"))
}

#[tokio::test]
async fn a_busy_call_ends_at_its_deadline() {
    let server = Server::with(&["--heartbeat", "600"]).await;
    let connection = Http2::open(server.address).await;
    let request =
        Request::post(connection.uri("/backend_signal.v1.Signal/Subscribe")).header("content-type", "application/grpc");
    let request = request.header("te", "trailers").header("x-user-claim", claim("bob/phone"));
    let request = request.header("grpc-timeout", "700m").body(Body::from(vec![0; 5])).expect("a request");
    let mut body = connection.clone().send(request).await.into_body();
    let address = server.address;
    let sending = tokio::spawn(async move {
        let mut sender = Connection::open(address).await;
        let headers = [("content-type", crate::harness::FORM)];
        while sender.request("POST /user/bob/device/phone", &headers, b"data=x").await.status == 200 {}
    });
    let (mut messages, mut status) = (0, None);
    while let Some(frame) = within(http_body_frame(&mut body)).await {
        match frame.into_trailers() {
            Ok(trailers) => status = trailers.get("grpc-status").cloned(),
            Err(_) => messages += 1,
        }
    }
    assert_eq!(status.expect("trailers"), "4", "after {messages} messages");
    assert!(messages > 10, "it was busy: {messages}");
    within(sending).await.expect("no panic");
}
