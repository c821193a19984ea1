//! TrafficPolicies.

use crate::model::{
    Concern, Endpoint, Finding, HealthCheckKind, HttpRules, LimitPer, LocalityBalancing, Name, PolicyTarget,
    ReadmissionBy, RouteKey, Service, ServicePort, TargetKind, TrafficPolicy, TrafficSettings,
};
use crate::translate::{InputView, Output, health};

/// Whether a policy counts for its targets, and can have its effect there.
pub(crate) fn check_traffic_policy(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(policy) = view.traffic_policy(name) else { return output };
    for target in &policy.targets {
        let mut problem = |concern: Concern, reason: String| {
            output.problems.push(Finding::at(&policy.origin, &target.field, reason).about(concern));
        };
        if let Some(reason) = missing(view, target) {
            problem(Concern::TargetNotFound, reason);
            continue;
        }
        let rivals = view.traffic_policies_of(&target.object);
        let first = TrafficPolicy::in_force(&rivals, &target.object, target.section.as_deref());
        if let Some(first) = first.filter(|first| first.name != *name) {
            let reason = format!(
                "has no effect: TrafficPolicy {} is for the same target, and comes first by age or name",
                first.name
            );
            problem(Concern::Conflicted, reason);
            continue;
        }
        for reason in without_effect(view, target, &policy.settings) {
            problem(Concern::Other, reason);
        }
    }
    output
}

/// Why there is no such target.
fn missing(view: &InputView<'_>, target: &PolicyTarget) -> Option<String> {
    let object = &target.object;
    let Some((what, sections)) = sections(view, target) else {
        return Some(format!("{object} does not exist"));
    };
    let section = target.section.as_deref()?;
    (!sections.contains(&section)).then(|| format!("{object} has no {what} named {section}"))
}

/// What the sections of a target are, and their names. `None`: it does not exist.
fn sections<'a>(view: &InputView<'a>, target: &PolicyTarget) -> Option<(&'static str, Vec<&'a str>)> {
    let name = &target.object.name;
    Some(match target.object.kind {
        TargetKind::Service => {
            ("port", view.service(name)?.ports.iter().map(|port| port.name.as_str()).collect())
        }
        TargetKind::Route(kind) => {
            let route = view.route(&RouteKey { kind, name: name.clone() })?;
            ("rule", route.rules.iter().map(|rule| rule.name.as_str()).collect())
        }
        TargetKind::VirtualService => {
            let rules = view.virtual_service(name)?.http.iter().map(|rules| match rules {
                HttpRules::Rule(rule) => rule.name.as_str(),
                HttpRules::Delegate(rule) => rule.name.as_str(),
            });
            ("http rule", rules.collect())
        }
    })
}

/// Why something that is said of a target has no effect there.
fn without_effect(view: &InputView<'_>, target: &PolicyTarget, said: &TrafficSettings) -> Vec<String> {
    if target.object.kind != TargetKind::Service {
        let counts_callers = said.rate_limit.as_ref().is_some_and(|limit| limit.per == LimitPer::Caller);
        let reason = "per: Caller has no effect on a route: each caller's own sidecar counts, for all that it calls for";
        return counts_callers.then(|| reason.to_owned()).into_iter().collect();
    }
    let Some(service) = view.service(&target.object.name) else { return Vec::new() };
    let is_meant = |port: &&ServicePort| target.section.as_ref().is_none_or(|section| *section == port.name);
    let (http, tcp): (Vec<&ServicePort>, Vec<&ServicePort>) =
        service.ports.iter().filter(is_meant).partition(|port| port.protocol.may_be_http());
    let mut reasons = Vec::new();
    for port in tcp.iter().filter(|_| said.is_about_requests()) {
        let number = port.number;
        reasons.push(format!(
            "has no effect on port {number}: it is TCP by its name and appProtocol, so there are no requests"
        ));
    }
    let ports = || http.iter().chain(&tcp).copied();
    if said.readmission.is_some() {
        reasons.extend(ports().filter_map(|port| without_ejections(view, service, port)));
    }
    let by_check = said.readmission.is_some_and(|readmission| readmission.by == ReadmissionBy::Check);
    if by_check {
        reasons.extend(ports().filter_map(|port| without_a_check(view, service, port)));
    }
    if let Some(check) = &said.health_check {
        reasons.extend(ports().filter_map(|port| without_checks(&check.kind, port)));
    }
    if said.load_balancing.is_some() {
        reasons.extend(ports().filter_map(|port| without_choice(view, service, port)));
    }
    for port in http.into_iter().filter(|_| said.rate_limit.is_some()) {
        reasons.extend(without_sidecars(view, service, port));
    }
    reasons
}

/// Who is not asked cannot earn it to be back.
fn without_a_check(view: &InputView<'_>, service: &Service, port: &ServicePort) -> Option<String> {
    let policies = view.destination_of(service);
    let check = policies.settings.at(port.number).health_check.as_ref();
    let asks = check.is_some_and(|check| health::can_ask(&check.kind, port.protocol));
    (!asks).then(|| {
        format!(
            "readmission.by: Check has no effect on port {}: no healthCheck says what its endpoints are asked, so its time decides",
            port.number
        )
    })
}

/// What cannot be asked of the endpoints of a port.
fn without_checks(kind: &HealthCheckKind, port: &ServicePort) -> Option<String> {
    let (check, wanted) = match kind {
        _ if health::can_ask(kind, port.protocol) => return None,
        HealthCheckKind::Http { .. } => ("http", "HTTP"),
        HealthCheckKind::Grpc { .. } => ("grpc", "HTTP/2 or gRPC"),
        HealthCheckKind::Tcp => return None,
    };
    Some(format!(
        "healthCheck.{check} has no effect on port {}: it is not {wanted} by its name and appProtocol",
        port.number
    ))
}

/// Localities that have weights are not chosen by how fast their endpoints answer.
fn without_choice(view: &InputView<'_>, service: &Service, port: &ServicePort) -> Option<String> {
    let policies = view.destination_of(service);
    let said = policies.settings.at(port.number).locality_balancing(service);
    matches!(said, Some(LocalityBalancing::Distribute(_))).then(|| {
        format!(
            "loadBalancing.peakEwma has no effect on port {}: localityLbSetting.distribute of a DestinationRule shares requests \
             out by place, and endpoints are chosen by least requests there",
            port.number
        )
    })
}

/// Who is never taken out does not come back.
fn without_ejections(view: &InputView<'_>, service: &Service, port: &ServicePort) -> Option<String> {
    let policies = view.destination_of(service);
    let subsets = policies.subsets.iter().map(|(subset, _)| &subset.settings);
    let mut settings = std::iter::once(&policies.settings).chain(subsets);
    let ejects = settings.any(|settings| settings.at(port.number).outlier_detection.is_some());
    (!ejects).then(|| {
        format!(
            "readmission has no effect on port {}: neither outlierDetection of a DestinationRule nor ejection takes its endpoints out",
            port.number
        )
    })
}

/// A limit is kept where the calls arrive.
fn without_sidecars(view: &InputView<'_>, service: &Service, port: &ServicePort) -> Option<String> {
    let endpoints = view.endpoints(service, port);
    let has_sidecar = |endpoint: &&Endpoint| endpoint.workload.as_ref().is_some_and(|pod| pod.sidecar);
    let without = endpoints.len() - endpoints.iter().filter(has_sidecar).count();
    (without > 0).then(|| {
        format!(
            "rateLimit has no effect at {without} of the endpoints of port {}: they have no sidecar",
            port.number
        )
    })
}
