//! Extractors: the caller, the ids in the path, and the message of a POST. Handlers get them parsed and valid.

use std::{borrow::Cow, str::Utf8Error, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, FromRequestParts},
};
use http::{Extensions, HeaderMap, HeaderName, Method, Request, Response, request::Parts};
use percent_encoding::percent_decode_str;

use super::{
    Api, Problem,
    body::{draft, read_body},
    error_response,
    events::accepts_events,
    send_key,
};
use crate::{
    auth::{Caller, Credentials, Subscriber},
    error::{Error, Invalid},
    hub::Draft,
    model::{Address, IdempotencyKey, UserId},
    serve::{Peer, expects_continue},
};

/// Something that a path names: a user or a device.
pub(super) trait FromPath: Sized + Send {
    fn from_path(path: &str) -> Result<Self, Error>;
}

/// The user that the path of a request names.
pub(super) struct PathUser(pub(super) UserId);

/// A POST of one message to a device or a user. The identity is checked first, then path, headers and body.
pub(super) struct MessagePost<T> {
    pub(super) caller: Caller,
    pub(super) to: T,
    pub(super) draft: Draft,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Response<Body>;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Response<Body>> {
        let is_stream_request = parts.method == Method::GET && accepts_events(&parts.headers);
        let refusal = |error| error_response(error, &parts.headers);
        let credentials = credentials(parts, is_stream_request).map_err(refusal)?;
        let identify = || api.auth.caller(&credentials);
        api.auth.with_new_keys(identify(), identify).await.map_err(refusal)
    }
}

impl FromRequestParts<Api> for Subscriber {
    type Rejection = Response<Body>;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Response<Body>> {
        let refusal = |error| error_response(error, &parts.headers);
        let credentials = credentials(parts, true).map_err(refusal)?;
        let identify = || api.auth.subscriber(&credentials, PathParameters::of(parts.uri.path()).address());
        api.auth.with_new_keys(identify(), identify).await.map_err(refusal)
    }
}

impl FromPath for Address {
    fn from_path(path: &str) -> Result<Self, Error> {
        PathParameters::of(path).address().unwrap_or(Err(Error::NoRoute))
    }
}

impl FromPath for PathUser {
    fn from_path(path: &str) -> Result<Self, Error> {
        let user = decode(PathParameters::of(path).user.ok_or(Error::NoRoute)?).map_err(|_| Invalid::User)?;
        Ok(Self(UserId::new(&user)?))
    }
}

impl FromRequestParts<Api> for PathUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Ok(Self::from_path(parts.uri.path())?)
    }
}

impl<T: FromPath> FromRequest<Api> for MessagePost<T> {
    type Rejection = Problem;

    async fn from_request(mut request: Request<Body>, api: &Api) -> Result<Self, Problem> {
        let to = T::from_path(request.uri().path());
        Self::read(peer_of(request.extensions())?, to, &mut request, api).await
    }
}

impl<T: FromPath> MessagePost<T> {
    /// Checks and reads a request from `peer`. `to` is the receiver in the path. Takes the request by reference, because a move
    /// would copy it, and it is large.
    pub(super) async fn read<B>(
        peer: Peer,
        to: Result<T, Error>,
        request: &mut Request<B>,
        api: &Api,
    ) -> Result<Self, Problem>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let caller = {
            let credentials = credentials_without_query(peer, request);
            let identify = || api.auth.caller(&credentials);
            api.auth.with_new_keys(identify(), identify).await
        };
        let head = caller.and_then(|caller| Ok((caller, to?, SendHeaders::read(request.headers())?)));
        let ((caller, to, headers), bytes) = with_body(head, request, api).await?;
        Ok(Self { caller, to, draft: draft(request.headers(), headers, &bytes)? })
    }
}

/// Reads the body of a POST. `head` is what its head says, or why it is refused.
pub(super) async fn with_body<T, B>(
    head: Result<T, Error>,
    request: &mut Request<B>,
    api: &Api,
) -> Result<(T, Bytes), Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    // The client waits before it sends its body. Reading the body would send `100 Continue` (RFC 9110, section 10.1.1).
    if let Err(error) = head
        && expects_continue(request.headers())
        && !request.body().is_end_stream()
    {
        return Err(Problem::from(error).and_close(request.version()));
    }
    // Read the body of a refused request too, so that the connection can carry another request.
    let body = read_body(request.body_mut(), api.settings.body_limit, api.settings.body_timeout).await;
    match (head, body) {
        (Ok(head), Ok(bytes)) => Ok((head, bytes)),
        (Err(error), Ok(_)) => Err(error.into()),
        (Err(error), Err(_)) | (Ok(_), Err(error)) => Err(Problem::from(error).and_close(request.version())),
    }
}

/// The credentials of a request that opens no stream: its query is not read for a token or a ticket.
pub(super) fn credentials_without_query<B>(Peer { tcp: peer, client }: Peer, request: &Request<B>) -> Credentials<'_> {
    let (headers, uri, certificate) = (request.headers(), request.uri(), request.extensions().get());
    Credentials { headers, uri, is_stream_request: false, lasts: false, peer, client, certificate }
}

/// The parameters of a path, not decoded yet.
struct PathParameters<'a> {
    user: Option<&'a str>,
    device: Option<&'a str>,
}

impl<'a> PathParameters<'a> {
    /// In every route the user is the second segment, and the device is the fourth.
    fn of(path: &'a str) -> Self {
        let mut segments = PathSegments(path);
        Self { user: segments.nth(1), device: segments.nth(1) }
    }

    fn address(&self) -> Option<Result<Address, Error>> {
        Some(parse_address(self.user?, self.device?))
    }
}

/// Decodes and checks the two segments of a path that name a device.
pub(super) fn parse_address(user: &str, device: &str) -> Result<Address, Error> {
    let (user, device) = (decode(user).map_err(|_| Invalid::User)?, decode(device).map_err(|_| Invalid::Device)?);
    Ok(Address::new(&user, &device)?)
}

fn decode(segment: &str) -> Result<Cow<'_, str>, Utf8Error> {
    if segment.contains('%') { percent_decode_str(segment).decode_utf8() } else { Ok(segment.into()) }
}

/// The segments of a path, not decoded yet.
pub(super) struct PathSegments<'a>(pub(super) &'a str);

impl<'a> Iterator for PathSegments<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.strip_prefix('/')?;
        let end = rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
        self.0 = &rest[end..];
        Some(&rest[..end])
    }
}

fn credentials(parts: &Parts, is_stream_request: bool) -> Result<Credentials<'_>, Error> {
    let Peer { tcp: peer, client } = peer_of(&parts.extensions)?;
    let certificate = parts.extensions.get();
    let (headers, uri, lasts) = (&parts.headers, &parts.uri, is_stream_request);
    Ok(Credentials { headers, uri, is_stream_request, lasts, peer, client, certificate })
}

/// The peer of a request. `app/dispatch.rs` stores it in an extension before it calls the router.
pub(super) fn peer_of(extensions: &Extensions) -> Result<Peer, Error> {
    extensions.get().copied().ok_or(Error::Internal)
}

/// What the head of a POST says about its message.
pub(super) struct SendHeaders {
    pub(super) ttl: Duration,
    pub(super) key: Option<IdempotencyKey>,
}

impl SendHeaders {
    fn read(headers: &HeaderMap) -> Result<Self, Error> {
        Ok(Self { ttl: ttl(headers)?, key: send_key::read(headers)? })
    }
}

/// Reads the `TTL` header (RFC 8030, section 5.2): whole seconds, or zero when it is absent.
fn ttl(headers: &HeaderMap) -> Result<Duration, Error> {
    let mut lines = headers.get_all(TTL).iter();
    let Some(line) = lines.next() else { return Ok(Duration::ZERO) };
    let digits = line.as_bytes();
    if lines.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Invalid::Ttl.into());
    }
    // A number that does not fit becomes the largest one: the hub caps every TTL.
    let seconds = line.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    Ok(Duration::from_secs(seconds))
}

/// In a request: how long to hold the message. In an answer: how long it is held.
pub(super) const TTL: HeaderName = HeaderName::from_static("ttl");
