//! JSON objects from outside, strict about their shape.

use serde::de::DeserializeOwned;

/// Reads exactly one JSON object: UTF-8, no byte order mark, nothing behind it, at most 128 levels deep.
///
/// # Errors
/// Anything else, an array in the place of the object too (serde would read a struct from its elements).
pub(crate) fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, NotAnObject> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(NotAnObject);
    }
    serde_json::from_slice(bytes).map_err(|_| NotAnObject)
}

/// The bytes are not a JSON object of the expected shape. Says no more, because the reason would echo input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAnObject;
