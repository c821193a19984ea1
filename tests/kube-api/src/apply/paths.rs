//! Sets of fields: their notation (`FieldsV1`), and the fields of an object.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::types::{List, Type};

/// One step of a path, in the notation of `FieldsV1`: `f:NAME`, `k:{KEY}` or `v:VALUE`.
pub(super) type Path = Vec<String>;

/// Fields that belong to somebody. A path to a list's item or to a map means that it is there.
pub(super) type Paths = BTreeSet<Path>;

/// Fields that nobody owns: only the server writes them.
const UNOWNED_METADATA: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];

/// What of an object counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) subresource: Option<&'a str>,
    /// Has the kind a status of its own?
    pub(super) has_status: bool,
    pub(super) custom: bool,
}

impl Scope<'_> {
    fn counts(self, field: &str) -> bool {
        match field {
            "apiVersion" | "kind" => false,
            "status" => self.subresource == Some("status") || !self.has_status,
            "metadata" => self.subresource != Some("status") || !self.custom,
            _ => self.subresource != Some("status"),
        }
    }
}

/// The fields of an object. With `with_containers`, lists and free maps are fields of their own, as they are for
/// whoever made them by an update.
pub(super) fn of_object(kind: &Type<'_>, object: &Value, scope: Scope<'_>, with_containers: bool) -> Paths {
    let mut paths = Paths::new();
    let mut walk = Walk { paths: &mut paths, with_containers };
    for (name, value) in object.as_object().into_iter().flatten() {
        if !scope.counts(name) {
            continue;
        }
        let place = kind.field(name);
        let mut path = vec![format!("f:{name}")];
        if name == "metadata" {
            let fields = value.as_object().into_iter().flatten();
            for (field, value) in fields.filter(|(field, _)| !UNOWNED_METADATA.contains(&field.as_str())) {
                path.push(format!("f:{field}"));
                walk.visit(&place.field(field), value, &mut path);
                path.pop();
            }
        } else {
            walk.visit(&place, value, &mut path);
        }
    }
    paths
}

struct Walk<'a> {
    paths: &'a mut Paths,
    with_containers: bool,
}

impl Walk<'_> {
    fn visit(&mut self, kind: &Type<'_>, value: &Value, path: &mut Path) {
        match value {
            Value::Object(map) if !map.is_empty() && !kind.is_atomic_map() => {
                if self.with_containers && kind.is_free_map() {
                    self.paths.insert(path.clone());
                }
                self.fields(kind, map, path);
            }
            Value::Array(items) if !items.is_empty() && kind.list() != List::Atomic => {
                if self.with_containers {
                    self.paths.insert(path.clone());
                }
                for item in items {
                    path.push(step(kind, item));
                    self.paths.insert(path.clone());
                    if let Value::Object(map) = item {
                        self.fields(&kind.item(), map, path);
                    }
                    path.pop();
                }
            }
            _ => {
                self.paths.insert(path.clone());
            }
        }
    }

    fn fields(&mut self, kind: &Type<'_>, map: &Map<String, Value>, path: &mut Path) {
        for (name, value) in map {
            path.push(format!("f:{name}"));
            self.visit(&kind.field(name), value, path);
            path.pop();
        }
    }
}

/// The step to an item of a list.
pub(super) fn step(kind: &Type<'_>, item: &Value) -> String {
    match kind.list() {
        List::Map(keys) => format!("k:{}", kind.key(item, &keys)),
        List::Set | List::Atomic => format!("v:{item}"),
    }
}

/// The value at a path.
pub(super) fn get<'a>(kind: &Type<'_>, object: &'a Value, path: &[String]) -> Option<&'a Value> {
    let Some((first, rest)) = path.split_first() else { return Some(object) };
    match first.strip_prefix("f:") {
        Some(name) => get(&kind.field(name), object.get(name)?, rest),
        None => {
            let item = object.as_array()?.iter().find(|item| step(kind, item) == *first)?;
            get(&kind.item(), item, rest)
        }
    }
}

/// Takes out the value at a path.
pub(super) fn remove(kind: &Type<'_>, object: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    match (first.strip_prefix("f:"), rest.is_empty(), object) {
        (Some(name), true, Value::Object(map)) => {
            map.shift_remove(name);
        }
        (Some(name), false, Value::Object(map)) => {
            if let Some(value) = map.get_mut(name) {
                remove(&kind.field(name), value, rest);
            }
        }
        (None, true, Value::Array(items)) => items.retain(|item| step(kind, item) != *first),
        (None, false, Value::Array(items)) => {
            if let Some(item) = items.iter_mut().find(|item| step(kind, item) == *first) {
                remove(&kind.item(), item, rest);
            }
        }
        _ => {}
    }
}

/// As `FieldsV1`.
pub(crate) fn to_fields(paths: &Paths) -> Value {
    let mut fields = json!({});
    for path in paths {
        let mut node = &mut fields;
        for step in path {
            node = &mut node[step];
            if node.is_null() {
                *node = json!({});
            }
        }
        // What has fields below it says with a dot that it is itself a member.
        let has_members = paths.range(path.clone()..).nth(1).is_some_and(|next| next.starts_with(path));
        if has_members {
            node["."] = json!({});
        }
    }
    fields
}

/// From `FieldsV1`.
pub(crate) fn from_fields(fields: &Value) -> Paths {
    fn collect(fields: &Value, path: &mut Path, paths: &mut Paths) {
        let map = fields.as_object().filter(|map| !map.is_empty());
        let Some(map) = map else {
            paths.insert(path.clone());
            return;
        };
        for (step, below) in map {
            if step == "." {
                paths.insert(path.clone());
                continue;
            }
            path.push(step.clone());
            collect(below, path, paths);
            path.pop();
        }
    }
    let mut paths = Paths::new();
    if fields.as_object().is_some_and(|map| !map.is_empty()) {
        collect(fields, &mut Path::new(), &mut paths);
    }
    paths
}

/// As messages show it: `.status.conditions[type="Accepted"].status`.
pub(super) fn display(path: &[String]) -> String {
    let mut text = String::new();
    for step in path {
        if let Some(name) = step.strip_prefix("f:") {
            text.push('.');
            text.push_str(name);
        } else if let Some(key) = step.strip_prefix("k:") {
            let key: Value = serde_json::from_str(key).unwrap_or_default();
            let parts: Vec<String> = key
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            text.push_str(&format!("[{}]", parts.join(",")));
        } else if let Some(value) = step.strip_prefix("v:") {
            text.push_str(&format!("[={value}]"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(with_containers: bool) -> Value {
        let service = json!({"metadata": {"name": "x", "labels": {"app": "x"}}, "spec": {
            "ports": [{"name": "http", "port": 80}], "selector": {"app": "x"}}, "status": {"loadBalancer": {}}});
        let scope = Scope { subresource: None, has_status: true, custom: false };
        let kind = Type::BuiltIn(vec!["Service".to_owned()]);
        to_fields(&of_object(&kind, &service, scope, with_containers))
    }

    #[test]
    fn the_fields_of_a_service() {
        let port = json!({".": {}, "f:name": {}, "f:port": {}});
        assert_eq!(
            paths(false),
            json!({"f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": port}, "f:selector": {}}})
        );
        assert_eq!(
            paths(true),
            json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": port}, "f:selector": {}}})
        );
        assert_eq!(to_fields(&from_fields(&paths(true))), paths(true));
    }

    #[test]
    fn paths_as_messages_show_them() {
        let path = ["f:status", "f:conditions", "k:{\"type\":\"Accepted\"}", "f:status"].map(str::to_owned);
        assert_eq!(display(&path), ".status.conditions[type=\"Accepted\"].status");
    }
}
