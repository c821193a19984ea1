//! Pods and pod templates: defaults, and the token volume that every pod gets.

use serde_json::{Map, Value, json};

use crate::object;

pub(super) fn default_pod(pod: &mut Value) {
    let root = object::root(pod);
    default_spec(object::child(root, "spec"));
    let spec = object::child(root, "spec");
    // Only pods have these, not templates.
    object::default(spec, "enableServiceLinks", true);
    object::default(spec, "priority", 0);
    object::default(spec, "preemptionPolicy", "PreemptLowerPriority");
    for reason in ["not-ready", "unreachable"] {
        let key = format!("node.kubernetes.io/{reason}");
        let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
        if let Some(list) = tolerations.as_array_mut()
            && !list.iter().any(|one| one["key"] == key.as_str())
        {
            list.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
    object::child(root, "status");
}

/// What a pod and a pod template share.
pub(super) fn default_spec(spec: &mut Map<String, Value>) {
    object::default(spec, "restartPolicy", "Always");
    object::default(spec, "terminationGracePeriodSeconds", 30);
    object::default(spec, "dnsPolicy", "ClusterFirst");
    object::default(spec, "securityContext", json!({}));
    object::default(spec, "schedulerName", "default-scheduler");
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        object::default(spec, "serviceAccount", account);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        object::items(spec, list).for_each(default_container);
    }
    object::items(spec, "volumes").for_each(default_volume);
}

fn default_container(container: &mut Map<String, Value>) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let is_latest = !image.contains('@') && (name.ends_with(":latest") || !name.contains(':'));
    object::default(container, "imagePullPolicy", if is_latest { "Always" } else { "IfNotPresent" });
    object::default(container, "resources", json!({}));
    object::default(container, "terminationMessagePath", "/dev/termination-log");
    object::default(container, "terminationMessagePolicy", "File");
    for port in object::items(container, "ports") {
        object::default(port, "protocol", "TCP");
    }
    for variable in object::items(container, "env") {
        if let Some(Value::Object(source)) = variable.get_mut("valueFrom")
            && let Some(Value::Object(field)) = source.get_mut("fieldRef")
        {
            object::default(field, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(Value::Object(probe)) = container.get_mut(probe) else { continue };
        for (key, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            object::default(probe, key, value);
        }
        if let Some(Value::Object(get)) = probe.get_mut("httpGet") {
            object::default(get, "scheme", "HTTP");
            object::default(get, "path", "/");
        }
        if let Some(Value::Object(grpc)) = probe.get_mut("grpc") {
            object::default(grpc, "service", "");
        }
    }
    for hook in ["postStart", "preStop"] {
        let get = container.get_mut("lifecycle").and_then(|one| one.get_mut(hook)?.get_mut("httpGet"));
        if let Some(Value::Object(get)) = get {
            object::default(get, "scheme", "HTTP");
            object::default(get, "path", "/");
        }
    }
    if let Some(Value::Object(resources)) = container.get_mut("resources")
        && let Some(Value::Object(limits)) = resources.get("limits").cloned()
    {
        let requests = object::child(resources, "requests");
        limits.into_iter().for_each(|(name, limit)| object::default(requests, &name, limit));
    }
}

fn default_volume(volume: &mut Map<String, Value>) {
    let has_source = volume.keys().any(|key| key != "name");
    if !has_source {
        volume.insert("emptyDir".into(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        let Some(Value::Object(source)) = volume.get_mut(source) else { continue };
        object::default(source, "defaultMode", 420);
        default_downward_items(source);
        for part in object::items(source, "sources") {
            if let Some(Value::Object(token)) = part.get_mut("serviceAccountToken") {
                object::default(token, "expirationSeconds", 3600);
            }
            if let Some(Value::Object(downward)) = part.get_mut("downwardAPI") {
                default_downward_items(downward);
            }
        }
    }
    if let Some(Value::Object(path)) = volume.get_mut("hostPath") {
        object::default(path, "type", "");
    }
}

fn default_downward_items(source: &mut Map<String, Value>) {
    for item in object::items(source, "items") {
        if let Some(Value::Object(field)) = item.get_mut("fieldRef") {
            object::default(field, "apiVersion", "v1");
        }
    }
}

/// The admission plugin `ServiceAccount`: an account, and its token in every container. It runs before the webhooks and
/// again after them, for the containers that they added.
pub(crate) fn mount_service_account_token(pod: &mut Value) {
    const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    const PREFIX: &str = "kube-api-access-";
    let spec = object::child(object::root(pod), "spec");
    object::default(spec, "serviceAccountName", "default");
    let account = spec.get("serviceAccountName").cloned();
    object::default(spec, "serviceAccount", account);
    if spec.get("automountServiceAccountToken").is_some_and(|mount| mount == false) {
        return;
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    let existing = volumes.as_array().into_iter().flatten().find_map(|volume| {
        volume["name"].as_str().filter(|name| name.starts_with(PREFIX)).map(str::to_owned)
    });
    let volume = existing.unwrap_or_else(|| {
        let name = format!("{PREFIX}{}", object::random_suffix());
        let sources = json!([
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace",
                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]);
        if let Some(list) = volumes.as_array_mut() {
            list.push(json!({"name": name, "projected": {"sources": sources, "defaultMode": 420}}));
        }
        name
    });
    for list in ["initContainers", "containers"] {
        for container in object::items(spec, list) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if let Some(mounts) = mounts.as_array_mut()
                && !mounts.iter().any(|mount| mount["mountPath"] == MOUNT)
            {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT}));
            }
        }
    }
}

/// `status.qosClass`, from requests and limits of CPU and memory.
pub(super) fn quality_of_service(pod: &Value) -> &'static str {
    let containers = ["initContainers", "containers"]
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    let (mut any, mut all) = (false, true);
    for container in containers {
        for resource in ["cpu", "memory"] {
            let request = container["resources"]["requests"].get(resource);
            let limit = container["resources"]["limits"].get(resource);
            any |= request.is_some() || limit.is_some();
            all &= limit.is_some() && request == limit;
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
