//! ServiceEntries.

use crate::model::{Finding, Name, ServiceRef};
use crate::translate::{InputView, Output};

/// Whether the host names of a ServiceEntry are its own, and how clients call them.
pub(crate) fn check_service_entry(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(entry) = view.service_entry(name) else { return output };
    for (index, service) in entry.services.iter().enumerate() {
        let host = &service.name.name;
        let Some(found) = view.resolve(&ServiceRef::Host(host.clone())) else { continue };
        let field = format!("spec.hosts[{index}]");
        if found.origin.object != entry.origin.object {
            let other = &found.origin.object;
            let reason = format!(
                "has no effect: ServiceEntry {}/{} is for the same host, and older",
                other.namespace, other.name
            );
            output.problems.push(Finding::at(&entry.origin, field, reason));
        }
    }
    let has_address = entry.services.iter().any(|service| !service.cluster_ips.is_empty());
    if !has_address {
        let reason = "has no address: where connections are captured, they say nothing else of the host that is meant, so only \
                      clients in explicit mode can call it";
        output.problems.push(Finding::at(&entry.origin, "spec.addresses", reason));
    }
    output
}
