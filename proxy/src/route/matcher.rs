//! What a route demands of a request.

use std::borrow::Cow;
use std::iter;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use regex::Regex;

use super::{CookieMatcher, QueryMatcher, RequestView};

/// `envoy.config.route.v3.RouteMatch`, compiled.
#[derive(Debug)]
pub struct RouteMatch {
    /// `path_specifier`.
    pub path: PathMatcher,
    /// `case_sensitive`, default true; does not apply to regexes.
    pub case_sensitive: bool,
    /// `headers`: all must match.
    pub headers: Vec<HeaderMatcher>,
    /// `query_parameters`: all must match.
    pub query: Vec<QueryMatcher>,
    /// `cookies`: all must match.
    pub cookies: Vec<CookieMatcher>,
    /// `tls_context`.
    pub peer: PeerCertificateMatcher,
    /// `grpc`: only gRPC requests.
    pub grpc: bool,
    /// `runtime_fraction.default_value` in parts per million; `None` = always.
    pub fraction_ppm: Option<u32>,
}

/// The certificate of a request's client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// There was one.
    pub presented: bool,
    /// It was verified.
    pub validated: bool,
}

/// `TlsContextMatchOptions`.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerCertificateMatcher {
    /// `presented`.
    pub presented: Option<bool>,
    /// `validated`.
    pub validated: Option<bool>,
}

impl PeerCertificateMatcher {
    fn matches(self, peer: PeerCertificate) -> bool {
        self.presented.is_none_or(|wanted| wanted == peer.presented)
            && self.validated.is_none_or(|wanted| wanted == peer.validated)
    }
}

/// `path_specifier`. The path is compared without its query.
#[derive(Debug)]
pub enum PathMatcher {
    /// `prefix`.
    Prefix(Box<str>),
    /// `path`.
    Exact(Box<str>),
    /// `path_separated_prefix`: the prefix, then the end or a `/`.
    SeparatedPrefix(Box<str>),
    /// `safe_regex`: the whole path.
    Regex(Regex),
    /// `connect_matcher`: CONNECT, which has no path.
    Connect,
}

/// `envoy.config.route.v3.HeaderMatcher`.
#[derive(Debug)]
pub struct HeaderMatcher {
    /// `name`.
    pub name: MatchedHeader,
    /// `header_match_specifier`.
    pub value: ValueMatcher,
    /// `invert_match`.
    pub invert: bool,
    /// `treat_missing_header_as_empty`.
    pub missing_as_empty: bool,
}

/// Which header is matched.
#[derive(Debug, Clone)]
pub enum MatchedHeader {
    /// `:method`.
    Method,
    /// `:path`.
    Path,
    /// `:authority` or `host`.
    Authority,
    /// `:scheme`.
    Scheme,
    /// `:status`, which only responses have.
    Status,
    /// Any other.
    Named(HeaderName),
}

/// `header_match_specifier`.
#[derive(Debug)]
pub enum ValueMatcher {
    /// `present_match`, and the default (`true`).
    Present(bool),
    /// `range_match`: start included, end excluded.
    Range(i64, i64),
    /// `string_match` and its older forms.
    String(StringMatcher),
}

/// `envoy.type.matcher.v3.StringMatcher`.
#[derive(Debug)]
pub enum StringMatcher {
    /// `exact`.
    Exact(Box<str>),
    /// `prefix`.
    Prefix(Box<str>),
    /// `suffix`.
    Suffix(Box<str>),
    /// `contains`.
    Contains(Box<str>),
    /// `safe_regex`: the whole value.
    Regex(Regex),
    /// One of the first four with `ignore_case`; the inner text is lower case.
    IgnoreCase(Box<StringMatcher>),
}

impl RouteMatch {
    /// Nothing but a path is demanded.
    pub fn of_path(path: PathMatcher) -> Self {
        Self {
            path,
            case_sensitive: true,
            headers: vec![],
            query: vec![],
            cookies: vec![],
            peer: PeerCertificateMatcher::default(),
            grpc: false,
            fraction_ppm: None,
        }
    }

    /// Whether the request matches; `path` is without query.
    pub fn matches(&self, path: &str, request: &RequestView<'_>) -> bool {
        self.path.matches(path, self.case_sensitive) && self.matches_rest(request)
    }

    /// Whether it is for CONNECT and this one matches.
    pub fn matches_connect(&self, request: &RequestView<'_>) -> bool {
        matches!(self.path, PathMatcher::Connect) && self.matches_rest(request)
    }
}

impl RouteMatch {
    fn matches_rest(&self, request: &RequestView<'_>) -> bool {
        self.headers.iter().all(|h| h.matches(request))
            && (self.query.is_empty() || self.query_matches(request.path))
            && self.cookies.iter().all(|cookie| cookie.matches(request.headers))
            && self.peer.matches(request.peer)
            && (!self.grpc || is_grpc(request.headers))
            && self.fraction_ppm.is_none_or(|ppm| request.random_ppm < ppm)
    }

    fn query_matches(&self, path_and_query: &str) -> bool {
        let query = path_and_query.split_once('?').map_or("", |(_, query)| query);
        self.query.iter().all(|q| q.matches(query))
    }
}

/// Whether a message with these headers is gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

impl PathMatcher {
    fn matches(&self, path: &str, case_sensitive: bool) -> bool {
        match self {
            PathMatcher::Prefix(p) => starts_with(path, p, case_sensitive),
            PathMatcher::Exact(p) if case_sensitive => path == &**p,
            PathMatcher::Exact(p) => path.eq_ignore_ascii_case(p),
            PathMatcher::SeparatedPrefix(p) => {
                starts_with(path, p, case_sensitive)
                    && matches!(path.as_bytes().get(p.len()), None | Some(b'/'))
            }
            PathMatcher::Regex(r) => r.is_match(path),
            PathMatcher::Connect => false,
        }
    }

    /// The part of `path` that matched, for redirects with `prefix_rewrite`.
    pub fn matched_len(&self, path: &str) -> usize {
        match self {
            PathMatcher::Prefix(p) | PathMatcher::SeparatedPrefix(p) => p.len().min(path.len()),
            PathMatcher::Exact(_) | PathMatcher::Regex(_) | PathMatcher::Connect => path.len(),
        }
    }
}

fn starts_with(path: &str, prefix: &str, case_sensitive: bool) -> bool {
    match path.as_bytes().get(..prefix.len()) {
        Some(head) if case_sensitive => head == prefix.as_bytes(),
        Some(head) => head.eq_ignore_ascii_case(prefix.as_bytes()),
        None => false,
    }
}

impl HeaderMatcher {
    /// Whether a response has it; pseudo-headers of requests are not there.
    pub fn matches_response(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match &self.name {
            MatchedHeader::Status => self.matches_values(iter::once(status.as_str().into())),
            MatchedHeader::Named(name) => {
                let values = headers.get_all(name).iter();
                self.matches_values(values.map(|value| String::from_utf8_lossy(value.as_bytes())))
            }
            _ => self.matches_values(iter::empty()),
        }
    }

    /// Whether the request has it.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.matches_values(self.name.values(request))
    }

    fn matches_values<'a>(&self, values: impl Iterator<Item = Cow<'a, str>>) -> bool {
        let mut values = values.peekable();
        if let ValueMatcher::Present(wanted) = self.value {
            return (values.peek().is_some() == wanted) != self.invert;
        }
        // A value match on a missing header fails even when inverted, unless missing counts as empty.
        if values.peek().is_none() {
            return self.missing_as_empty && self.value.matches("") != self.invert;
        }
        // Each field of a repeated header counts alone, as in Envoy.
        values.any(|v| self.value.matches(&v)) != self.invert
    }
}

impl ValueMatcher {
    fn matches(&self, value: &str) -> bool {
        match self {
            ValueMatcher::Present(wanted) => *wanted,
            ValueMatcher::Range(start, end) => {
                value.parse::<i64>().is_ok_and(|n| (*start..*end).contains(&n))
            }
            ValueMatcher::String(matcher) => matcher.matches(value),
        }
    }
}

impl MatchedHeader {
    /// By name as it stands in configuration.
    ///
    /// # Errors
    /// Not a header name.
    pub fn from_name(name: &str) -> Result<Self, String> {
        Ok(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            ":status" => Self::Status,
            other => Self::Named(other.parse().map_err(|_| format!("'{name}' is not a header name"))?),
        })
    }

    /// The header's first field.
    pub fn first(&self, request: &RequestView<'_>) -> Option<HeaderValue> {
        let pseudo = match self {
            Self::Method => request.method,
            Self::Path => request.path,
            Self::Authority => request.authority,
            Self::Scheme => request.scheme,
            Self::Status => return None,
            Self::Named(name) => return request.headers.get(name).cloned(),
        };
        HeaderValue::from_str(pseudo).ok()
    }

    /// The header's fields as they are.
    pub(super) fn bytes<'a>(&self, request: &RequestView<'a>) -> impl Iterator<Item = &'a [u8]> {
        let (pseudo, name) = match self {
            Self::Method => (Some(request.method), None),
            Self::Path => (Some(request.path), None),
            Self::Authority => (Some(request.authority), None),
            Self::Scheme => (Some(request.scheme), None),
            Self::Status => (None, None),
            Self::Named(name) => (None, Some(name)),
        };
        let fields = name.into_iter().flat_map(|n| request.headers.get_all(n));
        pseudo.map(str::as_bytes).into_iter().chain(fields.map(HeaderValue::as_bytes))
    }

    /// The header's fields.
    pub(super) fn values<'a>(&self, request: &RequestView<'a>) -> impl Iterator<Item = Cow<'a, str>> {
        self.bytes(request).map(String::from_utf8_lossy)
    }
}

impl StringMatcher {
    /// Whether `value` matches.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(s) => value == &**s,
            Self::Prefix(s) => value.starts_with(&**s),
            Self::Suffix(s) => value.ends_with(&**s),
            Self::Contains(s) => value.contains(&**s),
            Self::Regex(r) => r.is_match(value),
            Self::IgnoreCase(inner) => inner.matches(&value.to_ascii_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderMap;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    fn request(headers: &HeaderMap) -> RequestView<'_> {
        RequestView {
            method: "GET",
            path: "/a?q",
            authority: "h",
            scheme: "http",
            headers,
            random_ppm: 500_000,
            peer: PeerCertificate::default(),
        }
    }

    fn header(name: &str, value: ValueMatcher, invert: bool, missing_as_empty: bool) -> HeaderMatcher {
        HeaderMatcher { name: MatchedHeader::from_name(name).unwrap(), value, invert, missing_as_empty }
    }

    #[test]
    fn paths() {
        for (matcher, path, sensitive, expected) in [
            (PathMatcher::Prefix("/a".into()), "/ab", true, true),
            (PathMatcher::Prefix("/a".into()), "/A", true, false),
            (PathMatcher::Prefix("/a".into()), "/Ab", false, true),
            (PathMatcher::Exact("/a".into()), "/a", true, true),
            (PathMatcher::Exact("/a".into()), "/ab", true, false),
            (PathMatcher::Exact("/a".into()), "/A", false, true),
            (PathMatcher::SeparatedPrefix("/a".into()), "/a", true, true),
            (PathMatcher::SeparatedPrefix("/a".into()), "/a/b", true, true),
            (PathMatcher::SeparatedPrefix("/a".into()), "/ab", true, false),
            (PathMatcher::Regex(outrigger_xds_api::expression::of_all("/a|/b").unwrap()), "/b", true, true),
            (PathMatcher::Regex(outrigger_xds_api::expression::of_all("/a|/b").unwrap()), "/bc", true, false),
        ] {
            assert_eq!(matcher.matches(path, sensitive), expected, "{matcher:?} {path}");
        }
    }

    #[test]
    fn header_values() {
        let map = headers(&[("x", "5"), ("y", "Abc"), ("two", "a"), ("two", "b")]);
        let string = |m| ValueMatcher::String(m);
        for (matcher, expected) in [
            (header("x", ValueMatcher::Present(true), false, false), true),
            (header("x", ValueMatcher::Present(true), true, false), false),
            (header("z", ValueMatcher::Present(false), false, false), true),
            (header("x", ValueMatcher::Range(5, 6), false, false), true),
            (header("x", ValueMatcher::Range(4, 5), false, false), false),
            (header("y", ValueMatcher::Range(4, 5), true, false), true),
            (header("y", string(StringMatcher::Prefix("Ab".into())), false, false), true),
            (header("y", string(StringMatcher::Suffix("bc".into())), false, false), true),
            (header("y", string(StringMatcher::Contains("b".into())), false, false), true),
            (header("y", string(StringMatcher::Exact("abc".into())), false, false), false),
            (
                header(
                    "y",
                    string(StringMatcher::IgnoreCase(Box::new(StringMatcher::Exact("abc".into())))),
                    false,
                    false,
                ),
                true,
            ),
            (header("two", string(StringMatcher::Exact("a,b".into())), false, false), false),
            (header("two", string(StringMatcher::Exact("b".into())), false, false), true),
            (header("two", string(StringMatcher::Exact("b".into())), true, false), false),
            (header("z", string(StringMatcher::Exact("".into())), false, true), true),
            (header("z", string(StringMatcher::Exact("v".into())), true, false), false),
            (header("z", string(StringMatcher::Exact("v".into())), true, true), true),
            (header(":method", string(StringMatcher::Exact("GET".into())), false, false), true),
            (header(":path", string(StringMatcher::Suffix("?q".into())), false, false), true),
            (header("host", string(StringMatcher::Exact("h".into())), false, false), true),
        ] {
            assert_eq!(matcher.matches(&request(&map)), expected, "{matcher:?}");
        }
    }

    #[test]
    fn fraction() {
        let map = HeaderMap::new();
        let any = || RouteMatch::of_path(PathMatcher::Prefix("/".into()));
        let matcher = |ppm| RouteMatch { fraction_ppm: Some(ppm), ..any() };
        assert!(matcher(500_001).matches("/", &request(&map)));
        assert!(!matcher(500_000).matches("/", &request(&map)));
    }

    #[test]
    fn what_is_grpc() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            let headers = headers(&[("content-type", value)]);
            assert_eq!(is_grpc(&headers), expected, "{value}");
        }
    }
}
