//! Services that both APIs speak for. The order is that of [`super::super::route`].

use std::collections::BTreeSet;

use crate::model::{Name, RouteKey, ServicePort, VirtualService};
use crate::translate::InputView;
use crate::translate::route::{Hosts, applicable};

/// A Service's port whose requests follow routes of the Gateway API although a VirtualService speaks for it too.
pub(super) struct SetAside<'a> {
    /// The port.
    pub(super) port: u16,
    /// The routes that count.
    pub(super) routes: BTreeSet<RouteKey>,
    /// The VirtualService that does not.
    pub(super) by: &'a VirtualService,
    /// The namespace of the clients.
    pub(super) clients: String,
}

/// All of them for a Service: for the clients of its own namespace, and of those that have routes for it themselves. Other
/// clients follow the same routes as the first.
pub(super) fn set_aside<'a>(view: &InputView<'a>, name: &Name) -> Vec<SetAside<'a>> {
    let Some(service) = view.service(name) else { return Vec::new() };
    let all = view.routes_of(name);
    let own = [name.namespace.clone()];
    let namespaces: BTreeSet<String> =
        all.iter().map(|route| route.key.name.namespace.clone()).chain(own).collect();
    let mut found = Vec::new();
    for clients in namespaces.iter().filter(|_| !all.is_empty()) {
        let hosts = Hosts::seen_in(view, clients);
        let Some(by) = hosts.of_service(view, name).filter(|by| !by.http.is_empty()) else { continue };
        let is_http = |port: &&ServicePort| port.protocol.may_be_http();
        for port in service.ports.iter().filter(is_http) {
            let routes = applicable(&all, name, port, clients);
            if !routes.is_empty() {
                let routes = routes.iter().map(|route| route.key.clone()).collect();
                found.push(SetAside { port: port.number, routes, by: by.as_ref(), clients: clients.clone() });
            }
        }
    }
    found
}
