//! RFC 9113: heads that are malformed, frames that are errors, and what the server acknowledges. `h2spec.rs` runs h2spec, too.

use crate::harness::{
    Connection, Server,
    frames::{
        self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PING,
        PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
    },
    within,
};
use crate::serve::{connector, tempfiles};

/// How the server reacts.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// It answers with a status.
    Status(String),
    /// It resets the stream with a code.
    Reset(u32),
    /// It ends the connection with a code.
    Goodbye(u32),
}
use Outcome::{Goodbye, Reset};

// RFC 9113, section 7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;

fn status(code: &str) -> Outcome {
    Outcome::Status(code.to_owned())
}

async fn outcome(peer: &mut Frames) -> Outcome {
    let code = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    loop {
        let frame = peer.next().await.expect("an outcome before the end of the connection");
        match frame.kind {
            HEADERS => return Outcome::Status(frames::status(&frame.payload)),
            RST_STREAM => return Reset(code(&frame.payload)),
            GOAWAY => return Goodbye(code(&frame.payload[4..8])),
            _ => {}
        }
    }
}

type Fields<'a> = Vec<(&'a str, &'a str)>;

/// The head of a GET of `/healthz`.
const HEAD: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/healthz")];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Fields<'a> {
    [&HEAD[..], more].concat()
}

fn without<'a>(name: &str) -> Fields<'a> {
    HEAD.into_iter().filter(|(found, _)| *found != name).collect()
}

fn replaced<'a>(name: &str, value: &'a str) -> Fields<'a> {
    HEAD.into_iter().map(|(found, old)| (found, if found == name { value } else { old })).collect()
}

#[tokio::test]
async fn a_malformed_head_ends_its_stream_or_connection_and_any_other_head_is_answered() {
    let server = Server::start().await;
    let malformed = || Reset(PROTOCOL_ERROR);
    let first_regular = [&[("accept", "*/*")], &HEAD[..]].concat();
    for (section, head, expected) in [
        ("RFC 9113, 8.3.1", with(&[]), status("200")),
        // Not met: the whole connection ends, because the library cannot read the block any further.
        ("RFC 9113, 8.1.1", with(&[("Accept", "*/*")]), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 8.1.1", with(&[("x y", "z")]), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 8.1.1", with(&[("x", "a\r\nb")]), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 8.1.1", with(&[(":unknown", "x")]), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 8.2.2", with(&[("connection", "close")]), malformed()),
        ("RFC 9113, 8.2.2", with(&[("keep-alive", "5")]), malformed()),
        ("RFC 9113, 8.2.2", with(&[("proxy-connection", "close")]), malformed()),
        ("RFC 9113, 8.2.2", with(&[("transfer-encoding", "chunked")]), malformed()),
        ("RFC 9113, 8.2.2", with(&[("upgrade", "h2c")]), malformed()),
        ("RFC 9113, 8.2.2", with(&[("te", "gzip")]), malformed()),
        ("RFC 9113, 8.2.2", with(&[("te", "trailers")]), status("200")),
        ("RFC 9113, 8.2.3", with(&[("cookie", "a=b"), ("cookie", "c=d")]), status("200")),
        ("RFC 9113, 8.3", first_regular, malformed()),
        ("RFC 9113, 8.3", with(&[(":status", "200")]), malformed()),
        ("RFC 9113, 8.3", with(&[(":path", "/readyz")]), malformed()),
        ("RFC 9113, 8.3.1", without(":method"), malformed()),
        ("RFC 9113, 8.3.1", without(":scheme"), malformed()),
        ("RFC 9113, 8.3.1", without(":path"), malformed()),
        ("RFC 9113, 8.3.1", replaced(":path", ""), malformed()),
        ("RFC 9113, 8.3.1", replaced(":path", "healthz"), malformed()),
        ("RFC 9113, 8.3.1", replaced(":authority", "user@localhost"), status("400")),
        // A proxy that translates from HTTP/1.1 may leave out `:authority`, and `Host` replaces it.
        ("RFC 9113, 8.3.1", without(":authority"), status("200")),
        ("RFC 9113, 8.3.1", [without(":authority"), vec![("host", "x")]].concat(), status("200")),
        ("RFC 9113, 8.3.1", [without(":authority"), vec![("host", "x/y")]].concat(), status("400")),
        ("RFC 9113, 8.3.1", [without(":authority"), vec![("host", "x"), ("host", "y")]].concat(), status("400")),
        ("RFC 9113, 8.3.1", with(&[("host", "LocalHost")]), status("200")),
        ("RFC 9113, 8.3.1", with(&[("host", "other")]), status("400")),
        ("RFC 9113, 8.3.1", with(&[("host", "localhost"), ("host", "other")]), status("400")),
        ("RFC 9113, 8.5", vec![(":method", "CONNECT"), (":authority", "localhost:80")], status("404")),
        ("RFC 9113, 8.5", [&[(":method", "CONNECT")], &HEAD[1..]].concat(), malformed()),
        ("RFC 8441, 4", with(&[(":protocol", "websocket")]), malformed()),
        (
            "RFC 9110, 9.3.7",
            [vec![(":method", "OPTIONS"), (":path", "*")], HEAD[1..3].to_vec()].concat(),
            status("204"),
        ),
        // It does nothing, so whatever its hosts are makes no difference.
        (
            "RFC 9110, 9.3.7",
            [vec![(":method", "OPTIONS")], replaced(":authority", "user@localhost")[1..].to_vec()].concat(),
            status("204"),
        ),
    ] {
        let mut peer = Frames::open(server.address, &[]).await;
        peer.send(HEADERS, END_HEADERS | END_STREAM, 1, &frames::fields(&head)).await;
        assert_eq!(outcome(&mut peer).await, expected, "{section}: {head:?}");
        if matches!(expected, Goodbye(_)) {
            continue;
        }
        // The connection still serves other streams.
        peer.send(HEADERS, END_HEADERS | END_STREAM, 3, &frames::get("/readyz", &[])).await;
        assert_eq!(outcome(&mut peer).await, status("200"), "{section}: the next request after {head:?}");
    }
}

#[tokio::test]
async fn a_head_over_the_limit_is_431() {
    let server = Server::start().await;
    let long = "x".repeat(10_000);
    let block = frames::get("/healthz", &[("a", &long), ("b", &long)]);
    let (first, rest) = block.split_at(16_384);
    let mut peer = Frames::open(server.address, &[]).await;
    peer.send(HEADERS, END_STREAM, 1, first).await;
    peer.send(CONTINUATION, END_HEADERS, 1, rest).await;
    assert_eq!(outcome(&mut peer).await, status("431"), "RFC 6585, 5");
}

#[tokio::test]
async fn a_frame_that_is_an_error_ends_its_stream_or_its_connection() {
    let server = Server::start().await;
    let get = frames::get("/healthz", &[]);
    let opened = |stream| frame(HEADERS, END_HEADERS, stream, &frames::post("/user/bob/devices", &[]));
    let length = |length| frames::post("/user/bob/devices", &[("content-length", length)]);
    let window = |identifier: u16, value: u32| [&identifier.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let most = 0x7fff_ffff_u32.to_be_bytes();
    for (section, bytes, expected) in [
        ("RFC 9113, 4.2", frame(DATA, 0, 1, &vec![0; 16_385]), Goodbye(FRAME_SIZE_ERROR)),
        ("RFC 9113, 5.1", frame(DATA, END_STREAM, 1, b"x"), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 5.1.1", frame(HEADERS, END_HEADERS | END_STREAM, 2, &get), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.1", frame(DATA, END_STREAM, 0, b"x"), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.1", [opened(1), frame(DATA, 8, 1, &[9, 0])].concat(), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.2", frame(HEADERS, END_HEADERS | END_STREAM, 0, &get), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.2", [frame(HEADERS, 0, 1, &get), opened(3)].concat(), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.4", frame(RST_STREAM, 0, 1, &[0; 4]), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.5", frame(SETTINGS, 0, 1, &[]), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.7", frame(PING, 0, 1, &[0; 8]), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.8", frame(GOAWAY, 0, 1, &[0; 8]), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.9", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.9.1", frame(WINDOW_UPDATE, 0, 0, &most), Goodbye(FLOW_CONTROL_ERROR)),
        ("RFC 9113, 6.9.1", [opened(1), frame(WINDOW_UPDATE, 0, 1, &most)].concat(), Reset(FLOW_CONTROL_ERROR)),
        ("RFC 9113, 6.10", frame(CONTINUATION, END_HEADERS, 1, &get), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 8.4", [opened(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 4])].concat(), Goodbye(PROTOCOL_ERROR)),
        (
            "RFC 9113, 8.1.1",
            [frame(HEADERS, END_HEADERS, 1, &length("9")), frame(DATA, END_STREAM, 1, b"x")].concat(),
            Reset(PROTOCOL_ERROR),
        ),
        // Not met (RFC 9113, 7): the library sends PROTOCOL_ERROR where the RFC demands a more exact code.
        ("RFC 9113, 4.3", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 5]), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.5", frame(SETTINGS, 0, 0, &[0; 5]), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.5.2", frame(SETTINGS, 0, 0, &window(INITIAL_WINDOW_SIZE, 1 << 31)), Goodbye(PROTOCOL_ERROR)),
        ("RFC 9113, 6.7", frame(PING, 0, 0, &[0; 7]), Goodbye(PROTOCOL_ERROR)),
        (
            "RFC 9113, 5.1",
            [frame(HEADERS, END_HEADERS | END_STREAM, 1, &get), frame(DATA, END_STREAM, 1, b"x")].concat(),
            Goodbye(PROTOCOL_ERROR),
        ),
    ] {
        let mut peer = Frames::open(server.address, &[]).await;
        peer.write(&bytes).await;
        assert_eq!(outcome(&mut peer).await, expected, "{section}: {:?}", &bytes[..bytes.len().min(40)]);
    }
}

#[tokio::test]
async fn settings_and_pings_are_acknowledged_and_unknown_frames_ignored() {
    let server = Server::start().await;
    let mut peer = Frames::open(server.address, &[]).await;
    // RFC 9113, 3.4: the server's preface is SETTINGS. 6.5.3: then it acknowledges ours.
    let first = peer.next().await.expect("a frame");
    assert_eq!((first.kind, first.flags & ACK), (SETTINGS, 0));
    while let frame = peer.next_of(SETTINGS).await.expect("an acknowledgement")
        && frame.flags & ACK == 0
    {}
    // RFC 9113, 5.5 and 6.7.
    peer.send(0xbe, 0xff, 1, b"unknown").await;
    peer.send(PING, 0, 0, b"12345678").await;
    let answer = peer.next_of(PING).await.expect("an answer to PING");
    assert_eq!((answer.flags, answer.payload.as_slice()), (ACK, &b"12345678"[..]));
}

/// RFC 9113, 3.4: without the exact preface it is not HTTP/2. The server then reads it as HTTP/1.1, where it is malformed.
#[tokio::test]
async fn a_connection_with_a_wrong_preface_is_read_as_http_1() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    connection.write(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await;
    assert_eq!(connection.response(false).await.status, 400);
    assert_eq!(connection.closed().await, b"");
}

/// RFC 9113, 3.2 demands ALPN, and RFC 7301, 3.2 demands the alert.
#[tokio::test]
async fn a_tls_client_that_offers_only_unknown_protocols_gets_an_alert() {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = tempfiles("no-overlap", &identity);
    let server = Server::with(&["--tls-cert", &files[0], "--tls-key", &files[1]]).await;
    for (protocol, expected) in [(&b"h3"[..], None), (b"h2", Some(&b"h2"[..])), (b"http/1.0", Some(b"http/1.0"))] {
        let socket = within(tokio::net::TcpStream::connect(server.address)).await.expect("listens");
        let name = "localhost".try_into().expect("a name");
        match within(connector(identity.cert.der(), protocol).connect(name, socket)).await {
            Ok(stream) => assert_eq!(stream.get_ref().1.alpn_protocol(), expected),
            Err(error) => {
                assert_eq!(expected, None);
                assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
            }
        }
    }
}
