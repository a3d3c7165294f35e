//! Behind nginx with `auth_request`: who the caller is, and what reaches the daemon.

mod login;
mod restart;
mod routes;

use backend_signal::grpc::proto::signal_client::SignalClient;
use tonic::transport::Channel;

use self::login::Login;
use super::{blocks, daemon, section, with_alpn};
use crate::harness::{
    Connection, FORM, Process, Response, Sse,
    grpc::Client,
    nginx::Nginx,
    path,
    tunnel::{Tunnel, connector},
    within,
};

/// The daemon, the login service and nginx, as the page shows them, and the way in over TLS.
struct SetUp {
    daemon: Process,
    login: Login,
    /// Plain connections to it are TLS to nginx, without ALPN: HTTP/1.1.
    http1: Tunnel,
    /// The same with ALPN for HTTP/2.
    http2: Tunnel,
    _nginx: Nginx,
}

impl SetUp {
    async fn start(name: &str) -> Option<Self> {
        let page = section("Behind nginx");
        let folder = format!("{}/behind-nginx-{name}", env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(&folder).expect("writable");
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        for (name, text) in [("cert.pem", identity.cert.pem()), ("key.pem", identity.signing_key.serialize_pem())] {
            std::fs::write(format!("{folder}/{name}"), text).expect("writable");
        }
        let (daemon, login) = (daemon(page, 0, &folder), Login::start().await);
        let configuration = blocks(page, "nginx")[0]
            .replace("/etc/backend-signal", &folder)
            .replace("127.0.0.1:1837", &daemon.address.to_string())
            .replace("127.0.0.1:9000", &login.address.to_string())
            .replace("listen 443 ", "listen {address} ");
        let nginx = Nginx::with(name, &configuration).await?;
        let http1 = Tunnel::open(nginx.address, connector(identity.cert.der(), None)).await;
        let http2 = Tunnel::open(nginx.address, with_alpn(&connector(identity.cert.der(), None), b"h2")).await;
        Some(Self { daemon, login, http1, http2, _nginx: nginx })
    }

    /// One request over HTTP/1.1.
    async fn ask(&self, head: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        Connection::open(self.http1.address).await.request(head, headers, body).await
    }

    /// Posts a form with a session.
    async fn post(&self, user: &str, to: &str, data: &str) -> u16 {
        let (cookie, body) = (session(user), format!("data={data}"));
        let headers = [("cookie", cookie.as_str()), ("content-type", FORM)];
        self.ask(&format!("POST {}", path(to)), &headers, body.as_bytes()).await.status
    }

    /// A client of gRPC.
    async fn grpc(&self) -> Client {
        let endpoint = Channel::from_shared(format!("http://{}", self.http2.address)).expect("a URI");
        SignalClient::new(within(endpoint.connect()).await.expect("listens"))
    }

    /// The stream of a device.
    async fn stream(&self, user: &str, device: &str) -> Sse {
        let (path, cookie) = (format!("/subscribe?device={device}&format=envelope"), session(user));
        Sse::open(self.http1.address, &path, &[("cookie", &cookie), ACCEPT]).await
    }
}

/// What an `EventSource` sends.
const ACCEPT: (&str, &str) = ("accept", "text/event-stream");

/// The cookie of a user who has logged in.
fn session(user: &str) -> String {
    format!("theme=dark; session={user}")
}
