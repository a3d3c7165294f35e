//! What a request itself says about its caller: the path of a subscribe, the query, and headers that any client may set.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Uri};
use percent_encoding::percent_decode;

use super::{Credentials, Mode};
use crate::{
    error::{Error, Invalid},
    form,
    model::{Address, DeviceId, UserId},
};

/// The device header.
const DEVICE: HeaderName = HeaderName::from_static("x-signal-device");

/// The user and the device that a request names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) user: Option<UserId>,
    pub(super) device: Option<DeviceId>,
    /// The path and the query of a request that name its caller name different callers. Only with [`Mode::None`].
    pub(super) contradicts: bool,
}

/// Whether the query names the user that makes the request. The list of many users names whom to list.
fn query_names_user(mode: Mode, uri: &Uri) -> bool {
    mode == Mode::None && uri.path() != "/devices"
}

impl Named {
    /// Reads a request. `path` is the address in the path of a subscribe request.
    ///
    /// # Errors
    /// [`Invalid::User`] and [`Invalid::Device`] for an id out of bounds, and for a header that cannot be decoded or is there twice;
    /// [`Invalid::Devices`] when two places name different devices.
    pub(super) fn read(credentials: &Credentials<'_>, mode: Mode, path: Option<Address>) -> Result<Self, Error> {
        let (path_user, path_device) = path.map(|path| (path.user, path.device)).unzip();
        let [query_user, query_device] = query(credentials.uri);
        let query_user = query_user.filter(|_| query_names_user(mode, credentials.uri));
        let query_user = query_user.map(|id| UserId::new(&id)).transpose()?;
        let query_device = query_device.map(|id| DeviceId::new(&id)).transpose()?;
        let header = header(credentials.headers, &DEVICE).map_err(|NotOneText| Invalid::Device)?;
        let header = header.map(|id| DeviceId::new(&id)).transpose()?;
        let two_devices = differ(&path_device, &query_device);
        if differ(&header, &path_device) || differ(&header, &query_device) || (two_devices && mode != Mode::None) {
            return Err(Invalid::Devices.into());
        }
        Ok(Self {
            contradicts: two_devices || differ(&path_user, &query_user),
            user: path_user.or(query_user),
            device: path_device.or(query_device).or(header),
        })
    }
}

/// The parameters `user` and `device`. One that is empty, is there twice or cannot be decoded counts as absent.
fn query(uri: &Uri) -> [Option<Cow<'_, str>>; 2] {
    let Some(query) = uri.query() else { return [None, None] };
    form::parameters(query.as_bytes(), ["user", "device"])
        .map(|parameter| parameter.into_value().filter(|id| !id.is_empty()))
}

/// A header has two lines, or is not UTF-8 in percent-encoding.
#[derive(Debug, PartialEq, Eq)]
struct NotOneText;

/// The decoded value of a header. `None` when it is absent or empty.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Cow<'a, str>>, NotOneText> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(NotOneText);
    }
    let text = percent_decode(line.as_bytes()).decode_utf8().map_err(|_| NotOneText)?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Whether both are there and not equal.
pub(super) fn differ<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
    one.is_some() && other.is_some() && one != other
}
