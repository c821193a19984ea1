//! The sidecar's environment: where it is, whom it asks, what it tells of its workload.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::annotations::{PROXY_CONFIG, at};
use super::pod_settings::PodSettings;
use super::settings::InjectionSettings;
use super::workload::Owner;
use super::{fields, volumes};
use crate::api::Refusal;

/// Kubernetes' default of `terminationGracePeriodSeconds`.
const GRACE_PERIOD_S: i64 = 30;

/// Labels that a controller gives each of its Pods: not part of a template, and nothing that peers are told.
const LABELS_OF_CONTROLLERS: [&str; 9] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "controller-uid",
    "job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
];

/// How long the kubelet lets the Pod end, in seconds. The downward API does not have it.
pub(super) fn grace_period_s(pod: &Map<String, Value>) -> i64 {
    fields::number(pod, "spec.terminationGracePeriodSeconds").unwrap_or(GRACE_PERIOD_S)
}

/// The environment of the sidecar's container. `extra` is what other parts of injection leave for the sidecar.
///
/// # Errors
/// User's metadata of a name that the sidecar's own environment has.
pub(super) fn of(
    pod: &Map<String, Value>,
    owner: Option<&Owner>,
    of_pod: &PodSettings,
    settings: &InjectionSettings,
    extra: Vec<(&'static str, String)>,
) -> Result<Vec<Value>, Refusal> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let mut environment = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("INSTANCE_IP", "status.podIP"),
        field("HOST_IP", "status.hostIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        json!({"name": "ISTIO_CPU_LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}),
    ];
    let path = |folder: &str, file: &str| Path::new(folder).join(file).display().to_string();
    let mut values: Vec<(&str, String)> = vec![
        ("OUTRIGGER_XDS_ADDRESS", settings.xds_address.clone()),
        ("CA_ADDR", settings.ca_address.as_ref().unwrap_or(&settings.xds_address).clone()),
        ("OUTRIGGER_CA_ROOT_CERT", path(volumes::ROOT_CERT_FOLDER, volumes::ROOT_CERT_FILE)),
        ("OUTRIGGER_TOKEN_FILE", path(volumes::TOKEN_FOLDER, volumes::TOKEN_FILE)),
        // A folder of its own: the volume's belongs to root, and the sidecar makes it private.
        ("OUTRIGGER_STATE_DIR", path(volumes::STATE_FOLDER, "proxy")),
        ("INTERCEPTION_MODE", of_pod.interception_mode.as_str().to_owned()),
        ("TRUST_DOMAIN", settings.trust_domain.clone()),
        ("OUTRIGGER_CLUSTER_DOMAIN", settings.cluster_domain.clone()),
        ("TERMINATION_GRACE_PERIOD_SECONDS", grace_period_s(pod).to_string()),
    ];
    if let Some(drain) = of_pod.drain_time {
        values.push(("OUTRIGGER_DRAIN_TIME_S", drain.as_secs().to_string()));
    }
    values.push(("ISTIO_META_CLUSTER_ID", settings.cluster_name.clone()));
    if let Some(Owner { api_version, kind, name }) = owner {
        values.push(("ISTIO_META_WORKLOAD_NAME", name.clone()));
        let kind = kind.to_ascii_lowercase();
        // The kubelet puts the namespace in, which a template does not know.
        let owner = format!("kubernetes://apis/{api_version}/namespaces/$(POD_NAMESPACE)/{kind}s/{name}");
        values.push(("ISTIO_META_OWNER", owner));
    }
    values.push(("ISTIO_METAJSON_LABELS", labels(pod)));
    values.extend(extra);
    // `$(NAME)` would be replaced by the kubelet in what is only data; `$$` stands for `$`.
    let literal = |name: &str, value: &str| match name {
        "ISTIO_META_OWNER" => json!({"name": name, "value": value}),
        _ => json!({"name": name, "value": value.replace('$', "$$")}),
    };
    environment.extend(values.iter().map(|(name, value)| literal(name, value)));
    for (name, value) in &of_pod.metadata {
        if values.iter().any(|(own, _)| own == name) {
            let reason = format!("proxyMetadata: {name} is set by the injector");
            return Err(at(PROXY_CONFIG, reason));
        }
        environment.push(literal(name, value));
    }
    Ok(environment)
}

/// The Pod's labels as JSON, in their order by name.
fn labels(pod: &Map<String, Value>) -> String {
    let labels = fields::at(pod, "metadata.labels").and_then(Value::as_object).into_iter().flatten();
    let labels: BTreeMap<&str, &Value> = labels
        .map(|(name, value)| (name.as_str(), value))
        .filter(|(name, _)| !LABELS_OF_CONTROLLERS.contains(name))
        .collect();
    json!(labels).to_string()
}
