//! Wrong values are refused before anything is rendered, by the name of the value.

use outrigger_tests::helm::{Helm, Release};
use outrigger_tests::tools::repository;
use serde_json::{Value, json};

#[test]
fn a_wrong_value_is_refused_by_its_name() {
    let Some(helm) = Helm::find() else { return };
    let cases = [
        (json!({"replica": 1}), "'replica' not allowed"),
        (json!({"mesh": {"accesLog": true}}), "at '/mesh': additional properties 'accesLog' not allowed"),
        (json!({"mesh": null}), "missing property 'mesh'"),
        (json!({"mesh": {"trustDomain": "Example.org"}}), "/mesh/trustDomain"),
        (json!({"mesh": {"trustDomain": ""}}), "/mesh/trustDomain"),
        (json!({"mesh": {"accessLog": "yes"}}), "/mesh/accessLog"),
        (json!({"mesh": {"proxyStatus": 1}}), "/mesh/proxyStatus"),
        (json!({"mesh": {"outboundTrafficPolicy": "DENY"}}), "'ALLOW_ANY', 'REGISTRY_ONLY'"),
        (json!({"mesh": {"tokenAudience": ""}}), "/mesh/tokenAudience"),
        (json!({"revision": "Canary"}), "/revision"),
        (json!({"revision": "a.b"}), "/revision"),
        (json!({"revision": "a-name-that-is-much-too-long-for-a-label"}), "/revision"),
        (json!({"images": {"proxy": {"digest": "sha256:abc"}}}), "/images/proxy/digest"),
        (json!({"images": {"proxy": {"tag": "a b"}}}), "/images/proxy/tag"),
        (json!({"images": {"pullPolicy": "Sometimes"}}), "/images/pullPolicy"),
        (json!({"images": {"pullSecrets": [{"name": "x"}]}}), "/images/pullSecrets/0"),
        (json!({"images": {"registry": "https://example.com"}}), "/images/registry"),
        (json!({"ca": {"workloadCertificateLifetime": "24"}}), "/ca/workloadCertificateLifetime"),
        (json!({"ca": {"workloadCertificateLifetime": "0h"}}), "/ca/workloadCertificateLifetime"),
        (json!({"proxy": {"interceptionMode": "TPROXY"}}), "'REDIRECT', 'NONE'"),
        (json!({"proxy": {"resources": {"requests": {"cpu": "lots"}}}}), "/proxy/resources/requests/cpu"),
        (json!({"proxy": {"resources": {"requests": {"gpu": 1}}}}), "'gpu' not allowed"),
        (json!({"proxy": {"readiness": {"periodSeconds": 0}}}), "/proxy/readiness/periodSeconds"),
        (
            json!({"proxy": {"capture": {"excludeInboundPorts": "http"}}}),
            "/proxy/capture/excludeInboundPorts",
        ),
        (
            json!({"proxy": {"capture": {"excludeOutboundIPRanges": "*"}}}),
            "/proxy/capture/excludeOutboundIPRanges",
        ),
        (json!({"webhooks": {"injection": {"timeoutSeconds": 31}}}), "/webhooks/injection/timeoutSeconds"),
        (json!({"webhooks": {"injection": {"failurePolicy": "Ignore"}}}), "'failurePolicy' not allowed"),
        (
            json!({"webhooks": {"validation": {"failurePolicy": "ignore"}}}),
            "/webhooks/validation/failurePolicy",
        ),
        (json!({"controlPlane": {"replicas": 0}}), "/controlPlane/replicas"),
        (json!({"controlPlane": {"replicas": "2"}}), "/controlPlane/replicas"),
        (json!({"controlPlane": {"bindAddress": "127.0.0.1"}}), "/controlPlane/bindAddress"),
        (json!({"controlPlane": {"podDisruptionBudget": {"maxUnavailable": "101%"}}}), "maxUnavailable"),
        (json!({"controlPlane": {"affinity": {"podAffinty": {}}}}), "'podAffinty' not allowed"),
        (json!({"controlPlane": {"tolerations": [{"efect": "NoSchedule"}]}}), "'efect' not allowed"),
        (json!({"controlPlane": {"podLabels": {"x": 1}}}), "/controlPlane/podLabels/x"),
        (json!({"networkPolicy": {"metricsFrom": [{}]}}), "/networkPolicy/metricsFrom/0"),
        (json!({"monitoring": {"podMonitor": {"interval": "often"}}}), "/monitoring/podMonitor/interval"),
        (
            json!({"controlPlane": {"autoscaling": {"enabled": true, "minReplicas": 6}}}),
            "controlPlane.autoscaling.minReplicas: 6 is more than maxReplicas, 5",
        ),
    ];
    let releases = cases.clone().map(|(values, _)| Release::new(values));
    for ((values, expected), rendered) in cases.iter().zip(helm.render_all(&releases)) {
        let error = rendered.err().unwrap_or_else(|| panic!("{values} is not refused"));
        assert!(error.contains(expected), "{values}: no `{expected}` in: {error}");
    }
}

/// Maps whose keys are the user's or Kubernetes' own; the last keys of their paths.
const OPEN: [&str; 7] = [
    "nodeAffinity",
    "podAffinity",
    "podAntiAffinity",
    "labelSelector",
    "podSelector",
    "namespaceSelector",
    "ipBlock",
];

#[test]
fn the_schema_leaves_no_map_open() {
    let text = std::fs::read_to_string(repository().join("charts/outrigger/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let mut open = Vec::new();
    look("", &schema, &mut open);
    // What Helm itself gives to a chart that is part of another one.
    assert_eq!(open, ["/properties/global"]);
}

fn look(path: &str, schema: &Value, open: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            let last = path.rsplit('/').next().unwrap_or_default();
            let says = map.get("additionalProperties").is_some_and(|says| says == false || says.is_object());
            if map.get("type").is_some_and(|kind| kind == "object") && !says && !OPEN.contains(&last) {
                open.push(path.to_owned());
            }
            for (key, value) in map {
                look(&format!("{path}/{key}"), value, open);
            }
        }
        Value::Array(list) => {
            for (number, value) in list.iter().enumerate() {
                look(&format!("{path}/{number}"), value, open);
            }
        }
        _ => {}
    }
}
