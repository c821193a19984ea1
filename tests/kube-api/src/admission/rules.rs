//! Does a webhook want to be asked?

use serde_json::Value;

use super::{Operation, namespace_labels};
use crate::dispatch::Call;
use crate::selector::label_selector_matches;

fn has(list: &Value, wanted: &str) -> bool {
    list.as_array().into_iter().flatten().any(|one| one == "*" || one == wanted)
}

/// Do operation, group, version, resource and scope match a rule?
pub(super) fn match_rules(webhook: &Value, call: &Call, operation: Operation) -> bool {
    let resource = &call.resource;
    webhook["rules"].as_array().into_iter().flatten().any(|rule| {
        let scope = match rule["scope"].as_str() {
            Some("Namespaced") => resource.namespaced,
            Some("Cluster") => !resource.namespaced,
            _ => true,
        };
        scope
            && has(&rule["operations"], operation.as_str())
            && has(&rule["apiGroups"], &resource.group)
            && has(&rule["apiVersions"], &resource.version)
            && rule["resources"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .any(|one| match_resource(one, &resource.plural, call.target.subresource.as_deref()))
    })
}

/// `pods`, `pods/status`, `pods/*`, `*/status`, `*` (no subresources), `*/*`.
fn match_resource(rule: &str, plural: &str, subresource: Option<&str>) -> bool {
    let (wanted, wanted_sub) = match rule.split_once('/') {
        Some((wanted, sub)) => (wanted, Some(sub)),
        None => (rule, None),
    };
    let matches_sub = match (wanted_sub, subresource) {
        (None, None) | (Some("*"), _) => true,
        (Some(wanted), Some(actual)) => wanted == actual,
        _ => false,
    };
    (wanted == "*" || wanted == plural) && matches_sub
}

/// Do the selectors pick namespace and object? The old object counts as well as the new one.
pub(super) fn match_selectors(
    webhook: &Value,
    call: &Call,
    object: Option<&Value>,
    old: Option<&Value>,
) -> bool {
    let objects: Vec<&Value> = object.into_iter().chain(old).collect();
    let picks =
        |selector: &Value, object: &&Value| label_selector_matches(selector, &object["metadata"]["labels"]);
    let selector = &webhook["namespaceSelector"];
    let namespace = if call.resource.is("", "namespaces") {
        objects.iter().any(|object| picks(selector, object))
    } else {
        namespace_labels(&call.cluster, call).is_none_or(|labels| label_selector_matches(selector, &labels))
    };
    namespace && objects.iter().any(|object| picks(&webhook["objectSelector"], object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_of_rules() {
        assert!(match_resource("pods", "pods", None) && !match_resource("pods", "pods", Some("status")));
        assert!(match_resource("pods/*", "pods", Some("status")) && match_resource("pods/*", "pods", None));
        assert!(
            match_resource("*/status", "pods", Some("status")) && !match_resource("*/status", "pods", None)
        );
        assert!(match_resource("*", "pods", None) && !match_resource("*", "pods", Some("status")));
        assert!(match_resource("*/*", "pods", Some("status")) && !match_resource("services", "pods", None));
    }
}
