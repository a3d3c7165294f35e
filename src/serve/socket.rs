//! The options of the listening socket and of every connection.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted. The system's default of 128 loses some when all clients come back at once.
const BACKLOG: u32 = 4_096;
/// The system closes a connection if sent bytes are not acknowledged, or the window stays closed, for this long.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// A probe goes out after 15 s of silence. After 20 s without an answer the user timeout has passed, and the system closes
/// the connection. That is before the legacy heartbeat of 25 s (`rest/subscribe.rs`): sending would restart the user timeout.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Only for systems without a user timeout.
const KEEP_ALIVE_PROBES: u32 = 3;
/// Bytes that the system buffers for a peer that does not read. Without a size, Linux lets this buffer grow to 4 MiB.
const SOCKET_SEND_BUFFER: usize = 64 * 1024;
/// With more unsent bytes than this, the socket is not writable. So the watchdog notices a stalled peer early.
const NOT_SENT_LOW_WATER: u32 = 16 * 1024;

/// Listens with all options set. Linux copies the options of a listening socket to every connection, which saves eight system
/// calls for each.
///
/// `only_v6`: `::` does not also take the IPv4 addresses.
pub(super) fn listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() && only_v6 {
        SockRef::from(&socket).set_only_v6(true)?;
    }
    socket.set_reuseaddr(true)?;
    tune(&socket)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn tune(socket: &TcpSocket) -> io::Result<()> {
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE_IDLE)
        .with_interval(KEEP_ALIVE_INTERVAL)
        .with_retries(KEEP_ALIVE_PROBES);
    let options = SockRef::from(socket);
    options.set_tcp_nodelay(true)?;
    options.set_tcp_keepalive(&keep_alive)?;
    options.set_send_buffer_size(SOCKET_SEND_BUFFER)?;
    #[cfg(target_os = "linux")]
    {
        options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        options.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_inherits_the_options_of_its_listener() {
        let listener = listen(([127, 0, 0, 1], 0).into(), false).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (accepted, connected) = tokio::join!(listener.accept(), tokio::net::TcpStream::connect(address));
        let (accepted, _connected) = (accepted.expect("a connection").0, connected.expect("listens"));
        let options = SockRef::from(&accepted);
        assert!(options.tcp_nodelay().expect("an option") && options.keepalive().expect("an option"));
        // Linux doubles the size, for its own overhead.
        assert!(
            (SOCKET_SEND_BUFFER..=2 * SOCKET_SEND_BUFFER).contains(&options.send_buffer_size().expect("an option"))
        );
        #[cfg(target_os = "linux")]
        {
            assert_eq!(options.tcp_keepalive_time().expect("an option"), KEEP_ALIVE_IDLE);
            assert_eq!(options.tcp_keepalive_interval().expect("an option"), KEEP_ALIVE_INTERVAL);
            assert_eq!(options.tcp_keepalive_retries().expect("an option"), KEEP_ALIVE_PROBES);
            assert_eq!(options.tcp_user_timeout().expect("an option"), Some(USER_TIMEOUT));
            assert_eq!(options.tcp_notsent_lowat().expect("an option"), NOT_SENT_LOW_WATER);
        }
    }
}
