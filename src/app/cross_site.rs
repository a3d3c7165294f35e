//! Which requests a page of another site may not make in the name of its visitor.
//!
//! Where the proxy's session is a cookie, a browser sends it with every form, image and stream that any page asks for, and CORS
//! only keeps the page from reading the answer. Browsers say where a request comes from, and no page can forge that.

use axum::http::{HeaderMap, HeaderValue, Method, Request, header, uri::Authority};

use crate::{error::Error, rest};

/// The origins whose pages may act for their visitors, besides the server's own. Without any, nobody is refused: then no answer
/// is for credentials, and the identity is not a cookie's.
pub(super) struct AllowedOrigins(Vec<HeaderValue>);

impl AllowedOrigins {
    pub(super) fn new(origins: &[HeaderValue]) -> Self {
        Self(origins.to_vec())
    }

    /// Why a request is refused for where it comes from.
    pub(super) fn refusal<B>(&self, request: &Request<B>) -> Option<Error> {
        let refused = !self.0.is_empty() && acts(request) && !self.trusts(request);
        refused.then_some(Error::CrossSite)
    }

    fn trusts<B>(&self, request: &Request<B>) -> bool {
        let headers = request.headers();
        let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
        let (absent, listed) = (origins.peek().is_none(), origins.all(|origin| self.0.contains(origin)));
        if !absent && listed {
            return true;
        }
        match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
            Some(b"same-origin" | b"none") => true,
            Some(b"cross-site" | b"same-site") => false,
            // An older browser, or none.
            _ => absent || is_own(request),
        }
    }
}

/// Posts and calls send something, subscribes take a device over, and watches take one of their places.
fn acts<B>(request: &Request<B>) -> bool {
    match *request.method() {
        Method::POST => true,
        Method::GET => rest::is_subscribe(request.uri().path()) || rest::accepts_events(request.headers()),
        _ => false,
    }
}

/// Whether the one origin is the host that the request is for. The scheme does not count: a proxy may have spoken TLS.
fn is_own<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let (Some(origin), Some(host)) = (only(headers, header::ORIGIN), host(request)) else { return false };
    let Some((scheme, origin)) = origin.split_once("://") else { return false };
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    let plain = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    plain(origin) == plain(host)
}

/// The authority of HTTP/2, or what stands in its place.
fn host<B>(request: &Request<B>) -> Option<&str> {
    request.uri().authority().map(Authority::as_str).or_else(|| only(request.headers(), header::HOST))
}

fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    if lines.next().is_some() { None } else { line.to_str().ok() }
}
