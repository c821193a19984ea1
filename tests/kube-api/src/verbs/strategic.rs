//! Strategic merge patch: a merge patch in which the lists of Kubernetes' own kinds are merged by their keys.

use serde_json::{Map, Value};

use crate::apply::lists::{ListType, list_type};

/// Merges `patch` into `object`, which is of this kind.
pub(crate) fn merge(object: &mut Value, patch: &Value, kind: &str) {
    merge_value(object, patch, &mut vec![kind.to_owned()]);
}

fn merge_value(target: &mut Value, patch: &Value, path: &mut Vec<String>) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            *target = Value::Object(without_directives(patch));
            return;
        }
        Some("delete") => {
            *target = Value::Null;
            return;
        }
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(Value::Array(items)) = target.get_mut(list) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if key == "$retainKeys" {
            let keep = value.as_array().cloned().unwrap_or_default();
            target.retain(|key, _| keep.iter().any(|one| one == key.as_str()));
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        path.push(key.clone());
        match value {
            Value::Null => {
                target.shift_remove(key);
            }
            Value::Array(items) => {
                let existing = target.entry(key.clone()).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(existing, items, path);
            }
            Value::Object(_) => {
                let existing = target.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
                merge_value(existing, value, path);
                if existing.is_null() {
                    target.shift_remove(key);
                }
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
        path.pop();
    }
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(key, _)| !key.starts_with('$'))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// A list whose patch merge key differs from the keys that server-side apply uses.
fn merge_key(path: &[String]) -> Option<&'static str> {
    match list_type(path) {
        // Services and containers are patched by port alone, whatever the protocol.
        ListType::Map(keys) => keys.first().copied(),
        ListType::Set | ListType::Atomic => None,
    }
}

fn merge_list(target: &mut Value, patch: &[Value], path: &mut Vec<String>) {
    let replace = patch.iter().any(|item| item["$patch"] == "replace");
    let Value::Array(existing) = target else {
        *target = Value::Array(patch.to_vec());
        return;
    };
    if replace || (merge_key(path).is_none() && list_type(path) == ListType::Atomic) {
        *existing = patch.iter().filter(|item| item["$patch"] != "replace").cloned().collect();
        return;
    }
    let Some(key) = merge_key(path) else {
        let new: Vec<Value> = patch.iter().filter(|item| !existing.contains(item)).cloned().collect();
        existing.extend(new);
        return;
    };
    let mut added = Vec::new();
    for item in patch {
        let position =
            existing.iter().position(|one| one.get(key).is_some() && one.get(key) == item.get(key));
        match (position, item["$patch"] == "delete") {
            (Some(index), true) => {
                existing.remove(index);
            }
            (Some(index), false) => merge_value(&mut existing[index], item, path),
            (None, true) => {}
            (None, false) => added.push(item.clone()),
        }
    }
    // As the real server orders them: what is new comes first.
    existing.splice(0..0, added);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keyed_lists_are_merged_by_key() {
        let mut service = json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
        merge(&mut service, &json!({"spec": {"ports": [{"name": "metrics", "port": 9090}]}}), "Service");
        merge(&mut service, &json!({"spec": {"ports": [{"port": 80, "targetPort": 1}]}}), "Service");
        assert_eq!(
            service["spec"]["ports"],
            json!([{"name": "metrics", "port": 9090}, {"name": "http", "port": 80, "targetPort": 1}])
        );
        merge(&mut service, &json!({"spec": {"ports": [{"port": 80, "$patch": "delete"}]}}), "Service");
        assert_eq!(service["spec"]["ports"], json!([{"name": "metrics", "port": 9090}]));
    }

    #[test]
    fn other_lists_are_replaced_and_null_deletes() {
        let mut object = json!({"spec": {"args": ["a"], "x": 1}});
        merge(&mut object, &json!({"spec": {"args": ["b"], "x": null}}), "Thing");
        assert_eq!(object, json!({"spec": {"args": ["b"]}}));
    }
}
