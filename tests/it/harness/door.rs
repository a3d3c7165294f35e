//! What a client asks a daemon, wherever that one runs.

use std::net::SocketAddr;

use super::{Connection, FORM, Response, Sse, claim, path};

/// The address of a daemon, or of a balancer in front of several.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    pub address: SocketAddr,
}

impl Door {
    /// One request over HTTP/1.1, on a connection of its own.
    pub async fn request(&self, head: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        Connection::open(self.address).await.request(head, headers, body).await
    }

    /// Posts a form that has only `data`.
    pub async fn post(&self, device: &str, data: &str) -> Response {
        let body = format!("data={data}");
        self.request(&format!("POST {}", path(device)), &[("content-type", FORM)], body.as_bytes()).await
    }

    /// The same with a time to live: how long the server holds the message for an absent device.
    pub async fn post_with_ttl(&self, device: &str, data: &str, ttl: &str) -> Response {
        let (headers, body) = ([("content-type", FORM), ("ttl", ttl)], format!("data={data}"));
        self.request(&format!("POST {}", path(device)), &headers, body.as_bytes()).await
    }

    /// The text of all metrics.
    pub async fn metrics(&self) -> String {
        self.request("GET /metrics", &[], b"").await.text()
    }

    /// A connection whose POST to `bob/phone` was accepted: the server waits for the body, which has 8 bytes.
    pub async fn waits_for_body(&self) -> Connection {
        let mut connection = Connection::open(self.address).await;
        let headers = [("content-type", FORM), ("content-length", "8"), ("expect", "100-continue")];
        connection.ask("POST /user/bob/device/phone", &headers).await;
        assert_eq!(connection.head().await.status, 100);
        connection
    }

    /// The connected devices of a user.
    pub async fn devices(&self, user: &str) -> String {
        self.request(&format!("GET /user/{user}/devices"), &[], b"").await.text()
    }

    /// The stream of a device, as server-sent events over HTTP/1.1.
    pub async fn sse(&self, device: &str) -> Sse {
        self.sse_with(device, "/subscribe", &[]).await
    }

    /// The same with another path and more headers.
    pub async fn sse_with(&self, device: &str, path: &str, headers: &[(&str, &str)]) -> Sse {
        let claim = claim(device);
        let headers = [&[("x-user-claim", claim.as_str())], headers].concat();
        Sse::open(self.address, path, &headers).await
    }
}
