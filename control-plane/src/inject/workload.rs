//! Where the Pod is in each kind of workload, and whose Pod it is.

use serde_json::{Map, Value};

use super::fields;

/// A kind that holds a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    kind: &'static str,
    /// Members from the object to its Pod template; none for a Pod.
    path: &'static [&'static str],
}

const TEMPLATE: &[&str] = &["spec", "template"];

/// API group, kind, way to the Pod.
const WORKLOADS: [(&str, Workload); 8] = [
    ("", Workload { kind: "Pod", path: &[] }),
    ("", Workload { kind: "ReplicationController", path: TEMPLATE }),
    ("apps", Workload { kind: "Deployment", path: TEMPLATE }),
    ("apps", Workload { kind: "StatefulSet", path: TEMPLATE }),
    ("apps", Workload { kind: "DaemonSet", path: TEMPLATE }),
    ("apps", Workload { kind: "ReplicaSet", path: TEMPLATE }),
    ("batch", Workload { kind: "Job", path: TEMPLATE }),
    ("batch", Workload { kind: "CronJob", path: &["spec", "jobTemplate", "spec", "template"] }),
];

/// What a Pod belongs to: what metrics call its workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
}

impl Workload {
    /// The kind of an object, if it is one that holds a Pod.
    pub fn of(object: &Value) -> Option<Self> {
        let api_version = object.get("apiVersion")?.as_str()?;
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let kind = object.get("kind")?.as_str()?;
        WORKLOADS.into_iter().find(|(of, workload)| *of == group && workload.kind == kind).map(|(_, w)| w)
    }

    /// The Pod or Pod template of an object of this kind.
    pub fn pod(self, object: &Value) -> Option<&Map<String, Value>> {
        self.path.iter().try_fold(object, |value, name| value.get(name))?.as_object()
    }

    /// The same, to be changed.
    pub fn pod_mut(self, object: &mut Value) -> Option<&mut Map<String, Value>> {
        self.path.iter().try_fold(object, |value, name| value.get_mut(name))?.as_object_mut()
    }

    /// The path in the object of a field of its Pod.
    pub fn pod_field(self, field: &str) -> String {
        let mut path = self.path.join(".");
        if !path.is_empty() && !field.is_empty() {
            path.push('.');
        }
        path + field
    }

    /// The workload that Pods of this object are counted to. `None`: a Pod that has neither an owner nor a name yet.
    pub(super) fn owner(self, object: &Value) -> Option<Owner> {
        let object = object.as_object()?;
        if self.kind == "Pod"
            && let Some(owner) = controller(object)
        {
            return Some(owner);
        }
        Some(Owner {
            api_version: fields::text(object, "apiVersion")?.to_owned(),
            kind: self.kind.to_owned(),
            name: fields::text(object, "metadata.name")?.to_owned(),
        })
    }
}

/// What controls a Pod. For what a Deployment or a CronJob makes in between (ReplicaSet, Job) it is told from the names
/// that they give, as Istio does it.
fn controller(pod: &Map<String, Value>) -> Option<Owner> {
    let references = fields::list(pod, "metadata.ownerReferences");
    let reference = references.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)))?;
    let text = |name: &str| Some(reference.get(name)?.as_str()?.to_owned());
    let owner = Owner { api_version: text("apiVersion")?, kind: text("kind")?, name: text("name")? };
    let above = match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = fields::metadata(pod, "labels", "pod-template-hash");
            let name = hash.and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
            name.map(|name| ("Deployment", name))
        }
        // A CronJob's Jobs end in the minutes since 1970.
        "Job" => match owner.name.rsplit_once('-') {
            Some((name, minutes))
                if (8..=10).contains(&minutes.len()) && minutes.bytes().all(|b| b.is_ascii_digit()) =>
            {
                Some(("CronJob", name))
            }
            _ => None,
        },
        _ => None,
    };
    Some(match above {
        Some((kind, name)) => Owner { kind: kind.to_owned(), name: name.to_owned(), ..owner },
        None => owner,
    })
}
