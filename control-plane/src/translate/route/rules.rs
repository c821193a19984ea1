//! Whose rules the requests to a port follow, and in which order they are tried.
//!
//! 1. Routes of the Gateway API whose parent is the Service, in the order that the API gives them. Those of the client's own
//!    namespace (consumer routes) stand in the place of those of the Service's (producer routes); GRPCRoutes in that of
//!    HTTPRoutes.
//! 2. The VirtualService that speaks for the Service's host name, in the order written.
//! 3. Nobody's: everything goes to the Service itself.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use super::{Hosts, delegate};
use crate::model::{
    Client, HttpRoute, HttpRules, Name, PathMatch, RequestMatch, RouteKind, RouteRule, Service, ServicePort,
    Source, StringMatch, TargetKey, VirtualService,
};
use crate::source::Origin;
use crate::translate::InputView;

/// Rules in the order in which they are tried.
pub(super) struct Rules<'a> {
    pub(super) tried: Vec<Tried<'a>>,
}

/// One match of a rule.
pub(super) struct Tried<'a> {
    pub(super) request: Cow<'a, RequestMatch>,
    pub(super) rule: Cow<'a, RouteRule>,
    /// Name of the route, which access logs show.
    pub(super) name: String,
    /// Who wrote it.
    pub(super) origin: &'a Origin,
    /// What a policy for these requests may be attached to, each with the name of the rule in it, the nearest first.
    pub(super) places: Vec<(TargetKey, String)>,
    /// The Gateway API's route that it is of. Such a rule needs a grant to lead to another namespace, and is answered
    /// with 500 when it leads nowhere.
    pub(super) route: Option<&'a HttpRoute>,
}

impl<'a> Rules<'a> {
    /// The rules for one port of a Service; `None` when there is none.
    pub(super) fn of_service(
        view: &InputView<'a>,
        hosts: &Hosts<'a>,
        client: &Client,
        service: &Service,
        port: &ServicePort,
    ) -> Option<Self> {
        let applicable = applicable(&view.routes_of(&service.name), &service.name, port, &client.namespace);
        if !applicable.is_empty() {
            return Some(Self::of_routes(applicable));
        }
        Self::of_virtual_service(view, hosts.of_service(view, &service.name)?, client, port.number)
    }

    fn of_routes(routes: Vec<&'a Arc<HttpRoute>>) -> Self {
        let mut tried = Vec::new();
        for route in routes {
            for (index, rule) in route.rules.iter().enumerate() {
                let rule_name = if rule.name.is_empty() { index.to_string() } else { rule.name.clone() };
                let Name { namespace, name } = &route.key.name;
                let place = (TargetKey::route(route.key.kind, &route.key.name), rule.name.clone());
                let name = format!("{namespace}.{name}.{rule_name}");
                tried.extend(rule.matches.iter().map(|request| Tried {
                    request: Cow::Borrowed(request),
                    rule: Cow::Borrowed(rule),
                    name: name.clone(),
                    origin: &route.origin,
                    places: vec![place.clone()],
                    route: Some(route.as_ref()),
                }));
            }
        }
        // Stable, so what is equally specific stays in the order of age and writing.
        tried.sort_by_key(|tried| precedence(&tried.request));
        Self { tried }
    }

    /// The rules of a VirtualService for a client that calls `port`; `None` when it says nothing of requests.
    pub(super) fn of_virtual_service(
        view: &InputView<'a>,
        service: &'a VirtualService,
        client: &Client,
        port: u16,
    ) -> Option<Self> {
        if service.http.is_empty() {
            return None;
        }
        let mut tried = Vec::new();
        for (index, rules) in service.http.iter().enumerate() {
            match rules {
                HttpRules::Rule(rule) => {
                    let name = name_of(&service.name, &rule.name, index);
                    let place = (TargetKey::virtual_service(&service.name), rule.name.clone());
                    add(&mut tried, Cow::Borrowed(rule), &name, &service.origin, &[place]);
                }
                HttpRules::Delegate(root) => {
                    let Some(leaf) = delegate::find(view, &service.name, root) else { continue };
                    for (index, rule) in leaf.http.iter().enumerate() {
                        let HttpRules::Rule(rule) = rule else { continue };
                        let places = [
                            (TargetKey::virtual_service(&leaf.name), rule.name.clone()),
                            (TargetKey::virtual_service(&service.name), root.name.clone()),
                        ];
                        let rule = delegate::merged(root, rule);
                        let name = name_of(&leaf.name, &rule.name, index);
                        add(&mut tried, Cow::Owned(rule), &name, &leaf.origin, &places);
                    }
                }
            }
        }
        tried.retain(|tried: &Tried<'_>| {
            client.is(&tried.request.source) && tried.request.port.is_none_or(|number| number == port)
        });
        Some(Self { tried })
    }
}

/// Istio's name of a route, or one that tells where it is.
fn name_of(service: &Name, rule: &str, index: usize) -> String {
    match rule {
        "" => format!("{}.{}.{index}", service.namespace, service.name),
        named => named.to_owned(),
    }
}

fn add<'a>(
    tried: &mut Vec<Tried<'a>>,
    rule: Cow<'a, RouteRule>,
    name: &str,
    origin: &'a Origin,
    places: &[(TargetKey, String)],
) {
    for index in 0..rule.matches.len() {
        let request = match &rule {
            Cow::Borrowed(rule) => Cow::Borrowed(&rule.matches[index]),
            Cow::Owned(rule) => Cow::Owned(rule.matches[index].clone()),
        };
        let name = match request.name.as_str() {
            "" => name.to_owned(),
            match_name => format!("{name}.{match_name}"),
        };
        tried.push(Tried { request, rule: rule.clone(), name, origin, places: places.to_vec(), route: None });
    }
}

impl Client {
    /// Whether a condition on callers holds for it.
    pub(in crate::translate) fn is(&self, source: &Source) -> bool {
        source.namespace.as_ref().is_none_or(|namespace| *namespace == self.namespace)
            && source.labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

/// The routes that count for clients in `namespace`: their own ones, else those of the Service's namespace; of these the
/// more specific kind.
pub(in crate::translate) fn applicable<'a>(
    all: &[&'a Arc<HttpRoute>],
    service: &Name,
    port: &ServicePort,
    namespace: &str,
) -> Vec<&'a Arc<HttpRoute>> {
    let of_namespace = |namespace: &str| -> Vec<_> {
        let for_port = |route: &&&Arc<HttpRoute>| {
            route.parents.iter().any(|parent| parent.service == *service && parent.has_port(port))
        };
        let own = all.iter().filter(|route| route.key.name.namespace == namespace);
        own.filter(for_port).copied().collect()
    };
    let consumer = of_namespace(namespace);
    let mut routes = if consumer.is_empty() { of_namespace(&service.namespace) } else { consumer };
    if routes.iter().any(|route| route.key.kind == RouteKind::Grpc) {
        routes.retain(|route| route.key.kind == RouteKind::Grpc);
    }
    routes
}

/// Whether a route of the Gateway API may lead to a Service: one of its own namespace, one whose namespace grants it, or one
/// of its parents, which its clients call anyway.
pub(in crate::translate) fn may_refer(view: &InputView<'_>, route: &HttpRoute, service: &Name) -> bool {
    let Name { namespace, .. } = &route.key.name;
    service.namespace == *namespace
        || route.parents.iter().any(|parent| parent.service == *service)
        || view
            .grants_in(&service.namespace)
            .iter()
            .any(|grant| grant.allows(route.key.kind.name(), namespace, &service.name))
}

/// Gateway API: exact paths, then longer prefixes, then a method, then more headers, then more parameters of the query.
/// Expressions, whose place the API leaves open, come after exact paths. gRPC: longer services, then longer methods.
fn precedence(request: &RequestMatch) -> impl Ord + use<> {
    let length = |part: &Option<StringMatch>| match part {
        Some(StringMatch::Exact(text) | StringMatch::Prefix(text)) => (0, Reverse(text.len())),
        Some(StringMatch::Regex(expression)) => (1, Reverse(expression.len())),
        Some(StringMatch::Present) | None => (2, Reverse(0)),
    };
    let nothing = (0, Reverse(0));
    let path = match &request.path {
        PathMatch::Exact(path) => (0, (0, Reverse(path.len())), nothing),
        PathMatch::Grpc { service, method } => (0, length(service), length(method)),
        PathMatch::Regex(expression) => (1, (0, Reverse(expression.len())), nothing),
        PathMatch::Prefix(path) | PathMatch::Characters(path) => (2, (0, Reverse(path.len())), nothing),
    };
    (path, request.method.is_none(), Reverse(request.headers.len()), Reverse(request.query.len()))
}
