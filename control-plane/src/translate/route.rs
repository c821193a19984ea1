//! The route configurations of outbound HTTP: a virtual host for each HTTP port of each Service.
//!
//! Order of rules and what happens without a backend are the Gateway API's. A client's own namespace may have routes for a
//! Service of another (consumer routes); they replace those of the Service's owner (producer routes) for its clients.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::route::v3::header_matcher::HeaderMatchSpecifier;
use outrigger_xds_api::wire::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use outrigger_xds_api::wire::route::v3::route::Action;
use outrigger_xds_api::wire::route::v3::route_action::ClusterSpecifier;
use outrigger_xds_api::wire::route::v3::route_match::PathSpecifier;
use outrigger_xds_api::wire::route::v3::weighted_cluster::ClusterWeight;
use outrigger_xds_api::wire::route::v3::{
    DirectResponseAction, HeaderMatcher, RedirectAction, Route, RouteAction as WireRouteAction,
    RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
};
use outrigger_xds_api::wire::r#type::matcher::v3::{
    RegexMatcher, StringMatcher, string_matcher::MatchPattern,
};
use prost::Message;

use crate::model::{
    Backend, HttpRoute, Name, PathMatch, PathRewrite, Redirect, RequestMatch, RouteAction, Service,
    StringMatch,
};
use crate::translate::names::{BLACK_HOLE, OUTBOUND_PORT};
use crate::translate::wire::{duration, number};
use crate::translate::{InputView, Output, metadata, names};

/// The route configurations of the clients in one namespace: one by host name for those in explicit mode, one for each port
/// of each Service that has an address for those whose connections are captured. There the address says what is
/// meant, not the host name.
pub(crate) fn route_configurations(view: &InputView<'_>, namespace: &str) -> Output {
    let mut output = Output::default();
    let domain = &view.settings().cluster_domain;
    let mut by_name = Vec::new();
    for name in view.service_names() {
        let Some(service) = view.service(name) else { continue };
        for port in service.ports.iter().filter(|port| port.protocol.may_be_http()) {
            let mut host = VirtualHost {
                name: names::service_routes(name, port.number, domain),
                domains: domains(name, port.number, namespace, domain),
                routes: routes(view, service, port.number, namespace),
                ..VirtualHost::default()
            };
            by_name.push(host.clone());
            if !service.cluster_ips.is_empty() {
                host.domains = vec!["*".to_owned()];
                add(&mut output, host.name.clone(), vec![host]);
            }
        }
    }
    add(&mut output, OUTBOUND_PORT.to_string(), by_name);
    output
}

fn add(output: &mut Output, name: String, virtual_hosts: Vec<VirtualHost>) {
    let wire = RouteConfiguration { name: name.clone(), virtual_hosts, ..RouteConfiguration::default() };
    output.add(ResourceType::RouteConfiguration, &name, wire.encode_to_vec());
}

/// Hosts by which clients in `namespace` call a port. Without a port the client means 80. Short names are for the Service's
/// own namespace.
pub(super) fn domains(service: &Name, port: u16, namespace: &str, domain: &str) -> Vec<String> {
    let Name { name, namespace: own } = service;
    let mut hosts =
        vec![format!("{name}.{own}.svc.{domain}"), format!("{name}.{own}.svc"), format!("{name}.{own}")];
    if own == namespace {
        hosts.push(name.clone());
    }
    let mut domains: Vec<String> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
    if port == 80 {
        domains.extend(hosts);
    }
    domains
}

/// A route for all requests to one cluster, without a limit in time.
pub(super) fn everything_to(cluster: String) -> Route {
    Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(forward(ClusterSpecifier::Cluster(cluster), None)),
        ..Route::default()
    }
}

/// The routes of one port, in the order in which they are tried.
pub(super) fn routes(view: &InputView<'_>, service: &Service, port: u16, namespace: &str) -> Vec<Route> {
    let applicable = applicable(&view.routes_of(&service.name), &service.name, port, namespace);
    if applicable.is_empty() {
        let cluster = names::outbound_cluster(&service.name, port, &view.settings().cluster_domain);
        return vec![everything_to(cluster)];
    }
    let mut entries = Vec::new();
    for route in &applicable {
        for (index, rule) in route.rules.iter().enumerate() {
            let rule_name = if rule.name.is_empty() { index.to_string() } else { rule.name.clone() };
            let name = format!("{}.{}.{rule_name}", route.name.namespace, route.name.name);
            let metadata = metadata::made_by(&route.origin, &rule.field);
            for request in &rule.matches {
                entries.push((request, name.clone(), metadata.clone(), &rule.action));
            }
        }
    }
    // Stable, so what is equally specific stays in the order of age and writing.
    entries.sort_by_key(|(request, ..)| precedence(request));
    let mut routes = Vec::new();
    for (request, name, metadata, action) in entries {
        for (path_specifier, action) in actions(view, request, action) {
            routes.push(Route {
                name: name.clone(),
                r#match: Some(RouteMatch {
                    path_specifier: Some(path_specifier),
                    headers: headers(request),
                    ..RouteMatch::default()
                }),
                action: Some(action),
                metadata: Some(metadata.clone()),
                ..Route::default()
            });
        }
    }
    routes
}

/// The routes that count for clients in `namespace`: their own ones, else those of the Service's namespace.
fn applicable(all: &[Arc<HttpRoute>], service: &Name, port: u16, namespace: &str) -> Vec<Arc<HttpRoute>> {
    let of_namespace = |namespace: &str| -> Vec<_> {
        let for_port = |route: &&Arc<HttpRoute>| {
            route
                .parents
                .iter()
                .any(|parent| parent.service == *service && parent.port.is_none_or(|number| number == port))
        };
        let own = all.iter().filter(|route| route.name.namespace == namespace);
        own.filter(for_port).cloned().collect()
    };
    let consumer = of_namespace(namespace);
    if consumer.is_empty() { of_namespace(&service.namespace) } else { consumer }
}

/// Gateway API: exact paths, then longer prefixes, then a method, then more headers. Expressions, whose place the API leaves
/// open, come after exact paths.
fn precedence(request: &RequestMatch) -> impl Ord + use<> {
    let path = match &request.path {
        PathMatch::Exact(path) => (0, Reverse(path.len())),
        PathMatch::Regex(expression) => (1, Reverse(expression.len())),
        PathMatch::Prefix(path) => (2, Reverse(path.len())),
    };
    (path, request.method.is_none(), Reverse(request.headers.len()))
}

fn headers(request: &RequestMatch) -> Vec<HeaderMatcher> {
    let matcher = |name: &str, pattern: MatchPattern| HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(pattern),
            ..StringMatcher::default()
        })),
        ..HeaderMatcher::default()
    };
    let method = request.method.iter().map(|method| matcher(":method", MatchPattern::Exact(method.clone())));
    let headers = request.headers.iter().map(|header| {
        let pattern = match &header.value {
            StringMatch::Exact(value) => MatchPattern::Exact(value.clone()),
            StringMatch::Regex(expression) => MatchPattern::SafeRegex(regex(expression)),
        };
        matcher(&header.name, pattern)
    });
    method.chain(headers).collect()
}

fn regex(expression: &str) -> RegexMatcher {
    RegexMatcher { regex: expression.to_owned(), ..RegexMatcher::default() }
}

/// The routes for one match, mostly one.
fn actions(
    view: &InputView<'_>,
    request: &RequestMatch,
    action: &RouteAction,
) -> Vec<(PathSpecifier, Action)> {
    match action {
        RouteAction::Forward { backends, timeout } => {
            vec![(path_specifier(&request.path), forward_to(view, backends, *timeout))]
        }
        RouteAction::Redirect(redirect) => redirects(request, redirect),
    }
}

fn path_specifier(path: &PathMatch) -> PathSpecifier {
    match path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(path) if path == "/" => PathSpecifier::Prefix(path.clone()),
        PathMatch::Prefix(path) => PathSpecifier::PathSeparatedPrefix(path.clone()),
        PathMatch::Regex(expression) => PathSpecifier::SafeRegex(regex(expression)),
    }
}

fn forward(cluster: ClusterSpecifier, timeout: Option<Duration>) -> Action {
    Action::Route(WireRouteAction {
        cluster_specifier: Some(cluster),
        // Envoy's own default is 15 s; zero is no limit.
        timeout: duration(timeout.unwrap_or_default()),
        ..WireRouteAction::default()
    })
}

/// Forwards by weight. The share of a Service that does not exist is refused (503); with none that exists, or no weight at
/// all, the answer is 500.
fn forward_to(view: &InputView<'_>, backends: &[Backend], timeout: Option<Duration>) -> Action {
    let weighted: Vec<(Option<String>, u32)> = backends
        .iter()
        .filter(|backend| backend.weight > 0)
        .map(|backend| {
            let exists =
                view.service(&backend.service).is_some_and(|found| found.port(backend.port).is_some());
            let domain = &view.settings().cluster_domain;
            let cluster = exists.then(|| names::outbound_cluster(&backend.service, backend.port, domain));
            (cluster, backend.weight)
        })
        .collect();
    match weighted.as_slice() {
        clusters if clusters.iter().all(|(cluster, _)| cluster.is_none()) => {
            Action::DirectResponse(DirectResponseAction { status: 500, ..DirectResponseAction::default() })
        }
        [(Some(cluster), _)] => forward(ClusterSpecifier::Cluster(cluster.clone()), timeout),
        clusters => {
            let clusters = clusters.iter().map(|(cluster, weight)| ClusterWeight {
                name: cluster.clone().unwrap_or_else(|| BLACK_HOLE.to_owned()),
                weight: number(*weight),
                ..ClusterWeight::default()
            });
            let clusters = WeightedCluster { clusters: clusters.collect(), ..WeightedCluster::default() };
            forward(ClusterSpecifier::WeightedClusters(clusters), timeout)
        }
    }
}

fn redirects(request: &RequestMatch, redirect: &Redirect) -> Vec<(PathSpecifier, Action)> {
    let to = |path: Option<PathRewriteSpecifier>| {
        let well_known = redirect.scheme.as_deref().map(|scheme| if scheme == "https" { 443 } else { 80 });
        Action::Redirect(RedirectAction {
            host_redirect: redirect.hostname.clone().unwrap_or_default(),
            // Gateway API: a new scheme without a port means that scheme's port.
            port_redirect: redirect.port.or(well_known).unwrap_or_default().into(),
            scheme_rewrite_specifier: redirect.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
            path_rewrite_specifier: path,
            response_code: match redirect.status {
                301 => RedirectResponseCode::MovedPermanently,
                303 => RedirectResponseCode::SeeOther,
                307 => RedirectResponseCode::TemporaryRedirect,
                308 => RedirectResponseCode::PermanentRedirect,
                _ => RedirectResponseCode::Found,
            } as i32,
            ..RedirectAction::default()
        })
    };
    let unchanged = path_specifier(&request.path);
    match (&redirect.path, &request.path) {
        (None, _) => vec![(unchanged, to(None))],
        (Some(PathRewrite::Full(full)), _) => {
            vec![(unchanged, to(Some(PathRewriteSpecifier::PathRedirect(full.clone()))))]
        }
        (Some(PathRewrite::Prefix(new)), PathMatch::Prefix(old)) => {
            let rewrite = |prefix: String| to(Some(PathRewriteSpecifier::PrefixRewrite(prefix)));
            let new = new.trim_end_matches('/');
            match (old.as_str(), new) {
                // `/a` -> `/new/a`: what is replaced ends in a slash, so must what it becomes.
                ("/", _) => vec![(unchanged, rewrite(format!("{new}/")))],
                // `/old/a` -> `/a` and `/old` -> `/`.
                (old, "") => vec![
                    (PathSpecifier::Prefix(format!("{old}/")), rewrite("/".to_owned())),
                    (
                        PathSpecifier::Path(old.to_owned()),
                        to(Some(PathRewriteSpecifier::PathRedirect("/".to_owned()))),
                    ),
                ],
                (_, new) => vec![(unchanged, rewrite(new.to_owned()))],
            }
        }
        // The front end refuses a prefix rewrite on any other match.
        (Some(PathRewrite::Prefix(_)), _) => vec![(unchanged, to(None))],
    }
}
