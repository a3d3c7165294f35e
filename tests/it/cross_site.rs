//! Requests that a browser makes for a page of another site, with the cookies of the browser's user.

use backend_signal::grpc::proto::{BroadcastRequest, SendRequest};

use crate::harness::{
    Connection, FORM, Response, Server, claim,
    grpc::{framed, message},
    http2::Http2,
    within,
};

const OWN: &str = "signal.example";
const LISTED: &str = "https://app.example";

type Headers = &'static [(&'static str, &'static str)];

/// What a browser says about the origin of a request, and whether the request may pass.
const CASES: [(Headers, bool); 19] = [
    (&[], true),
    (&[("sec-fetch-site", "same-origin")], true),
    (&[("sec-fetch-site", "none")], true),
    (&[("sec-fetch-site", "same-origin"), ("origin", "https://signal.example")], true),
    (&[("sec-fetch-site", "cross-site")], false),
    (&[("sec-fetch-site", "same-site")], false),
    (&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")], false),
    (&[("sec-fetch-site", "same-site"), ("origin", "https://signal.example:8443")], false),
    (&[("sec-fetch-site", "cross-site"), ("origin", "null")], false),
    (&[("sec-fetch-site", "cross-site"), ("origin", LISTED)], true),
    (&[("sec-fetch-site", "same-site"), ("origin", LISTED)], true),
    (&[("origin", LISTED)], true),
    (&[("origin", "https://signal.example")], true),
    (&[("origin", "http://SIGNAL.example:80")], true),
    (&[("origin", "https://signal.example:8443")], false),
    (&[("origin", "https://evil.example")], false),
    (&[("origin", "https://signal.example.evil.example")], false),
    (&[("origin", "null")], false),
    (&[("origin", LISTED), ("origin", "https://evil.example")], false),
];

/// Method, path and further headers of every request that acts for the browser's user.
const ROUTES: [(&str, &str, Headers); 8] = [
    ("POST", "/user/bob/device/phone", &[("content-type", FORM)]),
    ("POST", "/user/bob/devices", &[("content-type", FORM)]),
    ("POST", "/backend_signal.v1.Signal/Send", &[("content-type", "application/grpc-web+proto")]),
    ("POST", "/backend_signal.v1.Signal/Broadcast", &[("content-type", "application/grpc")]),
    ("GET", "/subscribe", &[]),
    ("GET", "/subscribe", &[("accept", "text/event-stream")]),
    ("GET", "/subscribe/bob/device/laptop", &[]),
    ("GET", "/user/bob/devices", &[("accept", "text/event-stream")]),
];

fn body(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    match path.rsplit('/').next() {
        Some("Send") => framed(&message("bob/phone", "", "x") as &SendRequest),
        Some("Broadcast") => {
            framed(&BroadcastRequest { user: "bob".into(), data: "x".into(), ..BroadcastRequest::default() })
        }
        _ if more.first().is_some_and(|(_, value)| *value == FORM) => b"data=x".to_vec(),
        _ => Vec::new(),
    }
}

/// Status, gRPC status in the head, and code of a problem: for a request that passes, and for one that is refused.
fn expected(path: &str, passes: bool) -> (u16, &'static str, &'static str) {
    match (passes, path.starts_with("/backend_signal.v1.Signal/")) {
        (true, _) => (200, "", ""),
        (false, true) => (200, "7", ""),
        (false, false) => (403, "", "cross_site"),
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_act_for_its_visitor_over_http_1() {
    let server = Server::with(&["--cors-origins", LISTED]).await;
    let _phone = server.sse("bob/phone").await;
    // HTTP/1.1 cannot carry a native gRPC call.
    for (method, path, more) in ROUTES.into_iter().filter(|(.., more)| *more != [("content-type", "application/grpc")])
    {
        for (headers, passes) in CASES {
            let claim = claim("bob/laptop");
            let mut connection = Connection::open(server.address).await;
            let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {OWN}\r\nx-user-claim: {claim}\r\n");
            let body = body(path, more);
            for (name, value) in more.iter().chain(headers) {
                head.extend([name, ": ", value, "\r\n"]);
            }
            connection.write(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes()).await;
            connection.write(&body).await;
            let mut answer: Response = connection.head().await;
            if answer.status == 403 {
                let length = answer.header("content-length").parse().expect("a length");
                let mut text = vec![0; length];
                connection.read(&mut text).await;
                answer.body = text;
            }
            let code = if answer.status == 403 { answer.problem() } else { String::new() };
            let found = (answer.status, answer.header("grpc-status"), code.as_str());
            assert_eq!(found, expected(path, passes), "{method} {path} {headers:?}");
        }
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_act_for_its_visitor_over_http_2() {
    let server = Server::with(&["--cors-origins", LISTED]).await;
    let _phone = server.sse("bob/phone").await;
    let mut connection = Http2::open(server.address).await;
    for (method, path, more) in ROUTES {
        for (headers, passes) in CASES {
            let mut request = http::Request::builder().method(method).uri(format!("http://{OWN}{path}"));
            for (name, value) in more.iter().chain(headers) {
                request = request.header(*name, *value);
            }
            let request = request.header("x-user-claim", claim("bob/laptop"));
            let response = connection.send(request.body(body(path, more).into()).expect("a request")).await;
            let status = response.status().as_u16();
            let grpc = response.headers().get("grpc-status").map(|code| code.to_str().expect("ASCII").to_owned());
            let mut text = Vec::new();
            if status == 403 {
                let body = axum::body::Body::new(response.into_body());
                text = within(axum::body::to_bytes(body, 1 << 10)).await.expect("a body").to_vec();
            }
            let problem: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            let code = problem["code"].as_str().unwrap_or_default();
            let found = (status, grpc.as_deref().unwrap_or_default(), code);
            assert_eq!(found, expected(path, passes), "{method} {path} {headers:?}");
        }
    }
}

#[tokio::test]
async fn an_image_of_another_site_does_not_supersede_the_stream_of_its_visitor() {
    let server = Server::with(&["--cors-origins", LISTED]).await;
    let mut phone = server.sse("bob/phone").await;
    let claim = claim("bob/phone");
    let headers = [("x-user-claim", claim.as_str()), ("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "image")];
    let mut image = Connection::open(server.address).await;
    image.ask("GET /subscribe", &headers).await;
    assert_eq!(image.head().await.status, 403);
    assert_eq!(server.post("bob/phone", "still there").await.status, 200);
    assert_eq!(phone.data().await, "still there");
}

#[tokio::test]
async fn without_listed_origins_no_request_is_refused_as_cross_site() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    for (headers, _) in CASES {
        let headers = [&[("content-type", FORM)], headers].concat();
        assert_eq!(server.request("POST /user/bob/device/phone", &headers, b"data=x").await.status, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn requests_that_only_read_are_not_refused_as_cross_site() {
    let server = Server::with(&["--cors-origins", LISTED]).await;
    for path in ["/user/bob/devices", "/healthz", "/readyz", "/metrics"] {
        let answer = server.request(&format!("GET {path}"), &[("sec-fetch-site", "cross-site")], b"").await;
        assert_eq!(answer.status, 200, "{path}");
    }
}
