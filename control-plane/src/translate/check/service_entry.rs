//! ServiceEntries.

use std::cell::LazyCell;

use super::workload_entry;
use crate::model::{ClientTls, Finding, Name, Service, ServiceEntry, ServicePort, ServiceRef};
use crate::translate::names::SIDECAR_PORTS;
use crate::translate::{InputView, Output, by_content};

/// Whether the host names of a ServiceEntry are its own, and how clients call them.
pub(crate) fn check_service_entry(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(entry) = view.service_entry(name) else { return output };
    workload_entry::add(&mut output, &entry.origin, &entry.remarks);
    let mut in_force = Vec::new();
    for (index, service) in entry.services.iter().enumerate() {
        let host = &service.name.name;
        let Some(found) = view.resolve(&ServiceRef::Host(host.clone())) else { continue };
        let field = format!("spec.hosts[{index}]");
        if found.origin.object == entry.origin.object {
            in_force.push(found);
        } else {
            let other = &found.origin.object;
            let reason = format!(
                "has no effect: ServiceEntry {}/{} is for the same host, and older",
                other.namespace, other.name
            );
            output.problems.push(Finding::at(&entry.origin, field, reason));
        }
    }
    // They differ in their hosts only.
    if let Some(first) = in_force.first().filter(|first| first.is_found_by_content()) {
        output.problems.extend(of_ports(view, entry, first));
    }
    if in_force.iter().any(|service| service.is_original_destination() && asks_for_identity(view, service)) {
        let reason = "a DestinationRule asks for ISTIO_MUTUAL, and of an address that only the client knows no identity is expected: \
                      no connection comes about";
        output.problems.push(Finding::at(&entry.origin, "spec.resolution", reason));
    }
    output
}

/// What captured clients meet on the ports of hosts that have no address of their own.
fn of_ports(view: &InputView<'_>, entry: &ServiceEntry, service: &Service) -> Vec<Finding> {
    // Most ports tell hosts apart; the others are looked for in vain mostly.
    let by_port = LazyCell::new(|| by_content::services(view));
    let mut found = Vec::new();
    for (index, port) in service.ports.iter().enumerate() {
        let mut problem = |reason: String| {
            found.push(Finding::at(&entry.origin, format!("spec.ports[{index}]"), reason));
        };
        let number = port.number;
        if SIDECAR_PORTS.contains(&number) {
            problem(format!("port {number} is the sidecar's own, so captured clients cannot use it"));
            continue;
        }
        if !by_content::takes_all(service, port) {
            continue;
        }
        let same = by_port.get(&number).into_iter().flatten().find(|other| {
            let takes_all = |port: &ServicePort| port.number == number && by_content::takes_all(other, port);
            other.ports.iter().any(takes_all) && ranges(other) == ranges(service)
        });
        let what = if port.protocol.may_be_http() { "connections that are not HTTP" } else { "connections" };
        match same.filter(|other| other.origin.object != entry.origin.object) {
            Some(other) => problem(format!(
                "captured {what} to port {number} go to ServiceEntry {}/{}, which is older: nothing in them tells which is meant",
                other.origin.object.namespace, other.origin.object.name
            )),
            None if ranges(service).is_empty() && !service.is_original_destination() => problem(format!(
                "has no address: all captured {what} to port {number} of addresses that are no Service's go here, as nothing in \
                 them tells which host is meant"
            )),
            None => {}
        }
    }
    found
}

fn ranges(service: &Service) -> &[ipnet::IpNet] {
    service.external.as_ref().map(|external| external.ranges.as_slice()).unwrap_or_default()
}

fn asks_for_identity(view: &InputView<'_>, service: &Service) -> bool {
    let said = view.destination_of(service);
    service.ports.iter().any(|port| said.settings.at(port.number).tls == ClientTls::Mutual)
}
