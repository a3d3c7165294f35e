//! Requests that a browser makes for a page of another site, with the cookies of the browser's user.

use backend_signal::grpc::proto::{BroadcastRequest, SendRequest};

use crate::client_certificates::{self, Asking};
use crate::harness::{
    Connection, FORM, Response, Server, Sse, claim,
    grpc::{framed, message},
    http2::Http2,
    tokens::{SECRET, file, token},
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
const ROUTES: [Route; 8] = [
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

/// Status, gRPC status in the head, and code of a problem.
type Answer = (u16, String, String);

/// A route, with further headers.
type Route = (&'static str, &'static str, Headers);

/// What identifies the caller: a header.
type Identity<'a> = (&'a str, &'a str);

async fn ask_http1(server: &Server, identity: Identity<'_>, (method, path, more): Route, headers: Headers) -> Answer {
    let mut connection = Connection::open(server.address).await;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {OWN}\r\n");
    let body = body(path, more);
    for (name, value) in more.iter().chain(headers).chain([&identity]) {
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
    (answer.status, answer.header("grpc-status").to_owned(), code)
}

async fn ask_http2(
    connection: &mut Http2,
    identity: Identity<'_>,
    (method, path, more): Route,
    headers: Headers,
) -> Answer {
    let mut request = http::Request::builder().method(method).uri(format!("http://{OWN}{path}"));
    for (name, value) in more.iter().chain(headers).chain([&identity]) {
        request = request.header(*name, *value);
    }
    let response = connection.send(request.body(body(path, more).into()).expect("a request")).await;
    let status = response.status().as_u16();
    let grpc = response.headers().get("grpc-status").map(|code| code.to_str().expect("ASCII").to_owned());
    let mut text = Vec::new();
    if status == 403 {
        let body = axum::body::Body::new(response.into_body());
        text = within(axum::body::to_bytes(body, 1 << 10)).await.expect("a body").to_vec();
    }
    let problem: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    (status, grpc.unwrap_or_default(), problem["code"].as_str().unwrap_or_default().to_owned())
}

/// Asks every route in every case over HTTP/1.1 and HTTP/2. `passes` says which headers may pass, beside the table.
async fn assert_table(
    server: &Server,
    identity: Identity<'_>,
    routes: &[Route],
    passes: impl Fn(Route, Headers, bool) -> bool,
) {
    let mut connection = Http2::open(server.address).await;
    for &route in routes {
        for (headers, may_pass) in CASES {
            let (status, grpc, code) = expected(route.1, passes(route, headers, may_pass));
            let expected = (status, grpc.to_owned(), code.to_owned());
            let found = ask_http2(&mut connection, identity, route, headers).await;
            assert_eq!(found, expected, "HTTP/2 {route:?} {headers:?} {identity:.12?}");
            // HTTP/1.1 cannot carry a native gRPC call.
            if route.2 != [("content-type", "application/grpc")] {
                let found = ask_http1(server, identity, route, headers).await;
                assert_eq!(found, expected, "HTTP/1.1 {route:?} {headers:?} {identity:.12?}");
            }
        }
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_act_for_its_visitor() {
    let server = Server::with(&["--cors-origins", LISTED]).await;
    let _phone = server.sse("bob/phone").await;
    let claim = claim("bob/laptop");
    assert_table(&server, ("x-user-claim", &claim), &ROUTES, |_, _, passes| passes).await;
}

/// A daemon that takes tokens from the cookie `session`, and a phone that is connected.
async fn with_cookie(options: &[&str]) -> (Server, Sse) {
    let secret = file("secret", SECRET);
    let own = ["--auth", "jwt", "--jwt-secret-file", &secret, "--token-cookie", "session"];
    let server = Server::with(&[&own, options].concat()).await;
    let bearer = format!("Bearer {}", token("bob/phone"));
    let phone = Sse::open(server.address, "/subscribe", &[("authorization", &bearer)]).await;
    (server, phone)
}

/// Whether a request may be for an image of any page: over plain HTTP a browser says neither `Origin` nor `Sec-Fetch-Site` then.
fn may_be_an_image((method, _, more): Route, headers: Headers) -> bool {
    method == "GET" && headers.is_empty() && !more.contains(&("accept", "text/event-stream"))
}

/// Requests that act for the browser's user if the identity is a token.
fn routes_with_tokens() -> Vec<Route> {
    let watch_many: Route = ("GET", "/devices?user=bob", &[("accept", "text/event-stream")]);
    [&ROUTES[..], &[("POST", "/ticket", &[]), watch_many]].concat()
}

#[tokio::test]
async fn with_a_token_in_a_cookie_only_pages_of_the_own_host_and_of_listed_origins_may_act() {
    let cookie = format!("theme=dark; session={}", token("bob/laptop"));
    let (server, _phone) = with_cookie(&["--cors-origins", LISTED]).await;
    let routes = routes_with_tokens();
    assert_table(&server, ("cookie", &cookie), &routes, |route, headers, passes| {
        passes && !may_be_an_image(route, headers)
    })
    .await;
    // Without the option no origin is listed.
    let (server, _phone) = with_cookie(&[]).await;
    let is_listed = |headers: Headers| headers.contains(&("origin", LISTED));
    assert_table(&server, ("cookie", &cookie), &routes, |route, headers, passes| {
        passes && !is_listed(headers) && !may_be_an_image(route, headers)
    })
    .await;
}

#[tokio::test]
async fn a_token_that_no_browser_attaches_by_itself_is_good_for_any_page() {
    let (server, _phone) = with_cookie(&[]).await;
    let bearer = format!("Bearer {}", token("bob/laptop"));
    assert_table(&server, ("authorization", &bearer), &routes_with_tokens(), |_, _, _| true).await;
    // Nor does a cookie beside it matter: the first place that has a token decides.
    let (cookie, foreign) = (format!("session={}", token("eve/laptop")), ("sec-fetch-site", "cross-site"));
    for path in ["/subscribe", "/user/bob/devices", "/devices?user=bob"] {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}token={}", token("bob/laptop"));
        let mut connection = Connection::open(server.address).await;
        connection.ask(&format!("GET {path}"), &[("cookie", &cookie), foreign, ("accept", "text/event-stream")]).await;
        assert_eq!(connection.head().await.status, 200, "{path:.30}");
        // An empty parameter is none, so the cookie decides.
        let path = path.split("token=").next().unwrap_or_default();
        let headers = [("cookie", cookie.as_str()), foreign, ("accept", "text/event-stream")];
        let refused = server.request(&format!("GET {path}token="), &headers, b"").await;
        assert_eq!((refused.status, refused.problem().as_str()), (403, "cross_site"), "{path}");
    }
    let headers = [("cookie", cookie.as_str()), foreign, ("authorization", &bearer), ("content-type", FORM)];
    assert_eq!(server.request("POST /user/bob/device/phone", &headers, b"data=x").await.status, 200);
}

#[tokio::test]
async fn a_form_of_another_site_is_refused_whatever_its_content_type() {
    let (server, mut phone) = with_cookie(&[]).await;
    let cookie = format!("session={}", token("ana/laptop"));
    let form = [FORM, "text/plain", "multipart/form-data; boundary=x", "application/json", ""];
    for (kind, own) in form.into_iter().zip([200, 415, 415, 400, 415]) {
        let ask = async |site| {
            let headers = [("cookie", cookie.as_str()), ("sec-fetch-site", site), ("content-type", kind)];
            server.request("POST /user/bob/device/phone", &headers, b"data=x").await
        };
        let refused = ask("cross-site").await;
        assert_eq!((refused.status, refused.problem().as_str()), (403, "cross_site"), "{kind}");
        assert_eq!(ask("same-origin").await.status, own, "{kind}");
    }
    assert_eq!(phone.data().await, "x");
    // Nothing else came, and the stream of the visitor is not taken over.
    let foreign = [("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site"), ("accept", "text/event-stream")];
    assert_eq!(server.request("GET /subscribe?device=phone", &foreign, b"").await.status, 403);
    let bearer = format!("Bearer {}", token("ana/laptop"));
    let headers = [("authorization", bearer.as_str()), ("content-type", FORM)];
    assert_eq!(server.request("POST /user/bob/device/phone", &headers, b"data=last").await.status, 200);
    assert_eq!(phone.data().await, "last");
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
async fn an_image_over_plain_http_does_not_supersede_the_stream_of_its_visitor() {
    let (server, mut phone) = with_cookie(&[]).await;
    let cookie = format!("session={}", token("bob/phone"));
    let bearer = format!("Bearer {}", token("bob/phone"));
    for accept in [None, Some("*/*"), Some("image/avif,image/webp,image/*,*/*;q=0.8"), Some("text/html")] {
        let headers: Vec<_> = [("cookie", cookie.as_str())].into_iter().chain(accept.map(|a| ("accept", a))).collect();
        for path in ["/subscribe", "/subscribe/bob/device/phone"] {
            let mut image = Connection::open(server.address).await;
            image.ask(&format!("GET {path}"), &headers).await;
            assert_eq!(image.head().await.status, 403, "{path} {accept:?}");
        }
    }
    let headers = [("authorization", bearer.as_str()), ("content-type", FORM)];
    assert_eq!(server.request("POST /user/bob/device/phone", &headers, b"data=still").await.status, 200);
    assert_eq!(phone.data().await, "still");
    // An EventSource of the own page says what it wants, and a token in the header no browser adds by itself.
    for headers in [&[("cookie", cookie.as_str()), ("accept", "text/event-stream")][..], &[("authorization", &bearer)]]
    {
        assert_eq!(Sse::open(server.address, "/subscribe", headers).await.ready["user"], "bob");
    }
}

#[tokio::test]
async fn a_certificate_makes_a_request_the_browsers_only_when_nothing_else_identifies_the_caller() {
    let issuer = client_certificates::issuer();
    let secret = file("secret", SECRET);
    let (bearer, claim) = (format!("Bearer {}", token("bob/laptop")), claim("bob/laptop"));
    for (options, name, value) in [
        (&["--auth", "jwt", "--jwt-secret-file", &secret][..], "authorization", &bearer),
        (&[], "x-user-claim", &claim),
    ] {
        let asking = Asking::start(&format!("cross-site-{name}"), &issuer, options).await;
        let tunnel = asking.tunnel(Some(client_certificates::client(&issuer, &["backend"]))).await;
        let post = async |more: &[(&str, &str)]| {
            let headers = [&[("content-type", FORM), ("sec-fetch-site", "cross-site")], more].concat();
            Connection::open(tunnel.address).await.request("POST /user/bob/device/phone", &headers, b"data=x").await
        };
        assert_eq!(post(&[(name, value)]).await.status, 404, "{name}: nobody is connected");
        let refused = post(&[]).await;
        assert_eq!((refused.status, refused.problem().as_str()), (403, "cross_site"), "{name}");
        // What is not valid is 401, and no reason to look at the certificate.
        assert_eq!(post(&[(name, "Bearer x")]).await.status, 401, "{name}");
        let mut image = Connection::open(tunnel.address).await;
        image.ask("GET /subscribe?device=one", &[]).await;
        assert_eq!(image.head().await.status, 403, "{name}");
    }
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

#[tokio::test]
async fn with_dev_a_request_must_be_for_this_machine() {
    let server = Server::with(&["--dev"]).await;
    let port = server.address.port();
    let own = ["localhost", "LOCALHOST.", "app.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"];
    let foreign =
        ["evil.example", "localhost.evil.example", "notlocalhost", "192.0.2.1", "[::]", "127.0.0.1.evil.example"];
    let hosts = own.map(|host| (host, true)).into_iter().chain(foreign.map(|host| (host, false)));
    let mut http2 = Http2::open(server.address).await;
    for (host, is_own) in
        hosts.flat_map(|(host, is_own)| [(host.to_owned(), is_own), (format!("{host}:{port}"), is_own)])
    {
        for head in ["GET /user/bob/devices", "POST /user/bob/device/phone", "GET /console", "GET /healthz"] {
            let mut connection = Connection::open(server.address).await;
            // As a page that the name leads to, which counts as the daemon's own.
            let origin = format!("origin: http://{host}\r\nsec-fetch-site: same-origin\r\n");
            connection.write(format!("{head} HTTP/1.1\r\nhost: {host}\r\n{origin}\r\n").as_bytes()).await;
            let answer = connection.response(false).await;
            let is_refused = answer.status == 400 && answer.problem() == "invalid_host";
            assert_eq!(is_refused, !is_own, "{head} for {host}: {} {}", answer.status, answer.text());
        }
        let request = http::Request::get(format!("http://{host}/user/bob/devices")).body(axum::body::Body::empty());
        let status = http2.send(request.expect("a request")).await.status().as_u16();
        assert_eq!(status, if is_own { 200 } else { 400 }, "HTTP/2 {host}");
    }
}
