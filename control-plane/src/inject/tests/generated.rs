//! Properties over generated Pods and over every kind.

use fastrand::Rng;
use serde_json::json;

use super::*;
use crate::inject::decision::SkipReason;
use crate::inject::patch;

const PODS: u64 = 2000;

/// A Pod of odd but possible shape.
fn generate(random: &mut Rng) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {}});
    let spec = pod["spec"].as_object_mut().unwrap();
    for list in ["containers", "initContainers"] {
        match random.u8(..6) {
            0 => {}
            1 => drop(spec.insert(list.to_owned(), json!(null))),
            count => {
                let containers =
                    (2..count).map(|number| container(random, &format!("{list}-{number}").to_lowercase()));
                let containers = containers.collect::<Vec<_>>();
                spec.insert(list.to_owned(), containers.into());
            }
        }
    }
    if random.bool() {
        spec.insert("volumes".to_owned(), json!([{"name": "v", "emptyDir": {}}]));
    }
    if random.bool() {
        spec.insert("terminationGracePeriodSeconds".to_owned(), random.u32(..100).into());
    }
    if random.bool() {
        spec.insert("imagePullSecrets".to_owned(), json!([]));
    }
    let annotations = [
        ("sidecar.istio.io/nativeSidecar", ["true", "false"]),
        ("sidecar.istio.io/interceptionMode", ["REDIRECT", "NONE"]),
        ("prometheus.io/scrape", ["true", "false"]),
        ("prometheus.io/port", ["8080", "15020"]),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", ["", "25"]),
        ("kubectl.kubernetes.io/default-container", ["a", "b"]),
        ("prometheus.istio.io/merge-metrics", ["true", "false"]),
    ];
    for (name, values) in annotations {
        if random.u8(..3) == 0 {
            pod["metadata"]["annotations"][name] = values[usize::from(random.bool())].into();
        }
    }
    match random.u8(..3) {
        0 => pod["metadata"]["labels"] = json!({"app": "x", "a/b~c": "1"}),
        1 => pod["metadata"]["labels"] = json!(null),
        _ => {}
    }
    pod
}

fn container(random: &mut Rng, name: &str) -> Value {
    let mut container = json!({"name": name, "image": "i"});
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let handlers = [
            json!({"httpGet": {"port": 80}}),
            json!({"tcpSocket": {"port": 81}}),
            json!({"grpc": {"port": 82}}),
            json!({"exec": {"command": ["x"]}}),
            json!({"httpGet": {"port": "missing"}}),
        ];
        if random.bool() {
            container[probe] = handlers[random.usize(..handlers.len())].clone();
        }
    }
    if random.bool() {
        container["restartPolicy"] = "Always".into();
    }
    container
}

#[test]
fn injecting_twice_is_injecting_once() {
    for seed in 0..PODS {
        let pod = generate(&mut Rng::with_seed(seed));
        let (once, _) = injected_with_warnings(&pod);
        assert_eq!(run(&once), Ok(Outcome::Skipped(SkipReason::AlreadyInjected)), "seed {seed}");
    }
}

#[test]
fn nothing_of_the_pod_is_lost() {
    for seed in 0..PODS {
        let pod = generate(&mut Rng::with_seed(seed));
        let (after, _) = injected_with_warnings(&pod);
        for list in ["containers", "initContainers", "volumes"] {
            let mut rest = names(&after["spec"][list]);
            rest.retain(|name| !name.starts_with("outrigger-"));
            assert_eq!(rest, names(&pod["spec"][list]), "seed {seed}: {list}");
        }
        let none = serde_json::Map::new();
        for (name, value) in pod["metadata"]["annotations"].as_object().unwrap_or(&none) {
            if !name.starts_with("prometheus.io/") {
                assert_eq!(after["metadata"]["annotations"][name], *value, "seed {seed}");
            }
        }
    }
}

/// The patch is applied by another implementation of RFC 6902.
#[test]
fn the_patch_makes_the_injected_pod() {
    for seed in 0..PODS {
        let pod = generate(&mut Rng::with_seed(seed));
        let (after, _) = injected_with_warnings(&pod);
        assert_eq!(apply(&pod, &patch::between(&pod, &after)), after, "seed {seed}");
    }
    assert_eq!(patch::between(&pod(), &pod()), json!([]));
    let (before, after) = (json!({"a/b": {"c~d": 1, "e": 2}}), json!({"a/b": {"c~d": [1]}}));
    assert_eq!(apply(&before, &patch::between(&before, &after)), after);
}

fn apply(object: &Value, operations: &Value) -> Value {
    let operations: json_patch::Patch = serde_json::from_value(operations.clone()).unwrap();
    let mut patched = object.clone();
    json_patch::patch(&mut patched, &operations).unwrap();
    patched
}

/// What a controller makes of an object's template, with its own labels and the API server's defaults.
fn pod_of_controller(object: &Value) -> Value {
    let kind = object["kind"].as_str().unwrap();
    let template = match kind {
        "Pod" => return object.clone(),
        "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => &object["spec"]["template"],
    };
    let (api_version, kind, name, labels) = match kind {
        "Deployment" => ("apps/v1", "ReplicaSet", "w-5d4f8", json!({"pod-template-hash": "5d4f8"})),
        "CronJob" => (
            "batch/v1",
            "Job",
            "w-29384756",
            json!({"job-name": "w-29384756", "batch.kubernetes.io/job-name": "x"}),
        ),
        "Job" => ("batch/v1", "Job", "w", json!({"controller-uid": "1", "job-name": "w"})),
        "StatefulSet" => ("apps/v1", kind, "w", json!({"apps.kubernetes.io/pod-index": "0"})),
        "ReplicationController" => ("v1", kind, "w", json!({})),
        _ => ("apps/v1", kind, "w", json!({"controller-revision-hash": "1"})),
    };
    let mut pod = template.clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["generateName"] = format!("{name}-").into();
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": api_version, "kind": kind, "name": name, "controller": true}]);
    for (name, value) in labels.as_object().unwrap() {
        pod["metadata"]["labels"][name] = value.clone();
    }
    if pod["spec"].get("terminationGracePeriodSeconds").is_none() {
        pod["spec"]["terminationGracePeriodSeconds"] = 30.into();
    }
    let probe = &mut pod["spec"]["containers"][0]["livenessProbe"];
    probe["timeoutSeconds"] = 1.into();
    probe["httpGet"]["scheme"] = "HTTP".into();
    pod
}

/// The Pod of an injected template is the Pod that the webhook injects.
#[test]
fn a_template_and_its_pods_get_the_same() {
    for (kind, api_version) in [
        ("Pod", "v1"),
        ("ReplicationController", "v1"),
        ("Deployment", "apps/v1"),
        ("StatefulSet", "apps/v1"),
        ("DaemonSet", "apps/v1"),
        ("ReplicaSet", "apps/v1"),
        ("Job", "batch/v1"),
        ("CronJob", "batch/v1"),
    ] {
        let mut template = yaml(POD);
        template["spec"].as_object_mut().unwrap().remove("terminationGracePeriodSeconds");
        template["spec"]["containers"][0]["livenessProbe"] =
            json!({"httpGet": {"path": "/", "port": "http"}});
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "w"}});
        match kind {
            "Pod" => object["spec"] = template["spec"].clone(),
            "CronJob" => object["spec"]["jobTemplate"]["spec"]["template"] = template,
            _ => object["spec"]["template"] = template,
        }
        let by_hand = pod_of_controller(&injected(&object));
        let pod = pod_of_controller(&object);
        let by_webhook = apply(&pod, &patch::between(&pod, &injected(&pod)));
        for list in ["initContainers", "volumes"] {
            assert_eq!(by_hand["spec"][list], by_webhook["spec"][list], "{kind}");
        }
        assert_eq!(by_hand["metadata"]["annotations"], by_webhook["metadata"]["annotations"], "{kind}");
        assert_eq!(by_hand["metadata"]["labels"], by_webhook["metadata"]["labels"], "{kind}");
        let probe = |pod: &Value| pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["path"].clone();
        assert_eq!((probe(&by_hand), probe(&by_webhook)), (probe(&by_hand), "/app-health/app/livez".into()));
        let name = variable(&by_webhook, "ISTIO_META_WORKLOAD_NAME");
        assert_eq!(name, Some("w"), "{kind}");
    }
}
