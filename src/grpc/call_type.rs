//! The content type of a call: native gRPC or gRPC-Web.

use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use tonic::Status;

use super::SEND;
use crate::media_type::MediaType;

/// How a call is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallType {
    /// Native gRPC, which needs HTTP/2.
    Native,
    /// gRPC-Web.
    Web,
    /// gRPC-Web in base64.
    WebText,
}

impl CallType {
    /// The type of a call. `None`: the request is no gRPC call.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        let (transport, _) = parts(request.headers())?;
        let is = |name: &str| transport.eq_ignore_ascii_case(name);
        match request.version() {
            _ if request.method() != Method::POST => None,
            _ if is("-web") => Some(Self::Web),
            _ if is("-web-text") => Some(Self::WebText),
            Version::HTTP_2 if is("") => Some(Self::Native),
            _ => None,
        }
    }

    /// Writes `Content-Type` and `Accept` as tonic-web knows them: it compares whole headers, byte by byte.
    pub fn normalize(self, headers: &mut HeaderMap) {
        headers.insert(header::CONTENT_TYPE, self.name());
        let is_text = |accepted: MediaType<'_>| accepted.is("application/grpc-web-text") || accepted.is(WEB_TEXT);
        if MediaType::accepted(headers).any(is_text) {
            headers.insert(header::ACCEPT, HeaderValue::from_static(WEB_TEXT));
        }
    }

    /// A response that has only a status.
    #[must_use]
    pub fn respond<B: Default>(self, status: Status) -> Response<B> {
        let mut response = status.into_http();
        response.headers_mut().insert(header::CONTENT_TYPE, self.name());
        response
    }

    fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Native => "application/grpc",
            Self::Web => "application/grpc-web+proto",
            Self::WebText => WEB_TEXT,
        })
    }
}

const WEB_TEXT: &str = "application/grpc-web-text+proto";

/// The parts of a content type after `application/grpc`: the transport, and the codec of the messages after `+`.
fn parts(headers: &HeaderMap) -> Option<(&str, &str)> {
    let kind = MediaType::of_body(headers)?.after("application/grpc")?;
    Some(kind.split_once('+').unwrap_or((kind, PROTOBUF)))
}

/// Whether the messages of a call are protobuf, as its content type says. This server reads nothing else.
#[must_use]
pub fn is_protobuf<B>(request: &Request<B>) -> bool {
    parts(request.headers()).is_some_and(|(_, codec)| codec.eq_ignore_ascii_case(PROTOBUF))
}

const PROTOBUF: &str = "proto";

/// Whether a request is a native call of `Send`. Such calls skip the router, because they come once for every message.
#[must_use]
pub fn is_send<B>(request: &Request<B>) -> bool {
    request.uri().path() == SEND && CallType::of(request) == Some(CallType::Native) && is_protobuf(request)
}
