//! The controllers' part of a Pod: the owner that it has by its Deployment or Job, and the Pod of the owner's template.

use outrigger_kube_api::{ApiServer, Collection};
use serde_json::{Value, json};

use super::NODE;
use super::api::ApiClient;
use super::sandbox::text;

/// Says which of a Deployment's templates a Pod is of.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The stored owner of a workload's Pods: the Job itself, or the ReplicaSet of a Deployment's present template. It is made when it is
/// not there.
///
/// # Errors
/// The API server's message when it does not take it.
///
/// # Panics
/// For a workload of another kind.
pub(crate) fn owner(server: &ApiServer, api: &ApiClient, workload: &Value) -> Result<Value, String> {
    let (namespace, name) = (
        workload["metadata"]["namespace"].as_str().unwrap_or("default"),
        text(&workload["metadata"]["name"]),
    );
    let mut template = workload["spec"]["template"].clone();
    let (group, plural, object) = match text(&workload["kind"]) {
        "Deployment" => {
            let hash = hash(&template);
            template["metadata"]["labels"][TEMPLATE_HASH] = hash.as_str().into();
            let mut selector = workload["spec"]["selector"].clone();
            selector["matchLabels"][TEMPLATE_HASH] = hash.as_str().into();
            let metadata = json!({"namespace": namespace, "name": format!("{name}-{hash}"),
                "labels": template["metadata"]["labels"], "ownerReferences": references(workload)});
            let replica_set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata,
                "spec": {"replicas": workload["spec"]["replicas"], "selector": selector, "template": template}});
            ("apps", "replicasets", replica_set)
        }
        "Job" => {
            template["metadata"]["labels"]["job-name"] = name.into();
            let job = json!({"apiVersion": "batch/v1", "kind": "Job",
                "metadata": {"namespace": namespace, "name": name}, "spec": {"template": template}});
            ("batch", "jobs", job)
        }
        other => panic!("no controller here for {other}"),
    };
    match server.get(&Collection::new(group, plural), namespace, text(&object["metadata"]["name"])) {
        Some(stored) => Ok(stored),
        None => api.create(&format!("/apis/{group}/v1/namespaces/{namespace}/{plural}"), &object),
    }
}

/// A new Pod of an owner's template, on our node.
pub(crate) fn pod_of(owner: &Value) -> Value {
    let (metadata, template) = (&owner["metadata"], &owner["spec"]["template"]);
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    pod["metadata"]["namespace"] = metadata["namespace"].clone();
    pod["metadata"]["generateName"] = format!("{}-", text(&metadata["name"])).into();
    pod["metadata"]["ownerReferences"] = references(owner);
    pod["spec"]["nodeName"] = NODE.into();
    pod
}

/// The `ownerReferences` of what belongs to this object alone; none of one that is not stored.
pub(crate) fn references(owner: &Value) -> Value {
    let metadata = &owner["metadata"];
    match metadata["uid"].as_str() {
        Some(uid) => {
            json!([{"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"],
            "uid": uid, "controller": true, "blockOwnerDeletion": true}])
        }
        None => json!([]),
    }
}

/// Whether an object belongs to this owner.
pub(crate) fn belongs_to(object: &Value, owner: &Value) -> bool {
    let uid = &owner["metadata"]["uid"];
    object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|reference| reference["uid"] == *uid)
}

/// As Kubernetes writes it: letters and digits that spell no words. FNV-1a.
fn hash(template: &Value) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = template.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, step);
    let letter = || {
        let letter = ALPHABET[(hash % ALPHABET.len() as u64) as usize];
        hash /= ALPHABET.len() as u64;
        char::from(letter)
    };
    std::iter::repeat_with(letter).take(9).collect()
}
