//! Refuses requests that a browser makes for a page of another site (cross-site request forgery).
//!
//! If the proxy's session is a cookie, the browser attaches the cookie to every request, also to a form, an image or a stream on a
//! page of another site. CORS only stops the page from reading the response. The browser says in `Origin` and `Sec-Fetch-Site`
//! which site asked, and no page can forge these headers. It may say neither over plain HTTP, but then it says in `Accept` what an
//! image wants, which is not an event stream.
//!
//! With `--dev` there is no identity, and any page may call. A page whose name leads to this machine (DNS rebinding) would even count
//! as the daemon's own, so there a request must be for a name of this machine.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Method, Request, header, uri::Authority};

use crate::{
    auth::{Auth, Credentials},
    error::{Error, Invalid},
    rest,
    serve::Peer,
};

/// The origins whose pages may use the identity of their visitor. The server's own origin always may.
///
/// With an empty list, only requests are checked to which a browser adds the identity by itself: a cookie of the daemon's own
/// (`--token-cookie`) or a client certificate. The daemon cannot see whether a proxy made a claim from a cookie, so the operator
/// of such a proxy must list origins.
pub(super) struct AllowedOrigins {
    origins: Vec<HeaderValue>,
    /// Whether a request must be for this machine (`--dev`).
    only_local: bool,
}

impl AllowedOrigins {
    pub(super) fn new(origins: &[HeaderValue], only_local: bool) -> Self {
        Self { origins: origins.to_vec(), only_local }
    }

    /// The error, if a page of another site made this request and the request has an effect.
    pub(super) fn error<B>(&self, auth: &Auth, peer: Peer, request: &Request<B>) -> Option<Error> {
        if self.only_local && host(request).is_some_and(|host| !is_local(host)) {
            return Some(Invalid::ForeignHost.into());
        }
        if !has_effect(request) {
            return None;
        }
        let by_browser = browser_identifies(auth, peer, request);
        let is_checked = by_browser || !self.origins.is_empty();
        let refused = (is_checked && !self.is_from_allowed_page(request)) || (by_browser && may_be_an_image(request));
        refused.then_some(Error::CrossSite)
    }

    fn is_from_allowed_page<B>(&self, request: &Request<B>) -> bool {
        let headers = request.headers();
        let absent = !headers.contains_key(header::ORIGIN);
        if !absent && headers.get_all(header::ORIGIN).iter().all(|origin| self.origins.contains(origin)) {
            return true;
        }
        match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
            Some(b"same-origin" | b"none") => true,
            Some(b"cross-site" | b"same-site") => false,
            // An older browser, or a client that is not a browser: `Origin` decides.
            _ => absent || is_own(request),
        }
    }
}

/// Whether a request has an effect: a POST sends a message, a subscribe takes a device over, and a watch counts against a limit.
fn has_effect<B>(request: &Request<B>) -> bool {
    match *request.method() {
        Method::POST => true,
        Method::GET => rest::is_subscribe(request.uri().path()) || rest::accepts_events(request.headers()),
        _ => false,
    }
}

/// Whether a GET may be for an image on any page: it says neither which site asked, nor that it wants an event stream.
///
/// Browsers send `Sec-Fetch-Site` only over TLS and to the own machine, and `Origin` not with an image.
fn may_be_an_image<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let says_which_site = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    request.method() == Method::GET && !says_which_site && !rest::accepts_events(headers)
}

/// Whether the identity of a request with an effect is one that a browser adds by itself.
fn browser_identifies<B>(auth: &Auth, Peer { tcp: peer, client }: Peer, request: &Request<B>) -> bool {
    // A GET has an effect only if it opens a stream.
    let is_stream_request = request.method() == Method::GET;
    let (headers, uri, certificate) = (request.headers(), request.uri(), request.extensions().get());
    let lasts = is_stream_request;
    let credentials = Credentials { headers, uri, is_stream_request, lasts, peer, client, certificate };
    auth.browser_identifies(&credentials)
}

/// Whether the request has exactly one `Origin`, and it is the host that the request is for.
///
/// The scheme is not compared: a proxy in front may have ended TLS.
fn is_own<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let (Some(origin), Some(host)) = (single(headers, header::ORIGIN), host(request)) else { return false };
    let Some((scheme, origin)) = origin.split_once("://") else { return false };
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    let plain = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    plain(origin) == plain(host)
}

/// The authority of the URI (HTTP/2, or HTTP/1.1 in absolute form), else `Host`.
fn host<B>(request: &Request<B>) -> Option<&str> {
    request.uri().authority().map(Authority::as_str).or_else(|| single(request.headers(), header::HOST))
}

/// Whether an authority is `localhost`, a name below it, which browsers never look up elsewhere (RFC 6761, section 6.3), or a
/// loopback address.
fn is_local(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|it| it.to_canonical().is_loopback())
}

/// The value of a header that occurs exactly once.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    if lines.next().is_some() { None } else { line.to_str().ok() }
}
