//! Every 401 says how to authenticate (RFC 9110, section 11.6.1), and no other answer does.

use backend_signal::grpc::proto::SubscribeRequest;
use http::Request;

use crate::harness::{
    FORM, JSON, Server, claim,
    grpc::{framed, message},
    http2::Http2,
    within,
};

const CLAIM: &str = r#"Claim realm="backend-signal""#;
const FORM_TYPE: (&str, &str) = ("content-type", FORM);
const BAD: (&str, &str) = ("x-user-claim", "nonsense");
const PAGE: (&str, &str) = ("origin", "https://a.example");
const EVENTS: (&str, &str) = ("accept", "text/event-stream");
const POST: &str = "POST /user/bob/device/phone";

#[tokio::test]
async fn every_401_has_one_challenge_and_no_other_answer_has_one() {
    let server = Server::start().await;
    let strict = Server::with(&["--require-claim", "all"]).await;
    let proxied = Server::with(&["--trusted-proxies", "192.0.2.1"]).await;
    let open = Server::with(&["--auth", "none"]).await;
    for (server, head, headers, status) in [
        (&server, POST, &[FORM_TYPE, BAD][..], 401),
        (&server, POST, &[FORM_TYPE, BAD, PAGE], 401),
        (&server, POST, &[("content-type", JSON), BAD, BAD], 401),
        (&server, "POST /user/bob/devices", &[FORM_TYPE, BAD], 401),
        (&server, "GET /user/bob/devices", &[BAD], 401),
        (&server, "HEAD /user/bob/devices", &[BAD], 401),
        (&server, "GET /user/bob/devices", &[BAD, EVENTS], 401),
        (&server, "GET /devices?user=bob", &[BAD], 401),
        (&server, "GET /subscribe", &[], 401),
        (&server, "GET /subscribe", &[EVENTS], 401),
        (&server, "GET /subscribe/bob/device/phone", &[], 401),
        (&strict, POST, &[FORM_TYPE], 401),
        (&strict, "GET /user/bob/devices", &[], 401),
        (&proxied, POST, &[FORM_TYPE], 401),
        (&proxied, "GET /subscribe", &[("x-user-claim", &claim("bob/phone"))], 401),
        (&open, "GET /subscribe", &[], 401),
        (&open, POST, &[FORM_TYPE, BAD], 401),
        (&server, POST, &[FORM_TYPE], 400),
        (&server, "GET /user/bob/devices", &[], 200),
        (&server, "GET /subscribe/eve/device/phone", &[("x-user-claim", &claim("bob/phone"))], 403),
        (&server, "GET /nowhere", &[BAD], 404),
    ] {
        let answer = server.request(head, headers, b"").await;
        let challenges: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "www-authenticate").collect();
        let challenges: Vec<_> = challenges.iter().map(|(_, value)| value.as_str()).collect();
        let expected: &[_] = if status == 401 { &[CLAIM] } else { &[] };
        assert_eq!((answer.status, challenges.as_slice()), (status, expected), "{head} {headers:?}");
    }
}

#[tokio::test]
async fn a_call_without_a_valid_identity_gets_the_challenge_as_metadata() {
    let server = Server::start().await;
    let mut connection = Http2::open(server.address).await;
    for (method, kind, body) in [
        ("Send", "application/grpc", framed(&message("bob/phone", "", "x"))),
        ("Subscribe", "application/grpc", framed(&SubscribeRequest::default())),
        ("ListDevices", "application/grpc", Vec::new()),
        ("Send", "application/grpc-web+proto", framed(&message("bob/phone", "", "x"))),
    ] {
        let request = Request::post(connection.uri(&format!("/backend_signal.v1.Signal/{method}")));
        let request = request.header("content-type", kind).header("x-user-claim", "nonsense");
        let answer = within(connection.send(request.body(body.into()).expect("a request"))).await;
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().expect("ASCII"));
        assert_eq!((header("grpc-status"), header("www-authenticate")), (Some("16"), Some(CLAIM)), "{method} {kind}");
    }
    let (kind, body) = (("content-type", "application/grpc-web+proto"), framed(&message("bob/phone", "", "x")));
    let answer = server.request("POST /backend_signal.v1.Signal/Send", &[kind, BAD], &body).await;
    assert_eq!(answer.header("www-authenticate"), CLAIM);
}
