//! A proxy between a node and Redis whose link a test can cut, stall or slow down.

use std::{net::SocketAddr, thread, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// A running proxy, in a thread of its own: a test may block while it starts a node.
pub struct CutProxy {
    pub address: SocketAddr,
    link: watch::Sender<Link>,
}

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Passes them on after this time.
    Passes(Duration),
    /// Keeps them until it passes bytes again.
    Stalls,
    /// Resets all connections, the new ones too.
    Cut,
}

/// A text that the proxy replaces in what the server says, and another one of the same length.
type Replaced = Option<(&'static str, &'static str)>;

impl CutProxy {
    pub fn start(upstream: SocketAddr) -> Self {
        Self::replacing(upstream, None)
    }

    /// The same, which replaces a text in what the server says.
    pub fn replacing(upstream: SocketAddr, replaced: Replaced) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let (link, watched) = watch::channel(Link::Passes(Duration::ZERO));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(accept(listener, upstream, watched, replaced));
        });
        Self { address, link }
    }

    /// The URL of the server for a node.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Resets the connections and refuses new ones.
    pub fn cut(&self) {
        self.link.send_replace(Link::Cut);
    }

    /// Passes nothing more on, but keeps the connections.
    pub fn stall(&self) {
        self.link.send_replace(Link::Stalls);
    }

    /// Passes everything on, but late.
    pub fn slow(&self, delay: Duration) {
        self.link.send_replace(Link::Passes(delay));
    }

    /// Passes everything on, also what was kept.
    pub fn heal(&self) {
        self.slow(Duration::ZERO);
    }
}

/// Accepts until the [`CutProxy`] is dropped.
async fn accept(
    listener: std::net::TcpListener,
    upstream: SocketAddr,
    link: watch::Receiver<Link>,
    replaced: Replaced,
) {
    let listener = TcpListener::from_std(listener).expect("a socket");
    let mut dropped = link.clone();
    let dropped = async { while dropped.changed().await.is_ok() {} };
    let accepting = async {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(forward(client, upstream, link.clone(), replaced));
        }
    };
    tokio::select! {
        () = dropped => {}
        () = accepting => {}
    }
}

async fn forward(mut client: TcpStream, upstream: SocketAddr, link: watch::Receiver<Link>, replaced: Replaced) {
    let mut cut = link.clone();
    if *cut.borrow() == Link::Cut {
        return drop(client.set_zero_linger());
    }
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let out = pass(from_client, to_server, link.clone(), None);
        let back = pass(from_server, to_client, link, replaced);
        tokio::select! {
            ((), ()) = async { tokio::join!(out, back) } => {}
            _ = cut.wait_for(|link| *link == Link::Cut) => {}
        }
    }
    if *cut.borrow() == Link::Cut {
        drop((client.set_zero_linger(), server.set_zero_linger()));
    }
}

/// Passes bytes on until one side closes. What was read before that still arrives.
async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, link: watch::Receiver<Link>, replaced: Replaced) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(1_024);
    let mut stalled = link.clone();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let mut bytes = buffer[..length].to_vec();
            if let Some((text, other)) = replaced
                && let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes())
            {
                bytes[at..at + text.len()].copy_from_slice(other.as_bytes());
            }
            let delay = if let Link::Passes(delay) = *link.borrow() { delay } else { Duration::ZERO };
            if sender.send((Instant::now() + delay, bytes)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            let passes = stalled.wait_for(|link| *link != Link::Stalls).await.is_ok();
            if !passes || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
