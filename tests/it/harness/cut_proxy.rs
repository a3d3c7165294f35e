//! A proxy between a node and Redis whose link a test can cut, stall or slow down.

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use parking_lot::Mutex;
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
    trap: Trap,
}

/// A text, and what becomes of the link when it is about to pass, in either direction.
type Trap = Arc<Mutex<Option<(&'static str, Link)>>>;

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Passes them on after this time.
    Passes(Duration),
    /// Keeps them until it passes bytes again.
    Stalls,
    /// Resets all connections, the new ones too.
    Cut,
    /// There is no proxy any more.
    Gone,
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
        let (link, trap) = (watch::Sender::new(Link::Passes(Duration::ZERO)), Trap::default());
        let wire = Wire { link: link.clone(), trap: trap.clone(), replaced };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(accept(listener, upstream, wire));
        });
        Self { address, link, trap }
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

    /// Stalls when this text is about to pass.
    pub fn stall_at(&self, text: &'static str) {
        *self.trap.lock() = Some((text, Link::Stalls));
    }

    /// Resets the connections instead of passing this text on.
    pub fn cut_at(&self, text: &'static str) {
        *self.trap.lock() = Some((text, Link::Cut));
    }

    /// Waits until that has happened.
    pub async fn sprung(&self) {
        super::until(async || self.trap.lock().is_none(), |sprung| *sprung).await;
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

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.link.send_replace(Link::Gone);
    }
}

/// What every connection of the proxy shares.
#[derive(Clone)]
struct Wire {
    link: watch::Sender<Link>,
    trap: Trap,
    replaced: Replaced,
}

/// Accepts until the [`CutProxy`] is dropped.
async fn accept(listener: std::net::TcpListener, upstream: SocketAddr, wire: Wire) {
    let listener = TcpListener::from_std(listener).expect("a socket");
    let mut dropped = wire.link.subscribe();
    let accepting = async {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(forward(client, upstream, wire.clone()));
        }
    };
    tokio::select! {
        _ = dropped.wait_for(|link| *link == Link::Gone) => {}
        () = accepting => {}
    }
}

async fn forward(mut client: TcpStream, upstream: SocketAddr, wire: Wire) {
    let mut link = wire.link.subscribe();
    if *link.borrow() == Link::Cut {
        return drop(client.set_zero_linger());
    }
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let out = pass(from_client, to_server, Wire { replaced: None, ..wire.clone() });
        let back = pass(from_server, to_client, wire);
        tokio::select! {
            ((), ()) = async { tokio::join!(out, back) } => {}
            _ = link.wait_for(|link| *link == Link::Cut) => {}
        }
    }
    if *link.borrow() == Link::Cut {
        drop((client.set_zero_linger(), server.set_zero_linger()));
    }
}

/// Passes bytes on until one side closes. What was read before that still arrives.
async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, wire: Wire) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(1_024);
    let mut stalled = wire.link.subscribe();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let mut bytes = buffer[..length].to_vec();
            wire.read(&mut bytes);
            let delay = if let Link::Passes(delay) = *wire.link.borrow() { delay } else { Duration::ZERO };
            if sender.send((Instant::now() + delay, bytes)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            let passes = stalled.wait_for(|link| *link != Link::Stalls).await.is_ok_and(|link| *link != Link::Cut);
            if !passes || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

impl Wire {
    /// Looks at bytes that were read. The texts are short, and the messages of tests too, so none is split.
    fn read(&self, bytes: &mut [u8]) {
        let find = |bytes: &[u8], text: &str| bytes.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some((text, other)) = self.replaced
            && let Some(at) = find(bytes, text)
        {
            bytes[at..at + text.len()].copy_from_slice(other.as_bytes());
        }
        let mut trap = self.trap.lock();
        if let Some((_, link)) = trap.take_if(|(text, _)| find(bytes, text).is_some()) {
            self.link.send_replace(link);
        }
    }
}
