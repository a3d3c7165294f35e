//! Requests that succeed and fail in every way, with secrets wherever a secret can stand.

use std::{collections::BTreeSet, net::SocketAddr};

use axum::body::Body;
use serde_json::Value;

use super::secret;
use crate::harness::{
    Connection, FORM, JSON,
    grpc::{framed, message},
    http2::Http2,
    within,
};

/// What identifies the caller: a header, or a parameter of the query.
pub struct Identity {
    header: Option<(String, String)>,
    query: String,
    secrets: Vec<String>,
}

impl Identity {
    pub fn header(name: &str, value: &str, secrets: &[String]) -> Self {
        Self { header: Some((name.into(), value.into())), query: String::new(), secrets: secrets.to_vec() }
    }

    pub fn query(name: &str, value: &str, secrets: &[String]) -> Self {
        Self { header: None, query: format!("{name}={value}"), secrets: secrets.to_vec() }
    }
}

/// Asks, and keeps the answers and the secrets of the requests.
pub struct Ask {
    address: SocketAddr,
    user: String,
    http2: Option<Http2>,
    pub secrets: BTreeSet<String>,
    /// What a request was for, and its answer.
    pub answers: Vec<(String, String)>,
    pub statuses: BTreeSet<u16>,
}

/// A ticket for a token. Its answer is the only one that may hold a ticket.
pub async fn ticket(address: SocketAddr, token: &str) -> String {
    let headers = [("authorization", format!("Bearer {token}"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = Connection::open(address).await.request("POST /ticket", &headers, b"").await;
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    answer["ticket"].as_str().expect("a ticket").to_owned()
}

/// One request without its identity. `{}` in it is a secret of its own.
struct Shape(&'static str, &'static [(&'static str, &'static str)], &'static str);

const EVENTS: (&str, &str) = ("accept", "text/event-stream");
const AS_FORM: (&str, &str) = ("content-type", FORM);
const AS_JSON: (&str, &str) = ("content-type", JSON);
const AS_GRPC_WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");

/// `USER` is the caller. The device `phone` connects with the first shape.
const SHAPES: [Shape; 35] = [
    Shape("GET /subscribe?device=phone", &[EVENTS], ""),
    Shape("GET /subscribe", &[EVENTS], ""),
    Shape("GET /subscribe/USER/device/phone?last_event_id={}&x={}", &[EVENTS], ""),
    Shape("GET /subscribe/eve/device/{}", &[EVENTS], ""),
    Shape("GET /subscribe?device=phone&format={}", &[EVENTS], ""),
    Shape("GET /user/USER/devices", &[EVENTS, ("last-event-id", "{}")], ""),
    Shape("GET /user/USER/devices", &[("cookie", "theme={}"), ("referer", "https://x/{}")], ""),
    Shape("GET /devices?user=USER&x={}", &[("user-agent", "{}")], ""),
    Shape("GET /ice?user=USER&ticket={}", &[EVENTS, ("x-signal-tenant", "{}")], ""),
    Shape("GET /user/{}%00/devices", &[], ""),
    Shape("GET /{}", &[("x-{}", "{}")], ""),
    Shape("HEAD /subscribe?x={}", &[], ""),
    Shape("PUT /user/USER/device/phone?x={}", &[], "{}"),
    Shape("POST /user/USER/device/phone", &[AS_FORM], "data={}"),
    Shape("POST /user/USER/device/phone", &[AS_JSON], r#"{"data":"{}"}"#),
    Shape("POST /user/USER/device/absent", &[AS_FORM], "data={}"),
    Shape("POST /user/USER/device/absent", &[AS_FORM, ("ttl", "{}")], "data={}"),
    Shape("POST /user/USER/device/phone", &[AS_JSON], r#"{"data":"{}"#),
    Shape("POST /user/USER/device/phone", &[AS_JSON], r#"{"data":1,"event":"{} {}"}"#),
    Shape("POST /user/USER/device/phone", &[AS_FORM], "data=%ff{}"),
    Shape("POST /user/USER/device/phone", &[AS_FORM], "event={}"),
    Shape("POST /user/USER/device/phone", &[("content-type", "{}/{}")], "data={}"),
    Shape("POST /user/USER/device/phone", &[AS_FORM, ("content-encoding", "{}")], "data={}"),
    Shape("POST /user/USER/device/phone", &[AS_FORM, ("x-signal-device", "%ff{}")], "data={}"),
    Shape("POST /user/USER/device/phone", &[AS_FORM, ("x-user-claim", "{}")], "data={}"),
    Shape("POST /user/USER/devices", &[AS_JSON], r#"{"data":["{}"]}"#),
    Shape("POST /user/nobody/devices", &[AS_JSON], r#"{"data":["{}"]}"#),
    Shape("POST /ticket?ticket={}&token={}", &[("authorization", "Basic {}")], ""),
    Shape("GET /user/USER/devices", &[("authorization", "Bearer {} {}")], ""),
    Shape("GET /subscribe?device=tv&token={}", &[EVENTS], ""),
    Shape("GET /subscribe?device=tv&ticket={}", &[EVENTS], ""),
    Shape("POST /backend_signal.v1.Signal/Send?x={}", &[AS_GRPC_WEB], "\0\0\0\0\u{5}{}"),
    Shape("POST /backend_signal.v1.Signal/{}", &[AS_GRPC_WEB], "{}"),
    Shape("POST /backend_signal.v1.Signal/Subscribe", &[("content-type", "text/{}")], "{}"),
    Shape("POST /grpc.health.v1.Health/Check", &[AS_GRPC_WEB], "\0\0\0\0\u{5}{}"),
];

impl Ask {
    pub fn new(address: SocketAddr, user: &str) -> Self {
        Self {
            address,
            user: user.to_owned(),
            http2: None,
            secrets: BTreeSet::new(),
            answers: Vec::new(),
            statuses: BTreeSet::new(),
        }
    }

    /// Every request with this identity.
    pub async fn everything(&mut self, identity: &Identity) {
        self.secrets.extend(identity.secrets.iter().cloned());
        for shape in &SHAPES {
            self.over_http1(identity, shape).await;
            self.over_http2(identity, shape).await;
        }
        self.long(identity).await;
        self.late(identity).await;
        self.grpc(identity).await;
    }

    /// The text with a secret for each `{}` in it.
    fn fill(&mut self, text: &str) -> String {
        let mut filled = text.replace("USER", &self.user);
        while let Some(at) = filled.find("{}") {
            let secret = secret();
            filled.replace_range(at..at + 2, &secret);
            self.secrets.insert(secret);
        }
        filled
    }

    /// Method, target, headers and body.
    fn build(
        &mut self,
        identity: &Identity,
        Shape(head, headers, body): &Shape,
    ) -> (String, String, Vec<(String, String)>, String) {
        let (method, path) = head.split_once(' ').expect("a method");
        let mut path = self.fill(path);
        if !identity.query.is_empty() {
            path = format!("{path}{}{}", if path.contains('?') { '&' } else { '?' }, identity.query);
        }
        let mut headers: Vec<_> = headers.iter().map(|(name, value)| (self.fill(name), self.fill(value))).collect();
        headers.extend(identity.header.clone());
        (method.to_owned(), path, headers, self.fill(body))
    }

    async fn over_http1(&mut self, identity: &Identity, shape: &Shape) {
        let (method, path, headers, body) = self.build(identity, shape);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.http1(shape.0, &format!("{method} {path}"), &headers, body.as_bytes()).await;
    }

    async fn http1(&mut self, what: &str, head: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut connection = Connection::open(self.address).await;
        let length = body.len().to_string();
        connection.ask(head, &[headers, &[("content-length", &length)]].concat()).await;
        connection.write(body).await;
        let mut answer = connection.head().await;
        // Of a stream only the head: it holds the data of its messages.
        let is_stream = answer.header("content-type").starts_with("text/event-stream");
        if answer.header("transfer-encoding") == "chunked" && !is_stream {
            while let Some(chunk) = connection.chunk().await {
                answer.body.extend(chunk);
            }
        } else if let Ok(length) = answer.header("content-length").parse::<usize>()
            && !head.starts_with("HEAD ")
        {
            answer.body = vec![0; length];
            connection.read(&mut answer.body).await;
        }
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        self.keep(what, answer.status, format!("{:?} {text}", answer.headers));
    }

    async fn over_http2(&mut self, identity: &Identity, shape: &Shape) {
        let (method, path, headers, body) = self.build(identity, shape);
        if self.http2.is_none() {
            self.http2 = Some(Http2::open(self.address).await);
        }
        let Some(http2) = &mut self.http2 else { return };
        let mut request = http::Request::builder().method(method.as_str()).uri(http2.uri(&path));
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let response = http2.send(request.body(Body::from(body)).expect("a request")).await;
        let (head, body) = response.into_parts();
        let is_stream = head.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event"));
        let mut text = format!("{:?}", head.headers);
        if !is_stream {
            let body = within(axum::body::to_bytes(Body::new(body), 1 << 20)).await.unwrap_or_default();
            text.push_str(&String::from_utf8_lossy(&body));
        }
        self.keep(shape.0, head.status.as_u16(), text);
    }

    fn keep(&mut self, what: &str, status: u16, answer: String) {
        self.statuses.insert(status);
        // A list names ids, as it should.
        self.answers.push((format!("{what}: {status}"), answer));
    }

    /// Bodies and heads over the limit, and heads that cannot be read.
    async fn long(&mut self, identity: &Identity) {
        let header: Vec<_> = identity.header.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let head = format!("POST /user/{}/device/phone?{}", self.user, identity.query);
        let data = self.fill("data={}");
        let large = data.repeat(4_000);
        self.http1("a large body", &head, &[&header[..], &[AS_FORM]].concat(), large.as_bytes()).await;
        let long = self.fill("{}").repeat(1_500);
        for (what, text) in [
            ("a long head", format!("GET /?{} HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n", identity.query)),
            ("a bad header", format!("GET /?{} HTTP/1.1\r\nhost : {}\r\n\r\n", identity.query, self.fill("{}"))),
            ("a bad host", format!("GET / HTTP/1.1\r\nhost: {}@x\r\n\r\n", self.fill("{}"))),
            ("a bad version", format!("GET /{} HTTP/9.9\r\nhost: x\r\n\r\n", self.fill("{}"))),
            (
                "two codings",
                format!("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: {}, chunked\r\n\r\n", self.fill("{}")),
            ),
            ("no HTTP", self.fill("{}\r\n\r\n")),
        ] {
            let mut connection = Connection::open(self.address).await;
            connection.write(text.as_bytes()).await;
            let answer = String::from_utf8_lossy(&connection.closed().await).into_owned();
            let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            self.keep(what, status, answer);
        }
    }

    /// A body that does not come.
    async fn late(&mut self, identity: &Identity) {
        let mut header: Vec<_> = identity.header.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        header.extend([AS_FORM, ("content-length", "1000")]);
        let mut connection = Connection::open(self.address).await;
        connection.ask(&format!("POST /user/{}/device/phone?{}", self.user, identity.query), &header).await;
        let begun = self.fill("data={}");
        connection.write(begun.as_bytes()).await;
        let answer = connection.head().await;
        self.keep("a late body", answer.status, format!("{answer:?}"));
    }

    /// Calls that are well formed, over gRPC-Web, whose trailers are a part of the body.
    async fn grpc(&mut self, identity: &Identity) {
        let header: Vec<_> = identity.header.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let headers = [&header[..], &[AS_GRPC_WEB]].concat();
        for (device, event) in [("phone", ""), ("absent", ""), ("phone", "{} {}")] {
            let (event, data) = (self.fill(event), self.fill("{}"));
            let body = framed(&message(&format!("{}/{device}", self.user), &event, &data));
            let head = format!("POST /backend_signal.v1.Signal/Send?{}", identity.query);
            self.http1("Send", &head, &headers, &body).await;
        }
    }
}
