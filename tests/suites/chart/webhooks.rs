//! The webhook configurations: who is asked about which object, and that nothing gets by.

use std::collections::BTreeMap;

use outrigger_tests::helm::Rendered;
use serde_json::Value;

use crate::every_set;

type Labels<'a> = BTreeMap<&'a str, &'a str>;

/// What the API server does with a label selector.
fn selects(selector: &Value, labels: &Labels<'_>) -> bool {
    let expressions = selector["matchExpressions"].as_array().map_or(&[][..], Vec::as_slice);
    expressions.iter().all(|expression| {
        let value = labels.get(expression["key"].as_str().unwrap());
        let listed = |value: &str| expression["values"].as_array().unwrap().iter().any(|it| it == value);
        match expression["operator"].as_str().unwrap() {
            "In" => value.is_some_and(|value| listed(value)),
            "NotIn" => value.is_none_or(|value| !listed(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("{other}"),
        }
    })
}

/// How many of the webhooks are asked about a Pod.
fn asked(
    rendered: &Rendered,
    namespace: &str,
    of_namespace: &[(&str, &str)],
    of_pod: &[(&str, &str)],
) -> usize {
    let mut of_namespace: Labels<'_> = of_namespace.iter().copied().collect();
    of_namespace.insert("kubernetes.io/metadata.name", namespace);
    let of_pod: Labels<'_> = of_pod.iter().copied().collect();
    let configuration = rendered.the("MutatingWebhookConfiguration");
    let webhooks = configuration["webhooks"].as_array().unwrap().iter();
    webhooks
        .filter(|webhook| selects(&webhook["namespaceSelector"], &of_namespace))
        .filter(|webhook| selects(&webhook["objectSelector"], &of_pod))
        .count()
}

#[test]
fn each_wish_for_a_sidecar_is_asked_about_once() {
    let Some(sets) = every_set() else { return };
    let enabled = ("istio-injection", "enabled");
    let disabled = ("istio-injection", "disabled");
    let yes = ("sidecar.istio.io/inject", "true");
    let mistyped = ("sidecar.istio.io/inject", "ture");
    let no = ("sidecar.istio.io/inject", "false");
    let default = ("istio.io/rev", "default");
    let canary = ("istio.io/rev", "canary");
    // Labels of the namespace, of the Pod; whether the default revision and the revision canary are asked.
    let cases: &[(&[_], &[_], usize, usize)] = &[
        (&[], &[], 0, 0),
        (&[], &[yes], 1, 0),
        (&[], &[mistyped], 1, 0),
        (&[], &[no], 0, 0),
        (&[], &[default], 1, 0),
        (&[], &[canary], 0, 1),
        (&[], &[canary, yes], 0, 1),
        (&[], &[canary, no], 0, 0),
        (&[enabled], &[], 1, 0),
        (&[enabled], &[yes], 1, 0),
        (&[enabled], &[no], 0, 0),
        (&[enabled], &[canary], 1, 0),
        (&[enabled, canary], &[], 1, 0),
        (&[disabled], &[yes], 0, 0),
        (&[disabled], &[canary], 0, 0),
        (&[default], &[], 1, 0),
        (&[canary], &[], 0, 1),
        (&[canary], &[yes], 0, 1),
        (&[canary], &[no], 0, 0),
        (&[canary], &[default], 0, 1),
        (&[disabled, canary], &[], 0, 0),
    ];
    for (set, revision) in [("defaults", "default"), ("a revision", "canary")] {
        let (_, _, rendered) = sets.iter().find(|(name, _, _)| *name == set).unwrap();
        for (of_namespace, of_pod, of_default, of_canary) in cases {
            let expected = if revision == "default" { of_default } else { of_canary };
            let found = asked(rendered, "shop", of_namespace, of_pod);
            assert_eq!(found, *expected, "{revision}: namespace {of_namespace:?}, Pod {of_pod:?}");
            for system in ["kube-system", "kube-public", "kube-node-lease", "outrigger-system"] {
                assert_eq!(asked(rendered, system, of_namespace, of_pod), 0, "{revision}: {system}");
            }
        }
    }
}

#[test]
fn a_pod_is_never_let_by() {
    let Some(sets) = every_set() else { return };
    for (name, _, rendered) in sets {
        for webhook in rendered.the("MutatingWebhookConfiguration")["webhooks"].as_array().unwrap() {
            assert_eq!(webhook["failurePolicy"], "Fail", "{name}");
            assert_eq!(webhook["clientConfig"]["service"]["path"], "/inject", "{name}");
            let rules = webhook["rules"].as_array().unwrap();
            assert_eq!(rules.len(), 1, "{name}");
            assert_eq!(rules[0]["operations"], serde_json::json!(["CREATE"]), "{name}");
            assert_eq!(rules[0]["resources"], serde_json::json!(["pods"]), "{name}");
        }
    }
}

#[test]
fn webhooks_call_the_service_and_the_chart_leaves_their_trust_to_the_control_plane() {
    let Some(sets) = every_set() else { return };
    for (name, release, rendered) in sets {
        let service = rendered.the("Service");
        let configurations = rendered
            .of_kind("MutatingWebhookConfiguration")
            .chain(rendered.of_kind("ValidatingWebhookConfiguration"));
        for configuration in configurations {
            for webhook in configuration["webhooks"].as_array().unwrap() {
                let client = &webhook["clientConfig"];
                // One in the chart, even an empty one, would undo the control plane's at every upgrade.
                assert!(client.get("caBundle").is_none() && client["url"].is_null(), "{name}");
                assert_eq!(client["service"]["name"], service["metadata"]["name"], "{name}");
                assert_eq!(client["service"]["namespace"], release.namespace.as_str(), "{name}");
                let ports = service["spec"]["ports"].as_array().unwrap();
                assert!(ports.iter().any(|port| port["port"] == client["service"]["port"]), "{name}");
                assert_eq!(webhook["sideEffects"], "None", "{name}");
                assert_eq!(webhook["admissionReviewVersions"], serde_json::json!(["v1"]), "{name}");
                assert!((1..=30).contains(&webhook["timeoutSeconds"].as_u64().unwrap()), "{name}");
            }
            let named = rendered.the("ClusterRole")["rules"].as_array().unwrap().iter().any(|rule| {
                rule["apiGroups"][0] == "admissionregistration.k8s.io"
                    && rule["resourceNames"][0] == configuration["metadata"]["name"]
            });
            assert!(named, "{name}: the control plane may not write its certificate there");
        }
    }
}

#[test]
fn every_rule_kind_that_is_read_is_checked() {
    let Some(sets) = every_set() else { return };
    for (name, _, rendered) in sets {
        let Some(configuration) = rendered.of_kind("ValidatingWebhookConfiguration").next() else { continue };
        let rules = configuration["webhooks"][0]["rules"].as_array().unwrap();
        for role in rendered.the("ClusterRole")["rules"].as_array().unwrap() {
            let group = role["apiGroups"][0].as_str().unwrap();
            let is_read = role["verbs"].as_array().unwrap().contains(&"list".into());
            if !is_read
                || !["gateway.networking.k8s.io", "networking.istio.io", "security.istio.io"].contains(&group)
            {
                continue;
            }
            let checked = rules.iter().find(|rule| rule["apiGroups"][0] == group);
            let checked = checked.unwrap_or_else(|| panic!("{name}: {group}"));
            assert_eq!(checked["resources"], role["resources"], "{name}");
            assert_eq!(checked["operations"], serde_json::json!(["CREATE", "UPDATE"]), "{name}");
        }
    }
}
