//! `/validate`: a rule object that cannot be translated is refused before it is stored.
//!
//! The judge is [`api::decode`], which the control plane reads the same object with later: what passes here has its
//! effect, and what has none does not pass. What would keep a user from cleaning up always passes: deletions, objects
//! that are being deleted, and changes that leave the rule as it was.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Webhooks;
use super::review::{Answer, Operation, Request};
use crate::api::{self, Refusal};
use crate::source::{Object, ObjectKey, Origin, without_nulls};

/// Answers about one object.
pub(crate) fn answer(request: &Request, webhooks: &Webhooks) -> Answer {
    match check(request, webhooks) {
        Ok(()) => {
            webhooks.metrics.validated.inc();
            Answer::Allowed
        }
        Err(refusal) => {
            webhooks.metrics.validation_refused.inc();
            let Request { namespace, kind, .. } = request;
            let name = request.object["metadata"]["name"].as_str().unwrap_or_default();
            tracing::info!(
                kind = kind.kind, %namespace, name, field = refusal.field, reason = refusal.reason,
                "a rule object is refused"
            );
            Answer::Refused(refusal)
        }
    }
}

fn check(request: &Request, webhooks: &Webhooks) -> Result<(), Refusal> {
    let is_update = request.operation == Operation::Update;
    let is_going = is_update && !request.object["metadata"]["deletionTimestamp"].is_null();
    let is_change = is_update || request.operation == Operation::Create;
    if !is_change || is_going || !request.sub_resource.is_empty() {
        return Ok(());
    }
    let Some(document) = request.object.as_object() else {
        return Err(Refusal::new("", "the review holds no object"));
    };
    if is_update && rule(&request.object) == rule(&request.old_object) {
        return Ok(());
    }
    api::decode(&object(request, document), &webhooks.mesh).map(|_| ())
}

/// The object without what is not the rule.
fn rule(object: &Value) -> Option<Map<String, Value>> {
    let mut rule = object.as_object()?.clone();
    for name in ["metadata", "status"] {
        rule.remove(name);
    }
    Some(rule)
}

/// The object as a source would give it.
fn object(request: &Request, document: &Map<String, Value>) -> Object {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let metadata = &request.object["metadata"];
    // The API server appends five characters.
    let generated = || Some(format!("{}00000", metadata["generateName"].as_str()?));
    let key = ObjectKey {
        group: request.kind.group.clone(),
        kind: request.kind.kind.clone(),
        namespace: match request.namespace.as_str() {
            "" => "default".to_owned(),
            namespace => namespace.to_owned(),
        },
        name: text(&metadata["name"]).or_else(generated).unwrap_or_default(),
    };
    let version = &request.kind.version;
    let api_version = match key.group.as_str() {
        "" => version.clone(),
        group => format!("{group}/{version}"),
    };
    Object {
        api_version,
        origin: Arc::new(Origin::in_cluster(key)),
        document: Arc::new(without_nulls(Value::Object(document.clone()))),
    }
}
