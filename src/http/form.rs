//! `application/x-www-form-urlencoded`, for queries and bodies; strict, because a lenient reader would change data silently.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use percent_encoding::percent_decode;

/// The named fields of a form, each at most once, in the order of `names`.
///
/// Fields with other names are ignored. Gives nothing when a name stands twice or a part is not UTF-8.
pub(super) fn fields<'a, const N: usize>(form: &'a [u8], names: [&str; N]) -> Option<[Option<Cow<'a, str>>; N]> {
    let mut found = [const { None }; N];
    let mut rest = form;
    while !rest.is_empty() {
        let pair = &rest[..memchr(b'&', rest).unwrap_or(rest.len())];
        rest = rest.get(pair.len() + 1..).unwrap_or_default();
        let (name, value) = match memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        let find = |name: &[u8]| names.iter().position(|known| known.as_bytes() == name);
        // Most names are written as they are.
        let at = match find(name) {
            None => find(decode(name)?.as_bytes()),
            found => found,
        };
        if let Some(at) = at {
            if found[at].is_some() {
                return None;
            }
            found[at] = Some(decode(value)?);
        }
    }
    Some(found)
}

fn decode(part: &[u8]) -> Option<Cow<'_, str>> {
    if memchr2(b'+', b'%', part).is_none() {
        return std::str::from_utf8(part).ok().map(Cow::Borrowed);
    }
    let spaced: Vec<u8> = part.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    percent_decode(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_once() {
        let form = b"data=a+b%2Bc%252B%0A%E2%98%8E&x=%ff&event=offer".as_slice();
        let found = fields(&form[..form.len()], ["data", "event", "ttl"]).unwrap();
        assert_eq!(found, [Some("a b+c%2B\n☎".into()), Some("offer".into()), None]);
        assert_eq!(fields(b"", ["data"]), Some([None]));
        assert_eq!(fields(b"data", ["data"]), Some([Some("".into())]));
    }

    #[test]
    fn a_field_that_is_ambiguous_or_not_text_is_refused() {
        assert_eq!(fields(b"data=a&data=b", ["data"]), None);
        assert_eq!(fields(b"data=%ff", ["data"]), None);
    }
}
