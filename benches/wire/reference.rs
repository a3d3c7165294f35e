//! What the daemon is compared with: a bare hyper, and the server that one writes with axum in an afternoon.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
};

use axum::{
    Form, Router,
    body::Body,
    extract::{Path, State},
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
    routing::{get, post},
};
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};

type Channels = Arc<Mutex<HashMap<(String, String), mpsc::Sender<String>>>>;

/// Serves until SIGTERM.
pub fn serve(kind: &str) -> io::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let listener = socket.listen(4_096)?;
        eprintln!("listening on {}", listener.local_addr()?);
        let mut stop = signal(SignalKind::terminate())?;
        let served = async { if kind == "bare" { bare(listener).await } else { axum(listener).await } };
        tokio::select! {
            served = served => served,
            _ = stop.recv() => Ok(()),
        }
    })
}

async fn bare(listener: TcpListener) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(Body::empty())));
        crate::load::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

async fn axum(listener: TcpListener) -> io::Result<()> {
    use axum::serve::ListenerExt as _;
    let routes = Router::new()
        .route("/subscribe/{user}/device/{device}", get(subscribe))
        .route("/user/{user}/device/{device}", post(send))
        .with_state(Channels::default());
    axum::serve(listener.tap_io(|socket| drop(socket.set_nodelay(true))), routes).await
}

async fn subscribe(
    State(channels): State<Channels>,
    Path(address): Path<(String, String)>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (sender, receiver) = mpsc::channel(64);
    channels.lock().expect("not poisoned").insert(address, sender);
    let ready = Event::default().event("signal.ready").data(r#"{"heartbeat_ms":15000}"#);
    let messages = ReceiverStream::new(receiver).map(|data| Event::default().data(data));
    Sse::new(tokio_stream::once(ready).chain(messages).map(Ok)).keep_alive(KeepAlive::default())
}

#[derive(Deserialize)]
struct Post {
    data: String,
}

async fn send(
    State(channels): State<Channels>,
    Path(address): Path<(String, String)>,
    Form(post): Form<Post>,
) -> StatusCode {
    let sender = channels.lock().expect("not poisoned").get(&address).cloned();
    match sender.map(|sender| sender.try_send(post.data)) {
        Some(Ok(())) => StatusCode::OK,
        Some(Err(_)) => StatusCode::TOO_MANY_REQUESTS,
        None => StatusCode::NOT_FOUND,
    }
}
