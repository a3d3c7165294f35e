//! A connection of HTTP/2 with prior knowledge.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc};

use super::{claim, within};

#[derive(Clone)]
pub struct Http2 {
    address: SocketAddr,
    sender: SendRequest<Body>,
}

impl Http2 {
    pub async fn open(address: SocketAddr) -> Self {
        Self::with_window(address, 1 << 20).await
    }

    /// With another window for each stream: the bytes that the server may send before the test reads them.
    pub async fn with_window(address: SocketAddr, window: u32) -> Self {
        Self::over(within(TcpStream::connect(address)).await.expect("listens"), window).await
    }

    /// The same over an open socket.
    pub async fn over(socket: TcpStream, window: u32) -> Self {
        let (address, io) = (socket.peer_addr().expect("open"), TokioIo::new(socket));
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window).initial_connection_window_size(1 << 20);
        let (sender, connection) = builder.handshake(io).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self { address, sender }
    }

    pub fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Requests an event stream for `user/device`, and reads none of it.
    pub async fn unread(&self, device: &str, path: &str) -> Response<Incoming> {
        let request = Request::get(self.uri(path)).header("x-user-claim", claim(device));
        let request = request.header("accept", "text/event-stream");
        self.clone().send(request.body(Body::empty()).expect("a request")).await
    }

    pub async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        within(self.sender.send_request(request)).await.expect("an answer")
    }
}

/// A body that gives nothing, and ends when the sender is dropped.
pub fn body_without_end() -> (Body, mpsc::Sender<Infallible>) {
    let (kept, receiver) = mpsc::channel(1);
    (Body::new(WithoutEnd(receiver)), kept)
}

struct WithoutEnd(mpsc::Receiver<Infallible>);

impl hyper::body::Body for WithoutEnd {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|never| never.map(|never| match never {}))
    }
}
