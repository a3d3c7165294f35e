//! Whether an event stream over HTTP/1.1 gets through whatever stands before the daemon: not buffered, compressed or cut.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{
    test_device::{SOON, TestDevice, random_device},
    verdict::{Checked, fault, millis},
};
use crate::cli::{channel::next_text, exit::Failure};

/// One more device of the caller's user subscribes over HTTP and gets a message that is posted.
pub(super) async fn check(caller: &TestDevice) -> Checked {
    let mut channel = caller.channel.clone();
    let device = random_device()?;
    match &mut channel.options.identity {
        Some(identity) => identity.device = Some(device.clone()),
        None => channel.options.device = Some(device.clone()),
    }
    let accept = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("text/event-stream"))]);
    let response = channel.http(Method::GET, "/subscribe?heartbeat=4", accept, String::new()).await?;
    if response.status() != StatusCode::OK {
        return fault(format!("GET /subscribe is answered with {}", response.status()));
    }
    let is_event_stream = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/event-stream");
    if !response.headers().get(header::CONTENT_TYPE).is_some_and(is_event_stream) {
        return fault("GET /subscribe is answered with something that is no event stream");
    }
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return fault("the event stream is compressed, so its events come late; switch that off in the proxy");
    }
    let mut stream = Received { body: response.into_body(), text: String::new(), began: Instant::now() };
    stream.wait_for("event: signal.ready\n").await?;
    let ids = [&caller.address.user, device.as_str()].map(|id| utf8_percent_encode(id, NON_ALPHANUMERIC).to_string());
    let path = format!("/user/{}/device/{}", ids[0], ids[1]);
    let json = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let began = Instant::now();
    let posted = caller.channel.http(Method::POST, &path, json, json!({"data": "call-test over HTTP"}).to_string());
    let status = posted.await?.status();
    if status != StatusCode::OK {
        return fault(format!("a POST to a connected device is answered with {status}"));
    }
    stream.wait_for("data: call-test over HTTP\n").await?;
    let took = millis(began.elapsed());
    stream.wait_for("event: signal.ping\n").await?;
    Ok(format!("a POST reached its stream after {took:.1} ms, and a heartbeat came"))
}

/// The stream so far.
struct Received {
    body: Incoming,
    text: String,
    began: Instant,
}

impl Received {
    async fn wait_for(&mut self, part: &str) -> Result<(), Failure> {
        let began = self.began;
        let read = async {
            while !self.text.contains(part) {
                let Some(text) = next_text(&mut self.body).await? else {
                    let after = began.elapsed().as_secs_f64();
                    return fault(format!("the event stream was cut after {after:.1} s"));
                };
                self.text.push_str(&text);
            }
            Ok(())
        };
        match timeout(2 * SOON, read).await {
            Ok(read) => read,
            Err(_) => {
                fault(format!("nothing came on the event stream for {} s: does a proxy buffer it?", 2 * SOON.as_secs()))
            }
        }
    }
}
