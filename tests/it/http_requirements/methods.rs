//! RFC 9110, 9 and 10.2.1: which methods each route has, and what other methods get.

use http::Request;

use crate::harness::{Connection, Response, Server, http2::Http2};

/// Each route, and the methods that its 405 names.
const ROUTES: [(&str, &[&str]); 13] = [
    // A HEAD would connect a device whose stream nobody reads.
    ("/subscribe", &["GET"]),
    ("/subscribe/bob/device/phone", &["GET"]),
    ("/user/bob/devices", &["GET", "HEAD", "POST"]),
    ("/devices", &["GET", "HEAD"]),
    ("/user/bob/device/phone", &["POST"]),
    ("/healthz", &["GET", "HEAD"]),
    ("/readyz", &["GET", "HEAD"]),
    ("/metrics", &["GET", "HEAD"]),
    ("/", &["GET", "HEAD"]),
    ("/console", &["GET", "HEAD"]),
    ("/client.js", &["GET", "HEAD"]),
    ("/client.d.ts", &["GET", "HEAD"]),
    ("/openapi.json", &["GET", "HEAD"]),
];

/// Not met (RFC 9110, 9.1): a method that the server does not know is 405, like a known one, and not 501.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get"];

fn allowed(answer: &Response) -> Vec<&str> {
    answer.header("allow").split(',').map(str::trim).filter(|method| !method.is_empty()).collect()
}

#[tokio::test]
async fn a_405_names_exactly_the_methods_that_the_route_has() {
    let server = Server::with(&["--console"]).await;
    let mut connection = Connection::open(server.address).await;
    for (path, methods) in ROUTES {
        for method in METHODS {
            let answer = connection.request(&format!("{method} {path}"), &[], b"").await;
            let about = format!("{method} {path}: {answer:?}");
            if methods.contains(&method) {
                assert!(![404, 405, 501].contains(&answer.status) && answer.header("allow").is_empty(), "{about}");
            } else {
                assert_eq!((answer.status, allowed(&answer).as_slice()), (405, methods), "{about}");
            }
        }
        let answer = connection.request(&format!("OPTIONS {path}"), &[], b"").await;
        // Not met (RFC 9110, 9.3.7): no Allow.
        assert_eq!((answer.status, answer.header("allow")), (204, ""), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn over_http_2_a_405_names_the_same_methods() {
    let server = Server::with(&["--console"]).await;
    let mut connection = Http2::open(server.address).await;
    for (path, methods) in ROUTES {
        let request = Request::builder().method("PROPFIND").uri(connection.uri(path)).body(axum::body::Body::empty());
        let answer = connection.send(request.expect("a request")).await;
        let found = answer.headers().get("allow").map_or("", |allow| allow.to_str().expect("ASCII"));
        assert_eq!((answer.status().as_u16(), found), (405, methods.join(",").as_str()), "{path}");
    }
}

/// Not met (RFC 9110, 15.5.6): 415 and not 405.
#[tokio::test]
async fn on_a_grpc_path_every_other_method_is_415() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    for path in ["/backend_signal.v1.Signal/Send", "/grpc.health.v1.Health/Check"] {
        for method in METHODS.into_iter().filter(|method| *method != "POST") {
            let answer =
                connection.request(&format!("{method} {path}"), &[("content-type", "application/grpc-web")], b"").await;
            assert_eq!(answer.status, 415, "{method} {path}");
        }
    }
}
