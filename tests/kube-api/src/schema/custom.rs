//! The structural schemas of custom resources: defaults, pruning, validation.
//!
//! Validation rules in CEL are not run: there is no evaluator here. Everything else of a schema is.

use regex::Regex;
use serde_json::{Value, json};

use crate::status::Cause;

/// Sets the defaults of the fields that are absent.
pub(crate) fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = property.get("default")
                    && map.get(name).is_none_or(|value| value.is_null() && property["nullable"] != true)
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                match schema["properties"].get(name) {
                    Some(property) => default(property, value),
                    None if schema["additionalProperties"].is_object() => {
                        default(&schema["additionalProperties"], value);
                    }
                    None => {}
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|item| default(&schema["items"], item)),
        _ => {}
    }
}

/// Takes out what the schema does not have, and says where it was.
pub(crate) fn prune(schema: &Value, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
            let embedded = schema["x-kubernetes-embedded-resource"] == true;
            let additional = &schema["additionalProperties"];
            map.retain(|name, value| {
                let path = join(path, name);
                if let Some(property) = schema["properties"].get(name) {
                    prune(property, value, &path, unknown);
                } else if additional.is_object() {
                    prune(additional, value, &path, unknown);
                } else if !(free || *additional == true || (embedded && is_object_header(name))) {
                    unknown.push(path);
                    return false;
                }
                true
            });
        }
        Value::Array(list) => {
            for (index, item) in list.iter_mut().enumerate() {
                prune(&schema["items"], item, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

fn is_object_header(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Checks an object. When something keeps the CEL rules from being looked at, the last cause says so.
pub(crate) fn validate(schema: &Value, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    check(schema, object, "", &mut causes);
    let blocking =
        ["FieldValueRequired", "FieldValueTypeInvalid", "FieldValueNotSupported", "FieldValueTooLong"];
    if causes.iter().any(|cause| blocking.contains(&cause.reason)) && has_rules(schema) {
        let why = "some validation rules were not checked because the object was invalid; correct the existing \
                   errors to complete validation";
        causes.push(Cause::invalid("<nil>", &Value::Null, why));
    }
    causes
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("x-kubernetes-validations") || map.values().any(has_rules),
        Value::Array(list) => list.iter().any(has_rules),
        _ => false,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && (schema["nullable"] == true || path.is_empty()) {
        return;
    }
    // What a real server says of the status leaves the word itself out.
    let told = path.strip_prefix("status.").unwrap_or(path);
    let mut invalid = |why: String| causes.push(Cause::invalid(path, value, format!("{told} in body {why}")));
    let actual = type_of(value);
    let fits = match schema["type"].as_str() {
        _ if schema["x-kubernetes-int-or-string"] == true => matches!(actual, "integer" | "string"),
        None => true,
        Some("number") => matches!(actual, "integer" | "number"),
        Some(wanted) => wanted == actual,
    };
    if !fits {
        let wanted = schema["type"].as_str().unwrap_or("integer or string");
        let why = format!("{told} in body must be of type {wanted}: {actual:?}");
        let mut cause = Cause::invalid(path, &actual.into(), why);
        cause.reason = "FieldValueTypeInvalid";
        causes.push(cause);
        return;
    }
    if let Some(number) = value.as_f64() {
        if schema["maximum"].as_f64().is_some_and(|maximum| number > maximum) {
            invalid(format!("should be less than or equal to {}", schema["maximum"]));
        }
        if schema["minimum"].as_f64().is_some_and(|minimum| number < minimum) {
            invalid(format!("should be greater than or equal to {}", schema["minimum"]));
        }
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        if schema["minLength"].as_u64().is_some_and(|least| length < least) {
            invalid(format!("should be at least {} chars long", schema["minLength"]));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text))
        {
            invalid(format!("should match '{pattern}'"));
        }
        if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
            causes.push(Cause {
                reason: "FieldValueTooLong",
                message: format!("Too long: may not be more than {} bytes", schema["maxLength"]),
                field: path.to_owned(),
            });
        }
    }
    if let Some(list) = value.as_array() {
        let length = list.len() as u64;
        if schema["minItems"].as_u64().is_some_and(|least| length < least) {
            causes.push(Cause::invalid(
                path,
                &length.into(),
                format!("{told} in body should have at least {} items", schema["minItems"]),
            ));
        }
        if schema["maxItems"].as_u64().is_some_and(|most| length > most) {
            causes.push(Cause {
                reason: "FieldValueTooMany",
                message: format!("Too many: {length}: must have at most {} items", schema["maxItems"]),
                field: path.to_owned(),
            });
        }
        duplicates(schema, list, path, causes);
        for (index, item) in list.iter().enumerate() {
            check(&schema["items"], item, &format!("{path}[{index}]"), causes);
        }
    }
    if let Some(map) = value.as_object() {
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(required) {
                causes.push(Cause::required(join(path, required), ""));
            }
        }
        for (name, value) in map {
            match schema["properties"].get(name) {
                Some(property) => check(property, value, &join(path, name), causes),
                None if schema["additionalProperties"].is_object() => {
                    check(&schema["additionalProperties"], value, &join(path, name), causes);
                }
                None => {}
            }
        }
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        let supported: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        causes.push(Cause::unsupported(path, value, &supported));
    }
    combinations(schema, value, path, causes);
}

/// Lists that are maps or sets hold every key once.
fn duplicates(schema: &Value, list: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let key_of = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(item.clone()),
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            let mut key = json!({});
            for name in keys.filter_map(Value::as_str) {
                let value = item.get(name).or_else(|| schema["items"]["properties"][name].get("default"));
                key[name] = value.cloned().unwrap_or_default();
            }
            Some(key)
        }
        _ => None,
    };
    let mut seen = Vec::new();
    for (index, item) in list.iter().enumerate() {
        let Some(key) = key_of(item) else { return };
        if seen.contains(&key) {
            causes.push(Cause {
                reason: "FieldValueDuplicate",
                message: format!("Duplicate value: {key}"),
                field: format!("{path}[{index}]"),
            });
        }
        seen.push(key);
    }
}

fn combinations(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let valid = |schema: &Value| {
        let mut found = Vec::new();
        check(schema, value, path, &mut found);
        found.is_empty()
    };
    let schemas = |key: &str| schema[key].as_array().map(Vec::as_slice).unwrap_or_default();
    for one in schemas("allOf") {
        check(one, value, path, causes);
    }
    let mut invalid = |why: &str| {
        causes.push(Cause::invalid(path, value, format!("{path:?} must validate {why}")));
    };
    if !schemas("anyOf").is_empty() && !schemas("anyOf").iter().any(valid) {
        invalid("at least one schema (anyOf)");
    }
    if !schemas("oneOf").is_empty() && schemas("oneOf").iter().filter(|one| valid(one)).count() != 1 {
        invalid("one and only one schema (oneOf)");
    }
    if schema["not"].is_object() && valid(&schema["not"]) {
        invalid("not the schema (not)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object",
            "required": ["target"],
            "x-kubernetes-validations": [{"rule": "true"}],
            "properties": {
                "target": {"type": "string", "minLength": 1},
                "retries": {"type": "integer", "maximum": 5, "default": 1},
                "mode": {"type": "string", "enum": ["Strict", "Permissive"]},
                "weights": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {
                        "name": {"type": "string"}, "weight": {"type": "integer"}}}}}}}})
    }

    fn texts(object: Value) -> Vec<String> {
        validate(&schema(), &object)
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    }

    #[test]
    fn defaults_and_pruning() {
        let mut object =
            json!({"spec": {"target": "web", "bogus": 1, "weights": [{"name": "a", "color": "red"}]}});
        default(&schema(), &mut object);
        let mut unknown = Vec::new();
        prune(&schema(), &mut object, "", &mut unknown);
        assert_eq!(object, json!({"spec": {"target": "web", "weights": [{"name": "a"}], "retries": 1}}));
        assert_eq!(unknown, ["spec.bogus", "spec.weights[0].color"]);
    }

    #[test]
    fn causes_are_told_as_a_real_server_tells_them() {
        assert_eq!(
            texts(json!({"spec": {"target": "", "retries": 9}})),
            [
                "spec.target: Invalid value: \"\": spec.target in body should be at least 1 chars long",
                "spec.retries: Invalid value: 9: spec.retries in body should be less than or equal to 5"
            ]
        );
        let missing = texts(json!({"spec": {}}));
        assert_eq!(missing[0], "spec.target: Required value");
        assert!(missing[1].starts_with("<nil>: Invalid value: null: some validation rules were not checked"));
        assert_eq!(
            texts(json!({"spec": {"target": "web", "retries": "three"}}))[0],
            "spec.retries: Invalid value: \"string\": spec.retries in body must be of type integer: \"string\""
        );
        assert_eq!(
            texts(json!({"spec": {"target": "web", "mode": "Loose"}}))[0],
            "spec.mode: Unsupported value: \"Loose\": supported values: \"Strict\", \"Permissive\""
        );
        assert_eq!(
            texts(json!({"spec": {"target": "web", "weights": [{"name": "a"}, {"name": "a"}]}})),
            ["spec.weights[1]: Duplicate value: {\"name\":\"a\"}"]
        );
    }
}
