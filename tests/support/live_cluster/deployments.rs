//! The Deployment controller: a ReplicaSet for each template, Pods of the present one, and the old ones go when the new ones are ready.

use outrigger_kube_api::{ApiServer, Collection};
use serde_json::{Value, json};

use super::text;
use crate::kubelet::{ApiClient, workload};

/// Does for every Deployment what is to be done now.
pub(super) fn sync(server: &ApiServer, api: &ApiClient) {
    let (pods, replica_sets) = (living_pods(server), server.list(&Collection::new("apps", "replicasets")));
    for deployment in server.list(&Collection::new("apps", "deployments")) {
        // It may be gone, with its namespace.
        let Ok(present) = workload::owner(server, api, &deployment) else { continue };
        let (new, rest): (Vec<&Value>, Vec<&Value>) =
            pods.iter().partition(|pod| workload::belongs_to(pod, &present));
        let earlier: Vec<&Value> =
            replica_sets.iter().filter(|one| workload::belongs_to(one, &deployment)).collect();
        let is_old = |pod: &&Value| earlier.iter().any(|replica_set| workload::belongs_to(pod, replica_set));
        let old: Vec<&Value> = rest.into_iter().filter(is_old).collect();
        let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
        // The status says that one is refused, until it is not any more.
        let refusal = (new.len()..wanted).find_map(|_| api.create_pod(&present).err());
        let ready = new.iter().filter(|pod| is_ready(pod)).count();
        if ready >= wanted {
            for pod in &old {
                let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
                // It may have ended meanwhile.
                let _ = api.delete(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), None);
            }
        }
        let available = ready + old.iter().filter(|pod| is_ready(pod)).count();
        write_status(api, &deployment, &status(&deployment, new.len(), old.len(), available, refusal));
    }
}

/// The Pods that count: they neither have ended nor are being deleted.
fn living_pods(server: &ApiServer) -> Vec<Value> {
    let mut pods = server.list(&Collection::new("", "pods"));
    pods.retain(|pod| {
        let has_ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        pod["metadata"]["deletionTimestamp"].is_null() && !has_ended
    });
    pods
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// What `kubectl rollout status` and `helm --wait` read.
fn status(deployment: &Value, new: usize, old: usize, available: usize, refusal: Option<String>) -> Value {
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
    let is_done = new == wanted && old == 0 && available == wanted;
    let mut conditions = vec![
        condition("Available", available >= wanted, "MinimumReplicasAvailable"),
        condition("Progressing", true, if is_done { "NewReplicaSetAvailable" } else { "ReplicaSetUpdated" }),
    ];
    if let Some(message) = refusal {
        let mut failure = condition("ReplicaFailure", true, "FailedCreate");
        failure["message"] = message.into();
        conditions.push(failure);
    }
    json!({
        "observedGeneration": deployment["metadata"]["generation"], "replicas": new + old, "updatedReplicas": new,
        "readyReplicas": available, "availableReplicas": available, "conditions": conditions,
    })
}

fn condition(kind: &str, holds: bool, reason: &str) -> Value {
    json!({"type": kind, "status": if holds { "True" } else { "False" }, "reason": reason})
}

fn write_status(api: &ApiClient, deployment: &Value, status: &Value) {
    if deployment["status"] != *status {
        let (namespace, name) = (text(deployment, "/metadata/namespace"), text(deployment, "/metadata/name"));
        // It may be gone.
        let _ = api.patch_status(&format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}"), status);
    }
}
