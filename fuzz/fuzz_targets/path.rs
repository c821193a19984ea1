//! Paths of requests, brought to one form (`normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`). The first byte chooses
//! the rules.

use http::{Request, Uri};
use outrigger_proxy::fuzzing::normalise;
use outrigger_proxy::http::{EscapedSlashes, PathRules};

use crate::input::text;

const ESCAPED: [EscapedSlashes; 4] =
    [EscapedSlashes::Keep, EscapedSlashes::Reject, EscapedSlashes::Redirect, EscapedSlashes::Forward];

/// The form of a form is itself, nothing climbs out of it, and the query stays.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let bits = usize::from(*first) % 16;
    let rules = PathRules {
        normalize: bits & 1 != 0,
        merge_slashes: bits & 2 != 0,
        escaped_slashes: ESCAPED[bits >> 2],
    };
    let Some(Ok(uri)) = text(rest).map(str::parse::<Uri>) else { return };
    let query = uri.query().map(str::to_owned);
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    if !normalise(rules, &mut request) {
        return;
    }
    let once = request.uri().clone();
    assert_eq!(once.query(), query.as_deref());
    let path = once.path();
    if rules.normalize && path.starts_with('/') {
        assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{path}");
        assert!(!path.contains('\\'), "{path}");
    }
    if rules.merge_slashes {
        assert!(!path.contains("//"), "{path}");
    }
    assert!(normalise(rules, &mut request), "{once} is refused the second time");
    assert_eq!(*request.uri(), once);
}
