//! Queries of requests: how rate limits and the admin interface read them, and how `query_parameter_mutations` change them. The first
//! line is a parameter's name, the second its new value, the rest the query.

use http::{Request, Uri};
use outrigger_proxy::fuzzing::{admin_query, change_query, query_value};
use outrigger_proxy::http::filters::QueryMutation;
use outrigger_proxy::route::AppendAction;

use crate::input::{line, text};

/// Both readers agree, and what was set is there, once.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(input) = text(bytes) else { return };
    let ((name, rest), query) = (line(input), line(input).1);
    let (value, _) = line(rest);
    let query = line(query).1;
    let decoded = admin_query(query);
    let first = query_value(query, name);
    if !name.contains(['%', '&', '=']) {
        // Names are compared as they are written.
        let raw = query.split('&').find(|pair| !pair.is_empty() && pair.split('=').next() == Some(name));
        assert_eq!(first, raw.map(|pair| admin_query(pair)[0].1.clone()), "{decoded:?}");
    }
    if !is_plain(name) || name.is_empty() || !is_plain(value) {
        return;
    }
    let Ok(uri) = format!("/?{query}").parse::<Uri>() else { return };
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    let set = QueryMutation::Set { name: name.into(), value: value.into(), action: AppendAction::OverwriteOrAdd };
    change_query(&[set], &mut request);
    let changed = request.uri().query().unwrap_or_default().to_owned();
    assert_eq!(query_value(&changed, name).as_deref(), Some(value), "{changed}");
    change_query(&[QueryMutation::Remove(name.into())], &mut request);
    assert_eq!(query_value(request.uri().query().unwrap_or_default(), name), None);
}

/// What needs no escape in a query.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}
