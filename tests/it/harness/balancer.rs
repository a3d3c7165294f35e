//! nginx in front of several nodes. It sends each request to a random one.

use std::{io, net::SocketAddr, ops::Deref};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
};

use super::{Door, nginx::Nginx};

/// A running balancer.
pub struct Balancer {
    door: Door,
    _nginx: Nginx,
}

impl Balancer {
    /// `None` if nginx is not installed. `name` is of this balancer alone.
    pub async fn start(name: &str, nodes: &[SocketAddr]) -> Option<Self> {
        // nginx must not leave out a node that it once could not reach.
        let nodes: Vec<_> = nodes.iter().map(|node| format!("server {node} max_fails=0;")).collect();
        let nodes = nodes.join(" ");
        let http = "proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffering off; \
             proxy_set_header Host $http_host; proxy_read_timeout 1h; client_max_body_size 1m;";
        let grpc = "grpc_pass grpc://nodes; grpc_read_timeout 1h; grpc_send_timeout 1h; client_body_timeout 1h;";
        let nginx = Nginx::with(
            name,
            &format!(
                "upstream nodes {{ random; {nodes} }}\n\
                 server {{ listen {{address}}; location / {{ {http} }} }}\n\
                 server {{ listen unix:{{folder}}/http2 http2; location / {{ {http} }}\n\
                 location /backend_signal.v1.Signal/ {{ {grpc} }} }}"
            ),
        )
        .await?;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let door = Door { address: listener.local_addr().expect("bound") };
        tokio::spawn(accept(listener, nginx.address, format!("{}/http2", Nginx::folder(name))));
        Some(Self { door, _nginx: nginx })
    }
}

impl Deref for Balancer {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

/// nginx has a socket for each version of HTTP, and the daemon only one.
async fn accept(listener: TcpListener, http1: SocketAddr, http2: String) {
    while let Ok((client, _)) = listener.accept().await {
        let http2 = http2.clone();
        tokio::spawn(async move { forward(client, http1, &http2).await });
    }
}

async fn forward(mut client: TcpStream, http1: SocketAddr, http2: &str) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut first = [0; 3];
    while client.peek(&mut first).await? < first.len() {
        tokio::task::yield_now().await;
    }
    if &first == b"PRI" {
        copy_bidirectional(&mut client, &mut UnixStream::connect(http2).await?).await?;
    } else {
        copy_bidirectional(&mut client, &mut TcpStream::connect(http1).await?).await?;
    }
    Ok(())
}
