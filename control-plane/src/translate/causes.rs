//! xDS resource -> the user's objects: who made the part of a resource that a proxy refuses.
//!
//! The way back of translation. A resource says itself what it was made of, by Istio's metadata and by Istio's names, so
//! nothing has to be remembered beside it.

use std::collections::BTreeSet;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::resource::unpack;
use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::http_connection_manager::v3::HttpConnectionManager;
use outrigger_xds_api::wire::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use outrigger_xds_api::wire::listener::v3::{FilterChain, Listener, filter};
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::route::v3::{Route, RouteConfiguration, VirtualHost};
use outrigger_xds_api::wire::tcp_proxy::v3::TcpProxy;
use outrigger_xds_api::wire::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;

use crate::model::Name;
use crate::source::ObjectKey;
use crate::translate::{metadata, names, traffic_policy};

/// Fields of a cluster that a traffic policy sets.
const POLICY_FIELDS: [&str; 11] = [
    "circuit_breakers",
    "common_lb_config",
    "connect_timeout",
    "lb_policy",
    "least_request_lb_config",
    "maglev_lb_config",
    "outlier_detection",
    "ring_hash_lb_config",
    "round_robin_lb_config",
    "typed_extension_protocol_options",
    "upstream_connection_options",
];

/// An object, and the field of it that a part of a resource comes from; empty when that cannot be told.
pub(crate) type Cause = (ObjectKey, String);

/// The objects that made the field at `field` of a resource, sorted. When the field is empty or names no part: all that may
/// have. Empty when there is none, as for what every proxy has.
pub(crate) fn causes(of: ResourceType, resource: &Any, field: &str) -> Vec<Cause> {
    let causes = match of {
        ResourceType::Cluster => unpack(resource).map(|cluster: Cluster| of_cluster(&cluster, field)),
        ResourceType::ClusterLoadAssignment => {
            let name = outrigger_xds_api::resource::name_of(resource);
            name.map(|name| names::service_in(&name).map(|name| service(&name)).into_iter().collect())
        }
        ResourceType::Listener => unpack(resource).map(|listener: Listener| of_listener(&listener, field)),
        ResourceType::RouteConfiguration => {
            unpack(resource).map(|routes: RouteConfiguration| of_routes(&routes, field))
        }
        ResourceType::Secret | ResourceType::VirtualHost | ResourceType::ExtensionConfig => {
            Ok(BTreeSet::new())
        }
    };
    // What cannot be read was not made here.
    causes.unwrap_or_default().into_iter().collect()
}

fn of_cluster(cluster: &Cluster, field: &str) -> BTreeSet<Cause> {
    let maker = metadata::maker(cluster.metadata.as_ref());
    let services = metadata::services(cluster.metadata.as_ref());
    // A ServiceEntry is the maker itself.
    let services = services.iter().filter(|name| !names::is_whole(name)).map(service);
    let is_policys = POLICY_FIELDS.contains(&first_step(field));
    match maker {
        Some((maker, _)) if maker.kind == "ServiceEntry" => [(maker, String::new())].into(),
        Some((policy, _)) if is_policys => [(policy, "spec.trafficPolicy".to_owned())].into(),
        Some(policy) if field.is_empty() => services.chain([policy]).collect(),
        _ => services.collect(),
    }
}

fn of_routes(routes: &RouteConfiguration, field: &str) -> BTreeSet<Cause> {
    let Some(host) = index(field, "virtual_hosts").and_then(|index| routes.virtual_hosts.get(index)) else {
        return routes.virtual_hosts.iter().flat_map(rules_of).collect();
    };
    let below = field.split_once("].").map_or("", |(_, below)| below);
    let route = index(below, "routes").and_then(|index| host.routes.get(index));
    let part = [
        (names::LOCAL_RATE_LIMIT_FILTER, traffic_policy::RATE_LIMIT),
        (names::HEADER_MUTATION_FILTER, traffic_policy::QUERY_PARAMETERS),
        ("rate_limited_retry_back_off", traffic_policy::RETRY_AFTER),
    ];
    if let (Some(route), Some((_, part))) = (route, part.into_iter().find(|(name, _)| below.contains(name))) {
        let policies = metadata::policies(route.metadata.as_ref()).into_iter();
        return policies.filter(|(_, field)| field == part).collect();
    }
    match route.and_then(|route| metadata::maker(route.metadata.as_ref())) {
        Some(rule) => [rule].into(),
        None => names::service_in(&host.name).iter().map(service).collect(),
    }
}

/// The rules and policies that requests to a host go by.
fn rules_of(host: &VirtualHost) -> Vec<Cause> {
    let makers = |route: &Route| {
        let policies = metadata::policies(route.metadata.as_ref());
        metadata::maker(route.metadata.as_ref()).into_iter().chain(policies)
    };
    host.routes.iter().flat_map(makers).collect()
}

fn of_listener(listener: &Listener, field: &str) -> BTreeSet<Cause> {
    let chains = match index(field, "filter_chains").and_then(|index| listener.filter_chains.get(index)) {
        Some(chain) => std::slice::from_ref(chain),
        None => listener.filter_chains.as_slice(),
    };
    // Routes may be the chain's own.
    if let Some((_, below)) = field.split_once(".route_config.")
        && let Some(causes) = chains.first().and_then(own_routes).map(|routes| of_routes(&routes, below))
        && !causes.is_empty()
    {
        return causes;
    }
    let rules = chains.iter().filter_map(|chain| metadata::maker(chain.metadata.as_ref()));
    let services = chains.iter().flat_map(services_of).map(|name| service(&name));
    rules.chain(services).collect()
}

/// The routes that a chain holds itself.
fn own_routes(chain: &FilterChain) -> Option<RouteConfiguration> {
    chain.filters.iter().find_map(|filter| {
        let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else { return None };
        match unpack::<HttpConnectionManager>(config).ok()?.route_specifier? {
            RouteSpecifier::RouteConfig(routes) => Some(routes),
            _ => None,
        }
    })
}

/// The Services that a chain leads to, by the names in it.
fn services_of(chain: &FilterChain) -> Vec<Name> {
    let mut found: Vec<Name> = names::service_in(&chain.name).into_iter().collect();
    for filter in &chain.filters {
        let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else { continue };
        let name = match unpack::<TcpProxy>(config) {
            Ok(TcpProxy { cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)), .. }) => Some(cluster),
            _ => unpack::<HttpConnectionManager>(config).ok().and_then(|manager| {
                match manager.route_specifier {
                    Some(RouteSpecifier::Rds(rds)) => Some(rds.route_config_name),
                    _ => None,
                }
            }),
        };
        found.extend(name.and_then(|name| names::service_in(&name)));
    }
    found
}

fn service(name: &Name) -> Cause {
    let key = ObjectKey {
        group: String::new(),
        kind: "Service".to_owned(),
        namespace: name.namespace.clone(),
        name: name.name.clone(),
    };
    (key, String::new())
}

/// `a` of `a.b[0]` and of `a[0].b`.
fn first_step(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or_default()
}

/// The number in a path that begins with `list[number]`.
fn index(path: &str, list: &str) -> Option<usize> {
    path.strip_prefix(list)?.strip_prefix('[')?.split_once(']')?.0.parse().ok()
}
