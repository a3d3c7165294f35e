//! The daemon behind nginx, whose cache stores every answer unless the answer forbids it.

use crate::harness::{Connection, Response, Server, Sse, claim, nginx::Nginx};

/// The daemon, and an nginx in front of it that would serve any answer again for 10 s.
async fn behind_cache(name: &str) -> Option<(Server, Nginx)> {
    let server = Server::start().await;
    let http = "proxy_cache_path {folder}/cache keys_zone=answers:1m;";
    let location = format!(
        "location / {{ proxy_pass http://{}; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_cache answers; proxy_cache_valid any 10s; add_header x-cache $upstream_cache_status always; }}",
        server.address
    );
    let nginx = Nginx::start(name, http, &location).await?;
    Some((server, nginx))
}

async fn get(nginx: &Nginx, path: &str, headers: &[(&str, &str)]) -> Response {
    let answer = Connection::open(nginx.address).await.request(&format!("GET {path}"), headers, b"").await;
    assert_eq!(answer.header("x-cache"), "MISS", "{path}: {answer:?}");
    answer
}

#[tokio::test]
async fn behind_a_shared_cache_a_list_is_never_stale() {
    let Some((_server, nginx)) = behind_cache("stale").await else { return };
    for path in ["/user/bob/devices", "/devices?user=bob"] {
        let claim = claim(&format!("bob{}/phone", path.len()));
        let path = path.replace("bob", &format!("bob{}", path.len()));
        let before = get(&nginx, &path, &[]).await.text();
        assert!(before.ends_with("[]") || before.ends_with("[]}"), "{before}");
        let _phone = Sse::open(nginx.address, "/subscribe", &[("x-user-claim", &claim)]).await;
        let after = get(&nginx, &path, &[]).await.text();
        assert!(after.contains(r#"["phone"]"#), "{path}: {after}");
    }
}

#[tokio::test]
async fn behind_a_shared_cache_an_event_source_on_the_url_of_a_list_gets_the_stream() {
    let Some((_server, nginx)) = behind_cache("watch").await else { return };
    assert_eq!(get(&nginx, "/user/bob/devices", &[]).await.header("content-type"), "application/json");
    let events = [("accept", "text/event-stream")];
    // Asserts the content type.
    let mut watch = Sse::open_plain(nginx.address, "/user/bob/devices", &events).await;
    assert_eq!(watch.next().await.data, "[]");
    let _phone = Sse::open(nginx.address, "/subscribe", &[("x-user-claim", &claim("bob/phone"))]).await;
    assert_eq!(watch.next().await.data, r#"{"device":"phone"}"#);
    assert_eq!(get(&nginx, "/user/bob/devices", &[]).await.text(), r#"["phone"]"#);
}

#[tokio::test]
async fn behind_a_shared_cache_the_204_of_a_superseded_page_reaches_nobody_else() {
    let Some((_server, nginx)) = behind_cache("superseded").await else { return };
    let (bob, eve) = (claim("bob/phone"), claim("eve/phone"));
    let older = Sse::open(nginx.address, "/subscribe", &[("x-user-claim", &bob)]).await.parser.last_event_id;
    let _newer = Sse::open(nginx.address, "/subscribe", &[("x-user-claim", &bob)]).await;
    let superseded = get(&nginx, "/subscribe", &[("x-user-claim", &bob), ("last-event-id", &older)]).await;
    assert_eq!(superseded.status, 204);
    let other = Sse::open(nginx.address, "/subscribe", &[("x-user-claim", &eve)]).await;
    assert_eq!(other.ready["user"], "eve");
    // The 401 of one caller does not reach another one either.
    assert_eq!(get(&nginx, "/user/bob/devices", &[("x-user-claim", "nonsense")]).await.status, 401);
    assert_eq!(get(&nginx, "/user/bob/devices", &[]).await.status, 200);
}
