//! Parses `application/x-www-form-urlencoded`: bodies strictly, because a lenient parser would change data silently, and queries
//! leniently, because a proxy or a page may add its own parameters.

use std::{borrow::Cow, time::Duration};

use memchr::{memchr, memchr2};
use percent_encoding::percent_decode;

/// The value of one name in a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Parameter<'a> {
    /// The query does not have the name.
    #[default]
    Absent,
    /// The value is not UTF-8, or the query has the name more than once.
    Unreadable,
    /// The decoded value.
    Value(Cow<'a, str>),
}

/// The values of the named fields of a form, in the order of `names`. Ignores other fields.
///
/// `None` when the form has one of the names twice, or when a name or a named value is not UTF-8.
pub(crate) fn fields<'a, const N: usize>(form: &'a [u8], names: [&str; N]) -> Option<[Option<Cow<'a, str>>; N]> {
    let mut found = [const { None }; N];
    for (name, value) in Pairs(form) {
        let at = match position(&names, name) {
            None => position(&names, decode(name)?.as_bytes()),
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

/// The values of the named parameters of a query, in the order of `names`. Ignores everything else.
pub(crate) fn parameters<'a, const N: usize>(query: &'a [u8], names: [&str; N]) -> [Parameter<'a>; N] {
    let mut found = [const { Parameter::Absent }; N];
    for (name, value) in Pairs(query) {
        if let Some(at) = decode(name).and_then(|name| position(&names, name.as_bytes())) {
            found[at] = match (&found[at], decode(value)) {
                (Parameter::Absent, Some(value)) => Parameter::Value(value),
                _ => Parameter::Unreadable,
            };
        }
    }
    found
}

/// All values of a parameter that a query may have more than once, without those that are not UTF-8.
pub(crate) fn all<'a>(query: &'a [u8], wanted: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
    let named = Pairs(query).filter(move |(name, _)| decode(name).is_some_and(|name| name == wanted));
    named.filter_map(|(_, value)| decode(value))
}

impl<'a> Parameter<'a> {
    /// The decoded value, if there is one.
    pub(crate) fn into_value(self) -> Option<Cow<'a, str>> {
        if let Self::Value(value) = self { Some(value) } else { None }
    }

    /// The decoded value, if there is one.
    pub(crate) fn value(&self) -> Option<&str> {
        if let Self::Value(value) = self { Some(value) } else { None }
    }
}

/// Parses a number of seconds. A negative one is zero. `None` if the text is no number.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    // `inf` and `nan` are numbers for Rust.
    let is_number = text.trim_start_matches('-').starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let seconds: f64 = text.parse().ok().filter(|_| is_number)?;
    Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// The names and values of a form, not decoded yet.
struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let pair = &self.0[..memchr(b'&', self.0).unwrap_or(self.0.len())];
        self.0 = self.0.get(pair.len() + 1..).unwrap_or_default();
        Some(match memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[pair.len()..]),
        })
    }
}

fn position(names: &[&str], name: &[u8]) -> Option<usize> {
    names.iter().position(|known| known.as_bytes() == name)
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
        let found = fields(form, ["data", "event", "ttl"]).unwrap();
        assert_eq!(found, [Some("a b+c%2B\n☎".into()), Some("offer".into()), None]);
        assert_eq!(fields(b"", ["data"]), Some([None]));
        assert_eq!(fields(b"data", ["data"]), Some([Some("".into())]));
    }

    #[test]
    fn all_values_of_a_parameter_are_found_in_order() {
        let found: Vec<_> = all(b"user=a&x=1&%75ser=b+c&user=%ff&user=&user=a", "user").collect();
        assert_eq!(found, ["a", "b c", "", "a"]);
    }

    #[test]
    fn a_form_with_a_repeated_field_or_a_value_that_is_not_utf_8_is_refused() {
        assert_eq!(fields(b"data=a&data=b", ["data"]), None);
        assert_eq!(fields(b"data=%ff", ["data"]), None);
    }

    #[test]
    fn unreadable_parts_of_a_query_do_not_hide_its_other_parameters() {
        let query = b"%ff=x&&=&a=1+2&%61%61=%2B&b=%ff&c=1&c=1&d&f=%ff&f=1".as_slice();
        let value = |text: &'static str| Parameter::Value(text.into());
        let found = parameters(query, ["a", "aa", "b", "c", "d", "e", "f"]);
        let unreadable = || Parameter::Unreadable;
        let expected =
            [value("1 2"), value("+"), unreadable(), unreadable(), value(""), Parameter::Absent, unreadable()];
        assert_eq!(found, expected);
    }
}
