//! The cookies of a request, and conditions on them.

use http::{HeaderMap, header};

use super::StringMatcher;

/// `envoy.config.route.v3.CookieMatcher`.
#[derive(Debug)]
pub struct CookieMatcher {
    /// `name`.
    pub name: Box<str>,
    /// `string_match`.
    pub value: StringMatcher,
    /// `invert_match`: also a request without the cookie matches then.
    pub invert: bool,
}

impl CookieMatcher {
    /// Whether a request with these headers has it. The first cookie of the name counts.
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        let value = first_cookie(headers, &self.name).and_then(|value| std::str::from_utf8(value).ok());
        value.is_some_and(|value| self.value.matches(value)) != self.invert
    }
}

/// The value of the first cookie of the name, without quotes around it.
pub(super) fn first_cookie<'r>(headers: &'r HeaderMap, name: &str) -> Option<&'r [u8]> {
    let fields = headers.get_all(header::COOKIE).iter();
    let mut cookies = fields.flat_map(|field| field.as_bytes().split(|b| *b == b';'));
    let value = cookies.find_map(|cookie| {
        let start = cookie.iter().position(|b| *b != b' ')?;
        cookie[start..].strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    })?;
    Some(value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value))
}
