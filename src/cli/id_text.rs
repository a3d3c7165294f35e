//! Ids on the command line and in lines for people: `USER/DEVICE`, in which `%2F` is a slash and `%25` a percent sign.

use std::{fmt::Write as _, str::FromStr};

use percent_encoding::percent_decode_str;

use crate::{
    error::Error,
    model::{Address, DeviceId, TenantId, UserId},
};

/// A user, and perhaps one of its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedCaller {
    pub(super) user: UserId,
    pub(super) device: Option<DeviceId>,
}

impl FromStr for NamedCaller {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((user, device)) => Ok(Self { user: user_id(user)?, device: Some(device_id(device)?) }),
            None => Ok(Self { user: user_id(text)?, device: None }),
        }
    }
}

/// The address `USER/DEVICE`.
pub(super) fn address(text: &str) -> Result<Address, String> {
    match text.parse()? {
        NamedCaller { user, device: Some(device) } => Ok(Address { user, device }),
        NamedCaller { device: None, .. } => Err("not USER/DEVICE".to_owned()),
    }
}

/// The id of a user.
pub(super) fn user_id(text: &str) -> Result<UserId, String> {
    UserId::new(&decoded(text)?).map_err(|invalid| Error::from(invalid).detail().to_owned())
}

/// The id of a device.
pub(super) fn device_id(text: &str) -> Result<DeviceId, String> {
    DeviceId::new(&decoded(text)?).map_err(|invalid| Error::from(invalid).detail().to_owned())
}

/// The id of a tenant.
pub(super) fn tenant_id(text: &str) -> Result<TenantId, String> {
    TenantId::new(&decoded(text)?).map_err(|invalid| Error::from(invalid).detail().to_owned())
}

fn decoded(text: &str) -> Result<String, String> {
    if text.contains('/') {
        return Err("one / too many: write %2F for a slash in an id".to_owned());
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "not percent-encoded UTF-8")?;
    Ok(decoded.into_owned())
}

/// An id as a command line takes it.
pub(super) fn encoded(id: &str) -> String {
    id.replace('%', "%25").replace('/', "%2F")
}

/// `USER/DEVICE`, or only `USER` when `device` is empty.
pub(super) fn encoded_address(user: &str, device: &str) -> String {
    let mut text = encoded(user);
    if !device.is_empty() {
        text.push('/');
        text.push_str(&encoded(device));
    }
    text
}

/// A text with its control characters escaped: it stays one line, and cannot command the terminal that shows it.
pub(super) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(printable, "{}", c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_two_ids_with_one_slash_between_them() {
        for (text, user, device) in [
            ("bob/phone", "bob", "phone"),
            ("a%2Fb/c%25d", "a/b", "c%d"),
            ("50%/☎ +", "50%", "☎ +"),
            ("%E2%98%8E/x", "☎", "x"),
        ] {
            let read = address(text).unwrap();
            assert_eq!((read.user.as_str(), read.device.as_str()), (user, device), "{text}");
            assert_eq!(address(&encoded_address(user, device)), Ok(read), "{text}");
        }
        for text in ["", "bob", "bob/", "/phone", "bob/a/b", "bob/..", "bob/%ff", "bob/%0a"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_caller_is_a_user_with_or_without_a_device() {
        assert_eq!("bob".parse::<NamedCaller>().unwrap().device, None);
        assert_eq!("bob/phone".parse::<NamedCaller>().unwrap().device, Some(DeviceId::new("phone").unwrap()));
        assert!("bob/".parse::<NamedCaller>().is_err());
    }

    #[test]
    fn a_printable_text_is_one_line_without_commands_for_a_terminal() {
        assert_eq!(printable("a\nb\u{1b}[2J\u{9b}☎ \t\u{7f}"), "a\\nb\\u{1b}[2J\\u{9b}☎ \\t\\u{7f}");
    }
}
