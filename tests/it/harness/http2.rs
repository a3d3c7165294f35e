//! A connection of HTTP/2 with prior knowledge.

use std::net::SocketAddr;

use axum::body::Body;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::within;

#[derive(Clone)]
pub struct Http2 {
    address: SocketAddr,
    sender: SendRequest<Body>,
}

impl Http2 {
    pub async fn open(address: SocketAddr) -> Self {
        Self::with_window(address, 1 << 20).await
    }

    /// With so many bytes that the server may send on a stream before they are read.
    pub async fn with_window(address: SocketAddr, window: u32) -> Self {
        let io = TokioIo::new(within(TcpStream::connect(address)).await.expect("listens"));
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window).initial_connection_window_size(1 << 20);
        let (sender, connection) = builder.handshake(io).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self { address, sender }
    }

    pub fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        within(self.sender.send_request(request)).await.expect("an answer")
    }
}
