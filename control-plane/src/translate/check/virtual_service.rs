//! VirtualServices.

use super::destinations;
use super::precedence::set_aside;
use crate::model::{
    Concern, DelegateRule, Finding, Host, HttpRules, L4Rule, Name, VirtualService, Visibility,
};
use crate::source::Origin;
use crate::translate::route::delegate;
use crate::translate::{InputView, Output, names};

/// What a VirtualService speaks for, and where its rules lead.
pub(crate) fn check_virtual_service(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(service) = view.virtual_service(name) else { return output };
    let mut problem = |field: &str, reason: String| {
        output.problems.push(Finding::at(&service.origin, field, reason));
    };
    for (gateway, field) in &service.gateways {
        problem(field, format!("gateway {gateway} is no sidecar: rules for it have no effect in this mesh"));
    }
    for host in &service.hosts {
        for reason in of_host(view, service, host) {
            problem(&host.field, reason);
        }
    }
    for rules in &service.http {
        match rules {
            HttpRules::Rule(rule) => {
                output.problems.extend(destinations::of_rule(view, &service.origin, rule, None));
            }
            HttpRules::Delegate(rule) => {
                let found = of_delegate(view, service, rule).map(|reason| {
                    let field = format!("{}.delegate", rule.field);
                    Finding::at(&service.origin, field, reason).about(Concern::BackendNotFound)
                });
                output.problems.extend(found);
            }
        }
    }
    let rules = service.tls.iter().chain(&service.tcp);
    output.problems.extend(rules.flat_map(|rule| of_connections(view, &service.origin, rule)));
    output
}

/// What keeps a VirtualService from speaking for one of its hosts.
fn of_host(view: &InputView<'_>, service: &VirtualService, host: &Host) -> Vec<String> {
    let rivals = view.virtual_services();
    let first = rivals
        .iter()
        .take_while(|rival| rival.name != service.name)
        .find(|rival| covers(rival, service) && rival.hosts.iter().any(|other| other.name == host.name));
    if let Some(first) = first {
        return vec![format!("has no effect: VirtualService {} is for the same host, and older", first.name)];
    }
    let domain = &view.settings().cluster_domain;
    let is_meant = |name: &&Name| host.matches(&names::fqdn(name, domain));
    let meant: Vec<&Name> = view.service_names().filter(is_meant).collect();
    if meant.is_empty() {
        let reason = format!(
            "no Service or ServiceEntry has host {}: only clients in explicit mode can call it, on port 80",
            host.name
        );
        return vec![reason];
    }
    let aside =
        meant.into_iter().flat_map(|name| set_aside(view, name).into_iter().map(move |aside| (name, aside)));
    let mut reasons = Vec::new();
    for (name, aside) in aside.filter(|(_, aside)| aside.by.name == service.name) {
        let routes: Vec<String> = aside.routes.iter().map(ToString::to_string).collect();
        reasons.push(format!(
            "port {} of Service {name}: clients in namespace {} follow {}, which comes before a VirtualService",
            aside.port,
            aside.clients,
            routes.join(" and ")
        ));
    }
    reasons
}

/// Whether every client that sees `second` sees `first`, before it.
fn covers(first: &VirtualService, second: &VirtualService) -> bool {
    // Where both are seen, the one that only its own namespace sees comes first, whatever its age.
    if second.is_private() && !first.is_private() {
        return false;
    }
    match (&first.visibility, &second.visibility) {
        (Visibility::Namespaces(first), Visibility::Namespaces(second)) => {
            second.iter().all(|namespace| first.contains(namespace))
        }
        // One that only its own namespace sees comes before one of the mesh.
        (Visibility::Mesh, second) => *second == Visibility::Mesh,
        (Visibility::Namespaces(_), Visibility::Mesh) => false,
    }
}

fn of_delegate(view: &InputView<'_>, service: &VirtualService, rule: &DelegateRule) -> Option<String> {
    let to = &rule.to;
    let Some(leaf) = view.virtual_service(to) else {
        return Some(format!("VirtualService {to} does not exist"));
    };
    if delegate::find(view, &service.name, rule).is_none() {
        let why =
            if leaf.hosts.is_empty() { "is not exported to this namespace" } else { "has hosts of its own" };
        return Some(format!("VirtualService {to} {why}, so it cannot be delegated to"));
    }
    let rules = leaf.http.iter().filter_map(|rules| match rules {
        HttpRules::Rule(leaf) => Some(delegate::merged(rule, leaf)),
        HttpRules::Delegate(_) => None,
    });
    let is_empty = rules.into_iter().all(|rule| rule.matches.is_empty());
    is_empty.then(|| format!("VirtualService {to} has no rule for what is matched here"))
}

fn of_connections(view: &InputView<'_>, origin: &Origin, rule: &L4Rule) -> Vec<Finding> {
    let backends = rule.backends.iter().filter_map(|backend| {
        let (concern, reason) = destinations::unreachable(view, &backend.destination, None)?;
        let reason = format!("{reason}: its share of connections fails");
        Some(Finding::at(origin, &backend.field, reason).about(concern))
    });
    backends.collect()
}
