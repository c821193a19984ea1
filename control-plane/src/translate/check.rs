//! Objects that are valid in themselves but point at something that is not there. They make no resources.

use crate::model::{Finding, Name, RouteAction};
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
