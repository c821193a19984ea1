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
    ALL_PPM, Backend, Destination, DirectResponse, Forward, HttpRoute, Mirror, Ppm, Redirect, RedirectPort,
    RouteAction, RouteKind,
};
use crate::translate::InputView;
use crate::translate::names::BLACK_HOLE;
use crate::translate::target::Target;
use crate::translate::wire::{duration, number};

/// What happens to the requests of `tried`, whose path changes by `rewrite`, at the port `port`: mostly one thing, else one for a share
/// of the requests and one for the rest.
pub(super) fn actions(
    view: &InputView<'_>,
    tried: &Tried<'_>,
    rewrite: Option<Rewrite>,
    port: u16,
) -> Vec<(Option<Ppm>, Action)> {
    match &tried.rule.action {
        RouteAction::Forward(forward) => forward_to(view, forward, tried.route, rewrite, port),
        RouteAction::Redirect(redirect) => {
            vec![(None, Action::Redirect(redirect_to(redirect, rewrite, port)))]
        }
        RouteAction::Respond(response) => vec![(None, Action::DirectResponse(respond(response)))],
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
) -> Vec<(Option<Ppm>, Action)> {
    let domain = &view.settings().cluster_domain;
    let backends = forward.backends.iter().filter(|backend| backend.weight > 0);
    let mut weighted: Vec<_> =
        backends.map(|backend| (backend, target(view, &backend.destination, route, port))).collect();
    let refused = route.and_then(|route| refused_share(&weighted, route));
    if let Some((ALL_PPM, answer)) = refused {
        return vec![(None, answer)];
    }
    if refused.is_some() {
        weighted.retain(|(_, target)| target.is_some());
    }
    let mirrors = forward.mirrors.iter().filter_map(|mirror| {
        let target = target(view, &mirror.destination, route, port)?;
        Some(mirror_to(mirror, target.cluster(domain)))
    });
    let mut hash_policy = Vec::new();
    for of in weighted.iter().filter_map(|(_, target)| target.as_ref()?.hash_of()) {
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
        ..self::forward(split(&weighted, domain))
    };
    match rewrite {
        Some(Rewrite::Matched(new)) => action.prefix_rewrite = new,
        Some(rewrite) => action.regex_rewrite = rewrite.regex(),
        None => {}
    }
    let refused = refused.map(|(share, answer)| (Some(share), answer));
    refused.into_iter().chain([(None, Action::Route(action))]).collect()
}

/// The share of requests that a route of the Gateway API leads nowhere, and its answer: 500, to calls of gRPC `UNAVAILABLE`, which is
/// what 503 means to them.
fn refused_share(weighted: &[(&Backend, Option<Target<'_>>)], route: &HttpRoute) -> Option<(Ppm, Action)> {
    let sum = |of: &mut dyn Iterator<Item = &(&Backend, Option<Target<'_>>)>| -> u64 {
        of.map(|(backend, _)| u64::from(backend.weight)).sum()
    };
    let all = sum(&mut weighted.iter());
    let refused = sum(&mut weighted.iter().filter(|(_, target)| target.is_none()));
    let share = match (refused, all) {
        (refused, all) if refused == all => ALL_PPM,
        (0, _) => return None,
        (refused, all) => (refused * u64::from(ALL_PPM) / all).max(1) as Ppm,
    };
    let status = if route.key.kind == RouteKind::Grpc { 503 } else { 500 };
    let answer = DirectResponseAction { status, ..DirectResponseAction::default() };
    Some((share, Action::DirectResponse(answer)))
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

/// Splits by weight. The share of a Service that does not exist is refused with 503 (Istio).
fn split(weighted: &[(&Backend, Option<Target<'_>>)], domain: &str) -> ClusterSpecifier {
    let cluster = |target: &Option<Target<'_>>| match target {
        Some(target) => target.cluster(domain),
        None => BLACK_HOLE.to_owned(),
    };
    match weighted {
        [(backend, target)] if backend.headers.is_empty() && backend.host.is_none() => {
            ClusterSpecifier::Cluster(cluster(target))
        }
        targets => {
            let clusters = targets.iter().map(|(backend, target)| weight(backend, cluster(target)));
            let clusters = WeightedCluster { clusters: clusters.collect(), ..WeightedCluster::default() };
            ClusterSpecifier::WeightedClusters(clusters)
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
