//! `RouteAction.hash_policy`: what of a request makes the hash by which a cluster with a hash table picks its host.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;

use http::HeaderValue;
use smallvec::SmallVec;
use twox_hash::XxHash64;

use super::cookie_match::first_cookie;
use super::{MatchedHeader, RegexSubstitution, RequestView, query_match};

/// `envoy.config.route.v3.RouteAction.HashPolicy`.
#[derive(Debug)]
pub struct HashPolicy {
    /// `policy_specifier`.
    pub source: HashSource,
    /// `terminal`: with a hash by then, the policies after it do not count.
    pub terminal: bool,
}

/// What is hashed; without it the policy gives no hash.
#[derive(Debug)]
pub enum HashSource {
    /// `header`: all values of it, in any order.
    Header {
        /// `header_name`.
        name: MatchedHeader,
        /// `regex_rewrite`, of each value.
        rewrite: Option<RegexSubstitution>,
    },
    /// `cookie`.
    Cookie(HashCookie),
    /// `connection_properties.source_ip`.
    SourceIp,
    /// `query_parameter`: the first of this name, as it is written.
    QueryParameter(Box<str>),
}

/// `envoy.config.route.v3.RouteAction.HashPolicy.Cookie`.
#[derive(Debug)]
pub struct HashCookie {
    /// `name`.
    pub name: Box<str>,
    /// What stands behind the value of a cookie that we make, from `ttl`, `path` and `attributes`; `None`: we make none.
    pub made: Option<Box<str>>,
}

/// A request as hash policies see it.
#[derive(Debug)]
pub struct HashedRequest<'a> {
    /// The request as the route has made it.
    pub request: RequestView<'a>,
    /// Where it comes from, as far as proxies in front are trusted.
    pub remote: Option<IpAddr>,
    /// Both ends of the connection as text, the peer's first.
    pub connection: fmt::Arguments<'a>,
}

/// What the policies made of a request.
#[derive(Debug, Default)]
pub struct RequestHash {
    /// `None`: no policy found what it hashes.
    pub hash: Option<u64>,
    /// `set-cookie` headers for the response: cookies that the request should have had.
    pub cookies: Vec<HeaderValue>,
}

impl RequestHash {
    /// Goes through the policies in order.
    pub fn of(policies: &[HashPolicy], request: &HashedRequest<'_>) -> Self {
        let mut made = Self::default();
        for policy in policies {
            if let Some(new) = policy.source.hash(request, &mut made.cookies) {
                // Turned, so that two policies that find the same do not cancel each other out.
                made.hash = Some(made.hash.unwrap_or(0).rotate_left(1) ^ new);
            }
            if policy.terminal && made.hash.is_some() {
                break;
            }
        }
        made
    }
}

impl HashSource {
    fn hash(&self, of: &HashedRequest<'_>, cookies: &mut Vec<HeaderValue>) -> Option<u64> {
        match self {
            Self::Header { name, rewrite } => hash_header(name, rewrite.as_ref(), &of.request),
            Self::Cookie(cookie) => {
                match first_cookie(of.request.headers, &cookie.name).filter(|value| !value.is_empty()) {
                    Some(value) => Some(hash(value)),
                    None => cookie.make(of.connection, cookies),
                }
            }
            Self::SourceIp => of.remote.map(hash_address),
            Self::QueryParameter(name) => {
                let (_, query) = of.request.path.split_once('?')?;
                query_match::first_written(query, name).map(|value| hash(value.as_bytes()))
            }
        }
    }
}

/// Envoy's hash of anything.
fn hash(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// The hash of an address as text.
pub fn hash_address(ip: IpAddr) -> u64 {
    // The longest is an IPv4 address written as an IPv6 one.
    let mut text = [0; 45];
    let mut rest = &mut text[..];
    // It fits.
    let _ = write!(rest, "{ip}");
    let length = 45 - rest.len();
    hash(&text[..length])
}

fn hash_header(
    name: &MatchedHeader,
    rewrite: Option<&RegexSubstitution>,
    request: &RequestView<'_>,
) -> Option<u64> {
    let Some(rewrite) = rewrite else {
        // The usual header is there once, and hashed where it lies.
        let mut values: SmallVec<[&[u8]; 4]> = name.bytes(request).collect();
        values.sort_unstable();
        return hash_all(&values);
    };
    let mut values: SmallVec<[String; 4]> =
        name.values(request).map(|value| rewrite.apply(&value).into_owned()).collect();
    values.sort_unstable();
    let values: SmallVec<[&[u8]; 4]> = values.iter().map(String::as_bytes).collect();
    hash_all(&values)
}

/// The hash of several values in order: the one of each is the seed for the next.
fn hash_all(values: &[&[u8]]) -> Option<u64> {
    let (first, rest) = values.split_first()?;
    Some(rest.iter().fold(hash(first), |seed, value| XxHash64::oneshot(seed, value)))
}

impl HashCookie {
    /// Makes a cookie, the same for all requests of a connection, and gives its hash.
    fn make(&self, connection: fmt::Arguments<'_>, cookies: &mut Vec<HeaderValue>) -> Option<u64> {
        let attributes = self.made.as_deref()?;
        let value = format!("{:016x}", hash(connection.to_string().as_bytes()));
        // Name and attributes were checked by the compiler.
        cookies.extend(HeaderValue::try_from(format!("{}=\"{value}\"{attributes}", self.name)).ok());
        Some(hash(value.as_bytes()))
    }
}

#[cfg(test)]
#[path = "hash_policy_tests.rs"]
mod tests;
