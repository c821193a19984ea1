//! `/config_dump`: selection and redaction.

use regex::Regex;
use serde_json::{Value, json};

/// Fields whose content is never shown: `envoy.extensions.transport_sockets.tls.v3` marks them sensitive.
const SENSITIVE: [&str; 6] =
    ["private_key", "password", "session_ticket_keys", "secret", "hmac_secret", "generic_secret"];
const REDACTED: &str = "[redacted]";
/// The same in base64, for `inline_bytes`.
const REDACTED_BYTES: &str = "W3JlZGFjdGVkXQ==";

/// Replaces the content of sensitive fields; where the content is a file's name, that stays.
pub(super) fn redact(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                if SENSITIVE.contains(&key.as_str()) { redact_all(value) } else { redact(value) }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact),
        _ => {}
    }
}

/// Replaces every text below, file names apart.
fn redact_all(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match key.as_str() {
                    "filename" | "environment_variable" | "name" => {}
                    "inline_bytes" => *value = REDACTED_BYTES.into(),
                    _ => redact_all(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact_all),
        Value::Null | Value::Bool(_) => {}
        Value::String(_) | Value::Number(_) => *value = REDACTED.into(),
    }
}

/// `?resource=dynamic_listeners`: only the entries of that field, of whichever dump has it.
///
/// # Errors
/// In Envoy's words: no dump has the field.
pub(super) fn resource(dump: &Value, resource: &str) -> Result<Value, String> {
    let configs = dump["configs"].as_array().map(Vec::as_slice).unwrap_or_default();
    match configs.iter().find_map(|config| config.get(resource)) {
        Some(Value::Array(entries)) => Ok(json!({ "configs": entries })),
        Some(_) => {
            Err(format!("{resource} is not a repeated field. Use ?mask={resource} to get only this field"))
        }
        None => Err(format!("{resource} not found in config dump")),
    }
}

/// `?name_regex=`: only entries whose name matches as a whole, in every list of every dump.
pub(super) fn retain_names(dump: &mut Value, name: &Regex) {
    let Some(configs) = dump["configs"].as_array_mut() else { return };
    configs.retain_mut(|config| match config.as_object_mut() {
        // With `resource=`, a config is an entry itself.
        Some(object) if entry_name(object).is_some() => entry_name(object).is_some_and(|n| matches(name, n)),
        Some(object) => {
            for list in object.values_mut().filter_map(Value::as_array_mut) {
                list.retain(|entry| {
                    entry.as_object().and_then(entry_name).is_none_or(|entry_name| matches(name, entry_name))
                });
            }
            true
        }
        None => true,
    });
}

fn matches(regex: &Regex, name: &str) -> bool {
    regex.find(name).is_some_and(|found| found.len() == name.len())
}

/// The name of an entry, or of the resource inside of it.
fn entry_name(entry: &serde_json::Map<String, Value>) -> Option<&str> {
    let named = |object: &serde_json::Map<String, Value>| {
        ["name", "cluster_name"].iter().any(|key| object.contains_key(*key))
    };
    let inner = ["listener", "cluster", "route_config", "endpoint_config", "secret"];
    let object = match inner.iter().find_map(|key| entry.get(*key)).and_then(Value::as_object) {
        Some(object) if !named(entry) => object,
        _ => entry,
    };
    object.get("name").or_else(|| object.get("cluster_name"))?.as_str()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn dump() -> Value {
        json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
             "static_clusters": [{"cluster": {"name": "a"}}, {"cluster": {"name": "ab"}}]},
            {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "version_info": "1",
             "dynamic_listeners": [{"name": "l", "active_state": {}}]},
        ]})
    }

    #[test]
    fn nothing_secret_is_shown() {
        let mut value = json!({
            "tls_certificates": [{
                "certificate_chain": {"inline_string": "PEM"},
                "private_key": {"inline_string": "KEY"},
                "password": {"inline_bytes": "UEFTUw=="},
            }, {
                "private_key": {"filename": "/etc/key.pem"},
            }],
            "session_ticket_keys": {"keys": [{"inline_string": "K1"}]},
            "private_key": "bare",
        });
        redact(&mut value);
        assert_eq!(
            value,
            json!({
                "tls_certificates": [{
                    "certificate_chain": {"inline_string": "PEM"},
                    "private_key": {"inline_string": "[redacted]"},
                    "password": {"inline_bytes": "W3JlZGFjdGVkXQ=="},
                }, {
                    "private_key": {"filename": "/etc/key.pem"},
                }],
                "session_ticket_keys": {"keys": [{"inline_string": "[redacted]"}]},
                "private_key": "[redacted]",
            })
        );
    }

    #[test]
    fn one_resource() {
        assert_eq!(
            resource(&dump(), "static_clusters").unwrap(),
            json!({"configs": [{"cluster": {"name": "a"}}, {"cluster": {"name": "ab"}}]})
        );
        assert_eq!(resource(&dump(), "nope").unwrap_err(), "nope not found in config dump");
        assert!(
            resource(&dump(), "version_info")
                .unwrap_err()
                .starts_with("version_info is not a repeated field")
        );
    }

    #[test]
    fn by_name() {
        let mut all = dump();
        retain_names(&mut all, &Regex::new("a|x").unwrap());
        assert_eq!(all["configs"][0]["static_clusters"], json!([{"cluster": {"name": "a"}}]));
        assert_eq!(all["configs"][1]["dynamic_listeners"], json!([]));
        assert_eq!(all["configs"][1]["version_info"], "1");
        let mut one = resource(&dump(), "static_clusters").unwrap();
        retain_names(&mut one, &Regex::new("ab").unwrap());
        assert_eq!(one, json!({"configs": [{"cluster": {"name": "ab"}}]}));
    }
}
