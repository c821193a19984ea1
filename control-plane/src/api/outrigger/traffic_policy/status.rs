//! `status`: the Gateway API's `PolicyStatus`, which is written by [`crate::status`] and never read.

use serde_json::{Value, json};

/// The most ancestors (Gateway API). There is one for each target.
const MOST: usize = super::target::MOST;

/// Its schema.
pub(in crate::api::outrigger) fn status_schema() -> Value {
    let text = |most: u32| json!({"type": "string", "maxLength": most});
    let condition = json!({
        "type": "object",
        "required": ["lastTransitionTime", "message", "reason", "status", "type"],
        "properties": {
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "message": text(32_768),
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            "reason": text(1024),
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "type": text(316),
        },
    });
    let reference = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "group": text(253),
            "kind": text(63),
            "namespace": text(63),
            "name": text(253),
            "sectionName": text(253),
            "port": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65_535},
        },
    });
    json!({
        "description": "What became of the policy, for each of its targets.",
        "type": "object",
        "required": ["ancestors"],
        "properties": {
            "ancestors": {
                "type": "array",
                "maxItems": MOST,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["ancestorRef", "controllerName"],
                    "properties": {
                        "ancestorRef": reference,
                        "controllerName": text(253),
                        "conditions": {
                            "type": "array",
                            "maxItems": 8,
                            "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["type"],
                            "items": condition,
                        },
                    },
                },
            },
        },
    })
}
