//! Merging a configuration into an object.

use serde_json::{Map, Value};

use super::paths::{Scope, step};
use super::types::{List, Type};

/// Merges what of `configuration` counts into `object`.
pub(super) fn merge(kind: &Type<'_>, object: &mut Value, configuration: &Value, scope: Scope<'_>) {
    let (Value::Object(object), Value::Object(configuration)) = (object, configuration) else { return };
    for (name, value) in configuration {
        let is_status = name == "status";
        let counts = match scope.subresource {
            Some("status") => is_status || (name == "metadata" && !scope.custom),
            _ => !is_status || !scope.has_status,
        };
        if counts && !matches!(name.as_str(), "apiVersion" | "kind") {
            merge_field(&kind.field(name), object, name, value);
        }
    }
}

fn merge_field(kind: &Type<'_>, map: &mut Map<String, Value>, name: &str, value: &Value) {
    match map.get_mut(name) {
        Some(existing) => merge_value(kind, existing, value),
        None => {
            map.insert(name.to_owned(), value.clone());
        }
    }
}

fn merge_value(kind: &Type<'_>, target: &mut Value, value: &Value) {
    match (target, value) {
        (Value::Object(target), Value::Object(map)) if !kind.is_atomic_map() => {
            for (name, value) in map {
                merge_field(&kind.field(name), target, name, value);
            }
        }
        (Value::Array(target), Value::Array(items)) if kind.list() != List::Atomic => {
            for item in items {
                let wanted = step(kind, item);
                match target.iter_mut().find(|existing| step(kind, existing) == wanted) {
                    Some(existing) => merge_value(&kind.item(), existing, item),
                    None => target.push(item.clone()),
                }
            }
        }
        (target, value) => *target = value.clone(),
    }
}
