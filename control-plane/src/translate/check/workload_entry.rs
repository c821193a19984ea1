//! WorkloadEntries and WorkloadGroups.

use crate::model::{EndpointAddress, Finding, Name, Remark, ServicePort, TargetPort};
use crate::source::Origin;
use crate::translate::{InputView, Output};

/// Whether a WorkloadEntry is anybody's endpoint.
pub(crate) fn check_workload_entry(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(entry) = view.workload_entry(name) else { return output };
    add(&mut output, &entry.origin, &entry.remarks);
    let mut problem = |field: &str, reason: String| {
        output.problems.push(Finding::at(&entry.origin, field, reason));
    };
    if view.workload(name).is_some_and(|workload| workload.entry.is_none()) {
        problem("metadata.name", format!("has no effect: Pod {name} has the same name"));
        return output;
    }
    let Some(written) = &entry.workload.entry else { return output };
    let ports = view.inbound_ports(&entry.workload);
    if ports.is_empty() {
        let reason =
            format!("has no effect: no Service or ServiceEntry of namespace {} selects it", name.namespace);
        problem("", reason);
        return output;
    }
    let mut services = ports.iter().map(|inbound| &inbound.service);
    match &written.address {
        EndpointAddress::Ip(_) => {}
        EndpointAddress::Name(_) => {
            if services.all(|service| service.named.is_none()) {
                let reason =
                    "has no effect: a name is an endpoint of ServiceEntries with resolution DNS only";
                problem("spec.address", reason.to_owned());
            }
            if entry.workload.sidecar {
                let reason =
                    "its own sidecar gets no configuration: what it listens on needs the address itself";
                problem("spec.address", reason.to_owned());
            }
        }
        EndpointAddress::Pipe(_) => {
            if services.all(|service| service.named.is_some() || service.external.is_none()) {
                let reason = "has no effect: a Unix socket is an endpoint of ServiceEntries with resolution STATIC only";
                problem("spec.address", reason.to_owned());
            }
        }
    }
    for name in written.ports.keys() {
        let is_meant = |port: &ServicePort| {
            port.name == *name || matches!(&port.target, TargetPort::Named(target) if target == name)
        };
        if !ports.iter().any(|inbound| is_meant(&inbound.port)) {
            let reason = "has no effect: no Service or ServiceEntry that selects it has a port of this name";
            problem(&format!("spec.ports.{name}"), reason.to_owned());
        }
    }
    output
}

/// What of a WorkloadGroup has no effect.
pub(crate) fn check_workload_group(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    if let Some(group) = view.workload_group(name) {
        add(&mut output, &group.origin, &group.remarks);
    }
    output
}

/// Remarks as findings.
pub(super) fn add(output: &mut Output, origin: &Origin, remarks: &[Remark]) {
    let found = remarks.iter().map(|remark| Finding::at(origin, &remark.field, &remark.reason));
    output.problems.extend(found);
}
