//! `Location` of a redirect.

use http::HeaderValue;

use crate::formatter::Values;
use crate::route::{PathMatcher, PathRedirect, Redirect};

/// The new location, which formats make of `values`; `None` when it would not be a valid header value.
pub(crate) fn location(
    redirect: &Redirect,
    matched: &PathMatcher,
    scheme: &str,
    authority: &str,
    path_and_query: &str,
    values: Values<'_>,
) -> Option<HeaderValue> {
    let new_scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let host = redirect.host.as_deref().unwrap_or_else(|| host_for(authority, redirect, scheme, new_scheme));
    let mut location = format!("{new_scheme}://{host}");
    if redirect.port != 0 {
        location.truncate(location.len() - host.len());
        location.push_str(crate::route::without_port(host));
        location.push_str(&format!(":{}", redirect.port));
    }
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let mut query = query.filter(|_| !redirect.strip_query);
    match &redirect.path {
        PathRedirect::Keep => location.push_str(path),
        PathRedirect::Replace(new) => {
            location.push_str(new);
            if new.contains('?') {
                query = None;
            }
        }
        PathRedirect::Prefix(new) => {
            location.push_str(new);
            location.push_str(&path[matched.matched_len(path)..]);
        }
        PathRedirect::Regex(regex) => location.push_str(&regex.apply(path)),
        PathRedirect::Format(format) => {
            let new = format.value(values).filter(|new| !new.is_empty());
            let new = new.as_ref().and_then(|new| new.to_str().ok()).unwrap_or(path);
            location.push_str(new);
            if new.contains('?') {
                query = None;
            }
        }
    }
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    HeaderValue::try_from(location).ok()
}

/// Another scheme drops the old scheme's default port.
fn host_for<'a>(authority: &'a str, redirect: &Redirect, scheme: &str, new_scheme: &str) -> &'a str {
    let default_port = match scheme {
        _ if new_scheme == scheme || redirect.port != 0 => return authority,
        "https" => ":443",
        _ => ":80",
    };
    authority.strip_suffix(default_port).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::StatusCode;

    use super::*;
    use crate::stream_info::StreamInfo;

    fn redirect() -> Redirect {
        Redirect {
            status: StatusCode::MOVED_PERMANENTLY,
            scheme: None,
            host: None,
            port: 0,
            path: PathRedirect::Keep,
            strip_query: false,
        }
    }

    #[test]
    fn locations() {
        let info = StreamInfo::of_test();
        let prefix = PathMatcher::Prefix("/old".into());
        for (r, authority, path, expected) in [
            (Redirect { scheme: Some("https".into()), ..redirect() }, "a:80", "/x?q=1", "https://a/x?q=1"),
            (Redirect { host: Some("b".into()), ..redirect() }, "a:81", "/x", "http://b/x"),
            (Redirect { port: 8443, ..redirect() }, "a:80", "/x", "http://a:8443/x"),
            (
                Redirect { path: PathRedirect::Replace("/n".into()), ..redirect() },
                "a",
                "/x?q",
                "http://a/n?q",
            ),
            (
                Redirect { path: PathRedirect::Replace("/n?z".into()), ..redirect() },
                "a",
                "/x?q",
                "http://a/n?z",
            ),
            (
                Redirect { path: PathRedirect::Prefix("/new".into()), ..redirect() },
                "a",
                "/old/p?q",
                "http://a/new/p?q",
            ),
            (Redirect { strip_query: true, ..redirect() }, "a", "/x?q", "http://a/x"),
        ] {
            assert_eq!(location(&r, &prefix, "http", authority, path, (&info).into()).unwrap(), expected);
        }
    }
}
