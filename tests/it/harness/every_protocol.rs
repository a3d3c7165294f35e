//! The same send over every protocol, for answers that must not differ.

use std::net::SocketAddr;

use axum::body::Body;
use http::{HeaderMap, Request};
use tonic::Code;

use super::{
    Connection, FORM,
    grpc::{framed, message},
    http2::Http2,
    path,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// With an `Origin`, so that it takes the router.
    Http1Routed,
    Http2,
    Grpc,
    GrpcWeb,
}

pub const PROTOCOLS: [Protocol; 5] =
    [Protocol::Http1, Protocol::Http1Routed, Protocol::Http2, Protocol::Grpc, Protocol::GrpcWeb];

/// An answer. Of a gRPC answer, the HTTP status that means the same as its code.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<u32>,
}

impl Protocol {
    /// Sends a message on a connection of its own.
    pub async fn send(self, address: SocketAddr, to: &str, data: &str, headers: &[(&str, &str)]) -> Answer {
        let (post, form) = (format!("POST {}", path(to)), format!("data={data}").into_bytes());
        let with = |more: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in more.iter().copied().chain(headers.iter().copied()) {
                map.append(
                    http::HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                    value.parse().expect("a value"),
                );
            }
            map
        };
        let call = "/backend_signal.v1.Signal/Send";
        let message = || framed(&message(to, "", data));
        match self {
            Self::Http1 | Self::Http1Routed => {
                let origin = [("content-type", FORM), ("origin", "https://app.example")];
                let more = &origin[..if self == Self::Http1 { 1 } else { 2 }];
                let headers = [more, headers].concat();
                let answer = Connection::open(address).await.request(&post, &headers, &form).await;
                Answer { status: answer.status, retry_after: answer.header("retry-after").parse().ok() }
            }
            Self::Http2 => over_http2(address, &path(to), with(&[("content-type", FORM)]), form).await,
            Self::Grpc => {
                let headers = with(&[("content-type", "application/grpc"), ("te", "trailers")]);
                over_http2(address, call, headers, message()).await
            }
            Self::GrpcWeb => {
                over_http2(address, call, with(&[("content-type", "application/grpc-web")]), message()).await
            }
        }
    }
}

async fn over_http2(address: SocketAddr, path: &str, headers: HeaderMap, body: Vec<u8>) -> Answer {
    let mut connection = Http2::open(address).await;
    let mut request = Request::post(connection.uri(path)).body(Body::from(body)).expect("a request");
    request.headers_mut().extend(headers);
    let response = connection.send(request).await;
    let header = |name| response.headers().get(name)?.to_str().ok()?.parse::<u32>().ok();
    let status =
        header("grpc-status").map_or(response.status().as_u16(), |code| match Code::from(code.cast_signed()) {
            Code::Ok => 200,
            Code::InvalidArgument => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::ResourceExhausted => 429,
            Code::Unavailable => 503,
            code => panic!("{code:?}"),
        });
    Answer { status, retry_after: header("retry-after") }
}
