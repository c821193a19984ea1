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
};
use crate::translate::InputView;
use crate::translate::names::BLACK_HOLE;
use crate::translate::target::Target;
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
    let domain = &view.settings().cluster_domain;
    let backends = forward.backends.iter().filter(|backend| backend.weight > 0);
    let weighted: Vec<_> =
        backends.map(|backend| (backend, target(view, &backend.destination, route, port))).collect();
    let Some(clusters) = split(&weighted, route.is_some(), domain) else {
        return Action::DirectResponse(DirectResponseAction {
            status: 500,
            ..DirectResponseAction::default()
        });
    };
    let mirrors = forward.mirrors.iter().filter_map(|mirror| {
        let target = target(view, &mirror.destination, route, port)?;
        Some(mirror_to(mirror, target.cluster(domain)))
    });
    let mut hash_policy = Vec::new();
    for of in weighted.iter().filter_map(|(_, target)| target.as_ref()?.hash_of.as_ref()) {
        let policy = policies::hash_policy(of);
        if !hash_policy.contains(&policy) {
            hash_policy.push(policy);
        }
    }
    let literal = |host: &String| HostRewriteSpecifier::HostRewriteLiteral(host.clone());
    let mut action = WireRouteAction {
        timeout: duration(forward.timeout.unwrap_or_default()),
        retry_policy: forward.retry.as_ref().map(policies::retry_policy),
        request_mirror_policies: mirrors.collect(),
        hash_policy,
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

/// A target that the route may lead to.
fn target<'a>(
    view: &InputView<'a>,
    destination: &'a Destination,
    route: Option<&HttpRoute>,
    called: u16,
) -> Option<Target<'a>> {
    let target = Target::of(view, destination, called)?;
    route.is_none_or(|route| may_refer(view, route, &target.service.name)).then_some(target)
}

/// Splits by weight. The share of a Service that does not exist is refused (503). `None`, by the Gateway API: none exists, or
/// none has a weight, so the answer is 500.
fn split(
    weighted: &[(&Backend, Option<Target<'_>>)],
    is_gateway_api: bool,
    domain: &str,
) -> Option<ClusterSpecifier> {
    let cluster = |target: &Option<Target<'_>>| match target {
        Some(target) => target.cluster(domain),
        None => BLACK_HOLE.to_owned(),
    };
    match weighted {
        all if all.iter().all(|(_, target)| target.is_none()) && is_gateway_api => None,
        [(backend, target)] if backend.headers.is_empty() && backend.host.is_none() => {
            Some(ClusterSpecifier::Cluster(cluster(target)))
        }
        targets => {
            let clusters = targets.iter().map(|(backend, target)| weight(backend, cluster(target)));
            let clusters = WeightedCluster { clusters: clusters.collect(), ..WeightedCluster::default() };
            Some(ClusterSpecifier::WeightedClusters(clusters))
        }
    }
}

fn weight(backend: &Backend, cluster: String) -> ClusterWeight {
    let (request_headers_to_add, request_headers_to_remove) = policies::headers(&backend.headers.request);
    let (response_headers_to_add, response_headers_to_remove) = policies::headers(&backend.headers.response);
    let literal = |host: &String| cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host.clone());
    ClusterWeight {
        name: cluster,
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
