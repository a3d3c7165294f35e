//! HTTP/1.1 by hand, for tests where the bytes matter.

use std::net::{IpAddr, SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::{narrow, within};

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// A header's first value; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    /// The `code` of a problem document. Also checks its other members.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let document: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(document["status"], self.status);
        for member in ["title", "detail", "code"] {
            assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {document}");
        }
        document["code"].as_str().expect("a code").to_owned()
    }
}

/// A connection, and bytes that were read and not used yet.
pub struct Connection {
    pub stream: TcpStream,
    ahead: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = within(TcpStream::connect(address)).await.expect("listens");
        stream.set_nodelay(true).expect("an open socket");
        Self { stream, ahead: Vec::new() }
    }

    /// The same from another address of this machine.
    pub async fn open_from(client: IpAddr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((client, 0).into()).expect("an address of this machine");
        Self { stream: within(socket.connect(address)).await.expect("listens"), ahead: Vec::new() }
    }

    /// The same over a [`narrow`] connection.
    pub async fn open_narrow(address: SocketAddr) -> Self {
        Self { stream: narrow(address).await, ahead: Vec::new() }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.expect("writable");
    }

    /// Writes a request's head: method and path, then headers.
    pub async fn ask(&mut self, head: &str, headers: &[(&str, &str)]) {
        let mut text = format!("{head} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        self.write((text + "\r\n").as_bytes()).await;
    }

    /// One request and its answer.
    pub async fn request(&mut self, head: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let length = body.len().to_string();
        let framing: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("content-length", &length)] };
        self.ask(head, &[headers, framing].concat()).await;
        self.write(body).await;
        self.response(head.starts_with("HEAD ")).await
    }

    /// Reads a whole response.
    pub async fn response(&mut self, without_body: bool) -> Response {
        let mut response = self.head().await;
        if without_body || response.status == 204 {
            return response;
        }
        if response.header("transfer-encoding") == "chunked" {
            while let Some(chunk) = self.chunk().await {
                response.body.extend(chunk);
            }
        } else {
            let length = response.header("content-length").parse().unwrap_or(0);
            response.body = self.take(length).await;
        }
        response
    }

    /// Reads a response's head.
    pub async fn head(&mut self) -> Response {
        let status = self.line().await;
        let status =
            status.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{status:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Response { status, headers, body: Vec::new() }
    }

    /// Fills `bytes`.
    pub async fn read(&mut self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.take(bytes.len()).await);
    }

    /// Reads a chunk; `None` after the last one.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line().await, 16).expect("a chunk's size");
        let chunk = self.take(size).await;
        assert_eq!(self.line().await, "");
        (size > 0).then_some(chunk)
    }

    /// Waits until the server closes the connection. Gives the bytes before that.
    pub async fn closed(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.ahead)
    }

    /// Waits for bytes, or the end of the connection, without a limit. Then a whole chunk is at most on its way.
    pub async fn more(&mut self) {
        if self.ahead.is_empty() {
            let _ = self.stream.read_buf(&mut self.ahead).await;
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2).await;
                return String::from_utf8(line[..end].to_vec()).expect("UTF-8");
            }
            assert!(self.fill().await, "closed within a line: {:?}", String::from_utf8_lossy(&self.ahead));
        }
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.ahead.len() < length {
            assert!(self.fill().await, "closed within a body");
        }
        let rest = self.ahead.split_off(length);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Reads more bytes. False when the server has closed or reset the connection.
    async fn fill(&mut self) -> bool {
        within(self.stream.read_buf(&mut self.ahead)).await.is_ok_and(|length| length > 0)
    }
}
