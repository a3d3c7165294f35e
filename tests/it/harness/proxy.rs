//! A proxy that ends connections in every way a network can: by FIN, RST, silence and half-close, after any byte.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// The mean life of a connection.
const LIFE_MS: f64 = 600.0;
/// How long a silent connection stays open.
const SILENCE: Duration = Duration::from_secs(3);

pub struct Proxy {
    pub address: SocketAddr,
    cutting: Arc<AtomicBool>,
    pub cuts: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
enum Death {
    Fin,
    Rst,
    Silence,
    HalfClose,
}

impl Proxy {
    pub async fn start(upstream: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (cutting, cuts) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        tokio::spawn({
            let (cutting, cuts, mut random) = (cutting.clone(), cuts.clone(), fastrand::Rng::with_seed(seed));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let random = random.fork();
                    tokio::spawn(carry(client, upstream, random, cutting.clone(), cuts.clone()));
                }
            }
        });
        Self { address, cutting, cuts }
    }

    /// Lets connections live from now on.
    pub fn heal(&self) {
        self.cutting.store(false, Ordering::Relaxed);
    }
}

async fn carry(
    client: TcpStream,
    upstream: SocketAddr,
    mut random: fastrand::Rng,
    cutting: Arc<AtomicBool>,
    cuts: Arc<AtomicUsize>,
) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let (mut client, mut server) = (client, server);
    let life = Duration::from_secs_f64(-LIFE_MS / 1_000.0 * (1.0 - random.f64()).ln());
    {
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.split(), server.split());
        let up = tokio::io::copy(&mut from_client, &mut to_server);
        // Small portions, so that a life ends in the middle of a frame or of a line.
        let down = trickle(&mut from_server, &mut to_client, random.usize(1..400));
        tokio::select! {
            _ = up => return,
            () = down => return,
            () = sleep(life) => {}
        }
    }
    if !cutting.load(Ordering::Relaxed) {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        return;
    }
    cuts.fetch_add(1, Ordering::Relaxed);
    match [Death::Fin, Death::Rst, Death::Silence, Death::HalfClose][random.usize(..4)] {
        Death::Fin => {}
        Death::Rst => {
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
        Death::Silence => sleep(SILENCE).await,
        Death::HalfClose => {
            let _ = server.shutdown().await;
            let _ = timeout(SILENCE, tokio::io::copy(&mut server, &mut client)).await;
        }
    }
}

async fn trickle(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), portion: usize) {
    let mut buffer = vec![0; portion];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}
