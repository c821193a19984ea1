//! Paths brought to one form before anything looks at them: `normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`.
//!
//! Whoever decides by path (a route, a policy) must see what the upstream will see. The query is never touched.

use http::uri::PathAndQuery;
use http::{Request, Uri};

/// What is done to paths; by default nothing, as in Envoy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathRules {
    /// `normalize_path`: dot segments are resolved (RFC 3986 section 6.2.2).
    pub normalize: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
}

/// `path_with_escaped_slashes_action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// `KEEP_UNCHANGED`.
    #[default]
    Keep,
    /// `REJECT_REQUEST`.
    Reject,
    /// `UNESCAPE_AND_REDIRECT`.
    Redirect,
    /// `UNESCAPE_AND_FORWARD`.
    Forward,
}

/// What became of a request's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Normalised {
    /// It goes on with the path that it now has.
    Continue,
    /// It must not go on.
    Reject,
    /// The client is to come again with the path that it now has.
    Redirect,
}

impl PathRules {
    /// Whether there is nothing to do for any path.
    pub(crate) fn is_idle(self) -> bool {
        self == Self::default()
    }

    /// Brings the request's path to its form.
    pub(crate) fn apply<B>(self, request: &mut Request<B>) -> Normalised {
        let Some(old) = request.uri().path_and_query() else { return Normalised::Continue };
        if is_plain(old.path()) {
            return Normalised::Continue;
        }
        let mut path = old.path().to_owned();
        let mut outcome = Normalised::Continue;
        if self.escaped_slashes != EscapedSlashes::Keep
            && let Some(unescaped) = unescape_slashes(&path)
        {
            path = unescaped;
            match self.escaped_slashes {
                EscapedSlashes::Reject => {
                    // For the log, as in Envoy: it tells what the path stood for.
                    set_path(request, path);
                    return Normalised::Reject;
                }
                EscapedSlashes::Redirect => outcome = Normalised::Redirect,
                EscapedSlashes::Keep | EscapedSlashes::Forward => {}
            }
        }
        if self.normalize {
            match canonical(&path) {
                Some(canonical) => path = canonical,
                None => return Normalised::Reject,
            }
        }
        if self.merge_slashes {
            path = merge_slashes(&path);
        }
        if path == old.path() {
            return outcome;
        }
        if set_path(request, path) { outcome } else { Normalised::Reject }
    }
}

/// Gives the request this path, and keeps its query. False: it is none.
fn set_path<B>(request: &mut Request<B>, mut path: String) -> bool {
    if let Some(query) = request.uri().query() {
        path.push('?');
        path.push_str(query);
    }
    let new = path.parse::<PathAndQuery>();
    if let Ok(new) = &new {
        *request.uri_mut() = Uri::from(new.clone());
    }
    new.is_ok()
}

/// Whether no rule would change the path, which nearly always is so.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains("//")
        && !path.contains("/.")
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"%\\\"<>^`{|}".contains(&byte))
}

/// The path with `%2F` and `%5C` as the slashes that they stand for; `None` when it has none.
fn unescape_slashes(path: &str) -> Option<String> {
    if !path.contains('%') {
        return None;
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let escape = rest.get(at..at + 3).unwrap_or("%");
        match escape {
            "%2f" | "%2F" => out.push('/'),
            "%5c" | "%5C" => out.push('\\'),
            _ => {
                out.push('%');
                rest = &rest[at + 1..];
                continue;
            }
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    (out != path).then_some(out)
}

/// `/a/./b/../c` as `/a/c`, a backslash as a slash, and escapes that need not be resolved. `None`: it is no absolute path.
fn canonical(path: &str) -> Option<String> {
    if !path.starts_with(['/', '\\']) {
        return None;
    }
    let text = resolve_escapes(path);
    let mut out: Vec<&str> = Vec::new();
    let mut segments = text[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {
                if is_last {
                    out.push("");
                }
            }
            ".." => {
                out.pop();
                if is_last {
                    out.push("");
                }
            }
            other => out.push(other),
        }
    }
    Some(format!("/{}", out.join("/")))
}

/// Escapes of unreserved characters as these; characters that need an escape with one (Envoy's URL library, and RFC 3986).
fn resolve_escapes(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut stray = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let escaped = bytes.get(at + 1..at + 3).filter(|_| byte == b'%').and_then(hex);
        match (byte, escaped) {
            (_, Some(unreserved)) if unreserved.is_ascii_alphanumeric() || b"-._~".contains(&unreserved) => {
                out.push(unreserved as char);
                at += 3;
                continue;
            }
            (b'\\', _) => out.push('/'),
            (b'%', None) => {
                stray.push(out.len());
                out.push('%');
            }
            (b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f.., _) => {
                out.push_str(&format!("%{byte:02X}"));
            }
            (byte, _) => out.push(byte as char),
        }
        at += 1;
    }
    // What is resolved behind a stray `%` must not become an escape with it, which somebody would resolve again.
    for at in stray.into_iter().rev() {
        if out.as_bytes().get(at + 1..at + 3).and_then(hex).is_some() {
            out.insert_str(at + 1, "25");
        }
    }
    out
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |d: u8| (d as char).to_digit(16);
    u8::try_from(digit(*digits.first()?)? * 16 + digit(*digits.get(1)?)?).ok()
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_paths() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a//b", "/a//b"),
            ("/a\\b", "/a/b"),
            ("/%41%7e%2F%25", "/A~%2F%25"),
            ("/a...b/..c", "/a...b/..c"),
            ("/%zz%", "/%zz%"),
            ("/%4%44%%34%31", "/%254D%2541"),
        ] {
            assert_eq!(canonical(path).as_deref(), Some(expected), "{path}");
            assert!(!is_plain(path) || path == expected, "{path}");
        }
        assert!(is_plain("/a/b-c_d~e.f;g=h,i:j@k&l!m$n'o(p)*q+r[s]#t"));
        for byte in (0..128_u8).map(char::from) {
            let path = format!("/a{byte}b");
            if is_plain(&path) {
                assert_eq!(canonical(&path).as_deref(), Some(path.as_str()));
                assert_eq!((merge_slashes(&path), unescape_slashes(&path)), (path, None));
            }
        }
        assert_eq!(canonical("a"), None);
    }

    #[test]
    fn slashes() {
        assert_eq!(merge_slashes("//a///b/"), "/a/b/");
        assert_eq!(unescape_slashes("/a%2Fb%5cc%20").as_deref(), Some("/a/b\\c%20"));
        assert_eq!(unescape_slashes("/a%20%2"), None);
    }

    #[test]
    fn the_query_stays() {
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_static("/a/../b//c?d=/../%2F//");
        let rules =
            PathRules { normalize: true, merge_slashes: true, escaped_slashes: EscapedSlashes::Reject };
        assert_eq!(rules.apply(&mut request), Normalised::Continue);
        assert_eq!(request.uri(), "/b/c?d=/../%2F//");
    }
}
