//! A proxy that ends connections in every way that a network can: by FIN, RST, silence and half-close, after any byte.

use std::{
    fmt,
    net::SocketAddr,
    pin::pin,
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

/// The mean life of a connection. Longer in a debug build, whose clients are slow and would only connect.
const LIFE_MS: f64 = if cfg!(debug_assertions) { 2_000.0 } else { 300.0 };
/// How long a connection that has gone silent or is half closed stays open.
const SILENCE: Duration = Duration::from_secs(3);

/// The ways in which a connection ends, as indices of their counts. Index 0 is a FIN.
const RST: usize = 1;
const SILENT: usize = 2;
const HALF_CLOSE: usize = 3;

pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: SocketAddr,
    cutting: AtomicBool,
    deaths: [AtomicUsize; 4],
    torn: AtomicUsize,
    within_ids: AtomicUsize,
}

/// How connections have ended so far.
#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    /// By FIN, RST, silence and half-close.
    pub deaths: [usize; 4],
    /// Connections that ended in the middle of a write of the server.
    pub torn: usize,
    /// Those of them that ended within an `id` line of an event stream.
    pub within_ids: usize,
}

impl Cuts {
    pub fn all(&self) -> usize {
        self.deaths.iter().sum()
    }
}

impl fmt::Display for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [fin, rst, silence, half] = self.deaths;
        write!(f, "{} cut ({fin} FIN, {rst} RST, {silence} silent, {half} half-closed; ", self.all())?;
        write!(f, "{} in the middle of a write, {} of an id)", self.torn, self.within_ids)
    }
}

impl Proxy {
    pub async fn start(upstream: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State {
            upstream,
            cutting: AtomicBool::new(true),
            deaths: Default::default(),
            torn: AtomicUsize::new(0),
            within_ids: AtomicUsize::new(0),
        });
        tokio::spawn({
            let (state, mut random) = (state.clone(), fastrand::Rng::with_seed(seed));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(forward(client, random.fork(), state.clone()));
                }
            }
        });
        Self { address, state }
    }

    /// Ends no more connections.
    pub fn heal(&self) {
        self.state.cutting.store(false, Ordering::Relaxed);
    }

    pub fn cuts(&self) -> Cuts {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let state = &self.state;
        Cuts { deaths: state.deaths.each_ref().map(read), torn: read(&state.torn), within_ids: read(&state.within_ids) }
    }
}

/// Forwards a connection until its life is over. Half of the connections end earlier, after some bytes of the response, and one in
/// ten within the request.
async fn forward(mut client: TcpStream, mut random: fastrand::Rng, state: Arc<State>) {
    let Ok(mut server) = TcpStream::connect(state.upstream).await else { return };
    let life = Duration::from_secs_f64(-LIFE_MS / 1_000.0 * (1.0 - random.f64()).ln());
    let death = random.usize(..4);
    // After a half-close the response has to come whole.
    let back = if death == HALF_CLOSE || random.bool() { usize::MAX } else { random.usize(1..1_000) };
    let out = if random.u8(..10) == 0 { random.usize(1..300) } else { usize::MAX };
    {
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.split(), server.split());
        let mut returning = pin!(pass(&mut from_server, &mut to_client, back, &state.cutting));
        let passed = tokio::select! {
            passed = pass(&mut from_client, &mut to_server, out, &state.cutting) => passed,
            passed = &mut returning => {
                if let Passed::Part { torn, within_id } = passed {
                    state.torn.fetch_add(usize::from(torn), Ordering::Relaxed);
                    state.within_ids.fetch_add(usize::from(torn && within_id), Ordering::Relaxed);
                }
                passed
            }
            () = state.over(life) => Passed::Part { torn: false, within_id: false },
        };
        if matches!(passed, Passed::All) {
            return;
        }
        state.deaths[death].fetch_add(1, Ordering::Relaxed);
        if death == HALF_CLOSE {
            let _ = to_server.shutdown().await;
            let _ = timeout(SILENCE, returning).await;
        }
    }
    match death {
        RST => drop((client.set_zero_linger(), server.set_zero_linger())),
        SILENT => sleep(SILENCE).await,
        _ => {}
    }
}

impl State {
    /// Waits for the end of a connection's life. Never ends after `heal`.
    async fn over(&self, life: Duration) {
        sleep(life).await;
        while !self.cutting.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

enum Passed {
    /// One side has closed the connection.
    All,
    /// The connection has to end now.
    Part { torn: bool, within_id: bool },
}

/// Passes bytes on until one side closes or, while connections are cut, until `allowance` bytes have passed.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut allowance: usize,
    cutting: &AtomicBool,
) -> Passed {
    // Large enough for one write of the server: so a read that is passed on only in part is a part of a write.
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return Passed::All };
        if length >= allowance && cutting.load(Ordering::Relaxed) {
            let part = &buffer[..allowance];
            let _ = to.write_all(part).await;
            let line = part.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            return Passed::Part { torn: length > allowance, within_id: line.starts_with(b"id: ") };
        }
        allowance = allowance.saturating_sub(length);
        if to.write_all(&buffer[..length]).await.is_err() {
            return Passed::All;
        }
    }
}
