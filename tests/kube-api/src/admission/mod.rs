//! Admission webhooks: which are asked, what they are asked, what becomes of their answers.

mod call;
mod review;
mod rules;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::dispatch::Call;
use crate::kinds::Collection;
use crate::object;
use crate::status::{Result, Status};

/// What happens to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
        }
    }
}

/// Where the services of webhooks are reached: (namespace, name) to address.
pub(crate) type Addresses = Mutex<HashMap<(String, String), SocketAddr>>;

/// One request on its way through the webhooks.
#[derive(Debug)]
struct Admission<'a> {
    call: &'a Call,
    operation: Operation,
    old: Option<&'a Value>,
    dry_run: bool,
}

/// Sends the object through the mutating webhooks; gives back their warnings.
pub(crate) async fn mutate(
    call: &Call,
    operation: Operation,
    mut object: Option<&mut Value>,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Vec<String>> {
    let admission = Admission { call, operation, old, dry_run };
    let webhooks = admission.webhooks("mutatingwebhookconfigurations");
    let mut warnings = Vec::new();
    // The webhooks that want to see an object again that others changed after them, and whether one did.
    let mut again: Vec<(&Value, bool)> = Vec::new();
    for webhook in &webhooks {
        if !admission.concerns(webhook, object.as_deref()) {
            continue;
        }
        let changed = admission.ask(webhook, object.as_deref_mut(), &mut warnings).await?;
        if changed {
            again.iter_mut().for_each(|(_, stale)| *stale = true);
        }
        if webhook["reinvocationPolicy"] == "IfNeeded" {
            again.push((webhook, false));
        }
    }
    for (webhook, stale) in again {
        if stale && admission.concerns(webhook, object.as_deref()) {
            admission.ask(webhook, object.as_deref_mut(), &mut warnings).await?;
        }
    }
    Ok(warnings)
}

/// Asks the validating webhooks; gives back their warnings.
pub(crate) async fn validate(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Vec<String>> {
    let admission = Admission { call, operation, old, dry_run };
    let mut warnings = Vec::new();
    for webhook in &admission.webhooks("validatingwebhookconfigurations") {
        if admission.concerns(webhook, object) {
            // What a validating webhook does to its copy is nobody's business.
            let mut copy = object.cloned();
            admission.ask(webhook, copy.as_mut(), &mut warnings).await?;
        }
    }
    Ok(warnings)
}

impl Admission<'_> {
    /// All webhooks of one kind of configuration, in the order of their configurations' names.
    fn webhooks(&self, plural: &str) -> Vec<Value> {
        // A broken webhook must not keep anyone from repairing it.
        if self.call.resource.group == "admissionregistration.k8s.io" {
            return Vec::new();
        }
        let collection = Collection::new("admissionregistration.k8s.io", plural);
        let configurations = self.call.cluster.read(|store| store.list(&collection));
        let webhooks = configurations.values().flat_map(|one| one["webhooks"].as_array().cloned());
        webhooks.flatten().collect()
    }

    fn concerns(&self, webhook: &Value, object: Option<&Value>) -> bool {
        rules::match_rules(webhook, self.call, self.operation)
            && rules::match_selectors(webhook, self.call, object, self.old)
    }

    /// Asks one webhook, and does to the object what it says; tells whether that changed anything.
    async fn ask(
        &self,
        webhook: &Value,
        object: Option<&mut Value>,
        warnings: &mut Vec<String>,
    ) -> Result<bool> {
        let name = webhook["name"].as_str().unwrap_or_default();
        let harmless = matches!(webhook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun"));
        if self.dry_run && !harmless {
            let message = format!("admission webhook {name:?} does not support dry run");
            return Err(Status::bad_request(message));
        }
        let uid = object::random_uid();
        let request = self.request(&uid, object.as_deref());
        let answer = match call::post(&self.call.cluster, webhook, &request).await {
            Ok(answer) => review::read(&answer, &uid),
            Err(why) => Err(format!("failed to call webhook: {why}")),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) if webhook["failurePolicy"] == "Ignore" => return Ok(false),
            Err(why) => return Err(Status::internal(&format!("failed calling webhook {name:?}: {why}"))),
        };
        warnings.extend(answer.warnings);
        if !answer.allowed {
            return Err(review::denial(name, &answer.status));
        }
        let (Some(patch), Some(object)) = (answer.patch, object) else { return Ok(false) };
        let before = object.clone();
        review::apply(&patch, object).map_err(|why| Status::internal(&why))?;
        Ok(*object != before)
    }

    /// The `AdmissionReview` that goes out.
    fn request(&self, uid: &str, object: Option<&Value>) -> Value {
        let call = self.call;
        let resource = &call.resource;
        let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        let plural =
            json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
        let mut request = json!({"uid": uid, "kind": kind, "resource": plural});
        if let Some(subresource) = &call.target.subresource {
            request["subResource"] = subresource.as_str().into();
        }
        request["requestKind"] = kind;
        request["requestResource"] = plural;
        if let Some(subresource) = &call.target.subresource {
            request["requestSubResource"] = subresource.as_str().into();
        }
        let name = object.or(self.old).map(object::name).unwrap_or_default();
        let namespace = match resource.is("", "namespaces") {
            true => name,
            false => call.namespace(),
        };
        for (key, value) in [("name", name), ("namespace", namespace)] {
            if !value.is_empty() {
                request[key] = value.into();
            }
        }
        request["operation"] = self.operation.as_str().into();
        request["userInfo"] = call.user.to_json();
        request["object"] = object.map(|object| resource.present(object)).unwrap_or_default();
        request["oldObject"] = self.old.map(|object| resource.present(object)).unwrap_or_default();
        request["dryRun"] = self.dry_run.into();
        request["options"] = self.options();
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
    }

    fn options(&self) -> Value {
        let kind = match self.operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
        };
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        let manager = self.call.query.get("fieldManager");
        if !manager.is_empty() && self.operation != Operation::Delete {
            options["fieldManager"] = manager.into();
        }
        options
    }
}

/// The labels of the namespace that a request is about; `None` for objects of the cluster.
fn namespace_labels(cluster: &Cluster, call: &Call) -> Option<Value> {
    if !call.resource.namespaced {
        return None;
    }
    let namespace = cluster.get(&Collection::new("", "namespaces"), "", call.namespace());
    Some(namespace.map(|namespace| namespace["metadata"]["labels"].clone()).unwrap_or_default())
}
