//! A login service, which nginx asks about every request.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::HeaderMap, response::IntoResponse, routing::get};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::AbortHandle};

/// A running login service. Whoever has the cookie `session` is the user that it names.
pub struct Login {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    serving: AbortHandle,
}

impl Login {
    pub async fn start() -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let routes = Router::new().route("/verify", get(verify)).with_state(asked.clone());
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Self { address, asked, serving: serving.abort_handle() }
    }

    /// Takes the original methods and URIs that it was asked about.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock())
    }

    /// Takes no more connections: nginx soon answers 500.
    pub fn stop(&self) {
        self.serving.abort();
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn verify(State(asked): State<Arc<Mutex<Vec<String>>>>, headers: HeaderMap) -> impl IntoResponse {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    asked.lock().push(format!("{} {}", header("x-original-method"), header("x-original-uri")));
    let session = header("cookie").split("; ").find_map(|cookie| cookie.strip_prefix("session="));
    match session {
        Some(user) => Ok([("x-user-claim", serde_json::json!({ "userid": user }).to_string())]),
        None => Err(axum::http::StatusCode::UNAUTHORIZED),
    }
}
