//! Routes of the Gateway API.

use std::collections::BTreeSet;

use super::destinations;
use super::precedence::set_aside;
use crate::model::{Concern, Finding, HttpRoute, Parent, RouteKey, RouteKind};
use crate::translate::{InputView, Output};

/// Parents and backends of a route.
pub(crate) fn check_route(view: &InputView<'_>, key: &RouteKey) -> Output {
    let mut output = Output::default();
    let Some(route) = view.route(key) else { return output };
    for (other, field) in &route.others {
        let reason = format!(
            "{other} is no Service: rules for it have no effect in this mesh, which has only sidecars"
        );
        output.problems.push(Finding::at(&route.origin, field, reason));
    }
    for parent in &route.parents {
        if let Some(reason) = without_port(view, parent) {
            output
                .problems
                .push(Finding::at(&route.origin, &parent.field, reason).about(Concern::NoMatchingParent));
        }
        let mut problem = |field: &str, reason: String| {
            output.problems.push(Finding::at(&route.origin, field, reason));
        };
        if let Some(reason) = behind_grpc(view, route, parent) {
            problem(&parent.field, reason);
        }
        for aside in set_aside(view, &parent.service) {
            if aside.routes.contains(key) {
                let reason = format!(
                    "port {} of Service {}: comes before VirtualService {}, which clients in namespace {} do not follow \
                     there",
                    aside.port, parent.service, aside.by.name, aside.clients
                );
                problem(&parent.field, reason);
            }
        }
    }
    for rule in &route.rules {
        output.problems.extend(destinations::of_rule(view, &route.origin, rule, Some(route)));
    }
    output.problems.extend(shadowed(view, route));
    output
}

/// Why a parent has no port whose requests can be routed.
fn without_port(view: &InputView<'_>, parent: &Parent) -> Option<String> {
    let Some(service) = view.service(&parent.service) else {
        return Some(format!("Service {} does not exist", parent.service));
    };
    let name = &service.name;
    let mut meant = service.ports.iter().filter(|port| parent.has_port(port)).peekable();
    match (meant.peek(), parent.port, &parent.section) {
        (Some(_), ..) => {}
        (None, Some(number), _) => return Some(format!("Service {name} has no port {number}")),
        (None, None, Some(section)) => return Some(format!("Service {name} has no port named {section}")),
        (None, None, None) => {}
    }
    if meant.any(|port| port.protocol.may_be_http()) {
        return None;
    }
    Some(match parent.port {
        Some(number) => format!(
            "port {number} of Service {name} is TCP by its name and appProtocol, so no request on it can be routed"
        ),
        None => format!("Service {name} has no port that is HTTP by its name or appProtocol"),
    })
}

/// Of two kinds for one port only the more specific one counts.
fn behind_grpc(view: &InputView<'_>, route: &HttpRoute, parent: &Parent) -> Option<String> {
    if route.key.kind == RouteKind::Grpc {
        return None;
    }
    let all = view.routes_of(&parent.service);
    let first = all.iter().find(|rival| {
        rival.key.kind == RouteKind::Grpc
            && rival.key.name.namespace == route.key.name.namespace
            && rival.parents.iter().any(|other| covers(other, parent))
    })?;
    Some(format!("has no effect: {} is for the same requests, and more specific", first.key))
}

/// Matches of a route that never see a request, because an earlier rule for the same requests has the very same match. Only
/// routes of one kind and namespace are tried together (see [`crate::translate::route`]).
fn shadowed(view: &InputView<'_>, route: &HttpRoute) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    for parent in &route.parents {
        // Oldest first, up to this one.
        let mut rivals = view.routes_of(&parent.service);
        rivals.retain(|rival| {
            rival.key.kind == route.key.kind
                && rival.key.name.namespace == route.key.name.namespace
                && (&rival.created, &rival.key) <= (&route.created, &route.key)
                && rival.parents.iter().any(|other| covers(other, parent))
        });
        for (number, rule) in route.rules.iter().enumerate() {
            for (index, request) in rule.matches.iter().enumerate() {
                let first = rivals.iter().find_map(|rival| {
                    let before = if rival.key == route.key { number } else { rival.rules.len() };
                    let is_same = |rule: &&crate::model::RouteRule| {
                        rule.matches.iter().any(|other| other.is_same_as(request))
                    };
                    let first = rival.rules[..before].iter().find(is_same)?;
                    Some(match rival.key == route.key {
                        true => first.field.clone(),
                        false => format!("{} of {}", first.field, rival.key),
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
    other.service == parent.service
        && (other.port.is_none() || other.port == parent.port)
        && (other.section.is_none() || other.section == parent.section)
}
