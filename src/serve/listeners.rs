//! The listening sockets: one for each address of the host, all with the same port.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use tokio::net::{TcpListener, TcpStream};

use super::socket;

/// The sockets of a server; at least one.
pub(super) struct Listeners {
    sockets: Vec<TcpListener>,
    /// The socket that accepted last. The others are asked first next time, so no busy address starves another.
    last: usize,
    /// Addresses that this machine does not have.
    absent: Vec<(SocketAddr, io::Error)>,
}

impl Listeners {
    /// Listens on every address. If the port is 0, all of them get the same free port.
    ///
    /// Leaves out an address that this machine does not have, as long as it has another one: in many containers `localhost` is also
    /// `::1`, without IPv6.
    pub(super) fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut attempts = 1..PORT_ATTEMPTS;
        loop {
            match Self::bind_once(addresses) {
                // The free port of the first address is taken on another one.
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && addresses.iter().all(|address| address.port() == 0)
                        && attempts.next().is_some() => {}
                bound => return bound,
            }
        }
    }

    fn bind_once(addresses: &[SocketAddr]) -> io::Result<Self> {
        // Otherwise `::` would also take the IPv4 addresses.
        let only_v6 = addresses.iter().any(SocketAddr::is_ipv4);
        let mut bound = Self { sockets: Vec::new(), last: 0, absent: Vec::new() };
        let mut free_port = 0;
        for address in addresses {
            let port = if address.port() == 0 { free_port } else { address.port() };
            match socket::listen(SocketAddr::new(address.ip(), port), only_v6) {
                Ok(socket) => {
                    free_port = socket.local_addr()?.port();
                    bound.sockets.push(socket);
                }
                Err(error) if is_absent(&error) && addresses.len() > 1 => bound.absent.push((*address, error)),
                Err(error) if addresses.len() > 1 => {
                    return Err(io::Error::new(error.kind(), format!("{address}: {error}")));
                }
                Err(error) => return Err(error),
            }
        }
        if bound.sockets.is_empty() {
            let first = bound.absent.into_iter().next().map(|(_, error)| error);
            return Err(first.unwrap_or_else(|| io::Error::other("the host has no address")));
        }
        Ok(bound)
    }

    /// The addresses that are listened on.
    pub(super) fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(TcpListener::local_addr).collect()
    }

    /// Logs which addresses of the host were left out.
    pub(super) fn warn_absent(&self) {
        for (address, error) in &self.absent {
            tracing::warn!(address = %address.ip(), %error, "does not listen on this address of the host");
        }
    }

    /// The next connection of any address.
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.sockets.len();
        for index in (1..=count).map(|step| (self.last + step) % count) {
            if let Poll::Ready(accepted) = self.sockets[index].poll_accept(cx) {
                self.last = index;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

/// Whether this machine does not have an address, or not its family.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// How often a port that is free on the first address may be taken on another one.
const PORT_ATTEMPTS: u32 = 16;

/// Linux: the system has no IPv6. The standard library has no kind for this error.
const EAFNOSUPPORT: i32 = 97;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LOOPBACK: [&str; 3] = ["127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"];

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[tokio::test]
    async fn all_addresses_share_one_free_port_and_each_of_them_is_accepted_from() {
        let mut listeners = Listeners::bind(&addresses(&LOOPBACK)).expect("a free port");
        let bound = listeners.local_addrs().expect("bound");
        assert_eq!(bound.len(), LOOPBACK.len());
        assert!(bound.iter().all(|address| address.port() == bound[0].port()), "{bound:?}");
        // Two connections to the first address must not keep those to the others waiting.
        let mut clients = Vec::new();
        for address in [bound[0], bound[0], bound[1], bound[2]] {
            clients.push(TcpStream::connect(address).await.expect("listens"));
        }
        let mut accepted = Vec::new();
        for _ in 0..clients.len() {
            let next = tokio::time::timeout(Duration::from_secs(20), listeners.accept()).await.expect("in time");
            accepted.push(next.expect("a connection").0.local_addr().expect("connected"));
        }
        accepted[..bound.len()].sort();
        assert_eq!(accepted[..bound.len()], bound, "{accepted:?}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_left_out_unless_it_is_the_only_one() {
        let listeners = Listeners::bind(&addresses(&["203.0.113.1:0", "127.0.0.1:0"])).expect("a free port");
        assert_eq!(listeners.local_addrs().expect("bound").len(), 1);
        assert_eq!(listeners.absent.len(), 1);
        for none in [&["203.0.113.1:0"][..], &["203.0.113.1:0", "203.0.113.2:0"], &[]] {
            assert!(Listeners::bind(&addresses(none)).is_err(), "{none:?}");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_on_one_address_is_an_error_that_names_it() {
        let taken = std::net::TcpListener::bind("127.0.0.2:0").expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let both = [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([127, 0, 0, 2], port))];
        let error = Listeners::bind(&both).err().expect("taken").to_string();
        assert!(error.starts_with(&format!("127.0.0.2:{port}: ")), "{error}");
    }
}
