//! The difference of two objects as a JSON Patch (RFC 6902), the answer of a mutating webhook.

use serde_json::{Value, json};

/// The operations that make `after` of `before`. Maps are descended into; a list or scalar that differs is given as a
/// whole (`add` to a member that exists replaces it, section 4.1).
pub fn between(before: &Value, after: &Value) -> Value {
    let mut operations = Vec::new();
    compare(before, after, "", &mut operations);
    operations.into()
}

fn compare(before: &Value, after: &Value, path: &str, operations: &mut Vec<Value>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            for name in old.keys().filter(|name| !new.contains_key(*name)) {
                operations.push(json!({"op": "remove", "path": member(path, name)}));
            }
            for (name, value) in new {
                match old.get(name) {
                    Some(before) => compare(before, value, &member(path, name), operations),
                    None => operations.push(json!({"op": "add", "path": member(path, name), "value": value})),
                }
            }
        }
        _ => operations.push(json!({"op": "add", "path": path, "value": after})),
    }
}

/// The JSON Pointer (RFC 6901) of a member.
fn member(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}
