//! Conditions on the query string.

use std::borrow::Cow;

use super::StringMatcher;

/// `envoy.config.route.v3.QueryParameterMatcher`.
#[derive(Debug)]
pub struct QueryMatcher {
    /// `name`.
    pub name: Box<str>,
    /// `string_match`; `None`: `present_match`.
    pub value: Option<StringMatcher>,
    /// `present_match`, default true; with a `value` always true.
    pub present: bool,
}

impl QueryMatcher {
    /// Whether the query (without `?`) has it. The first parameter of the name counts.
    pub fn matches(&self, query: &str) -> bool {
        self.takes(first_written(query, &self.name))
    }

    /// The same, where the value counts as it is meant and not as it is written.
    pub(super) fn matches_decoded(&self, query: &str) -> bool {
        self.takes(first_value(query, &self.name).as_deref())
    }

    fn takes(&self, first: Option<&str>) -> bool {
        match (&self.value, first) {
            (None, found) => found.is_some() == self.present,
            (Some(_), None) => false,
            (Some(matcher), Some(value)) => matcher.matches(value),
        }
    }
}

/// The decoded value of the first parameter of this name.
pub(crate) fn first_value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    let (_, value) = parameters(query).find(|(n, _)| *n == name)?;
    if !value.contains('%') {
        return Some(value.into());
    }
    let (mut decoded, mut rest) = (Vec::with_capacity(value.len()), value.as_bytes());
    while let [byte, after @ ..] = rest {
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        let digits = digit(0).zip(digit(1)).filter(|_| *byte == b'%');
        let code = digits.map(|(high, low)| (high * 16 + low) as u8);
        decoded.push(code.unwrap_or(*byte));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    Some(String::from_utf8_lossy(&decoded).into_owned().into())
}

/// The value of the first parameter of this name, as it is written.
pub(super) fn first_written<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    parameters(query).find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// Names and values of a query, as they stand there.
fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        for (query, expected) in [("a=%41%7e", "A~"), ("a=%+B%4", "%+B%4"), ("b&a=1%C3%A9", "1\u{e9}")] {
            assert_eq!(first_value(query, "a").as_deref(), Some(expected), "{query}");
        }
    }

    #[test]
    fn parameters_match() {
        let present = |present| QueryMatcher { name: "a".into(), value: None, present };
        let exact =
            QueryMatcher { name: "a".into(), value: Some(StringMatcher::Exact("1+2".into())), present: true };
        for (matcher, query, expected) in [
            (&present(true), "a", true),
            (&present(true), "b=a&ab=1", false),
            (&present(false), "b=1", true),
            (&present(false), "a=1", false),
            (&exact, "a=1+2", true),
            (&exact, "a=3&a=1+2", false),
            (&exact, "", false),
        ] {
            assert_eq!(matcher.matches(query), expected, "{query}");
        }
    }
}
