//! A client of TURN (RFC 8656) that asks for a relay, over UDP or TCP, and a real coturn.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::Duration,
};

use ring::hmac;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{free_address, within};

/// A running coturn.
pub struct Coturn {
    pub address: SocketAddr,
    /// For TLS.
    pub tls_address: SocketAddr,
    child: Child,
}

impl Coturn {
    /// Starts coturn with a configuration in which `{port}` and `{tls port}` are its ports, and `{folder}` is an empty folder for
    /// this `name`. `None`, with a line on standard error, if coturn is not installed.
    pub async fn start(name: &str, configuration: &str) -> Option<Self> {
        if Command::new("turnserver").arg("--version").output().is_err() {
            #[expect(clippy::disallowed_methods, reason = "CI must have the tools")]
            let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!must, "with CI=true this test must run: coturn is not installed");
            // Not `eprint!`: the test harness hides its output.
            let _ = std::io::stderr().write_all(b"\nSKIPPED: a test with a TURN server: coturn is not installed\n");
            return None;
        }
        let folder = format!("{}/coturn-{name}", env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(&folder).expect("writable");
        within(async {
            loop {
                // coturn cannot choose free ports itself. Another program may take these first; then this tries again.
                let (address, tls_address) = (free_address(), free_address());
                let child = Self::spawn(&folder, [address, tls_address], configuration);
                let mut coturn = Self { address, tls_address, child };
                while coturn.child.try_wait().expect("a child").is_none() {
                    if TcpStream::connect(address).await.is_ok() && TcpStream::connect(tls_address).await.is_ok() {
                        return Some(coturn);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        })
        .await
    }

    fn spawn(folder: &str, [address, tls_address]: [SocketAddr; 2], configuration: &str) -> Child {
        let configuration = configuration
            .replace("{port}", &address.port().to_string())
            .replace("{tls port}", &tls_address.port().to_string())
            .replace("{folder}", folder);
        // Only the loopback address, and no file outside of the folder.
        let own = format!("listening-ip=127.0.0.1\nlog-file=stdout\npidfile={folder}/pid\nuserdb={folder}/turndb\n");
        let file = format!("{folder}/turnserver.conf");
        std::fs::write(&file, format!("{configuration}\n{own}")).expect("writable");
        let mut command = Command::new("turnserver");
        command.args(["-c", &file]).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).spawn().expect("coturn")
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a client reaches a TURN server.
enum Transport {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// A relayed address of a client. It lives as long as its connection.
pub struct Allocation {
    transport: Transport,
    user: String,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    key: hmac::Key,
}

/// The number of an error of STUN.
pub type ErrorCode = u16;

impl Allocation {
    /// Asks for a relay over UDP.
    pub async fn over_udp(server: SocketAddr, user: &str, password: &str) -> Result<Self, ErrorCode> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        socket.connect(server).await.expect("an address");
        Self::ask(Transport::Udp(socket), user, password).await
    }

    /// Asks for a relay over TCP.
    pub async fn over_tcp(server: SocketAddr, user: &str, password: &str) -> Result<Self, ErrorCode> {
        Self::ask(Transport::Tcp(within(TcpStream::connect(server)).await.expect("listens")), user, password).await
    }

    /// The server refuses a first request without credentials, and says what they are for.
    async fn ask(mut transport: Transport, user: &str, password: &str) -> Result<Self, ErrorCode> {
        let requested = [(REQUESTED_TRANSPORT, vec![17, 0, 0, 0])];
        let challenge = transport.exchange(&message(ALLOCATE, &requested)).await;
        assert_eq!(error_of(&challenge), Some(401), "a TURN server that relays for everybody");
        let (realm, nonce) =
            (attribute(&challenge, REALM).expect("a realm"), attribute(&challenge, NONCE).expect("one"));
        let key = md5::compute([user.as_bytes(), b":", &realm, b":", password.as_bytes()].concat());
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key.0);
        let mut allocation = Self { transport, user: user.to_owned(), realm, nonce, key };
        allocation.request(ALLOCATE, &requested).await?;
        Ok(allocation)
    }

    /// Asks for permission to send to an address.
    pub async fn permit(&mut self, peer: Ipv4Addr) -> Result<(), ErrorCode> {
        let address = u32::from(peer) ^ u32::from_be_bytes(COOKIE);
        let port = 9_u16 ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
        let value = [&[0, 1][..], &port.to_be_bytes(), &address.to_be_bytes()].concat();
        self.request(CREATE_PERMISSION, &[(XOR_PEER_ADDRESS, value)]).await
    }

    async fn request(&mut self, kind: u16, attributes: &[Attribute]) -> Result<(), ErrorCode> {
        let own = [(USERNAME, self.user.clone().into()), (REALM, self.realm.clone()), (NONCE, self.nonce.clone())];
        let mut message = message(kind, &[attributes, &own].concat());
        // The signature counts for the length of the message that it signs (RFC 8489, section 14.5).
        set_length(&mut message, 24);
        let signature = hmac::sign(&self.key, &message);
        message.extend(encoded(&(MESSAGE_INTEGRITY, signature.as_ref().to_vec())));
        let answer = self.transport.exchange(&message).await;
        error_of(&answer).map_or(Ok(()), Err)
    }
}

impl Transport {
    /// The answer to a request. Over UDP a request may get lost, also when the server has only just started.
    async fn exchange(&mut self, request: &[u8]) -> Vec<u8> {
        let mut answer = vec![0; 2048];
        match self {
            Self::Tcp(stream) => {
                within(stream.write_all(request)).await.expect("open");
                within(stream.read_exact(&mut answer[..HEADER])).await.expect("an answer");
                let length = usize::from(u16::from_be_bytes([answer[2], answer[3]]));
                within(stream.read_exact(&mut answer[HEADER..HEADER + length])).await.expect("an answer");
                answer.truncate(HEADER + length);
            }
            Self::Udp(socket) => {
                let received = within(async {
                    loop {
                        // `Err` while nobody listens there.
                        let _ = socket.send(request).await;
                        let received = timeout(Duration::from_millis(500), socket.recv(&mut answer)).await;
                        // An answer to an earlier request that was sent twice has another transaction id.
                        if let Ok(Ok(received)) = received
                            && answer[8..HEADER] == request[8..HEADER]
                        {
                            return received;
                        }
                    }
                });
                let received = received.await;
                answer.truncate(received);
            }
        }
        answer
    }
}

/// The number and the value of an attribute.
type Attribute = (u16, Vec<u8>);

/// A message of STUN with a random transaction id.
fn message(kind: u16, attributes: &[Attribute]) -> Vec<u8> {
    let id: [u8; 12] = std::array::from_fn(|_| fastrand::u8(..));
    let mut message = [&kind.to_be_bytes()[..], &[0, 0], &COOKIE, &id].concat();
    message.extend(attributes.iter().flat_map(encoded));
    set_length(&mut message, 0);
    message
}

fn encoded((kind, value): &Attribute) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("short");
    let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), value, &padding].concat()
}

/// Sets the length of a message to which this many bytes will be added.
fn set_length(message: &mut [u8], more: usize) {
    let length = u16::try_from(message.len() - HEADER + more).expect("short");
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

fn attribute(message: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let mut rest = &message[HEADER..];
    while let [kind, kind_low, length, length_low, value @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*length, *length_low]));
        if u16::from_be_bytes([*kind, *kind_low]) == wanted {
            return Some(value[..length].to_vec());
        }
        rest = value.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn error_of(answer: &[u8]) -> Option<ErrorCode> {
    attribute(answer, ERROR_CODE).map(|value| u16::from(value[2]) * 100 + u16::from(value[3]))
}

/// The bytes before the attributes.
const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const ALLOCATE: u16 = 0x0003;
const CREATE_PERMISSION: u16 = 0x0008;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const REQUESTED_TRANSPORT: u16 = 0x0019;
