//! DestinationRules.

use crate::model::{Concern, Finding, Name, ServiceRef, Visibility};
use crate::translate::{InputView, Output};

/// Whether a destination policy is in force.
pub(crate) fn check_policy(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(policy) = view.policy(name) else { return output };
    let Some(service) = view.resolve(&policy.service) else {
        let reason = match &policy.service {
            ServiceRef::Host(host) if host.starts_with('*') => {
                format!(
                    "no ServiceEntry has host {host}, and a DestinationRule for many hosts is not supported"
                )
            }
            service => format!("Service {service} does not exist"),
        };
        output
            .problems
            .push(Finding::at(&policy.origin, "spec.host", reason).about(Concern::BackendNotFound));
        return output;
    };
    let mut problem = |field: &str, reason: String| {
        output.problems.push(Finding::at(&policy.origin, field, reason));
    };
    if service.is_original_destination()
        && policy.settings.each().any(|settings| settings.load_balancing.is_some())
    {
        let reason = format!(
            "loadBalancer has no effect: {} has resolution NONE, so a connection goes to the one address that the client meant",
            policy.service
        );
        problem("spec.trafficPolicy", reason);
    }
    let root = &view.settings().root_namespace;
    if name.namespace != service.name.namespace
        && name.namespace != *root
        && let Visibility::Namespaces(namespaces) = &policy.visibility
        && namespaces.iter().any(|namespace| *namespace != name.namespace)
    {
        let reason = format!(
            "has no effect in other namespaces: their clients follow DestinationRules for {} of their own, of {} and of {root}",
            policy.service, service.name.namespace
        );
        problem("spec.exportTo", reason);
    }
    // As its own clients see it.
    let policies = view.policies_of(service);
    let Some(first) = policies.first().filter(|first| first.name != *name) else { return output };
    if policies.iter().all(|other| other.name != *name) || policy.subsets.is_empty() {
        let reason =
            format!("has no effect: Service {} follows DestinationRule {}", policy.service, first.name);
        problem("spec.host", reason);
    } else {
        let reason = format!(
            "only its subsets have an effect: else Service {} follows DestinationRule {}",
            policy.service, first.name
        );
        problem("spec.host", reason);
        let together = view.destination_of(service);
        for subset in &policy.subsets {
            let other = together.subsets.iter().find(|(other, _)| other.name == subset.name);
            if let Some((_, maker)) = other.filter(|(_, maker)| maker.object != policy.origin.object) {
                let reason = format!("has no effect: DestinationRule {} has it too", maker.object.name);
                problem(&subset.field, reason);
            }
        }
    }
    output
}
