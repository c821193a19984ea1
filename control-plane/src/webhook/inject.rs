//! `/inject`: a Pod that is being created gets its sidecar.
//!
//! Which namespaces and Pods come here is the webhook configuration's `namespaceSelector` and `objectSelector`; what a Pod
//! says itself is decided here, again.

use super::Webhooks;
use super::review::{Answer, Operation, Request};
use crate::api::Refusal;
use crate::inject::decision::{Namespace, NamespacePolicy};
use crate::inject::{self, Outcome, patch};

/// Answers about one Pod.
pub(crate) fn answer(request: &Request, webhooks: &Webhooks) -> Answer {
    let metrics = &webhooks.metrics;
    metrics.injection_requests.inc();
    let answer = mutate(request, webhooks);
    match &answer {
        Answer::Patched { .. } => metrics.injected.inc(),
        // Counted where the reason is known.
        Answer::Allowed => {}
        Answer::Refused(refusal) => {
            metrics.injection_refused.inc();
            let Request { namespace, .. } = request;
            tracing::warn!(
                %namespace, pod = name(request), field = refusal.field, reason = refusal.reason,
                "a Pod cannot be injected"
            );
        }
    }
    answer
}

fn mutate(request: &Request, webhooks: &Webhooks) -> Answer {
    let kind = &request.kind;
    if (kind.group.as_str(), kind.version.as_str(), kind.kind.as_str()) != ("", "v1", "Pod") {
        return Answer::Refused(Refusal::new(
            "",
            format!(
                "the injection webhook is for Pods of v1, not for {} of {}/{}",
                kind.kind, kind.group, kind.version
            ),
        ));
    }
    // What runs cannot get other containers, and what ends needs none.
    if request.operation != Operation::Create || !request.sub_resource.is_empty() {
        return Answer::Allowed;
    }
    let namespace = Namespace { name: request.namespace.clone(), policy: NamespacePolicy::Selected };
    match inject::inject(&request.object, &namespace, &webhooks.injection) {
        Ok(Outcome::Injected { object, warnings }) => {
            Answer::Patched { patch: patch::between(&request.object, &object), warnings }
        }
        Ok(Outcome::Skipped(reason)) => {
            webhooks.metrics.injection_skipped.with_label_values(&[reason.label()]).inc();
            tracing::debug!(namespace = request.namespace, pod = name(request), %reason, "not injected");
            Answer::Allowed
        }
        Ok(Outcome::NotAWorkload) => {
            Answer::Refused(Refusal::new("", "the object is not the Pod that the review says it is"))
        }
        Err(refusal) => Answer::Refused(refusal),
    }
}

/// The Pod's name; of one that gets it only later, how it begins.
fn name(request: &Request) -> &str {
    let metadata = &request.object["metadata"];
    metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default()
}
