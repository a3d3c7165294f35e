//! Addresses for programs that cannot choose a free port themselves.
//!
//! Nobody ever listened at these addresses. When a test starts a program, the new process first has a copy of each open socket of all the
//! tests. A copy that listens would accept a connection before the program that the address is for.

use std::{collections::BTreeSet, io, net::SocketAddr};

use parking_lot::Mutex;
use tokio::net::TcpSocket;

/// An address at which nobody listens. Any program may take it.
pub fn free_address() -> SocketAddr {
    free(0).expect("a free port")
}

/// A free port that the kernel gives to nobody who asks for any, so that it stays free while its server is started again.
pub fn lasting_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = fastrand::u16(10_000..32_000);
        if free(port).is_ok() && GIVEN.lock().insert(port) {
            return port;
        }
    }
}

fn free(port: u16) -> io::Result<SocketAddr> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    socket.local_addr()
}
