//! What a request itself says about its caller: the path of a subscribe, the query, and headers that any client may set.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Uri};
use percent_encoding::percent_decode;

use super::{Credentials, Mode};
use crate::{
    error::{Error, Invalid},
    form,
    model::{Address, DeviceId, TenantId, UserId},
};

const DEVICE: HeaderName = HeaderName::from_static("x-signal-device");

const TENANT: HeaderName = HeaderName::from_static("x-signal-tenant");

/// The user, the device and the tenant that a request names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) user: Option<UserId>,
    pub(super) device: Option<DeviceId>,
    /// Only with tenants.
    pub(super) tenant: Option<TenantId>,
    /// Whether path and query name different callers. Only with [`Mode::None`], where they name the caller.
    pub(super) contradicts: bool,
}

/// Whether `?user=` names the caller. In `GET /devices` it names the users to list.
fn query_names_user(mode: Mode, uri: &Uri) -> bool {
    mode == Mode::None && uri.path() != "/devices"
}

impl Named {
    /// Reads a request. `path` is the address in the path of a subscribe request. `tenants`: users live inside tenants.
    ///
    /// # Errors
    /// [`Invalid::User`], [`Invalid::Device`], [`Invalid::Tenant`]: a bad id; a header that cannot be decoded or is there twice;
    /// [`Invalid::Devices`] when two places name different devices.
    pub(super) fn read(
        credentials: &Credentials<'_>,
        mode: Mode,
        path: Option<Address>,
        tenants: bool,
    ) -> Result<Self, Error> {
        let (path_user, path_device) = path.map(|path| (path.user, path.device)).unzip();
        let [query_user, query_device] = query(credentials.uri);
        let query_user = query_user.filter(|_| query_names_user(mode, credentials.uri));
        let query_user = query_user.map(|id| UserId::new(&id)).transpose()?;
        let query_device = query_device.map(|id| DeviceId::new(&id)).transpose()?;
        let header = header(credentials.headers, &DEVICE).map_err(|NotOneText| Invalid::Device)?;
        let header = header.map(|id| DeviceId::new(&id)).transpose()?;
        let two_devices = differ(path_device.as_ref(), query_device.as_ref());
        if differ(header.as_ref(), path_device.as_ref())
            || differ(header.as_ref(), query_device.as_ref())
            || (two_devices && mode != Mode::None)
        {
            return Err(Invalid::Devices.into());
        }
        let tenant = if tenants { header_of_tenant(credentials.headers)? } else { None };
        Ok(Self {
            tenant,
            contradicts: two_devices || differ(path_user.as_ref(), query_user.as_ref()),
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

/// A header cannot be read as one text: it has two lines, or is not percent-encoded UTF-8.
#[derive(Debug, PartialEq, Eq)]
struct NotOneText;

fn header_of_tenant(headers: &HeaderMap) -> Result<Option<TenantId>, Invalid> {
    let header = header(headers, &TENANT).map_err(|NotOneText| Invalid::Tenant)?;
    header.map(|id| TenantId::new(&id)).transpose()
}

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
pub(super) fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
    one.is_some() && other.is_some() && one != other
}
