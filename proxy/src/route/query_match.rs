//! Conditions on the query string.

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
        let first = parameters(query).find(|(name, _)| **name == *self.name);
        match (&self.value, first) {
            (None, found) => found.is_some() == self.present,
            (Some(_), None) => false,
            (Some(matcher), Some((_, value))) => matcher.matches(value),
        }
    }
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
