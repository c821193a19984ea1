//! What policies find in a request, and how several make one hash.
#![allow(clippy::unwrap_used)]

use http::HeaderMap;

use super::*;

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn made(policies: &[HashPolicy], path: &str, headers: &HeaderMap) -> RequestHash {
    let request = RequestView {
        method: "GET",
        path,
        authority: "h",
        scheme: "http",
        headers,
        random_ppm: 0,
        peer: Default::default(),
    };
    let remote = Some([10, 0, 0, 9].into());
    RequestHash::of(
        policies,
        &HashedRequest { request, remote, connection: format_args!("10.0.0.9:123410.0.0.1:80") },
    )
}

fn policy(source: HashSource) -> HashPolicy {
    HashPolicy { source, terminal: false }
}

fn header(name: &str) -> HashPolicy {
    policy(HashSource::Header { name: MatchedHeader::from_name(name).unwrap(), rewrite: None })
}

fn cookie(name: &str, made: Option<&str>) -> HashPolicy {
    policy(HashSource::Cookie(HashCookie { name: name.into(), made: made.map(Into::into) }))
}

#[test]
fn one_policy() {
    let all = headers(&[
        ("x-user", "alice"),
        ("x-two", "b"),
        ("x-two", "a"),
        ("x-empty", ""),
        ("cookie", "a=1; user=\"bob\"; user=carol;empty="),
    ]);
    let query = |name: &str| policy(HashSource::QueryParameter(name.into()));
    let xx = |text: &str| Some(XxHash64::oneshot(0, text.as_bytes()));
    for (policy, expected) in [
        (header("x-user"), xx("alice")),
        (header("X-User"), xx("alice")),
        (header("x-two"), Some(XxHash64::oneshot(XxHash64::oneshot(0, b"a"), b"b"))),
        (header("x-empty"), xx("")),
        (header("x-none"), None),
        (header(":path"), xx("/p?q=%41&q=2&e")),
        (header(":authority"), xx("h")),
        (cookie("a", None), xx("1")),
        (cookie("user", None), xx("bob")),
        (cookie("use", None), None),
        (cookie("empty", None), None),
        (query("q"), xx("%41")),
        (query("e"), xx("")),
        (query("none"), None),
        (policy(HashSource::SourceIp), xx("10.0.0.9")),
    ] {
        let made = made(std::slice::from_ref(&policy), "/p?q=%41&q=2&e", &all);
        assert_eq!(made.hash, expected, "{policy:?}");
        assert!(made.cookies.is_empty());
    }
}

#[test]
fn values_are_rewritten_before_they_are_hashed() {
    let rewrite = RegexSubstitution { pattern: regex::Regex::new("-.*").unwrap(), substitution: "".into() };
    let name = MatchedHeader::from_name("x-user").unwrap();
    let policies = [policy(HashSource::Header { name, rewrite: Some(rewrite) })];
    let hash = |value| made(&policies, "/", &headers(&[("x-user", value)])).hash;
    assert_eq!(hash("alice-1"), Some(super::hash(b"alice")));
    assert_eq!(hash("alice-2"), hash("alice"));
}

#[test]
fn several_policies_are_turned_into_one_another() {
    let (a, b) = (super::hash(b"alice"), super::hash(b"bob"));
    let both = headers(&[("x-a", "alice"), ("x-b", "bob")]);
    let terminal = |name| HashPolicy { terminal: true, ..header(name) };
    for (policies, expected) in [
        (vec![header("x-a"), header("x-b")], Some(a.rotate_left(1) ^ b)),
        (vec![header("x-a"), header("x-a")], Some(a.rotate_left(1) ^ a)),
        (vec![header("x-none"), header("x-b")], Some(b)),
        (vec![terminal("x-a"), header("x-b")], Some(a)),
        (vec![terminal("x-none"), header("x-b")], Some(b)),
        // One that finds nothing ends it as well, if there is a hash by then.
        (vec![header("x-a"), terminal("x-none"), header("x-b")], Some(a)),
        (vec![], None),
    ] {
        assert_eq!(made(&policies, "/", &both).hash, expected, "{policies:?}");
    }
}

#[test]
fn a_missing_cookie_is_made_of_the_connection() {
    let policies = [cookie("user", Some("; Max-Age=60; HttpOnly"))];
    for lines in [&[][..], &[("cookie", "user=")], &[("cookie", "other=1")]] {
        let made = made(&policies, "/", &headers(lines));
        let value = format!("{:016x}", super::hash(b"10.0.0.9:123410.0.0.1:80"));
        assert_eq!(made.cookies, [format!("user=\"{value}\"; Max-Age=60; HttpOnly")]);
        assert_eq!(made.hash, Some(super::hash(value.as_bytes())));
    }
    assert!(made(&policies, "/", &headers(&[("cookie", "user=1")])).cookies.is_empty());
    assert!(made(&[cookie("user", None)], "/", &headers(&[])).hash.is_none());
}

#[test]
fn addresses_are_hashed_as_text() {
    for (ip, text) in [
        ("10.1.2.3", "10.1.2.3"),
        ("::1", "::1"),
        ("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"),
        ("::ffff:255.255.255.255", "::ffff:255.255.255.255"),
    ] {
        assert_eq!(hash_address(ip.parse().unwrap()), super::hash(text.as_bytes()), "{ip}");
    }
}
