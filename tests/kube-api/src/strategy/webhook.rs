//! Webhook configurations.

use serde_json::{Value, json};

use crate::object;

pub(super) fn default(plural: &str, configuration: &mut Value) {
    for webhook in object::items(object::root(configuration), "webhooks") {
        object::default(webhook, "failurePolicy", "Fail");
        object::default(webhook, "matchPolicy", "Equivalent");
        object::default(webhook, "namespaceSelector", json!({}));
        object::default(webhook, "objectSelector", json!({}));
        object::default(webhook, "timeoutSeconds", 10);
        if plural == "mutatingwebhookconfigurations" {
            object::default(webhook, "reinvocationPolicy", "Never");
        }
        for rule in object::items(webhook, "rules") {
            object::default(rule, "scope", "*");
        }
        if let Some(Value::Object(service)) =
            webhook.get_mut("clientConfig").and_then(|one| one.get_mut("service"))
        {
            object::default(service, "port", 443);
        }
    }
}
