//! What an injected Pod looks like.

use serde_json::json;

use super::*;
use crate::inject::workload::Workload;

#[test]
fn a_native_sidecar_stands_between_capture_and_the_pods_own_init_containers() {
    let pod = injected(&pod());
    assert_eq!(names(&pod["spec"]["initContainers"]), ["outrigger-capture", "outrigger-proxy", "migrate"]);
    assert_eq!(names(&pod["spec"]["containers"]), ["app"]);
    let proxy = proxy(&pod);
    assert_eq!(proxy["restartPolicy"], "Always");
    assert_eq!(
        proxy["lifecycle"]["preStop"]["exec"]["command"],
        json!(["outrigger-proxy", "request", "POST", "/drain"])
    );
    assert_eq!(proxy["startupProbe"]["httpGet"], json!({"path": "/healthz/ready", "port": 15021}));
    assert_eq!(proxy["startupProbe"]["periodSeconds"], 1);
    assert_eq!(proxy["readinessProbe"]["httpGet"]["port"], 15021);
    assert_eq!(arguments(proxy), ["sidecar", "--log-level=warning"]);
}

#[test]
fn the_old_form_holds_the_application_back() {
    let pod = injected_by(&pod(), "nativeSidecar: false");
    assert_eq!(names(&pod["spec"]["initContainers"]), ["migrate", "outrigger-capture"]);
    assert_eq!(names(&pod["spec"]["containers"]), ["outrigger-proxy", "app"]);
    let sidecar = proxy(&pod);
    assert_eq!(
        sidecar["lifecycle"],
        json!({"postStart": {"exec": {"command": ["outrigger-proxy", "wait"]}}})
    );
    assert_eq!(sidecar.get("restartPolicy"), None);
    assert_eq!(pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], "app");

    let pod = injected_by(&super::pod(), "{nativeSidecar: false, holdApplicationUntilProxyStarts: false}");
    assert_eq!(names(&pod["spec"]["containers"]), ["app", "outrigger-proxy"]);
    assert_eq!(proxy(&pod).get("lifecycle"), None);
}

#[test]
fn only_a_native_sidecar_lets_a_job_end() {
    let mut job = pod();
    job["spec"]["restartPolicy"] = "OnFailure".into();
    injected(&job);
    job["metadata"]["annotations"]["sidecar.istio.io/nativeSidecar"] = "false".into();
    let (_, warnings) = injected_with_warnings(&job);
    assert!(warnings[0].contains("/quitquitquit"), "{warnings:?}");
}

#[test]
fn the_sidecar_has_no_rights_and_the_capture_only_two() {
    let pod = injected(&pod());
    let security = &proxy(&pod)["securityContext"];
    assert_eq!(security["runAsUser"], 1337);
    assert_eq!(security["runAsGroup"], 1337);
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    let security = &named(&pod["spec"]["initContainers"], "outrigger-capture")["securityContext"];
    assert_eq!(security["runAsUser"], 0);
    assert_eq!(security["capabilities"], json!({"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}));
    assert_eq!(security["allowPrivilegeEscalation"], false);
    // What the Pod says of all its containers does not count for ours.
    let mut strict = super::pod();
    strict["spec"]["securityContext"] = json!({"runAsNonRoot": true, "runAsUser": 1000});
    let pod = injected(&strict);
    assert_eq!(
        named(&pod["spec"]["initContainers"], "outrigger-capture")["securityContext"]["runAsNonRoot"],
        false
    );
}

#[test]
fn volumes_and_mounts_belong_together() {
    let mut original = pod();
    original["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    let pod = injected(&original);
    let volumes = &pod["spec"]["volumes"];
    assert_eq!(names(volumes)[0], "data");
    let token = &named(volumes, "outrigger-token")["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(*token, json!({"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}));
    assert_eq!(named(volumes, "outrigger-state")["emptyDir"]["medium"], "Memory");
    assert_eq!(named(volumes, "outrigger-ca-root-cert")["configMap"]["name"], "outrigger-ca-root-cert");
    for container in pod["spec"]["initContainers"].as_array().unwrap() {
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            named(volumes, mount["name"].as_str().unwrap());
        }
    }
    // Each file that the sidecar is told of is below a mount.
    for name in ["OUTRIGGER_TOKEN_FILE", "OUTRIGGER_CA_ROOT_CERT", "OUTRIGGER_STATE_DIR"] {
        let file = variable(&pod, name).unwrap();
        let mounts = proxy(&pod)["volumeMounts"].as_array().unwrap();
        let below = |mount: &Value| file.starts_with(&format!("{}/", mount["mountPath"].as_str().unwrap()));
        assert!(mounts.iter().any(below), "{name}: {file}");
    }
}

#[test]
fn the_sidecar_knows_where_it_is_and_whom_to_ask() {
    let pod = injected(&pod());
    for (name, path) in [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("INSTANCE_IP", "status.podIP"),
        ("HOST_IP", "status.hostIP"),
        ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
    ] {
        assert_eq!(named(&proxy(&pod)["env"], name)["valueFrom"]["fieldRef"]["fieldPath"], path);
    }
    let limit = &named(&proxy(&pod)["env"], "ISTIO_CPU_LIMIT")["valueFrom"]["resourceFieldRef"];
    assert_eq!(limit["resource"], "limits.cpu");
    for (name, value) in [
        ("OUTRIGGER_XDS_ADDRESS", "outrigger-control-plane.outrigger-system.svc:15012"),
        ("CA_ADDR", "outrigger-control-plane.outrigger-system.svc:15012"),
        ("TRUST_DOMAIN", "cluster.local"),
        ("INTERCEPTION_MODE", "REDIRECT"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "45"),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        ("ISTIO_META_WORKLOAD_NAME", "web-0"),
        ("ISTIO_META_OWNER", "kubernetes://apis/v1/namespaces/$(POD_NAMESPACE)/pods/web-0"),
        ("ISTIO_METAJSON_LABELS", r#"{"app":"web","version":"v1"}"#),
    ] {
        assert_eq!(variable(&pod, name), Some(value), "{name}");
    }
    let mut silent = super::pod();
    silent["spec"].as_object_mut().unwrap().remove("terminationGracePeriodSeconds");
    assert_eq!(variable(&injected(&silent), "TERMINATION_GRACE_PERIOD_SECONDS"), Some("30"));
    // What is only data is not expanded by the kubelet.
    let mut dollar = super::pod();
    dollar["metadata"]["labels"] = json!({"app": "a$(POD_NAME)"});
    assert_eq!(variable(&injected(&dollar), "ISTIO_METAJSON_LABELS"), Some(r#"{"app":"a$$(POD_NAME)"}"#));
}

#[test]
fn settings_reach_the_pod() {
    let pod = injected_by(
        &pod(),
        "image: 'registry.example/proxy:2'\nimagePullPolicy: Always\nimagePullSecrets: [pull]\n\
         trustDomain: example.org\nxdsAddress: cp.mesh.svc:1\ncaAddress: ca.mesh.svc:2\ntokenAudience: mesh\n\
         rootCertConfigMap: roots\nclusterName: east\nresources: {limits: {memory: 64Mi}}\nlogLevel: debug\n\
         readiness: {periodSeconds: 3}\ncapture: {excludeOutboundPorts: '25'}\nrevision: canary\n",
    );
    let sidecar = proxy(&pod);
    assert_eq!(sidecar["image"], "registry.example/proxy:2");
    assert_eq!(sidecar["imagePullPolicy"], "Always");
    assert_eq!(sidecar["resources"], json!({"limits": {"memory": "64Mi"}}));
    assert_eq!(sidecar["readinessProbe"]["periodSeconds"], 3);
    assert_eq!(arguments(sidecar), ["sidecar", "--log-level=debug"]);
    let capture = named(&pod["spec"]["initContainers"], "outrigger-capture");
    assert_eq!(capture["image"], sidecar["image"]);
    assert!(arguments(capture).contains(&"--exclude-outbound-ports=25"));
    assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(variable(&pod, "OUTRIGGER_XDS_ADDRESS"), Some("cp.mesh.svc:1"));
    assert_eq!(variable(&pod, "CA_ADDR"), Some("ca.mesh.svc:2"));
    assert_eq!(variable(&pod, "TRUST_DOMAIN"), Some("example.org"));
    assert_eq!(variable(&pod, "ISTIO_META_CLUSTER_ID"), Some("east"));
    let volumes = &pod["spec"]["volumes"];
    assert_eq!(named(volumes, "outrigger-ca-root-cert")["configMap"]["name"], "roots");
    assert_eq!(
        named(volumes, "outrigger-token")["projected"]["sources"][0]["serviceAccountToken"]["audience"],
        "mesh"
    );
    let status = pod["metadata"]["annotations"]["sidecar.istio.io/status"].as_str().unwrap();
    let status: Value = serde_json::from_str(status).unwrap();
    assert_eq!(status["revision"], "canary");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["initContainers"], json!(["outrigger-capture", "outrigger-proxy"]));
}

#[test]
fn the_capture_is_told_its_ports() {
    let pod = injected(&pod());
    let capture = named(&pod["spec"]["initContainers"], "outrigger-capture");
    let expected =
        ["capture", "--outbound-port=15001", "--inbound-port=15006", "--proxy-uid=1337", "--proxy-gid=1337"];
    assert_eq!(arguments(capture), expected);
}

#[test]
fn kubelet_probes_go_through_the_sidecar() {
    let mut original = pod();
    original["spec"]["containers"][0]["livenessProbe"] = json!({
        "httpGet": {"path": "/live?x=1", "port": "http", "scheme": "HTTPS", "httpHeaders": [{"name": "a", "value": "b"}]},
        "periodSeconds": 7, "timeoutSeconds": 4});
    original["spec"]["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 9000}});
    original["spec"]["containers"][0]["startupProbe"] = json!({"grpc": {"port": 9001, "service": "health"}});
    original["spec"]["initContainers"] = json!([{"name": "cache", "restartPolicy": "Always",
        "readinessProbe": {"httpGet": {"port": 7000}}}]);
    let pod = injected(&original);
    let app = named(&pod["spec"]["containers"], "app");
    assert_eq!(
        app["livenessProbe"],
        json!({"periodSeconds": 7, "timeoutSeconds": 4,
        "httpGet": {"path": "/app-health/app/livez", "port": 15020}})
    );
    assert_eq!(app["readinessProbe"], json!({"httpGet": {"path": "/app-health/app/readyz", "port": 15020}}));
    assert_eq!(app["startupProbe"], json!({"httpGet": {"path": "/app-health/app/startupz", "port": 15020}}));
    let cache = named(&pod["spec"]["initContainers"], "cache");
    assert_eq!(cache["readinessProbe"]["httpGet"]["path"], "/app-health/cache/readyz");
    let probers: Value = serde_json::from_str(variable(&pod, "ISTIO_KUBE_APP_PROBERS").unwrap()).unwrap();
    assert_eq!(
        probers,
        json!({
            "/app-health/app/livez": {"httpGet": {"path": "/live?x=1", "port": 8080, "scheme": "HTTPS",
                "httpHeaders": [{"name": "a", "value": "b"}]}, "timeoutSeconds": 4},
            "/app-health/app/readyz": {"tcpSocket": {"port": 9000}, "timeoutSeconds": 1},
            "/app-health/app/startupz": {"grpc": {"port": 9001, "service": "health"}, "timeoutSeconds": 1},
            "/app-health/cache/readyz": {"httpGet": {"path": "/", "port": 7000, "scheme": "HTTP"}, "timeoutSeconds": 1},
        })
    );
}

#[test]
fn probes_that_do_not_break_are_left_alone() {
    let command = json!({"exec": {"command": ["true"]}});
    let elsewhere = json!({"httpGet": {"host": "10.0.0.1", "port": 80}});
    let mut original = pod();
    original["spec"]["containers"][0]["livenessProbe"] = command.clone();
    original["spec"]["containers"][0]["readinessProbe"] = elsewhere.clone();
    let pod = injected(&original);
    assert_eq!(pod["spec"]["containers"], original["spec"]["containers"]);
    assert_eq!(variable(&pod, "ISTIO_KUBE_APP_PROBERS"), None);

    original["spec"]["containers"][0]["startupProbe"] = json!({"tcpSocket": {"port": "nobody"}});
    let (pod, warnings) = injected_with_warnings(&original);
    assert_eq!(pod["spec"]["containers"], original["spec"]["containers"]);
    assert!(warnings[0].starts_with("spec.containers[0].startupProbe:"), "{warnings:?}");

    // Without capture nothing stands between the kubelet and the application.
    let mut free = super::pod();
    free["spec"]["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 80}});
    let pod = injected_by(&free, "interceptionMode: NONE");
    assert_eq!(pod["spec"]["containers"], free["spec"]["containers"]);
    let captured = injected_by(&free, "{}");
    assert_ne!(captured["spec"]["containers"], free["spec"]["containers"]);
    let unwanted = injected_by(&free, "rewriteAppHTTPProbers: false");
    assert_eq!(unwanted["spec"]["containers"], free["spec"]["containers"]);
}

#[test]
fn one_scrape_gets_the_metrics_of_both() {
    let merged = |annotations: &[(&str, &str)]| {
        let pod = injected(&annotated(annotations));
        let of = |name: &str| {
            pod["metadata"]["annotations"][format!("prometheus.io/{name}")].as_str().map(str::to_owned)
        };
        let own = variable(&pod, "ISTIO_PROMETHEUS_ANNOTATIONS")
            .map(|text| serde_json::from_str::<Value>(text).unwrap());
        ([of("scrape"), of("port"), of("path")], own)
    };
    let ours = ["true", "15020", "/stats/prometheus"].map(|text| Some(text.to_owned()));
    assert_eq!(merged(&[]), (ours.clone(), None));
    let own =
        [("prometheus.io/scrape", "true"), ("prometheus.io/port", "8080"), ("prometheus.io/path", "/m")];
    assert_eq!(merged(&own), (ours.clone(), Some(json!({"scrape": "true", "path": "/m", "port": "8080"}))));
    let copied = [("prometheus.io/port", "15020"), ("prometheus.io/path", "/stats/prometheus")];
    assert_eq!(merged(&copied), (ours.clone(), None), "the sidecar must not scrape itself");
    let own = [("prometheus.io/scrape", "true")];
    assert_eq!(merged(&own), (ours, Some(json!({"scrape": "true", "path": "/metrics", "port": "80"}))));
    let not_wanted = merged(&[("prometheus.io/scrape", "false"), ("prometheus.io/port", "1")]);
    assert_eq!(not_wanted, ([Some("false".into()), Some("1".into()), None], None));
    let not_merged = merged(&[("prometheus.istio.io/merge-metrics", "false"), ("prometheus.io/port", "1")]);
    assert_eq!(not_merged, ([None, Some("1".into()), None], None));
    let refused = run(&annotated(&[("prometheus.io/port", "http")])).unwrap_err();
    assert_eq!(refused.field, "metadata.annotations[\"prometheus.io/port\"]");
    assert!(run(&annotated(&[("prometheus.io/scrape", "true"), ("prometheus.io/scheme", "https")])).is_err());
}

/// The marks that others look for.
#[test]
fn an_injected_pod_is_marked() {
    let pod = injected(&pod());
    assert_eq!(pod["metadata"]["labels"]["security.istio.io/tlsMode"], "istio");
    assert_eq!(pod["metadata"]["labels"]["app"], "web");
}

#[test]
fn explicit_mode_needs_no_capture() {
    let pod = injected_by(&pod(), "interceptionMode: NONE");
    assert_eq!(names(&pod["spec"]["initContainers"]), ["outrigger-proxy", "migrate"]);
    assert_eq!(variable(&pod, "INTERCEPTION_MODE"), Some("NONE"));
}

#[test]
fn surprises_are_told() {
    let mut original = pod();
    original["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1337});
    original["spec"]["containers"][0]["lifecycle"] =
        json!({"preStop": {"httpGet": {"port": 80, "path": "/bye"}}});
    let (_, warnings) = injected_with_warnings(&original);
    assert!(warnings[0].contains("round the mesh"), "{warnings:?}");
    assert!(warnings[1].starts_with("spec.containers[0].lifecycle.preStop.httpGet:"), "{warnings:?}");
}

#[test]
fn names_of_ours_are_refused() {
    for (list, name) in [
        ("containers", "outrigger-proxy"),
        ("initContainers", "outrigger-capture"),
        ("volumes", "outrigger-token"),
    ] {
        let mut original = pod();
        original["spec"][list] = json!([{"name": name}]);
        assert_eq!(run(&original).unwrap_err().field, format!("spec.{list}[0].name"));
    }
}

#[test]
fn a_field_is_named_by_its_path_in_the_whole_object() {
    let mut cron =
        yaml("{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {jobTemplate: {spec: {}}}}");
    assert_eq!(run(&cron).unwrap_err().field, "spec.jobTemplate.spec.template");
    cron["spec"]["jobTemplate"]["spec"]["template"] = annotated(&[("sidecar.istio.io/proxyCPU", "much")]);
    assert_eq!(
        run(&cron).unwrap_err().field,
        "spec.jobTemplate.spec.template.metadata.annotations[\"sidecar.istio.io/proxyCPU\"]"
    );
    for (text, field) in [
        ("{apiVersion: v1, kind: Pod}", "spec"),
        ("{apiVersion: v1, kind: Pod, spec: []}", "spec"),
        ("{apiVersion: v1, kind: Pod, spec: {containers: {}}}", "spec.containers"),
        ("{apiVersion: v1, kind: Pod, spec: {volumes: [1]}}", "spec.volumes[0]"),
        ("{apiVersion: v1, kind: Pod, metadata: {labels: {a: 1}}, spec: {}}", "metadata.labels[\"a\"]"),
        ("{apiVersion: v1, kind: Pod, metadata: {annotations: []}, spec: {}}", "metadata.annotations"),
    ] {
        assert_eq!(run(&yaml(text)).unwrap_err().field, field, "{text}");
    }
}

#[test]
fn what_holds_no_pod_is_no_workload() {
    for text in [
        "{apiVersion: v1, kind: Service, metadata: {name: a}}",
        "{apiVersion: batch.volcano.sh/v1alpha1, kind: Job, metadata: {name: a}}",
        "{apiVersion: v1, kind: Deployment}",
        "{kind: Pod}",
        "[]",
    ] {
        assert_eq!(run(&yaml(text)), Ok(Outcome::NotAWorkload), "{text}");
    }
}

#[test]
fn what_is_not_known_is_kept() {
    let mut original = pod();
    original["spec"]["fieldOfTheFuture"] = json!({"a": [1, 2.5, "x"]});
    original["other"] = json!(null);
    let after = injected(&original);
    assert_eq!(after["spec"]["fieldOfTheFuture"], original["spec"]["fieldOfTheFuture"]);
    assert!(after.as_object().unwrap().contains_key("other"));
    let order = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(order(&after)[..4], ["apiVersion", "kind", "metadata", "spec"]);
    assert_eq!(order(&after["spec"])[..3], order(&original["spec"])[..3]);
}

#[test]
fn the_workload_is_what_the_user_wrote() {
    let owner = |pod: &Value| Workload::of(pod).unwrap().owner(pod).map(|owner| (owner.kind, owner.name));
    let owned = |kind: &str, name: &str, labels: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels,
            "ownerReferences": [{"apiVersion": "x/v1", "kind": "Other", "name": "no"},
                {"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true}]}, "spec": {}})
    };
    let is = |kind: &str, name: &str| Some((kind.to_owned(), name.to_owned()));
    let hash = json!({"pod-template-hash": "5d4f8"});
    assert_eq!(owner(&owned("ReplicaSet", "web-5d4f8", hash.clone())), is("Deployment", "web"));
    assert_eq!(owner(&owned("ReplicaSet", "alone", hash)), is("ReplicaSet", "alone"));
    assert_eq!(owner(&owned("StatefulSet", "db", json!({}))), is("StatefulSet", "db"));
    assert_eq!(owner(&owned("Job", "report-29384756", json!({}))), is("CronJob", "report"));
    assert_eq!(owner(&owned("Job", "import-2", json!({}))), is("Job", "import-2"));
    assert_eq!(owner(&pod()), is("Pod", "web-0"));
    assert_eq!(owner(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "x-"}})), None);
}
