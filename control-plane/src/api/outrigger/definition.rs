//! The CustomResourceDefinitions of our own kinds. The chart installs them from `charts/outrigger/crds`, where they stand as
//! `outrigger-control-plane crds` prints them.

use outrigger_xds_api::json::write_yaml;
use serde_json::{Value, json};

use super::traffic_policy::{self, Spec};
use super::{GROUP, TRAFFIC_POLICY, VERSION, schema};

/// All of them, as YAML.
pub fn definitions() -> String {
    let mut text = "# Made by `outrigger-control-plane crds`. Do not edit.\n".to_owned();
    write_yaml(&traffic_policies(), &mut text);
    text
}

fn traffic_policies() -> Value {
    let plural = "trafficpolicies";
    let schema = json!({
        "description": "What neither Gateway API nor Istio has for the traffic to a Service or along a route: a local rate limit, \
                        changes of the query, a budget of retries and when they come.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": schema::of::<Spec>(),
            "status": traffic_policy::status_schema(),
        },
    });
    let column = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{GROUP}"),
            "labels": {"gateway.networking.k8s.io/policy": "Direct"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": TRAFFIC_POLICY,
                "listKind": format!("{TRAFFIC_POLICY}List"),
                "plural": plural,
                "singular": TRAFFIC_POLICY.to_lowercase(),
                "shortNames": ["tp"],
                "categories": ["outrigger"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("Kind", ".spec.targetRefs[0].kind"),
                    column("Target", ".spec.targetRefs[0].name"),
                    column("Accepted", ".status.ancestors[0].conditions[?(@.type==\"Accepted\")].reason"),
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
            }],
        },
    })
}
