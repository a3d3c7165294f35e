//! Strict parsing of JSON from peers. A value that is not a string keeps the peer's text, without white space.

use std::{borrow::Cow, fmt};

use memchr::{memchr, memchr2, memmem};
use serde::{
    Deserialize, Deserializer as _,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The deepest nesting of arrays and objects in data. Many JSON parsers accept no more.
const DEPTH: usize = 128;

/// Reads exactly one JSON object: UTF-8, no lone surrogate, no byte order mark, nothing after the object.
///
/// # Errors
/// When the bytes are not such an object. An array is not one, although serde could read a struct from it.
pub(crate) fn object<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Malformed> {
    serde_json::from_str(checked(bytes)?).map_err(|_| Malformed)
}

/// The values of the named members of an [`object`], in the order of `names`. Ignores other members, however deep they are.
///
/// # Errors
/// As [`object`], and when the object has one of the names twice.
pub(crate) fn members<'de, const N: usize>(
    bytes: &'de [u8],
    names: [Option<&str>; N],
) -> Result<[Option<&'de RawValue>; N], Malformed> {
    let mut json = serde_json::Deserializer::from_str(checked(bytes)?);
    let members = json.deserialize_map(Members(names)).map_err(|_| Malformed)?;
    json.end().map_err(|_| Malformed)?;
    Ok(members)
}

fn checked(bytes: &[u8]) -> Result<&str, Malformed> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
    // serde finds a lone surrogate only in the strings that it decodes.
    if has_lone_surrogate(bytes) {
        return Err(Malformed);
    }
    Ok(text)
}

/// Reads the members with these names.
#[derive(Clone, Copy)]
struct Members<'a, const N: usize>([Option<&'a str>; N]);

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(wanted) = object.next_key_seed(Key(self.0))? {
            if !wanted.contains(&true) {
                object.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: &RawValue = object.next_value()?;
            for (found, _) in found.iter_mut().zip(wanted).filter(|(_, wanted)| *wanted) {
                if found.replace(value).is_some() {
                    return Err(A::Error::custom("a member is there twice"));
                }
            }
        }
        Ok(found)
    }
}

/// Marks which of these names a member has. It can be several, because `names` may repeat a name.
#[derive(Clone, Copy)]
struct Key<'a, const N: usize>([Option<&'a str>; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Key<'_, N> {
    type Value = [bool; N];

    fn deserialize<D: serde::Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl<const N: usize> Visitor<'_> for Key<'_, N> {
    type Value = [bool; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.map(|wanted| wanted == Some(name)))
    }
}

/// The decoded text of a string in an [`object`]. `None` for a value of another type.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = value.get().strip_prefix('"')?.strip_suffix('"')?;
    let has_escape = memchr(b'\\', quoted.as_bytes()).is_some();
    if has_escape { serde_json::from_str(value.get()).ok().map(Cow::Owned) } else { Some(quoted.into()) }
}

/// The decoded text of a string, or a number as it was written. `None` for a value of another type.
pub(crate) fn scalar(value: &RawValue) -> Option<Cow<'_, str>> {
    let is_number = matches!(value.get().as_bytes().first(), Some(b'-' | b'0'..=b'9'));
    if is_number { Some(value.get().into()) } else { string(value) }
}

/// The decoded text of a string in an [`object`]. For any other value, the JSON text without white space between its tokens.
///
/// # Errors
/// When arrays and objects are nested deeper than [`DEPTH`].
pub(crate) fn text(value: &RawValue) -> Result<Cow<'_, str>, Malformed> {
    if value.get().starts_with('"') { string(value).ok_or(Malformed) } else { compact(value.get()) }
}

fn compact(json: &str) -> Result<Cow<'_, str>, Malformed> {
    let bytes = json.as_bytes();
    let (mut text, mut copied_to, mut at, mut depth) = (String::new(), 0, 0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'[' | b'{' if depth == DEPTH => return Err(Malformed),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b' ' | b'\t' | b'\r' | b'\n' => {
                text.push_str(&json[copied_to..at]);
                copied_to = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    // Most senders write no white space, so nothing has to be copied.
    if copied_to == 0 {
        return Ok(json.into());
    }
    text.push_str(&json[copied_to..]);
    Ok(text.into())
}

/// The position of the quotation mark that closes the string which opens at `begin`.
fn string_end(json: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(next) = json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += next;
        if json[at] == b'"' {
            return at;
        }
        // Skip the escaped character: an escaped quotation mark does not close the string.
        at += 2;
    }
    json.len()
}

/// Whether any `\u` escape is half of a surrogate pair whose other half is missing
/// ([RFC 8259](https://www.rfc-editor.org/rfc/rfc8259#section-8.2)).
fn has_lone_surrogate(json: &[u8]) -> bool {
    // A backslash after an odd number of backslashes is itself escaped.
    let is_escape = |at: &usize| json[..*at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0;
    let mut second_half_at = None;
    for at in memmem::find_iter(json, b"\\u").filter(is_escape) {
        match (utf16_unit(&json[at..]), second_half_at.take()) {
            (Some(0xdc00..0xe000), Some(half)) if half == at => {}
            (Some(0xdc00..0xe000), _) | (_, Some(_)) => return true,
            (Some(0xd800..0xdc00), None) => second_half_at = Some(at + ESCAPED_UNIT),
            _ => {}
        }
    }
    second_half_at.is_some()
}

/// Bytes of an escape like `\u00e9`.
const ESCAPED_UNIT: usize = 6;

/// The UTF-16 unit that the escape at the beginning of `json` stands for.
fn utf16_unit(json: &[u8]) -> Option<u16> {
    let digits = json.get(..ESCAPED_UNIT)?.get(2..)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The bytes are not JSON of the expected shape. Has no reason, because a reason would repeat input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Known<'a> {
        #[serde(borrow)]
        a: &'a RawValue,
    }

    fn text_of(json: &str) -> Result<String, Malformed> {
        let object = format!("{{\"a\":{json}}}");
        let known: Known<'_> = self::object(object.as_bytes())?;
        text(known.a).map(Cow::into_owned)
    }

    #[test]
    fn an_unknown_field_is_checked_as_strictly_as_a_known_one() {
        let a = |json: &[u8]| object::<Known<'_>>(json).map(|known| known.a.get().to_owned());
        for good in [
            &b" {\"a\":1,\"x\":[\"\\ud83d\\ude00\"]}"[..],
            b"{\"x\":\"\\\\ud800\",\"a\":1}",
            b"{\"a\":1,\"\\u00e9\":1e999}",
        ] {
            assert_eq!(a(good), Ok("1".to_owned()), "{}", good.escape_ascii());
        }
        for other in [&b"{\"a\":1,\"x\":\"\xff\"}"[..], b"{\"a\":1,\"x\":[\"\\ud800\"]}", b"{\"a\":1}{}", b"[1]", b""] {
            assert_eq!(a(other), Err(Malformed), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn members_are_found_by_their_decoded_names_each_at_most_once() {
        let found = |json: &'static str| {
            let values = members(json.as_bytes(), [Some("a"), None, Some("b"), Some("a")])?;
            Ok(values.map(|value| value.map(RawValue::get)))
        };
        assert_eq!(found(r#"{"x":[{}],"\u0061":[1, 2]}"#), Ok([Some("[1, 2]"), None, None, Some("[1, 2]")]));
        assert_eq!(found(r#" {"b":null,"a":"\n"} "#), Ok([Some(r#""\n""#), None, Some("null"), Some(r#""\n""#)]));
        assert_eq!(found("{}"), Ok([None; 4]));
        for bad in [r#"{"a":1,"\u0061":1}"#, r#"{"a":1,"a":1}"#, r#"{"a":1}x"#, r#"{"a":1,}"#, r#"["a",1]"#, r#"{"a"}"#]
        {
            assert_eq!(found(bad), Err(Malformed), "{bad}");
        }
        let deep = format!(r#"{{"x":{}1{},"a":7}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(members(deep.as_bytes(), [Some("a")]).map(|[a]| a.map(RawValue::get)), Ok(Some("7")));
    }

    #[test]
    fn a_lone_surrogate_is_found_anywhere() {
        let has_lone = |json: &str| has_lone_surrogate(json.as_bytes());
        for paired in [
            "",
            "\\u00e9",
            "\\ud83d\\ude00",
            "\\uD83D\\uDE00\\ud83d\\ude00\\n",
            "\\\\ud83d",
            "\\\\\\\\ude00",
            "\\ud7ff\\ue000",
        ] {
            assert!(!has_lone(paired), "{paired}");
        }
        for lone in [
            "\\ud83d",
            "\\ude00",
            "\\ude00\\ud83d",
            "\\ud83d\\ud83d\\ude00",
            "\\ud83d\\ude00\\ude00",
            "\\ud83d \\ude00",
            "\\ud83d\\u0041",
            "\\ud83d\\n",
            "\\\\\\ud83d",
            "\\ud83d\\\\ude00",
        ] {
            assert!(has_lone(lone), "{lone}");
        }
    }

    #[test]
    fn a_string_is_decoded_and_its_control_characters_have_to_be_escaped() {
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
    fn a_value_loses_only_the_white_space_between_its_tokens() {
        let written = "{ \"b\" : [ 1.0 , 1E3,\n12345678901234567890123 ],\t\"a\": \" \\\" \\\\\", \"b\": null }";
        let compact = "{\"b\":[1.0,1E3,12345678901234567890123],\"a\":\" \\\" \\\\\",\"b\":null}";
        assert_eq!(text_of(written), Ok(compact.to_owned()));
        assert_eq!(text_of(r#""a \u00e9""#), Ok("a é".to_owned()));
        assert_eq!(text_of(r#"{"a":"\ud800"}"#), Err(Malformed));
        for (levels, expected) in [(128, true), (129, false)] {
            assert_eq!(text_of(&("[".repeat(levels) + &"]".repeat(levels))).is_ok(), expected, "{levels}");
        }
    }
}
