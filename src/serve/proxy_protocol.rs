//! Reads the header of the PROXY protocol, version 2: a trusted proxy sends it first of all and names its client in it.
//!
//! The specification (haproxy.org, `proxy-protocol.txt`) forbids guessing whether a header comes: if a proxy sent none, a client
//! could send a forged one. So a trusted proxy must send it, and nobody else may.

use std::{io, net::IpAddr};

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::TcpStream,
};

/// Every header begins with these bytes (section 2.2), which are neither HTTP nor TLS.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, the command, the address family, and the length of the rest.
const FIXED: usize = 16;
/// Most bytes after the fixed part. Addresses take at most 216; the rest is skipped, such as a client certificate.
const LONGEST: usize = 4 * 1024;
/// The connection is the proxy's own, such as a health check: its addresses are to be ignored (section 2.2).
const LOCAL: u8 = 0x20;

/// Reads the header of a connection. Returns the address of the client; `None` if the connection is the proxy's own, or its client
/// has no IP address. Reads no byte after the header, and has no deadline: the caller must set one.
pub(super) async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut header = vec![0; FIXED];
    io.read_exact(&mut header).await?;
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if !header.starts_with(SIGNATURE) || length > LONGEST {
        return Err(invalid());
    }
    header.resize(FIXED + length, 0);
    io.read_exact(&mut header[FIXED..]).await?;
    if header[SIGNATURE.len()] == LOCAL {
        return Ok(None);
    }
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    let (header, _) = ProxyHeader::parse(&header, config).map_err(|_| invalid())?;
    Ok(header.proxied_address().map(|address| address.source.ip().to_canonical()))
}

/// Whether a peer that may not send a header has sent one. Waits for the first bytes, and leaves them unread.
pub(super) async fn is_next(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0; SIGNATURE.len()];
    socket.peek(&mut first).await?;
    Ok(first == *SIGNATURE)
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no valid header of the PROXY protocol, version 2")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with this command, family and rest.
    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    async fn client(bytes: &[u8]) -> Result<String, ()> {
        let bytes = [bytes, b"GET"].concat();
        let mut rest = bytes.as_slice();
        let client = read(&mut rest).await.map_err(drop)?;
        assert_eq!(rest, b"GET", "reads the header and no more");
        Ok(client.map_or("none".to_owned(), |client| client.to_string()))
    }

    #[tokio::test]
    async fn a_header_names_the_client_and_what_is_added_to_it_is_skipped() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 1, 187];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        v6[15] = 1;
        let mut mapped = v6;
        mapped[..16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 9]);
        for (bytes, expected) in [
            (header(0x21, 0x11, &v4), Ok("192.0.2.1")),
            (header(0x21, 0x12, &v4), Ok("192.0.2.1")),
            (header(0x21, 0x21, &v6), Ok("2001:db8::1")),
            (header(0x21, 0x21, &mapped), Ok("192.0.2.9")),
            (header(0x21, 0x11, &[&v4[..], &[4, 0, 3, 1, 2, 3]].concat()), Ok("192.0.2.1")),
            (header(0x21, 0x11, &[&v4[..], &[7; 4_000]].concat()), Ok("192.0.2.1")),
            (header(0x21, 0, &[]), Ok("none")),
            (header(0x21, 0, &v4), Ok("none")),
            (header(0x21, 0x31, &[0; 216]), Ok("none")),
            (header(0x20, 0, &[]), Ok("none")),
            (header(0x20, 0x11, &v4), Ok("none")),
            (header(0x20, 0xff, &[1]), Ok("none")),
            (header(0x21, 0x11, &v4[..11]), Err(())),
            (header(0x21, 0x21, &v4), Err(())),
            (header(0x21, 0x41, &v4), Err(())),
            (header(0x22, 0x11, &v4), Err(())),
            (header(0x11, 0x11, &v4), Err(())),
            (header(0x21, 0x11, &[0; 4_097]), Err(())),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(), Err(())),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Err(())),
            (SIGNATURE.to_vec(), Err(())),
        ] {
            assert_eq!(client(&bytes).await, expected.map(str::to_owned), "{bytes:?}");
        }
    }
}
