//! Extractors: the caller, the ids in the path, and the body of a POST. Handlers get them parsed and valid.

use std::{
    borrow::Cow,
    future::poll_fn,
    pin::{Pin, pin},
    str::Utf8Error,
    task::Poll,
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, FromRequestParts},
};
use http::{Extensions, HeaderMap, HeaderName, Request, header, request::Parts};
use memchr::memchr;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Api, Problem, form};
use crate::{
    auth::{Caller, Credentials, Subscriber},
    error::{Error, Invalid},
    hub::Draft,
    json,
    model::{Address, Data, EventName, UserId},
    serve::Peer,
};

/// A receiver that the path of a request names.
pub(super) trait FromPath: Sized + Send {
    fn from_path(path: &str) -> Result<Self, Error>;
}

/// The user that the path of a request names.
pub(super) struct PathUser(pub(super) UserId);

/// A POST of one message to a receiver, a device or a user. Its identity is checked before its shape.
pub(super) struct Post<T> {
    pub(super) caller: Caller,
    pub(super) to: T,
    pub(super) draft: Draft,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        Ok(api.auth.caller(&credentials(parts)?)?)
    }
}

impl FromRequestParts<Api> for Subscriber {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let path = PathParameters::of(parts.uri.path()).address();
        Ok(api.auth.subscriber(&credentials(parts)?, path)?)
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

impl<T: FromPath> FromRequest<Api> for Post<T> {
    type Rejection = Problem;

    async fn from_request(mut request: Request<Body>, api: &Api) -> Result<Self, Problem> {
        let to = T::from_path(request.uri().path());
        Self::read(peer(request.extensions())?, to, &mut request, api).await
    }
}

impl<T: FromPath> Post<T> {
    /// Reads a request from `peer`. `to` is the receiver that its path names. Borrows the request, because it is large and moving
    /// it would copy it.
    pub(super) async fn read<B>(
        peer: Peer,
        to: Result<T, Error>,
        request: &mut Request<B>,
        api: &Api,
    ) -> Result<Self, Problem>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let head = check_head(peer, to, request, api);
        // Read the body also of a refused request, so that the connection can carry another request.
        let body = read_body(request.body_mut(), api.settings.body_limit, api.settings.body_timeout).await;
        match (head, body) {
            (Ok((caller, to, ttl)), Ok(bytes)) => {
                Ok(Self { caller, to, draft: draft(request.headers(), ttl, &bytes)? })
            }
            (Err(error), Ok(_)) => Err(error.into()),
            (Err(error), Err(_)) | (Ok(_), Err(error)) => Err(Problem::from(error).closing(request.version())),
        }
    }
}

fn check_head<T, B>(
    Peer(peer): Peer,
    to: Result<T, Error>,
    request: &Request<B>,
    api: &Api,
) -> Result<(Caller, T, Duration), Error> {
    let headers = request.headers();
    let caller = api.auth.caller(&Credentials { headers, uri: request.uri(), peer })?;
    Ok((caller, to?, ttl(headers)?))
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

fn credentials(parts: &Parts) -> Result<Credentials<'_>, Error> {
    let Peer(peer) = peer(&parts.extensions)?;
    Ok(Credentials { headers: &parts.headers, uri: &parts.uri, peer })
}

/// The peer of a request, which the front stores in an extension before it calls the router.
fn peer(extensions: &Extensions) -> Result<Peer, Error> {
    extensions.get().copied().ok_or(Error::Internal)
}

/// Reads a whole body of at most `limit` bytes, which has to arrive within `timeout`.
pub(super) async fn read_body<B>(body: &mut B, limit: usize, timeout: Duration) -> Result<Bytes, Error>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(Error::TooLarge);
    }
    let whole = async {
        let mut bytes = Vec::new();
        while !body.is_end_stream()
            && let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
        {
            let Ok(frame) = frame else { return Err(Error::from(Invalid::Body)) };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(Error::TooLarge);
            }
            // Most bodies are one frame: return it without a copy.
            if bytes.is_empty() && body.is_end_stream() {
                return Ok(data);
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.into())
    };
    let mut whole = pin!(whole);
    // Most bodies arrive with their heads: poll once before a timer is made. The timer is boxed, so that it takes no memory in the
    // future of a request that needs none.
    if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(whole.as_mut().poll(cx))).await {
        return read;
    }
    Box::pin(tokio::time::timeout(timeout, whole)).await.unwrap_or(Err(Error::SlowRequest))
}

/// The JSON body of a POST.
#[derive(Deserialize)]
struct JsonBody<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
}

fn draft(headers: &HeaderMap, ttl: Duration, bytes: &[u8]) -> Result<Draft, Error> {
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
        return Err(Error::UnsupportedMedia);
    }
    let (data, event) = match content_type(headers) {
        _ if bytes.is_empty() => (None, None),
        Some(kind) if kind.eq_ignore_ascii_case("application/json") => {
            let fields: JsonBody<'_> = json::object(bytes).map_err(|_| Invalid::Body)?;
            let event = fields.event.map(|event| json::string(event).ok_or(Invalid::Body)).transpose()?;
            (fields.data.map(json::text).transpose().map_err(|_| Invalid::Body)?, event)
        }
        Some(kind) if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") => {
            let [data, event] = form::fields(bytes, ["data", "event"]).ok_or(Invalid::Body)?;
            (data, event)
        }
        _ => return Err(Error::UnsupportedMedia),
    };
    let event = event.as_deref().map(EventName::new).transpose()?;
    Ok(Draft { event, data: Data::new(data.unwrap_or_default())?, ttl })
}

/// The content type without its parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value[..memchr(b';', value.as_bytes()).unwrap_or(value.len())].trim())
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

const TTL: HeaderName = HeaderName::from_static("ttl");
