//! Objects fit together: what one names, another one has.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::every_set;

/// Kinds without a namespace.
const CLUSTER: [&str; 4] =
    ["ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Whether every label in `wanted` is in `labels`, and there is one at all.
fn within(wanted: &Value, labels: &Value) -> bool {
    let wanted = wanted.as_object().expect("labels");
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn selectors_find_the_control_plane_and_not_its_test() {
    let Some(sets) = every_set() else { return };
    for (name, _, rendered) in sets {
        let deployment = &rendered.the("Deployment")["spec"];
        let labels = &deployment["template"]["metadata"]["labels"];
        let test = &rendered.the("Pod")["metadata"]["labels"];
        let service = rendered.the("Service");
        let mut selectors = vec![&deployment["selector"]["matchLabels"], &service["spec"]["selector"]];
        selectors
            .extend(rendered.of_kind("PodDisruptionBudget").map(|it| &it["spec"]["selector"]["matchLabels"]));
        selectors
            .extend(rendered.of_kind("NetworkPolicy").map(|it| &it["spec"]["podSelector"]["matchLabels"]));
        for selector in selectors {
            assert!(within(selector, labels), "{name}: {selector} finds not {labels}");
            assert!(!within(selector, test), "{name}: {selector} finds {test}");
            // What changes with a version would lose Pods in the middle of an upgrade.
            assert_eq!(selector, &deployment["selector"]["matchLabels"], "{name}");
            assert!(!selector.to_string().contains("version"), "{name}: {selector}");
        }
        for monitor in rendered.of_kind("ServiceMonitor") {
            let selector = &monitor["spec"]["selector"]["matchLabels"];
            assert!(within(selector, &service["metadata"]["labels"]), "{name}: {selector}");
        }
        for scaler in rendered.of_kind("HorizontalPodAutoscaler") {
            let target = &scaler["spec"]["scaleTargetRef"];
            assert_eq!(target["name"], rendered.the("Deployment")["metadata"]["name"], "{name}");
            assert!(deployment["replicas"].is_null(), "{name}: two would set the number of replicas");
        }
        for own in ["sidecar.istio.io/inject", "app.kubernetes.io/name"] {
            let expected = if own.starts_with("sidecar") { "false" } else { "outrigger-control-plane" };
            assert_eq!(labels[own], expected, "{name}");
        }
    }
}

#[test]
fn replicas_are_spread_by_their_own_labels() {
    let Some(sets) = every_set() else { return };
    for (name, _, rendered) in sets {
        let template = &rendered.the("Deployment")["spec"]["template"];
        for spread in template["spec"]["topologySpreadConstraints"].as_array().into_iter().flatten() {
            let selector = &spread["labelSelector"]["matchLabels"];
            assert!(within(selector, &template["metadata"]["labels"]), "{name}: {spread}");
        }
    }
}

/// Service port, container port.
const PORTS: [(u64, u64); 3] = [(15012, 15012), (443, 15017), (15014, 15014)];

#[test]
fn the_service_leads_to_ports_that_are_there() {
    let Some(sets) = every_set() else { return };
    for (name, _, rendered) in sets {
        let container = &rendered.the("Deployment")["spec"]["template"]["spec"]["containers"][0];
        let number = |port: &Value| {
            let ports = container["ports"].as_array().unwrap();
            ports.iter().find(|it| it["name"] == *port).and_then(|it| it["containerPort"].as_u64())
        };
        let service = &rendered.the("Service")["spec"]["ports"];
        let found: Vec<(u64, u64)> = service
            .as_array()
            .unwrap()
            .iter()
            .map(|port| {
                let target = number(&port["targetPort"]);
                (port["port"].as_u64().unwrap(), target.unwrap_or_else(|| panic!("{name}: {port}")))
            })
            .collect();
        assert_eq!(found, PORTS, "{name}");
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert_eq!(number(&container[probe]["httpGet"]["port"]), Some(15014), "{name}: {probe}");
        }
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/ready", "{name}");
        // What listens is what is named.
        let bind = if rendered.the("Deployment").to_string().contains("[::]:") { "[::]" } else { "0.0.0.0" };
        let arguments = container["args"].to_string();
        for flag in ["--xds-tls-address=B:15012", "--admin-address=B:15014", "--webhook-address=B:15017"] {
            let flag = flag.replace('B', bind);
            assert!(arguments.contains(&flag), "{name}: no {flag} in {arguments}");
        }
        assert!(arguments.contains("--xds-address=127.0.0.1:15010"), "{name}: plaintext stays on loopback");
        for monitor in rendered.of_kind("ServiceMonitor") {
            let port = &monitor["spec"]["endpoints"][0]["port"];
            assert!(service.as_array().unwrap().iter().any(|it| it["name"] == *port), "{name}: {port}");
        }
    }
}

#[test]
fn the_network_policy_lets_in_what_must_come_in() {
    let Some(sets) = every_set() else { return };
    let mut closed = 0;
    for (name, release, rendered) in sets {
        let Some(policy) = rendered.of_kind("NetworkPolicy").next() else { continue };
        assert_eq!(policy["spec"]["policyTypes"], serde_json::json!(["Ingress"]), "{name}");
        let rules = policy["spec"]["ingress"].as_array().unwrap();
        let sources = |port: &str| {
            let rule = rules.iter().find(|rule| {
                rule["ports"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|it| it["port"] == port && it["protocol"] == "TCP")
            });
            &rule.unwrap_or_else(|| panic!("{name}: nobody reaches {port}"))["from"]
        };
        assert!(sources("tls-xds").is_null(), "{name}: sidecars are everywhere");
        assert!(sources("https-webhook").is_null(), "{name}: the API server is nowhere");
        match &release.values["networkPolicy"]["metricsFrom"] {
            Value::Null => assert!(sources("http-monitoring").is_null(), "{name}"),
            given => {
                let from = sources("http-monitoring").as_array().unwrap();
                assert!(given.as_array().unwrap().iter().all(|peer| from.contains(peer)), "{name}");
                let test = &rendered.the("Pod")["metadata"]["labels"];
                let finds_test = |peer: &&Value| {
                    peer["namespaceSelector"].is_null() && within(&peer["podSelector"]["matchLabels"], test)
                };
                assert_eq!(from.iter().filter(finds_test).count(), 1, "{name}: `helm test` asks /ready");
                closed += 1;
            }
        }
        let named: BTreeSet<Option<&str>> = rules
            .iter()
            .flat_map(|rule| rule["ports"].as_array().unwrap())
            .map(|it| it["port"].as_str())
            .collect();
        let container = &rendered.the("Deployment")["spec"]["template"]["spec"]["containers"][0];
        let ports = container["ports"].as_array().unwrap().iter();
        let ports: BTreeSet<Option<&str>> = ports.map(|it| it["name"].as_str()).collect();
        assert_eq!(named, ports, "{name}");
    }
    assert!(closed > 0);
}

#[test]
fn objects_are_in_the_namespace_of_the_release_and_labelled() {
    let Some(sets) = every_set() else { return };
    for (name, release, rendered) in sets {
        let mut seen = BTreeSet::new();
        for object in &rendered.objects {
            let kind = object["kind"].as_str().unwrap();
            let metadata = &object["metadata"];
            let own = metadata["name"].as_str().unwrap();
            assert!(seen.insert((kind, own)), "{name}: {kind} {own} twice");
            assert!(own.len() <= 63, "{name}: {own}");
            if CLUSTER.contains(&kind) {
                assert!(metadata["namespace"].is_null(), "{name}: {kind}");
                assert!(
                    own.contains(&release.namespace),
                    "{name}: {kind} {own} would be shared by two releases"
                );
            } else {
                assert_eq!(metadata["namespace"], release.namespace.as_str(), "{name}: {kind} {own}");
            }
            let labels = &metadata["labels"];
            assert_eq!(labels["app.kubernetes.io/instance"], release.name.as_str(), "{name}: {kind}");
            assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm", "{name}: {kind}");
            for (key, value) in release.values["commonLabels"].as_object().into_iter().flatten() {
                assert_eq!(labels[key], *value, "{name}: {kind} {own}");
            }
        }
    }
}

#[test]
fn two_revisions_share_no_object_but_the_roots_secret() {
    let Some(sets) = every_set() else { return };
    let names = |wanted: &str| -> BTreeSet<(String, String)> {
        let (_, _, rendered) = sets.iter().find(|(name, _, _)| *name == wanted).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        rendered
            .objects
            .iter()
            .map(|object| (text(&object["kind"]), text(&object["metadata"]["name"])))
            .collect()
    };
    let shared: Vec<_> = names("defaults").intersection(&names("a revision")).cloned().collect();
    assert!(shared.is_empty(), "{shared:?}");
    for (name, release, rendered) in sets {
        let environment = rendered.the("Deployment").to_string();
        let own = release.values["ca"]["existingSecret"].is_null();
        assert_eq!(environment.contains("\"outrigger-ca\""), own, "{name}");
    }
}

#[test]
fn every_mount_has_a_volume_and_every_volume_an_object() {
    let Some(sets) = every_set() else { return };
    for (name, release, rendered) in sets {
        for pod in [&rendered.the("Deployment")["spec"]["template"]["spec"], &rendered.the("Pod")["spec"]] {
            let volumes = pod["volumes"].as_array().unwrap();
            let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
            let of = |list: &[Value]| -> BTreeSet<String> {
                list.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
            };
            assert_eq!(of(volumes), of(mounts), "{name}");
            for volume in volumes {
                if let Some(secret) = volume["secret"]["secretName"].as_str() {
                    assert_eq!(release.values["ca"]["existingSecret"], secret, "{name}");
                }
                let Some(map) = volume["configMap"]["name"].as_str() else { continue };
                // The control plane itself writes this one.
                let known = map == "outrigger-ca-root-cert"
                    || rendered.of_kind("ConfigMap").any(|object| object["metadata"]["name"] == map);
                assert!(known, "{name}: {map}");
            }
        }
    }
}

#[test]
fn images_are_named_as_asked() {
    let Some(sets) = every_set() else { return };
    let (_, release, rendered) = sets.iter().find(|(name, _, _)| *name == "images by digest").unwrap();
    let digest = release.values["images"]["controlPlane"]["digest"].as_str().unwrap();
    let expected = format!("registry.example.com:5000/mesh/outrigger-control-plane@{digest}");
    let deployment = &rendered.the("Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(deployment["image"], expected);
    assert_eq!(rendered.the("Pod")["spec"]["containers"][0]["image"], expected);
    let (_, _, defaults) = sets.iter().find(|(name, _, _)| *name == "defaults").unwrap();
    let version = concat!("outrigger-control-plane:", env!("CARGO_PKG_VERSION"));
    assert_eq!(defaults.the("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"], version);
}

#[test]
fn changed_injection_settings_restart_the_control_plane() {
    let Some(sets) = every_set() else { return };
    let mut settings = BTreeSet::new();
    let mut hashes = BTreeSet::new();
    for (_, _, rendered) in sets {
        let template = &rendered.the("Deployment")["spec"]["template"]["metadata"];
        hashes.insert(
            template["annotations"]["outrigger.dev/injection-settings-hash"].as_str().unwrap().to_owned(),
        );
        settings.insert(rendered.the("ConfigMap")["data"]["injection.yaml"].as_str().unwrap().to_owned());
    }
    assert!(settings.len() > 4);
    assert_eq!(hashes.len(), settings.len());
}
