//! Messages that the daemon wrote to a socket and the client never read: the client's next stream replays them.

use backend_signal::grpc::proto::{Continuity, SubscribeResponse, subscribe_response::Kind};
use prost::Message as _;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::harness::{
    Connection, Server, Sse, claim,
    event_stream::Parser,
    frames::{self, Frames},
    http2::Http2,
    until, within,
};

const PHONE: &str = "bob/phone";
const MESSAGES: [&str; 3] = ["first", "second", "third"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Http1,
    Http2,
    Grpc,
}

#[tokio::test]
async fn messages_in_a_socket_that_was_reset_are_replayed() {
    for transport in [Transport::Http1, Transport::Http2, Transport::Grpc] {
        let server = Server::start().await;
        let Unread { socket, cursor } = handed_over(&server, transport).await;
        socket.set_zero_linger().expect("an open socket");
        drop(socket);
        until(|| server.devices("bob"), |devices| devices == "[]").await;
        assert_resumes(&server, transport, &cursor).await;
    }
}

#[tokio::test]
async fn messages_in_a_socket_that_was_closed_are_replayed() {
    for transport in [Transport::Http1, Transport::Http2, Transport::Grpc] {
        let server = Server::start().await;
        let Unread { mut socket, cursor } = handed_over(&server, transport).await;
        // Sends only a FIN. Closing a socket with unread bytes would reset the connection.
        within(socket.shutdown()).await.expect("an open socket");
        until(|| server.devices("bob"), |devices| devices == "[]").await;
        drop(socket);
        assert_resumes(&server, transport, &cursor).await;
    }
}

#[tokio::test]
async fn messages_in_a_socket_that_its_client_abandoned_are_replayed() {
    for transport in [Transport::Http1, Transport::Http2, Transport::Grpc] {
        let server = Server::start().await;
        // The socket stays open, as when a phone changes its network, so the daemon does not notice.
        let Unread { socket, cursor } = handed_over(&server, transport).await;
        assert_resumes(&server, transport, &cursor).await;
        drop(socket);
    }
}

/// A stream whose client has read the opening and nothing after it.
struct Unread {
    socket: TcpStream,
    cursor: String,
}

/// Opens a stream and waits until all messages are in the socket of its client, which reads none of them.
async fn handed_over(server: &Server, transport: Transport) -> Unread {
    let unread = match transport {
        Transport::Http1 => http1(server).await,
        Transport::Http2 => http2(server).await,
        Transport::Grpc => grpc(server).await,
    };
    for data in MESSAGES {
        assert_eq!(server.post(PHONE, data).await.status, 200);
    }
    let arrived = async || {
        let mut bytes = vec![0; 8_192];
        let length = unread.socket.peek(&mut bytes).await.expect("an open socket");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    until(arrived, |text| MESSAGES.iter().all(|data| text.contains(data))).await;
    unread
}

async fn http1(server: &Server) -> Unread {
    let mut phone = Connection::open(server.address).await;
    phone.ask("GET /subscribe", &[("x-user-claim", &claim(PHONE))]).await;
    assert_eq!(phone.head().await.status, 200);
    let mut parser = Parser::default();
    while parser.push(&phone.chunk().await.expect("the opening")).is_empty() {}
    Unread { socket: phone.stream, cursor: parser.last_event_id }
}

async fn http2(server: &Server) -> Unread {
    let mut phone = Frames::open(server.address, &[]).await;
    let block = frames::get("/subscribe", &[("x-user-claim", &claim(PHONE))]);
    phone.send(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 1, &block).await;
    let mut parser = Parser::default();
    while parser.push(&phone.next_of(frames::DATA).await.expect("the opening").payload).is_empty() {}
    Unread { socket: phone.0, cursor: parser.last_event_id }
}

async fn grpc(server: &Server) -> Unread {
    let mut phone = Frames::open(server.address, &[]).await;
    let claim = claim(PHONE);
    let headers = [("x-user-claim", claim.as_str()), ("content-type", "application/grpc"), ("te", "trailers")];
    let block = frames::post("/backend_signal.v1.Signal/Subscribe", &headers);
    phone.send(frames::HEADERS, frames::END_HEADERS, 1, &block).await;
    // A request without a cursor is an empty message, so only the five bytes of its frame are sent.
    phone.send(frames::DATA, frames::END_STREAM, 1, &[0; 5]).await;
    let mut bytes = Vec::new();
    loop {
        bytes.extend(phone.next_of(frames::DATA).await.expect("the opening").payload);
        let Some(length) = bytes.get(1..5) else { continue };
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        let Some(message) = bytes.get(5..5 + length) else { continue };
        match SubscribeResponse::decode(message).expect("a response").kind {
            Some(Kind::Ready(ready)) => return Unread { socket: phone.0, cursor: ready.cursor },
            other => panic!("{other:?} instead of ready"),
        }
    }
}

/// Reconnects the device with its cursor: every message comes once and in order, and then a new one.
async fn assert_resumes(server: &Server, transport: Transport, cursor: &str) {
    let mut data = Vec::new();
    if transport == Transport::Grpc {
        let mut back = server.grpc_stream(PHONE, cursor).await.expect("a stream");
        assert_eq!((back.ready.continuity(), back.ready.replayed), (Continuity::Resumed, 3), "{transport:?}");
        assert_eq!(server.post(PHONE, "live").await.status, 200);
        while data.last().is_none_or(|last| last != "live") {
            data.push(back.data().await);
        }
    } else {
        let headers = [("last-event-id", cursor)];
        let mut back = match transport {
            Transport::Http1 => server.sse_with(PHONE, "/subscribe", &headers).await,
            _ => Sse::open_h2_with(&Http2::open(server.address).await, PHONE, &headers).await,
        };
        let ready = (&back.ready["continuity"], &back.ready["replayed"]);
        assert_eq!(ready, (&"resumed".into(), &3.into()), "{transport:?}");
        assert_eq!(server.post(PHONE, "live").await.status, 200);
        while data.last().is_none_or(|last| last != "live") {
            data.push(back.data().await);
        }
    }
    assert_eq!(data, ["first", "second", "third", "live"], "{transport:?}");
}
