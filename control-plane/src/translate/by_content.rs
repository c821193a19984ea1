//! Services that captured connections say themselves: hosts of ServiceEntries without an address of their own, or with addresses that they
//! share. The port and what a connection begins with tell which one is meant: `Host` of HTTP, the server name of TLS.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Name, Service, ServicePort};
use crate::translate::InputView;
use crate::translate::names::SIDECAR_PORTS;

/// Such Services by port. Of one port the older ServiceEntry's come first, then those with the first host name.
pub(super) fn services<'a>(view: &InputView<'a>) -> BTreeMap<u16, Vec<&'a Arc<Service>>> {
    let mut found: Vec<_> = view
        .services_at_hosts()
        .filter_map(|name| view.service(name))
        .filter(|service| service.is_found_by_content())
        .map(|service| (age(view, service), service))
        .collect();
    found.sort_by_key(|(age, _)| *age);
    let mut by_port: BTreeMap<u16, Vec<_>> = BTreeMap::new();
    for (_, service) in found {
        for port in service.ports.iter().filter(|port| !SIDECAR_PORTS.contains(&port.number)) {
            by_port.entry(port.number).or_default().push(service);
        }
    }
    by_port
}

/// Whether a connection of a port says by TLS which host is meant.
pub(super) fn is_tls(service: &Service, port: &ServicePort) -> bool {
    service.external.as_ref().is_some_and(|external| external.tls_ports.contains(&port.number))
}

/// Whether a Service takes all connections of a port, in its ranges, that are neither HTTP nor TLS with a name: nothing tells what they mean.
pub(super) fn takes_all(service: &Service, port: &ServicePort) -> bool {
    port.protocol.may_be_tcp() && !is_tls(service, port)
}

fn age<'a>(view: &InputView<'a>, service: &'a Service) -> (&'a str, &'a Name) {
    let entry = &service.origin.object;
    let entry = view.service_entry(&Name::new(&entry.namespace, &entry.name));
    (entry.map_or("", |entry| &entry.created), &service.name)
}
