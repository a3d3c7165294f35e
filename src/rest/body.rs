//! The body of a request: reads it, and parses the message in it.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::extract::SendHeaders;
use crate::{
    error::{Error, Invalid},
    form,
    hub::Draft,
    json,
    media_type::MediaType,
    model::{Data, EventName},
};

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
    // Most bodies arrive with their heads, so poll once before a timer is made. The timer is boxed; otherwise the future of every
    // request would have room for one.
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

/// The message of a POST: its body, with what its head says about it.
pub(super) fn draft(headers: &HeaderMap, send: SendHeaders, bytes: &[u8]) -> Result<Draft, Error> {
    if is_encoded(headers) {
        return Err(Error::UnsupportedMedia);
    }
    let (data, event, no_data) = match MediaType::of_body(headers) {
        // An empty body has no fields, whatever its type.
        _ if bytes.is_empty() => (None, None, Invalid::Data),
        Some(media_type) if media_type.is("application/json") => {
            let fields: JsonBody<'_> = json::object(bytes).map_err(|_| Invalid::Body)?;
            let event = fields.event.map(|event| json::string(event).ok_or(Invalid::Body)).transpose()?;
            (fields.data.map(json::text).transpose().map_err(|_| Invalid::Body)?, event, Invalid::Data)
        }
        Some(media_type) if media_type.is("application/x-www-form-urlencoded") => {
            let [data, event] = form::fields(bytes, ["data", "event"]).ok_or(Invalid::Body)?;
            (data, event, Invalid::FormData)
        }
        _ => return Err(Error::UnsupportedMedia),
    };
    let event = event.as_deref().map(EventName::new).transpose()?;
    let SendHeaders { ttl, key } = send;
    Ok(Draft { event, data: Data::new(data.ok_or(no_data)?)?, ttl, key })
}

/// Whether the body has a content coding. `identity`, in any letters' case, stands for none.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    codings.any(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity"))
}
