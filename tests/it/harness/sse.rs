//! A client of an event stream, over HTTP/1.1 or HTTP/2.

use std::{collections::VecDeque, net::SocketAddr};

use axum::body::Body;
use hyper::body::{Body as _, Incoming};

use super::{Connection, EVENT_STREAM, Event, Response, event_stream::Parser, http2::Http2, within};

/// An open stream.
pub struct Sse {
    pub parser: Parser,
    pub ready: serde_json::Value,
    events: VecDeque<Event>,
    transport: Transport,
}

enum Transport {
    Http1(Connection),
    /// A stream that had ended before its head was written, and was read as a whole.
    Whole,
    Http2(std::pin::Pin<Box<Incoming>>, #[expect(dead_code, reason = "keeps the connection")] Http2),
}

impl Sse {
    /// Opens a stream over HTTP/1.1 and reads its opening.
    pub async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut connection = Connection::open(address).await;
        connection.ask(&format!("GET {path}"), headers).await;
        let mut head = connection.head().await;
        let transport = match head.header("content-length").parse() {
            Ok(length) => {
                head.body = vec![0; length];
                connection.read(&mut head.body).await;
                Transport::Whole
            }
            Err(_) => Transport::Http1(connection),
        };
        Self::begin(head, transport).await
    }

    /// Opens a stream that has no `signal.ready`.
    pub async fn open_plain(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut connection = Connection::open(address).await;
        connection.ask(&format!("GET {path}"), headers).await;
        let head = connection.head().await;
        assert_eq!((head.status, head.header("content-type")), (200, EVENT_STREAM), "{head:?}");
        Self::after_head(connection)
    }

    /// The stream of a connection whose head was read.
    pub fn after_head(connection: Connection) -> Self {
        let (parser, events) = (Parser::default(), VecDeque::new());
        Self { parser, ready: serde_json::Value::Null, events, transport: Transport::Http1(connection) }
    }

    /// Opens a stream on a connection of HTTP/2.
    pub async fn open_h2(connection: &Http2, device: &str) -> Self {
        Self::open_h2_with(connection, device, &[]).await
    }

    /// The same with more headers.
    pub async fn open_h2_with(connection: &Http2, device: &str, headers: &[(&str, &str)]) -> Self {
        let mut connection = connection.clone();
        let mut request = http::Request::get(connection.uri("/subscribe")).header("x-user-claim", super::claim(device));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = connection.send(request.body(Body::empty()).expect("a request")).await;
        let (parts, body) = response.into_parts();
        let headers = parts.headers.iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
        let head = Response { status: parts.status.as_u16(), headers: headers.collect(), body: Vec::new() };
        Self::begin(head, Transport::Http2(Box::pin(body), connection)).await
    }

    async fn begin(head: Response, transport: Transport) -> Self {
        assert_eq!(head.status, 200, "{head:?}");
        let mut parser = Parser::default();
        let events = parser.push(&head.body).into();
        let mut sse = Self { parser, ready: serde_json::Value::Null, events, transport };
        match sse.try_next().await {
            Some(ready) if ready.name == "signal.ready" => {
                sse.ready = serde_json::from_str(&ready.data).expect("JSON");
            }
            // A refused stream has only its end.
            Some(end) if end.name == "signal.end" => sse.events.push_front(end),
            // A stream of the legacy format has no control events.
            None => {}
            other => panic!("{other:?} and not signal.ready"),
        }
        sse
    }

    /// The next event. It must come.
    pub async fn next(&mut self) -> Event {
        self.try_next().await.expect("an event and not the end of the stream")
    }

    /// The next event; `None` at a clean end of the stream.
    pub async fn try_next(&mut self) -> Option<Event> {
        while self.events.is_empty() {
            let bytes = self.bytes().await?;
            self.events.extend(self.parser.push(&bytes));
        }
        self.events.pop_front()
    }

    /// The next event, which may come at any time, or never; `None` at a clean end of the stream. When this is given up, nothing is
    /// lost.
    pub async fn next_patiently(&mut self) -> Option<Event> {
        if self.events.is_empty()
            && let Transport::Http1(connection) = &mut self.transport
        {
            connection.more().await;
        }
        self.try_next().await
    }

    /// The next message. Drops heartbeats before it.
    pub async fn message(&mut self) -> Event {
        loop {
            let event = self.next().await;
            if !event.name.starts_with("signal.") {
                return event;
            }
        }
    }

    /// The data of the next message.
    pub async fn data(&mut self) -> String {
        self.message().await.data
    }

    /// The reason of `signal.end`. Waits for the clean end after it.
    pub async fn end(mut self) -> String {
        loop {
            let event = self.next().await;
            if event.name == "signal.end" {
                assert_eq!(self.try_next().await, None);
                let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                return data["reason"].as_str().expect("a reason").to_owned();
            }
        }
    }

    /// Closes the stream. Gives the cursor to come back with.
    pub fn leave(self) -> String {
        self.parser.last_event_id
    }

    /// The next bytes of the body; `None` at its clean end. Any other end fails the test.
    pub async fn bytes(&mut self) -> Option<Vec<u8>> {
        match &mut self.transport {
            Transport::Http1(connection) => connection.chunk().await,
            Transport::Whole => None,
            Transport::Http2(body, _) => {
                let frame = within(std::future::poll_fn(|cx| body.as_mut().poll_frame(cx))).await?;
                Some(frame.expect("no reset").into_data().unwrap_or_default().to_vec())
            }
        }
    }
}
