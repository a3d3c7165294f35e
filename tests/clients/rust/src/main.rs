//! eventsource-client (Rust), which reconnects by itself.

#![expect(clippy::disallowed_methods, reason = "environment variables tell it what to do")]

use std::{env, time::Duration};

use eventsource_client::{Client as _, ClientBuilder, Error, ReconnectOptions, SSE};
use futures_util::StreamExt as _;
use launchdarkly_sdk_transport::HyperTransport;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = ClientBuilder::for_url(&env::var("URL")?)?;
    let claim = env::var("CLAIM")?;
    if !claim.is_empty() {
        builder = builder.header("X-User-Claim", &claim)?;
    }
    let transport = HyperTransport::builder().read_timeout(Duration::from_secs(30)).build_http()?;
    let options = ReconnectOptions::reconnect(true).retry_initial(false).backoff_factor(1).build();
    let mut events = builder.reconnect(options).build_with_transport(transport).stream();
    while let Some(event) = events.next().await {
        match event {
            Ok(SSE::Event(event)) => {
                println!("{}", json!({ "event": event.event_type, "data": event.data, "id": event.id }));
            }
            Ok(SSE::Connected(_) | SSE::Comment(_)) => {}
            Err(Error::UnexpectedResponse(response, body)) => {
                let pieces: Vec<_> = body.into_stream().filter_map(|piece| async { piece.ok() }).collect().await;
                let text = String::from_utf8(pieces.concat())?;
                println!("{}", json!({ "error": true, "code": response.status(), "text": text }));
            }
            Err(error) => println!("{}", json!({ "error": true, "code": null, "text": error.to_string() })),
        }
    }
    Ok(())
}
