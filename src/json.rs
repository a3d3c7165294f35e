//! JSON from outside: objects strictly of their shape, values as they were written.

use std::borrow::Cow;

use memchr::memchr;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// Reads exactly one JSON object: UTF-8 without a lone surrogate, no byte order mark, nothing behind it.
///
/// # Errors
/// Anything else, an array in the place of the object too (serde would read a struct from its elements).
pub(crate) fn object<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Malformed> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
    // Fields that nobody asks for are read over, with what their escapes mean.
    if has_escape(text) && text.contains("\\u") && serde_json::from_str::<Value>(text).is_err() {
        return Err(Malformed);
    }
    serde_json::from_str(text).map_err(|_| Malformed)
}

/// A string as it is; nothing for any other value, or with a lone surrogate.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if has_escape(quoted) { serde_json::from_str(value.get()).ok().map(Cow::Owned) } else { Some(quoted.into()) }
}

/// A string as it is, a number as its digits; nothing for any other value.
pub(crate) fn scalar(value: &RawValue) -> Option<Cow<'_, str>> {
    let is_number = matches!(value.get().as_bytes().first(), Some(b'-' | b'0'..=b'9'));
    if is_number { Some(value.get().into()) } else { string(value) }
}

/// A string as it is, any other value as its compact text: as it was written, without white space between its tokens.
///
/// # Errors
/// A lone surrogate, or more than 128 levels.
pub(crate) fn text(value: &RawValue) -> Result<Cow<'_, str>, Malformed> {
    if value.get().starts_with('"') {
        return string(value).ok_or(Malformed);
    }
    let _: Value = serde_json::from_str(value.get()).map_err(|_| Malformed)?;
    Ok(compact(value.get()).into())
}

fn has_escape(json: &str) -> bool {
    memchr(b'\\', json.as_bytes()).is_some()
}

fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |char: &char| {
        let quote = *char == '"' && !escaped;
        in_string ^= quote;
        escaped = *char == '\\' && !escaped;
        in_string || !matches!(char, ' ' | '\t' | '\r' | '\n')
    };
    json.chars().filter(keep).collect()
}

/// The bytes are not JSON of the expected shape. Says no more, because the reason would echo input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(json: &str) -> Result<String, Malformed> {
        text(&RawValue::from_string(json.to_owned()).expect("JSON")).map(Cow::into_owned)
    }

    #[test]
    fn an_object_is_text_in_all_its_fields() {
        #[derive(Deserialize)]
        struct Known {
            a: u8,
        }
        let a = |json: &[u8]| object::<Known>(json).map(|known| known.a);
        assert_eq!(a(b" {\"a\":1,\"x\":[\"\\ud83d\\ude00\"]}"), Ok(1));
        for other in [&b"{\"a\":1,\"x\":\"\xff\"}"[..], b"{\"a\":1,\"x\":[\"\\ud800\"]}", b"{\"a\":1}{}", b"[1]", b""] {
            assert_eq!(a(other), Err(Malformed), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn a_string_is_what_its_escapes_mean_and_holds_nothing_that_needs_one() {
        #[derive(Deserialize)]
        struct Known<'a> {
            #[serde(borrow)]
            a: &'a RawValue,
        }
        let string = |json: &str| {
            let known: Known<'_> = object(json.as_bytes())?;
            string(known.a).map(Cow::into_owned).ok_or(Malformed)
        };
        assert_eq!(string(r#"{"a": "plain é" }"#), Ok("plain é".to_owned()));
        assert_eq!(string(r#"{"a":"v=0\r\n \u00e9 \\n \""}"#), Ok("v=0\r\n é \\n \"".to_owned()));
        assert_eq!(string(r#"{"a":""}"#), Ok(String::new()));
        for other in
            ["{\"a\":\"\n\"}", "{\"a\":\"\0\"}", "{\"a\":\"\\x\"}", "{\"a\":\"}", "{\"a\":7}", "{\"a\":[\"b\"]}"]
        {
            assert_eq!(string(other), Err(Malformed), "{other:?}");
        }
    }

    #[test]
    fn a_value_is_compact_and_otherwise_as_it_was_written() {
        let written = "{ \"b\" : [ 1.0 , 1E3,\n12345678901234567890123 ],\t\"a\": \" \\\" \\\\\", \"b\": null }";
        let compact = "{\"b\":[1.0,1E3,12345678901234567890123],\"a\":\" \\\" \\\\\",\"b\":null}";
        assert_eq!(text_of(written), Ok(compact.to_owned()));
        assert_eq!(text_of(r#""a \u00e9""#), Ok("a é".to_owned()));
        assert_eq!(text_of(r#"{"a":"\ud800"}"#), Err(Malformed));
        assert_eq!(text_of(&("[".repeat(200) + &"]".repeat(200))), Err(Malformed));
    }
}
