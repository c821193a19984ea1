//! Values that people give: whole sets, and every single one that there is.

use std::collections::BTreeSet;

use outrigger_tests::helm::{Helm, Release};
use outrigger_tests::tools::repository;
use outrigger_xds_api::json;
use serde_json::{Value, json};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Sets of values, each with its name.
pub(crate) fn sets() -> Vec<(&'static str, Release)> {
    let labels = json!({"team": "mesh"});
    let spread = json!({"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/part-of": "outrigger"}}});
    let sets = [
        ("defaults", json!({})),
        ("a revision", json!({"revision": "canary", "mesh": {"rootNamespace": "outrigger-system"}})),
        (
            "high availability",
            json!({"controlPlane": {
                "autoscaling": {"enabled": true, "minReplicas": 3, "maxReplicas": 9},
                "podDisruptionBudget": {"maxUnavailable": "34%"},
                "priorityClassName": "system-cluster-critical",
                "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "outrigger-control-plane"}}},
                ]}},
                "topologySpreadConstraints": [spread],
            }}),
        ),
        (
            "only what must be",
            json!({
                "controlPlane": {"podDisruptionBudget": {"enabled": false}, "topologySpreadConstraints": [],
                    "nodeSelector": null},
                "networkPolicy": {"enabled": false},
                "webhooks": {"validation": {"enabled": false}},
            }),
        ),
        (
            "images by digest",
            json!({"images": {
                "registry": "registry.example.com:5000/mesh",
                "controlPlane": {"digest": DIGEST},
                "proxy": {"repository": "forks/proxy", "tag": "1.2.3"},
                "pullPolicy": "Always",
                "pullSecrets": ["registry"],
            }}),
        ),
        (
            "a certificate authority of one's own",
            json!({"ca": {"existingSecret": "corporate-ca", "workloadCertificateLifetime": "90m"},
                "mesh": {"trustDomain": "example.org", "tokenAudience": "https://kubernetes.default.svc"}}),
        ),
        (
            "monitored",
            json!({
                "monitoring": {
                    "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
                    "podMonitor": {"enabled": true, "interval": "1m"},
                },
                "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]},
            }),
        ),
        (
            "addressed sidecars on IPv6",
            json!({
                "controlPlane": {"bindAddress": "::", "replicas": 3},
                "mesh": {"accessLog": true, "proxyStatus": true, "outboundTrafficPolicy": "REGISTRY_ONLY", "clusterDomain": "mesh.example"},
                "proxy": {"interceptionMode": "NONE", "nativeSidecar": false, "logLevel": "debug",
                    "resources": {"limits": {"cpu": null, "memory": "256Mi"}}},
            }),
        ),
        (
            "labelled and annotated",
            json!({
                "commonLabels": labels,
                "controlPlane": {"podLabels": {"tier": "control", "app.kubernetes.io/name": "mine"},
                    "podAnnotations": {"note": "a: b"}, "log": "info,outrigger_control_plane::ads=debug"},
                "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}},
                "service": {"annotations": {"note": "{}"}},
            }),
        ),
    ];
    let mut releases: Vec<_> = sets.map(|(name, values)| (name, Release::new(values))).into();
    let elsewhere =
        Release { name: "second".into(), namespace: "mesh".into(), values: json!({"revision": "v2"}) };
    releases.push(("another release in another namespace", elsewhere));
    releases
}

/// `{"a": {"b": value}}` of the JSON pointer `/a/b`.
fn nested(pointer: &str, value: Value) -> Value {
    let keys = pointer.trim_start_matches('/').rsplit('/').map(|key| key.replace("~1", "/"));
    keys.fold(value, |value, key| json!({ key: value }))
}

/// Puts `over` over `values`, maps entry by entry.
fn overlay(values: &mut Value, over: Value) {
    match (values, over) {
        (Value::Object(values), Value::Object(over)) => {
            for (key, value) in over {
                overlay(values.entry(key).or_insert(Value::Null), value);
            }
        }
        (values, over) => *values = over,
    }
}

/// Every value: its JSON pointer, another one than the default, and what must be switched on for it to count.
fn others() -> Vec<(&'static str, Value, Value)> {
    let hpa = || json!({"controlPlane": {"autoscaling": {"enabled": true}}});
    let monitors =
        || json!({"monitoring": {"serviceMonitor": {"enabled": true}, "podMonitor": {"enabled": true}}});
    let none = || json!({});
    vec![
        ("/revision", json!("canary"), none()),
        ("/images/registry", json!("registry.example.com/"), none()),
        ("/images/controlPlane/repository", json!("x/y"), none()),
        ("/images/controlPlane/tag", json!("9"), none()),
        ("/images/controlPlane/digest", json!(DIGEST), none()),
        ("/images/proxy/repository", json!("x/y"), none()),
        ("/images/proxy/tag", json!("9"), none()),
        ("/images/proxy/digest", json!(DIGEST), none()),
        ("/images/pullPolicy", json!("Always"), none()),
        ("/images/pullSecrets", json!(["x"]), none()),
        ("/mesh/trustDomain", json!("x"), none()),
        ("/mesh/clusterDomain", json!("x"), none()),
        ("/mesh/clusterName", json!("x"), none()),
        ("/mesh/rootNamespace", json!("x"), none()),
        ("/mesh/accessLog", json!(true), none()),
        ("/mesh/proxyStatus", json!(true), none()),
        ("/mesh/outboundTrafficPolicy", json!("REGISTRY_ONLY"), none()),
        ("/mesh/tokenAudience", json!("x"), none()),
        ("/ca/workloadCertificateLifetime", json!("1h"), none()),
        ("/ca/existingSecret", json!("x"), none()),
        ("/proxy/interceptionMode", json!("NONE"), none()),
        ("/proxy/nativeSidecar", json!(false), none()),
        ("/proxy/holdApplicationUntilProxyStarts", json!(false), none()),
        ("/proxy/logLevel", json!("debug"), none()),
        ("/proxy/rewriteAppHTTPProbers", json!(false), none()),
        ("/proxy/mergeMetrics", json!(false), none()),
        ("/proxy/resources/requests/cpu", json!("1"), none()),
        ("/proxy/resources/requests/memory", json!("1Gi"), none()),
        ("/proxy/resources/limits/cpu", json!(3), none()),
        ("/proxy/resources/limits/memory", json!("2Gi"), none()),
        ("/proxy/readiness/initialDelaySeconds", json!(1), none()),
        ("/proxy/readiness/periodSeconds", json!(1), none()),
        ("/proxy/readiness/failureThreshold", json!(1), none()),
        ("/proxy/capture/includeInboundPorts", json!("80, 443"), none()),
        ("/proxy/capture/excludeInboundPorts", json!("22"), none()),
        ("/proxy/capture/includeOutboundPorts", json!("80"), none()),
        ("/proxy/capture/excludeOutboundPorts", json!("25,587"), none()),
        ("/proxy/capture/includeOutboundIPRanges", json!("10.0.0.0/8,fd00::/8"), none()),
        ("/proxy/capture/excludeOutboundIPRanges", json!("192.168.0.0/16"), none()),
        ("/proxy/capture/excludeInterfaces", json!("docker0"), none()),
        ("/webhooks/injection/reinvocationPolicy", json!("IfNeeded"), none()),
        ("/webhooks/injection/timeoutSeconds", json!(1), none()),
        ("/webhooks/validation/enabled", json!(false), none()),
        ("/webhooks/validation/failurePolicy", json!("Ignore"), none()),
        ("/webhooks/validation/timeoutSeconds", json!(1), none()),
        ("/controlPlane/replicas", json!(2), none()),
        ("/controlPlane/autoscaling/enabled", json!(true), none()),
        ("/controlPlane/autoscaling/minReplicas", json!(3), hpa()),
        ("/controlPlane/autoscaling/maxReplicas", json!(3), hpa()),
        ("/controlPlane/autoscaling/targetCPUUtilizationPercentage", json!(50), hpa()),
        ("/controlPlane/podDisruptionBudget/enabled", json!(false), none()),
        ("/controlPlane/podDisruptionBudget/maxUnavailable", json!("50%"), none()),
        ("/controlPlane/bindAddress", json!("::"), none()),
        ("/controlPlane/log", json!("debug"), none()),
        ("/controlPlane/resources/requests/cpu", json!("1"), none()),
        ("/controlPlane/resources/requests/memory", json!("1Gi"), none()),
        ("/controlPlane/resources/limits/memory", json!("2Gi"), none()),
        ("/controlPlane/terminationGracePeriodSeconds", json!(60), none()),
        ("/controlPlane/priorityClassName", json!("x"), none()),
        ("/controlPlane/nodeSelector/kubernetes.io~1os", json!("x"), none()),
        ("/controlPlane/tolerations", json!([{"operator": "Exists"}]), none()),
        ("/controlPlane/affinity", json!({"nodeAffinity": {}}), none()),
        ("/controlPlane/topologySpreadConstraints", json!([]), none()),
        ("/controlPlane/podAnnotations", json!({"x": "y"}), none()),
        ("/controlPlane/podLabels", json!({"x": "y"}), none()),
        ("/serviceAccount/annotations", json!({"x": "y"}), none()),
        ("/service/annotations", json!({"x": "y"}), none()),
        ("/networkPolicy/enabled", json!(false), none()),
        ("/networkPolicy/metricsFrom", json!([{"podSelector": {}}]), none()),
        ("/commonLabels", json!({"x": "y"}), none()),
        ("/monitoring/serviceMonitor/enabled", json!(true), none()),
        ("/monitoring/serviceMonitor/interval", json!("1m"), monitors()),
        ("/monitoring/serviceMonitor/labels", json!({"x": "y"}), monitors()),
        ("/monitoring/podMonitor/enabled", json!(true), none()),
        ("/monitoring/podMonitor/interval", json!("1m"), monitors()),
        ("/monitoring/podMonitor/labels", json!({"x": "y"}), monitors()),
    ]
}

/// The JSON pointers of all values that are not maps with something in them.
fn leaves(pointer: &str, value: &Value, pointers: &mut BTreeSet<String>) {
    match value.as_object() {
        Some(map) if !map.is_empty() => {
            for (key, value) in map {
                leaves(&format!("{pointer}/{}", key.replace('/', "~1")), value, pointers);
            }
        }
        _ => {
            pointers.insert(pointer.to_owned());
        }
    }
}

#[test]
fn no_value_is_without_effect() {
    let Some(helm) = Helm::find() else { return };
    let text = std::fs::read_to_string(repository().join("charts/outrigger/values.yaml")).unwrap();
    let mut documented = BTreeSet::new();
    leaves("", &json::parse_one(&text).unwrap().to_json(), &mut documented);
    let others = others();
    let tried: BTreeSet<String> = others.iter().map(|(path, _, _)| (*path).to_owned()).collect();
    assert_eq!(documented, tried, "values.yaml and the table in this file");

    let mut releases = Vec::new();
    for (path, other, needs) in others {
        let mut values = needs.clone();
        overlay(&mut values, nested(path, other));
        releases.push((path, Release::new(needs), Release::new(values)));
    }
    let before = helm.render_all(releases.iter().map(|(_, before, _)| before));
    let after = helm.render_all(releases.iter().map(|(_, _, after)| after));
    for (((path, _, _), before), after) in releases.iter().zip(before).zip(after) {
        let (before, after) = (before.unwrap(), after.unwrap_or_else(|error| panic!("{path}: {error}")));
        assert_ne!(before.objects, after.objects, "{path} changes nothing");
    }
}
