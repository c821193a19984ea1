//! Where rules lead.

use crate::model::{Destination, HttpRoute, RouteAction, RouteRule};
use crate::translate::InputView;
use crate::translate::route::may_refer;

/// Why requests or connections do not arrive at a destination.
pub(super) fn unreachable(
    view: &InputView<'_>,
    destination: &Destination,
    route: Option<&HttpRoute>,
) -> Option<String> {
    let Some(service) = view.resolve(&destination.service) else {
        return Some(format!("Service {} does not exist", destination.service));
    };
    let name = &service.name;
    if let Some(route) = route.filter(|route| !may_refer(view, route, name)) {
        return Some(format!(
            "Service {name} is in another namespace, which has no ReferenceGrant for {}s of namespace {}",
            route.key.kind.name(),
            route.key.name.namespace
        ));
    }
    match destination.port {
        Some(number) if service.port(number).is_none() => {
            return Some(format!("Service {name} has no port {number}"));
        }
        _ => {}
    }
    let subset = destination.subset.as_ref()?;
    let is_missing = view.destination_of(service).settings_of(Some(subset)).is_none();
    is_missing.then(|| format!("no DestinationRule for Service {name} has a subset {subset}"))
}

/// The destinations of a rule that requests do not arrive at, by field, each with the reason.
pub(super) fn of_rule(
    view: &InputView<'_>,
    rule: &RouteRule,
    route: Option<&HttpRoute>,
) -> Vec<(String, String)> {
    let Some(forward) = rule.action.forward() else { return Vec::new() };
    let backends = forward.backends.iter().filter_map(|backend| {
        let reason = unreachable(view, &backend.destination, route)?;
        Some((backend.field.clone(), format!("{reason}: its share of requests fails")))
    });
    let mirrors = forward.mirrors.iter().filter_map(|mirror| {
        let reason = unreachable(view, &mirror.destination, route)?;
        Some((mirror.field.clone(), format!("{reason}: it gets no copies")))
    });
    let mut found: Vec<_> = backends.chain(mirrors).collect();
    if matches!(rule.action, RouteAction::Forward(_))
        && forward.backends.iter().all(|backend| backend.weight == 0)
    {
        let reason = "has no backend with a weight: requests are answered with 500";
        found.push((rule.field.clone(), reason.to_owned()));
    }
    found
}
