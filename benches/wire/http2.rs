//! Subscribers and senders over HTTP/2, frame by frame (RFC 9113), for server-sent events, posts and gRPC.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use memchr::memmem;

use crate::{
    frames::{Connection, DATA, END_STREAM, Frame, GET, HEADERS, POST, RST_STREAM},
    load::{Body, Tally, post_path},
};

/// Every opening is longer, and the frames that are no event are not.
const EVENT: usize = 20;

/// How a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A POST, or a stream of server-sent events.
    Http,
    /// A unary `Send`, or a `Subscribe`.
    Grpc,
    /// Messages on one `SendStream`.
    GrpcStream,
}

/// Opens streams for some devices on one connection, all at once, and reads them for ever.
pub async fn subscribe(
    address: SocketAddr,
    call: Call,
    devices: std::ops::Range<u32>,
    tally: Arc<Tally>,
) -> io::Result<()> {
    let mut connection = Connection::open(address).await?;
    for device in devices {
        ask(&mut connection, call, device);
    }
    loop {
        connection.flush().await?;
        let count = |frame: Frame<'_>| {
            let counter = match frame.kind {
                DATA if memmem::find(frame.payload, b"D.").is_some() => &tally.received,
                DATA if memmem::find(frame.payload, b"signal.ping").is_some() => &tally.pings,
                DATA if frame.payload.len() >= EVENT => &tally.open,
                RST_STREAM => &tally.wrong,
                _ => return,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        };
        connection.read(count).await?;
    }
}

/// Queues the request for a device's stream.
fn ask(connection: &mut Connection, call: Call, device: u32) {
    if call == Call::Http {
        connection.request(GET, &format!("/subscribe/u{device}/device/d"), &[], true);
        return;
    }
    let claim = format!(r#"{{"userid":"u{device}","clientid":"d"}}"#);
    let headers = [("content-type", "application/grpc"), ("te", "trailers"), ("x-user-claim", claim.as_str())];
    let stream = connection.request(POST, "/backend_signal.v1.Signal/Subscribe", &headers, false);
    connection.data(stream, &[0; 5], true);
}

/// Sends to some devices, one message for each mention at a time, the next when the last is answered.
pub async fn publish(
    address: SocketAddr,
    call: Call,
    devices: Vec<u32>,
    size: usize,
    end: Duration,
    tally: Arc<Tally>,
) -> io::Result<()> {
    let mut connection = Connection::open(address).await?;
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let shared = (call == Call::GrpcStream)
        .then(|| connection.request(POST, "/backend_signal.v1.Signal/SendStream", &headers, false));
    let (mut waiting, mut free) = (HashMap::new(), devices);
    // The devices whose messages on the one stream were not answered yet, in order.
    let (mut order, mut answers) = (std::collections::VecDeque::new(), Vec::new());
    // What is ready to be sent on it, which goes out in one frame, as tonic's client has it.
    let mut ready = Vec::new();
    let mut refused = 0;
    while tally.now() < end || !waiting.is_empty() || !order.is_empty() {
        while tally.now() < end {
            let Some(device) = free.pop() else { break };
            let message = message(call, device, size, &tally);
            match call {
                Call::GrpcStream => {
                    ready.extend_from_slice(&message);
                    order.push_back(device);
                }
                Call::Grpc => {
                    let stream = connection.request(POST, "/backend_signal.v1.Signal/Send", &headers, false);
                    connection.data(stream, &message, true);
                    waiting.insert(stream, device);
                }
                Call::Http => {
                    let kind = [("content-type", "application/x-www-form-urlencoded")];
                    let stream = connection.request(POST, &post_path(device), &kind, false);
                    connection.data(stream, &message, true);
                    waiting.insert(stream, device);
                }
            }
        }
        if let Some(stream) = shared.filter(|_| !ready.is_empty()) {
            connection.data(stream, &ready, false);
            ready.clear();
        }
        connection.flush().await?;
        let mut done = Vec::new();
        let (mut good, mut over) = (0_u64, false);
        let take = |frame: Frame<'_>| match (call, frame.kind) {
            (Call::GrpcStream, DATA) => answers.extend_from_slice(frame.payload),
            // DELIVERED, in its frame.
            (Call::Grpc, DATA) => good += u64::from(frame.payload.ends_with(&[1])),
            (Call::Http, HEADERS) => {
                // 200 has an index of its own.
                good += u64::from(frame.payload.first() == Some(&0x88));
                done.push(frame.stream);
            }
            (Call::Grpc, HEADERS) if frame.flags & END_STREAM != 0 => done.push(frame.stream),
            (Call::GrpcStream, HEADERS) => over |= frame.flags & END_STREAM != 0,
            _ => {}
        };
        connection.read(take).await?;
        if over {
            return Err(io::Error::other("the server ended the stream of sends"));
        }
        let whole = answers.len() / DELIVERED.len();
        for answer in answers.drain(..whole * DELIVERED.len()).collect::<Vec<_>>().chunks(DELIVERED.len()) {
            good += u64::from(answer == DELIVERED);
            free.extend(order.pop_front());
        }
        let finished = done.len() + if shared.is_some() { whole } else { 0 };
        free.extend(done.iter().filter_map(|stream| waiting.remove(stream)));
        tally.accepted.fetch_add(good, Ordering::Relaxed);
        // An answer and the end of its stream may come apart, so this is true only at the end.
        refused += i64::try_from(finished).unwrap_or(i64::MAX) - i64::try_from(good).unwrap_or(i64::MAX);
    }
    tally.refused.fetch_add(u64::try_from(refused).unwrap_or_default(), Ordering::Relaxed);
    Ok(())
}

/// `SendStreamResponse { sent: { outcome: DELIVERED } }` in its frame.
const DELIVERED: [u8; 9] = [0, 0, 0, 0, 4, 0x0a, 2, 8, 1];

/// The body of one request, with the next message to a device.
fn message(call: Call, device: u32, size: usize, tally: &Tally) -> Vec<u8> {
    let mut data = Vec::with_capacity(size + 64);
    if call == Call::Http {
        Body::Form(size).write(&mut data, tally, device, tally.now());
        return data;
    }
    tally.compose(&mut data, device, size, tally.now());
    let mut address = Vec::new();
    field(&mut address, 1, format!("u{device}").as_bytes());
    field(&mut address, 2, b"d");
    let mut send = Vec::with_capacity(size + 64);
    field(&mut send, 1, &address);
    field(&mut send, 3, &data);
    let mut message = vec![0; 5];
    if call == Call::GrpcStream {
        field(&mut message, 1, &send);
    } else {
        message.extend_from_slice(&send);
    }
    let length = u32::try_from(message.len() - 5).unwrap_or(u32::MAX).to_be_bytes();
    message[1..5].copy_from_slice(&length);
    message
}

/// A field of protobuf that has a length, below 16,384 bytes.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn field(into: &mut Vec<u8>, number: u8, value: &[u8]) {
    into.push(number << 3 | 2);
    if value.len() >= 128 {
        into.push(value.len() as u8 | 128);
        into.push((value.len() >> 7) as u8);
    } else {
        into.push(value.len() as u8);
    }
    into.extend_from_slice(value);
}
