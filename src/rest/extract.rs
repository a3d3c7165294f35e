//! What handlers take out of a request: the caller first, then the address, then the body; each parsed once.

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
    auth::{Caller, Subscriber},
    error::{Error, Invalid, Unproven},
    hub::Draft,
    json,
    model::{Address, Data, EventName, UserId},
    serve::Peer,
};

/// What a path names.
pub(super) trait Named: Sized + Send {
    fn from_path(path: &str) -> Result<Self, Error>;
}

/// The user that a path names.
pub(super) struct Of(pub(super) UserId);

/// What a POST brings, for a receiver of the kind `T`; checked in the order identity, shape.
pub(super) struct Post<T> {
    pub(super) caller: Caller,
    pub(super) to: T,
    pub(super) draft: Draft,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        caller(peer(&parts.extensions)?, &parts.headers, api)
    }
}

impl FromRequestParts<Api> for Subscriber {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let peer = peer(&parts.extensions)?;
        let path = Params::of(parts.uri.path()).address();
        api.auth.subscriber(&parts.headers, peer.0, path).map_err(|error| refuse(api, error))
    }
}

impl Named for Address {
    fn from_path(path: &str) -> Result<Self, Error> {
        Params::of(path).address().unwrap_or(Err(Error::NoRoute))
    }
}

impl Named for Of {
    fn from_path(path: &str) -> Result<Self, Error> {
        let user = decode(Params::of(path).user.ok_or(Error::NoRoute)?).map_err(|_| Invalid::User)?;
        Ok(Self(UserId::new(&user)?))
    }
}

impl FromRequestParts<Api> for Of {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Ok(Self::from_path(parts.uri.path())?)
    }
}

impl<T: Named> FromRequest<Api> for Post<T> {
    type Rejection = Problem;

    async fn from_request(mut request: Request<Body>, api: &Api) -> Result<Self, Problem> {
        let to = T::from_path(request.uri().path());
        Self::read(peer(request.extensions())?, to, &mut request, api).await
    }
}

impl<T: Named> Post<T> {
    /// Takes it out of a request from a peer, whose path is read. The request stays where it is, because it is large.
    pub(super) async fn read<B>(
        peer: Peer,
        to: Result<T, Error>,
        request: &mut Request<B>,
        api: &Api,
    ) -> Result<Self, Problem>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let head = head(peer, to, request.headers(), api);
        // The body is read even when nobody wants it, so that the connection stays usable.
        let body = read(request.body_mut(), api.settings.body_limit, api.settings.body_timeout).await;
        match (head, body) {
            (Ok((caller, to, ttl)), Ok(bytes)) => {
                Ok(Self { caller, to, draft: draft(request.headers(), ttl, &bytes)? })
            }
            (Err(refused), Ok(_)) => Err(refused),
            (Err(refused), Err(_)) => Err(refused.closing(request.version())),
            (Ok(_), Err(error)) => Err(Problem::from(error).closing(request.version())),
        }
    }
}

fn head<T>(peer: Peer, to: Result<T, Error>, headers: &HeaderMap, api: &Api) -> Result<(Caller, T, Duration), Problem> {
    Ok((caller(peer, headers, api)?, to?, ttl(headers)?))
}

/// The parameters of a path, as they were sent.
struct Params<'a> {
    user: Option<&'a str>,
    device: Option<&'a str>,
}

impl<'a> Params<'a> {
    /// In all paths the user is the second segment, and the device the fourth.
    fn of(path: &'a str) -> Self {
        let mut segments = Segments(path);
        Self { user: segments.nth(1), device: segments.nth(1) }
    }

    fn address(&self) -> Option<Result<Address, Error>> {
        Some(address(self.user?, self.device?))
    }
}

/// The address in two segments of a path.
pub(super) fn address(user: &str, device: &str) -> Result<Address, Error> {
    let (user, device) = (decode(user).map_err(|_| Invalid::User)?, decode(device).map_err(|_| Invalid::Device)?);
    Ok(Address::new(&user, &device)?)
}

fn decode(segment: &str) -> Result<Cow<'_, str>, Utf8Error> {
    if segment.contains('%') { percent_decode_str(segment).decode_utf8() } else { Ok(segment.into()) }
}

/// The segments of a path, as they were sent.
pub(super) struct Segments<'a>(pub(super) &'a str);

impl<'a> Iterator for Segments<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.strip_prefix('/')?;
        let end = rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
        self.0 = &rest[end..];
        Some(&rest[..end])
    }
}

fn caller(peer: Peer, headers: &HeaderMap, api: &Api) -> Result<Caller, Problem> {
    api.auth.caller(headers, peer.0).map_err(|error| refuse(api, error))
}

/// Where a request comes from that the router answers.
fn peer(extensions: &Extensions) -> Result<Peer, Error> {
    extensions.get().copied().ok_or(Error::Internal)
}

fn refuse(api: &Api, error: Error) -> Problem {
    if matches!(error, Error::Unauthenticated(fault) if fault != Unproven::Absent) {
        api.metrics.identity_refused();
    }
    error.into()
}

/// Reads a whole body, within its limits of size and time.
pub(super) async fn read<B>(body: &mut B, limit: usize, patience: Duration) -> Result<Bytes, Error>
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
            // Most bodies are one frame, which need not be copied.
            if bytes.is_empty() && body.is_end_stream() {
                return Ok(data);
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.into())
    };
    let mut whole = pin!(whole);
    // Most bodies come with their heads, and need no timer, nor room for one.
    if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(whole.as_mut().poll(cx))).await {
        return read;
    }
    Box::pin(tokio::time::timeout(patience, whole)).await.unwrap_or(Err(Error::SlowRequest))
}

/// The two fields of a POST, as JSON.
#[derive(Deserialize)]
struct Fields<'a> {
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
            let fields: Fields<'_> = json::object(bytes).map_err(|_| Invalid::Body)?;
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

/// The type without its parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value[..memchr(b';', value.as_bytes()).unwrap_or(value.len())].trim())
}

/// The `TTL` header (RFC 8030, section 5.2): whole seconds, none when absent.
fn ttl(headers: &HeaderMap) -> Result<Duration, Error> {
    let mut lines = headers.get_all(TTL).iter();
    let Some(line) = lines.next() else { return Ok(Duration::ZERO) };
    let digits = line.as_bytes();
    if lines.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Invalid::Ttl.into());
    }
    // More than fits is capped by the hub like any other large number.
    let seconds = line.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    Ok(Duration::from_secs(seconds))
}

const TTL: HeaderName = HeaderName::from_static("ttl");
