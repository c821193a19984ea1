//! Requests to the tests' API server: path, query, body, managed fields. The first byte chooses the part.

use outrigger_kube_api::fuzzing::{body, fields, parameter, picks, target};
use outrigger_proxy::fuzzing::admin_query;
use serde_json::{Value, json};

use crate::input::{choose, line, text};

/// Each part is read or refused.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((part, rest)) = choose(&[Part::Path, Part::Query, Part::Selectors, Part::Protobuf, Part::Text], bytes) else {
        return;
    };
    match part {
        Part::Path => drop(text(rest).map(target)),
        Part::Query => drop(text(rest).map(query)),
        Part::Selectors => drop(text(rest).map(selectors)),
        Part::Protobuf => drop(body("application/vnd.kubernetes.protobuf", rest)),
        Part::Text => drop(body("application/yaml", rest).map(managed_fields)),
    }
}

#[derive(Clone, Copy)]
enum Part {
    Path,
    Query,
    Selectors,
    Protobuf,
    Text,
}

/// It is read as the proxy reads queries, but for `+`.
fn query(text: &str) {
    for (name, value) in admin_query(text).into_iter().take(1) {
        if !text.contains('+') {
            assert_eq!(parameter(text, &name), value);
        }
    }
}

fn selectors(text: &str) {
    let (labels, fields) = line(text);
    let pod = json!({"metadata": {"name": "web", "labels": {"app": "web"}}});
    let other = json!({"metadata": {"name": "other"}});
    drop(picks(labels, fields, &pod));
    drop(picks(labels, fields, &other));
}

/// What is written is read as the same.
fn managed_fields(value: Value) {
    let once = fields(&value);
    assert_eq!(fields(&once), once);
}
