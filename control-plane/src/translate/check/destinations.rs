//! Where rules lead.

use crate::model::{Concern, Destination, Finding, HttpRoute, RouteRule, ServiceRef};
use crate::source::Origin;
use crate::translate::InputView;
use crate::translate::route::may_refer;

/// Why requests or connections do not arrive at a destination.
pub(super) fn unreachable(
    view: &InputView<'_>,
    destination: &Destination,
    route: Option<&HttpRoute>,
) -> Option<(Concern, String)> {
    let missing = |reason| Some((Concern::BackendNotFound, reason));
    if let ServiceRef::OtherKind(other) = &destination.service {
        return Some((Concern::InvalidKind, format!("{other} is no Service, which alone can be led to")));
    }
    let Some(service) = view.resolve(&destination.service) else {
        return missing(format!("Service {} does not exist", destination.service));
    };
    let name = &service.name;
    if let Some(route) = route.filter(|route| !may_refer(view, route, name)) {
        let reason = format!(
            "Service {name} is in another namespace, which has no ReferenceGrant for {}s of namespace {}",
            route.key.kind.name(),
            route.key.name.namespace
        );
        return Some((Concern::RefNotPermitted, reason));
    }
    match destination.port {
        Some(number) if service.port(number).is_none() => {
            return missing(format!("Service {name} has no port {number}"));
        }
        _ => {}
    }
    let subset = destination.subset.as_ref()?;
    if view.destination_of(service).settings_of(Some(subset)).is_some() {
        return None;
    }
    missing(format!("no DestinationRule for Service {name} has a subset {subset}"))
}

/// What is wrong with the destinations of a rule.
pub(super) fn of_rule(
    view: &InputView<'_>,
    origin: &Origin,
    rule: &RouteRule,
    route: Option<&HttpRoute>,
) -> Vec<Finding> {
    let Some(forward) = rule.action.forward() else { return Vec::new() };
    let at = |destination, field: &String, effect: &str| {
        let (concern, reason) = unreachable(view, destination, route)?;
        Some(Finding::at(origin, field, format!("{reason}: {effect}")).about(concern))
    };
    let backends = forward.backends.iter();
    let backends = backends
        .filter_map(|backend| at(&backend.destination, &backend.field, "its share of requests fails"));
    let mirrors = forward.mirrors.iter();
    let mirrors = mirrors.filter_map(|mirror| at(&mirror.destination, &mirror.field, "it gets no copies"));
    let mut found: Vec<_> = backends.chain(mirrors).collect();
    if forward.backends.iter().all(|backend| backend.weight == 0) {
        let reason = "has no backend with a weight: requests are answered with 500";
        found.push(Finding::at(origin, &rule.field, reason));
    }
    found
}
