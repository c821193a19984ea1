//! Objects that are valid in themselves but point at something that is not there, or that others leave without effect. They
//! make no resources.

use std::collections::BTreeSet;

use crate::model::{Finding, HttpRoute, Name, Parent, RouteAction};
use crate::translate::{InputView, Output};

/// Parents and backends of a route.
pub(crate) fn check_route(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(route) = view.route(name) else { return output };
    let mut problem = |field: &str, reason: String| {
        output.problems.push(Finding::at(&route.origin, field, reason));
    };
    for parent in &route.parents {
        match (view.service(&parent.service), parent.port) {
            (None, _) => problem(&parent.field, format!("Service {} does not exist", parent.service)),
            (Some(service), Some(number)) => match service.port(number) {
                None => problem(&parent.field, format!("Service {} has no port {number}", parent.service)),
                Some(port) if !port.protocol.may_be_http() => problem(
                    &parent.field,
                    format!(
                        "port {number} of Service {} is TCP by its name and appProtocol, so no request on it can be \
                         routed",
                        parent.service
                    ),
                ),
                Some(_) => {}
            },
            (Some(service), None) => {
                if !service.ports.iter().any(|port| port.protocol.may_be_http()) {
                    problem(
                        &parent.field,
                        format!(
                            "Service {} has no port that is HTTP by its name or appProtocol",
                            parent.service
                        ),
                    );
                }
            }
        }
    }
    for rule in &route.rules {
        let RouteAction::Forward { backends, .. } = &rule.action else { continue };
        if backends.iter().all(|backend| backend.weight == 0) {
            problem(&rule.field, "has no backend with a weight: requests are answered with 500".to_owned());
        }
        for backend in backends {
            match view.service(&backend.service) {
                None => problem(
                    &backend.field,
                    format!("Service {} does not exist: its share of requests fails", backend.service),
                ),
                Some(service) if service.port(backend.port).is_none() => problem(
                    &backend.field,
                    format!(
                        "Service {} has no port {}: its share of requests fails",
                        backend.service, backend.port
                    ),
                ),
                Some(_) => {}
            }
        }
    }
    output.problems.extend(shadowed(view, route));
    output
}

/// Matches of a route that never see a request, because an earlier rule for the same requests has the very same match. Only
/// routes of one namespace are tried together (see [`super::route`]).
fn shadowed(view: &InputView<'_>, route: &HttpRoute) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    for parent in &route.parents {
        // Oldest first, up to this one.
        let mut rivals = view.routes_of(&parent.service);
        rivals.retain(|rival| {
            rival.name.namespace == route.name.namespace
                && (&rival.created, &rival.name) <= (&route.created, &route.name)
                && rival.parents.iter().any(|other| covers(other, parent))
        });
        for (number, rule) in route.rules.iter().enumerate() {
            for (index, request) in rule.matches.iter().enumerate() {
                let first = rivals.iter().find_map(|rival| {
                    let before = if rival.name == route.name { number } else { rival.rules.len() };
                    let first = rival.rules[..before].iter().find(|rule| rule.matches.contains(request))?;
                    Some(match rival.name == route.name {
                        true => first.field.clone(),
                        false => format!("{} of HTTPRoute {}", first.field, rival.name),
                    })
                });
                let field = format!("{}.matches[{index}]", rule.field);
                found
                    .extend(first.map(|first| (field, format!("has no effect: {first} has the same match"))));
            }
        }
    }
    found.into_iter().map(|(field, reason)| Finding::at(&route.origin, field, reason)).collect()
}

/// Whether all requests to `parent` are also requests to `other`.
fn covers(other: &Parent, parent: &Parent) -> bool {
    other.service == parent.service && (other.port.is_none() || other.port == parent.port)
}

/// Whether the policies of a namespace are in force.
pub(crate) fn check_peer_authentications(view: &InputView<'_>, namespace: &str) -> Output {
    let mut output = Output::default();
    let policies = view.peer_authentications_in(namespace);
    for (number, policy) in policies.iter().enumerate() {
        // Oldest first: of equally specific ones the first decides alone.
        let Some(first) = policies[..number].iter().find(|first| first.selector == policy.selector) else {
            continue;
        };
        let field = if policy.selector.is_empty() { "spec" } else { "spec.selector" };
        let reason = format!("has no effect: PeerAuthentication {} is for the same workloads", first.name);
        output.problems.push(Finding::at(&policy.origin, field, reason));
    }
    output
}

/// Whether a traffic policy is in force.
pub(crate) fn check_policy(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(policy) = view.policy(name) else { return output };
    let policies = view.policies_of(&policy.service);
    let reason = if view.service(&policy.service).is_none() {
        format!("Service {} does not exist", policy.service)
    } else {
        match policies.first() {
            Some(first) if first.name != *name => {
                format!("has no effect: Service {} follows DestinationRule {}", policy.service, first.name)
            }
            _ => return output,
        }
    };
    output.problems.push(Finding::at(&policy.origin, "spec.host", reason));
    output
}
