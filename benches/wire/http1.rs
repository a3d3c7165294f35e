//! Receivers and senders over HTTP/1.1, close to the socket, so that they take little of the machine.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use memchr::{memchr, memmem};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::load::{Body, PUBLISHERS, Tally, spawn};

/// Opens a stream for every device, some at a time, and leaves each with a task that reads it for ever.
///
/// # Errors
/// When they do not all open, as [`Tally::opened`] has it.
pub async fn subscribe_all(address: SocketAddr, tally: &Arc<Tally>) -> io::Result<()> {
    let next = Arc::new(AtomicU32::new(0));
    for _ in 0..PUBLISHERS {
        let (next, tally) = (next.clone(), tally.clone());
        spawn(async move {
            loop {
                let device = next.fetch_add(1, Ordering::Relaxed);
                if device >= tally.devices() {
                    return;
                }
                let Ok(receiver) = Receiver::open(address, device, &tally).await else { return };
                spawn(receiver.read(tally.clone()));
            }
        });
    }
    tally.opened(tally.devices().into()).await
}

/// One device's stream.
struct Receiver {
    device: u32,
    expected: u64,
    lines: Lines<TcpStream>,
}

impl Receiver {
    async fn open(address: SocketAddr, device: u32, tally: &Tally) -> io::Result<Self> {
        let mut stream = connect(address, device, None).await?;
        let head = format!("GET /subscribe/u{device}/device/d HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut receiver = Self { device, expected: 0, lines: Lines::new(stream) };
        while memmem::find(receiver.lines.next().await?, b"heartbeat_ms").is_none() {}
        tally.open.fetch_add(1, Ordering::Relaxed);
        Ok(receiver)
    }

    async fn read(mut self, tally: Arc<Tally>) {
        while let Ok(line) = self.lines.next().await {
            if let Some(data) = line.strip_prefix(b"data: ").filter(|data| memmem::find(data, b"D.").is_some()) {
                tally.take(self.device, &mut self.expected, data);
            }
        }
        tally.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Connects from one of many addresses: the search for a free port of only one would take longer than the server does. `buffer`
/// is what the kernel may keep for a reader that does not read.
pub async fn connect(address: SocketAddr, number: u32, buffer: Option<u32>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let [.., last] = number.to_be_bytes();
    socket.bind(([127, 0, 0, last.max(1)], 0).into())?;
    if let Some(buffer) = buffer {
        socket.set_recv_buffer_size(buffer)?;
    }
    socket.connect(address).await
}

/// The lines of a stream, without copying them.
pub struct Lines<T> {
    io: T,
    bytes: Vec<u8>,
    from: usize,
}

impl<T: AsyncRead + Unpin> Lines<T> {
    pub fn new(io: T) -> Self {
        Self { io, bytes: Vec::new(), from: 0 }
    }

    /// The next line without its end.
    pub async fn next(&mut self) -> io::Result<&[u8]> {
        loop {
            if let Some(length) = memchr(b'\n', &self.bytes[self.from..]) {
                let line = self.from..self.from + length;
                self.from = line.end + 1;
                return Ok(&self.bytes[line]);
            }
            self.bytes.drain(..self.from);
            self.from = 0;
            self.bytes.reserve(2_048);
            if self.io.read_buf(&mut self.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Posts to each of some devices in turn, the next when the last is answered, until `end` or, without one, once to each.
pub async fn publish(
    address: SocketAddr,
    devices: impl Iterator<Item = u32> + Clone,
    body: Body,
    end: Option<Duration>,
    tally: Arc<Tally>,
) -> io::Result<()> {
    let mut connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    let heads: Vec<_> = devices.map(|device| (device, body.head(address, device))).collect();
    let (mut request, mut answer) = (Vec::new(), Vec::with_capacity(1_024));
    loop {
        for (device, head) in &heads {
            let now = tally.now();
            if end.is_some_and(|end| now >= end) {
                return Ok(());
            }
            request.clear();
            request.extend_from_slice(head.as_bytes());
            body.write(&mut request, &tally, *device, now);
            connection.write_all(&request).await?;
            if read_answer(&mut connection, &mut answer).await? {
                tally.accepted.fetch_add(1, Ordering::Relaxed);
            } else {
                tally.refuse(*device);
            }
        }
        if end.is_none() {
            return Ok(());
        }
    }
}

/// Reads one whole answer; says whether it is 200.
pub async fn read_answer(connection: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<bool> {
    Ok(read_status(connection, bytes).await? == 200)
}

/// Reads one whole answer; gives its status.
pub async fn read_status(connection: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<u16> {
    loop {
        if let Some(head) = memmem::find(bytes, b"\r\n\r\n") {
            let length = memmem::find(&bytes[..head], b"content-length: ").and_then(|at| {
                let digits = bytes[at + 16..head].split(|&byte| byte == b'\r').next()?;
                std::str::from_utf8(digits).ok()?.parse::<usize>().ok()
            });
            let whole = head + 4 + length.unwrap_or(0);
            if bytes.len() >= whole {
                let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
                let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                bytes.drain(..whole);
                return status.ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
        }
        if connection.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
