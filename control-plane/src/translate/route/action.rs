//! What happens to a request, in xDS.

use outrigger_xds_api::wire::core::v3::{DataSource, data_source};
use outrigger_xds_api::wire::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use outrigger_xds_api::wire::route::v3::route::Action;
use outrigger_xds_api::wire::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy,
};
use outrigger_xds_api::wire::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use outrigger_xds_api::wire::route::v3::{
    DirectResponseAction, RedirectAction, RouteAction as WireRouteAction, WeightedCluster,
};

use super::matches::Rewrite;
use super::policies;
use super::rules::{Tried, may_refer};
use crate::model::{
    Backend, Destination, DirectResponse, Forward, HttpRoute, Mirror, Redirect, RedirectPort, RouteAction,
    Service, ServicePort,
};
use crate::translate::InputView;
use crate::translate::names::{self, BLACK_HOLE};
use crate::translate::wire::{duration, number};

/// What happens to the requests of `tried`, whose path changes by `rewrite`, at the port `port`.
pub(super) fn action(view: &InputView<'_>, tried: &Tried<'_>, rewrite: Option<Rewrite>, port: u16) -> Action {
    match &tried.rule.action {
        RouteAction::Forward(forward) => forward_to(view, forward, tried.route, rewrite, port),
        RouteAction::Redirect(redirect) => Action::Redirect(redirect_to(redirect, rewrite, port)),
        RouteAction::Respond(response) => Action::DirectResponse(respond(response)),
    }
}

/// Forwards without a limit in time: Envoy's own default is 15 s, zero is none.
pub(super) fn forward(cluster: ClusterSpecifier) -> WireRouteAction {
    WireRouteAction {
        cluster_specifier: Some(cluster),
        timeout: duration(std::time::Duration::ZERO),
        ..WireRouteAction::default()
    }
}

fn forward_to(
    view: &InputView<'_>,
    forward: &Forward,
    route: Option<&HttpRoute>,
    rewrite: Option<Rewrite>,
    port: u16,
) -> Action {
    let backends = forward.backends.iter().filter(|backend| backend.weight > 0);
    let weighted: Vec<_> =
        backends.map(|backend| (backend, cluster_of(view, &backend.destination, route, port))).collect();
    let Some(clusters) = split(&weighted, route.is_some()) else {
        return Action::DirectResponse(DirectResponseAction {
            status: 500,
            ..DirectResponseAction::default()
        });
    };
    let mirrors = forward
        .mirrors
        .iter()
        .filter_map(|mirror| Some(mirror_to(mirror, cluster_of(view, &mirror.destination, route, port)?)));
    let literal = |host: &String| HostRewriteSpecifier::HostRewriteLiteral(host.clone());
    let mut action = WireRouteAction {
        timeout: duration(forward.timeout.unwrap_or_default()),
        retry_policy: forward.retry.as_ref().map(policies::retry_policy),
        request_mirror_policies: mirrors.collect(),
        host_rewrite_specifier: forward.host.as_ref().map(literal),
        ..self::forward(clusters)
    };
    match rewrite {
        Some(Rewrite::Matched(new)) => action.prefix_rewrite = new,
        Some(rewrite) => action.regex_rewrite = rewrite.regex(),
        None => {}
    }
    Action::Route(action)
}

/// Splits by weight. The share of a Service that does not exist is refused (503). `None`, by the Gateway API: none exists, or
/// none has a weight, so the answer is 500.
fn split(weighted: &[(&Backend, Option<String>)], is_gateway_api: bool) -> Option<ClusterSpecifier> {
    let is_missing = |(_, cluster): &(&Backend, Option<String>)| cluster.is_none();
    match weighted {
        all if all.iter().all(is_missing) && is_gateway_api => None,
        [(backend, cluster)] if backend.headers.is_empty() && backend.host.is_none() => {
            let cluster = cluster.clone().unwrap_or_else(|| BLACK_HOLE.to_owned());
            Some(ClusterSpecifier::Cluster(cluster))
        }
        clusters => {
            let clusters = clusters.iter().map(|(backend, cluster)| weight(backend, cluster.clone()));
            let clusters = WeightedCluster { clusters: clusters.collect(), ..WeightedCluster::default() };
            Some(ClusterSpecifier::WeightedClusters(clusters))
        }
    }
}

fn weight(backend: &Backend, cluster: Option<String>) -> ClusterWeight {
    let (request_headers_to_add, request_headers_to_remove) = policies::headers(&backend.headers.request);
    let (response_headers_to_add, response_headers_to_remove) = policies::headers(&backend.headers.response);
    let literal = |host: &String| cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host.clone());
    ClusterWeight {
        name: cluster.unwrap_or_else(|| BLACK_HOLE.to_owned()),
        weight: number(backend.weight),
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        host_rewrite_specifier: backend.host.as_ref().map(literal),
        ..ClusterWeight::default()
    }
}

fn mirror_to(mirror: &Mirror, cluster: String) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster,
        runtime_fraction: Some(policies::runtime_fraction(mirror.share)),
        // A sidecar tells Services apart by host name.
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    }
}

/// The cluster of a destination, for a client that called `called`. `None`: there is none, or the route may not lead there.
pub(in crate::translate) fn cluster_of(
    view: &InputView<'_>,
    destination: &Destination,
    route: Option<&HttpRoute>,
    called: u16,
) -> Option<String> {
    let service = view.resolve(&destination.service)?;
    let port = port_of(service, destination, called)?;
    if route.is_some_and(|route| !may_refer(view, route, &service.name)) {
        return None;
    }
    if let Some(subset) = &destination.subset {
        let policies = view.destination_of(service);
        policies.subsets.iter().find(|(known, _)| known.name == *subset)?;
    }
    let domain = &view.settings().cluster_domain;
    Some(names::outbound_cluster(&service.name, port.number, destination.subset.as_deref(), domain))
}

/// The port of a Service that a destination means: the one that it names, else the only one, else the one called.
pub(in crate::translate) fn port_of<'a>(
    service: &'a Service,
    destination: &Destination,
    called: u16,
) -> Option<&'a ServicePort> {
    match (destination.port, service.ports.as_slice()) {
        (Some(number), _) => service.port(number),
        (None, [only]) => Some(only),
        (None, _) => service.port(called),
    }
}

fn redirect_to(redirect: &Redirect, rewrite: Option<Rewrite>, called: u16) -> RedirectAction {
    let port = match redirect.port {
        Some(RedirectPort::Number(number)) => number,
        // Nobody writes the port that is meant anyway.
        Some(RedirectPort::OfRequest) if called == 80 => 0,
        Some(RedirectPort::OfRequest) => called,
        None => 0,
    };
    RedirectAction {
        host_redirect: redirect.hostname.clone().unwrap_or_default(),
        port_redirect: port.into(),
        scheme_rewrite_specifier: redirect.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: rewrite.map(|rewrite| match rewrite {
            Rewrite::Whole(path) => PathRewriteSpecifier::PathRedirect(path),
            Rewrite::Matched(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix),
            Rewrite::Regex(expression, substitution) => {
                let rewrite = Rewrite::Regex(expression, substitution).regex();
                PathRewriteSpecifier::RegexRewrite(rewrite.unwrap_or_default())
            }
        }),
        response_code: match redirect.status {
            301 => RedirectResponseCode::MovedPermanently,
            303 => RedirectResponseCode::SeeOther,
            307 => RedirectResponseCode::TemporaryRedirect,
            308 => RedirectResponseCode::PermanentRedirect,
            _ => RedirectResponseCode::Found,
        } as i32,
        ..RedirectAction::default()
    }
}

fn respond(response: &DirectResponse) -> DirectResponseAction {
    let body = (!response.body.is_empty()).then(|| DataSource {
        specifier: Some(match std::str::from_utf8(&response.body) {
            Ok(text) => data_source::Specifier::InlineString(text.to_owned()),
            Err(_) => data_source::Specifier::InlineBytes(response.body.clone()),
        }),
        ..DataSource::default()
    });
    DirectResponseAction { status: response.status.into(), body, ..DirectResponseAction::default() }
}
