//! Media types as RFC 9110 (section 8.3.1) compares them: without regard to letters' case and to parameters.

use http::{HeaderMap, header};

/// A media type without its parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MediaType<'a>(&'a str);

impl<'a> MediaType<'a> {
    /// The type of the body: the header `Content-Type`.
    pub(crate) fn of_body(headers: &'a HeaderMap) -> Option<Self> {
        Some(Self::parse(headers.get(header::CONTENT_TYPE)?.to_str().ok()?))
    }

    /// The types that the client accepts: the headers `Accept`. Leaves out a type with the weight 0, which means "not acceptable".
    pub(crate) fn accepted(headers: &'a HeaderMap) -> impl Iterator<Item = Self> {
        let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).filter(|range| !is_refused(range)).map(Self::parse)
    }

    /// Whether this is the type `name`.
    pub(crate) fn is(self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }

    /// What follows `prefix`, if this type begins with it.
    pub(crate) fn after(self, prefix: &str) -> Option<&'a str> {
        let (start, rest) = self.0.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then_some(rest)
    }

    fn parse(value: &'a str) -> Self {
        Self(value.split(';').next().unwrap_or_default().trim())
    }
}

/// Whether a range of `Accept` has the parameter `q=0`.
fn is_refused(range: &str) -> bool {
    let weight = |parameter: &str| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f32>().ok())?
    };
    range.split(';').skip(1).filter_map(weight).any(|weight| weight == 0.0)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &http::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn case_and_parameters_do_not_matter() {
        for value in
            ["application/json", "Application/JSON", "application/json;charset=utf-8", " APPLICATION/json ; a=b;c"]
        {
            let headers = headers(&header::CONTENT_TYPE, &[value]);
            let found = MediaType::of_body(&headers).expect("a type");
            assert!(found.is("application/json") && !found.is("application/jso"), "{value}");
            assert_eq!(found.after("application/").map(str::to_ascii_lowercase), Some("json".into()));
            assert_eq!(found.after("text/"), None);
        }
        assert!(MediaType::of_body(&HeaderMap::new()).is_none());
    }

    #[test]
    fn every_accepted_type_is_found_but_not_one_of_weight_0() {
        let headers =
            headers(&header::ACCEPT, &["text/html;q=0.5, Text/Event-Stream ;q=1", "a/b;q=0, c/d; Q=0.000", ""]);
        let accepts = |name| MediaType::accepted(&headers).any(|accepted| accepted.is(name));
        assert!(accepts("text/html") && accepts("text/event-stream"));
        assert!(!accepts("a/b") && !accepts("c/d"));
    }
}
