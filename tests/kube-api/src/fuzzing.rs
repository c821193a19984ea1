//! Doors for the targets in `fuzz/`. Exists with the feature `fuzzing` only.

use serde_json::Value;

use crate::apply::paths;
use crate::http::body;
use crate::http::path::Path;
use crate::http::query::Query;
use crate::kinds::Kinds;
use crate::selector::Selector;

/// What a request's path and query ask for, said again as the parts of a path; `None`: no object.
pub fn target(path: &str) -> Option<Vec<String>> {
    let Path::Resource(target) = Path::parse(path) else { return None };
    let parts = [Some(target.plural), target.name, target.subresource];
    Some(
        [Some(target.group), Some(target.version), target.namespace]
            .into_iter()
            .chain(parts)
            .flatten()
            .collect(),
    )
}

/// The first value of a parameter of a query.
pub fn parameter(query: &str, name: &str) -> String {
    Query::parse(query).get(name).to_owned()
}

/// Whether selectors (`labelSelector`, `fieldSelector`) pick a pod.
///
/// # Errors
/// They cannot be read.
pub fn picks(labels: &str, fields: &str, pod: &Value) -> Result<bool, String> {
    let pods = Kinds::new().find("", "v1", "pods").ok_or("there are no pods")?;
    let selector = Selector::parse(&pods, labels, fields).map_err(|status| format!("{status:?}"))?;
    Ok(selector.matches(pod))
}

/// The object in a body.
///
/// # Errors
/// It cannot be read.
pub fn body(content_type: &str, bytes: &[u8]) -> Result<Value, String> {
    body::parse(content_type, bytes)
}

/// `fieldsV1` of managed fields, read and written again.
pub fn fields(value: &Value) -> Value {
    paths::to_fields(&paths::from_fields(value))
}
