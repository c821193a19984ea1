//! What gRPC clients without a sidecar get.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use outrigger_xds_api::ResourceType::{
    Cluster as CLUSTER, ClusterLoadAssignment as ENDPOINTS, Listener as LISTENER,
    RouteConfiguration as ROUTES,
};
use outrigger_xds_api::wire::cluster::v3::cluster::ClusterDiscoveryType;

use super::*;

/// A Pod with such clients, and servers that have no sidecar either.
pub(super) const GRPC: &str = "
{apiVersion: v1, kind: Service, metadata: {name: rates, namespace: shop},
 spec: {selector: {app: rates}, ports: [{name: grpc, port: 80, targetPort: 8080}, {name: tcp-x, port: 81}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: caller, namespace: shop, annotations: {inject.istio.io/templates: 'x, grpc-agent'}},
 spec: {serviceAccountName: caller}, status: {podIP: 127.2.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: rates-0, namespace: shop, labels: {app: rates, sidecar.istio.io/inject: 'false'}},
 spec: {}, status: {podIP: 127.2.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: rates-1, namespace: shop, labels: {app: rates, sidecar.istio.io/inject: 'false'}},
 spec: {nodeName: n1}, status: {podIP: 127.2.0.3}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/region: r}}}
";

const RATES: &str = "outbound|80||rates.shop.svc.cluster.local";
const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

fn caller(snapshot: &Snapshot) -> ScopeKey {
    scope(snapshot, "shop", "caller", "caller")
}

fn names_of(snapshot: &Snapshot, scope: &ScopeKey, of: ResourceType) -> Vec<String> {
    snapshot.resources(scope, of).iter().map(|resource| resource.name.to_string()).collect()
}

fn routes_of(snapshot: &Snapshot, name: &str) -> Vec<Route> {
    let mut found: RouteConfiguration = get(snapshot, &caller(snapshot), ROUTES, name);
    let host = found.virtual_hosts.remove(0);
    assert_eq!(host.domains, ["*"]);
    host.routes
}

/// Clusters and weights.
fn forwards_to(route: &Route) -> Vec<(String, u32)> {
    let Some(Action::Route(action)) = &route.action else { panic!("{route:?}") };
    match action.cluster_specifier.as_ref().unwrap() {
        ClusterSpecifier::Cluster(name) => vec![(name.clone(), 0)],
        ClusterSpecifier::WeightedClusters(all) => {
            all.clusters.iter().map(|one| (one.name.clone(), one.weight.unwrap().value)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn paths(routes: &[Route]) -> Vec<PathSpecifier> {
    routes.iter().map(|route| route.r#match.clone().unwrap().path_specifier.unwrap()).collect()
}

#[test]
fn a_listener_for_each_name_that_a_client_may_call() {
    let snapshot = snapshot_of(&[GRPC, MESH]);
    let scope = caller(&snapshot);
    let listeners = names_of(&snapshot, &scope, LISTENER);
    for name in ["rates:80", "rates", "rates.shop", "rates.shop.svc.cluster.local:80", "reviews.default:9080"]
    {
        assert!(listeners.iter().any(|listener| listener == name), "{name}: {listeners:?}");
    }
    assert!(!listeners.iter().any(|name| name.contains(":81") || name == "reviews:9080"), "{listeners:?}");
    let listener: Listener = get(&snapshot, &scope, LISTENER, "rates.shop.svc.cluster.local:80");
    assert!(listener.address.is_none() && listener.filter_chains.is_empty());
    let manager: HttpConnectionManager =
        unpack(&listener.api_listener.unwrap().api_listener.unwrap()).unwrap();
    assert_eq!(manager.http_filters.len(), 1);
    let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { panic!() };
    assert_eq!(rds.route_config_name, RATES);
    assert_eq!(forwards_to(&routes_of(&snapshot, RATES)[0]), [(RATES.to_owned(), 0)]);
}

#[test]
fn clusters_and_endpoints_say_what_grpc_reads() {
    let snapshot = snapshot_of(&[GRPC, MESH]);
    let scope = caller(&snapshot);
    assert!(!names_of(&snapshot, &scope, CLUSTER).iter().any(|name| name.starts_with("inbound|")));
    for name in [RATES, "BlackHoleCluster"] {
        let cluster: Cluster = get(&snapshot, &scope, CLUSTER, name);
        assert_eq!(cluster.lb_policy, LbPolicy::RoundRobin as i32);
        assert_eq!(
            cluster.cluster_discovery_type,
            Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32))
        );
        assert!(cluster.transport_socket.is_none() && cluster.typed_extension_protocol_options.is_empty());
        let _: ClusterLoadAssignment = get(&snapshot, &scope, ENDPOINTS, name);
    }
    let assignment: ClusterLoadAssignment = get(&snapshot, &scope, ENDPOINTS, RATES);
    let seen = assignment.endpoints.iter().map(|place| {
        let endpoint = |endpoint: &LbEndpoint| match endpoint.host_identifier.as_ref().unwrap() {
            HostIdentifier::Endpoint(endpoint) => text(endpoint.address.as_ref().unwrap()),
            HostIdentifier::EndpointName(_) => panic!(),
        };
        let region = place.locality.as_ref().unwrap().region.as_str();
        (
            region,
            place.load_balancing_weight.unwrap().value,
            place.lb_endpoints.iter().map(endpoint).collect(),
        )
    });
    let expected: [(&str, u32, Vec<String>); 2] =
        [("", 1, vec!["127.2.0.2:8080".into()]), ("r", 1, vec!["127.2.0.3:8080".into()])];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
}

#[test]
fn endpoints_that_take_mutual_tls_only_are_left_out_and_told() {
    let endpoints = |texts: &[&str]| {
        let snapshot = snapshot_of(texts);
        let found: ClusterLoadAssignment = get(&snapshot, &caller(&snapshot), ENDPOINTS, REVIEWS);
        let told = snapshot.problems().iter().any(|problem| problem.reason.contains("mutual TLS only"));
        (found.endpoints.iter().map(|place| place.lb_endpoints.len()).sum::<usize>(), told)
    };
    assert_eq!(endpoints(&[GRPC, MESH]), (2, false));
    let strict = peer_authn("{mtls: {mode: STRICT}}");
    assert_eq!(endpoints(&[GRPC, MESH, &strict]), (0, true));
    // Nobody asks.
    let snapshot = snapshot_of(&[MESH, &strict]);
    assert!(!snapshot.problems().iter().any(|problem| problem.reason.contains("mutual TLS only")));
}

#[test]
fn routes_are_in_terms_of_grpc() {
    let route = http_route(
        "r",
        "
  - matches: [{path: {type: PathPrefix, value: /pkg.Rates}, method: POST}]
    timeouts: {request: 3s}
    backendRefs: [{name: reviews-v1, port: 9080, weight: 9}, {name: gone, port: 9080, weight: 1}]
  - matches: [{path: {type: PathPrefix, value: /pkg.Other}, method: GET}]
    backendRefs: [{name: reviews-v2, port: 9080}]
  - backendRefs: [{name: reviews-v2, port: 9080}]",
    );
    let snapshot = snapshot_of(&[GRPC, MESH, &route]);
    let routes = routes_of(&snapshot, REVIEWS);
    assert_eq!(
        paths(&routes),
        [
            // A share of the calls is refused.
            PathSpecifier::Path("/pkg.Rates".into()),
            PathSpecifier::Prefix("/pkg.Rates/".into()),
            PathSpecifier::Path("/pkg.Rates".into()),
            PathSpecifier::Prefix("/pkg.Rates/".into()),
            PathSpecifier::Prefix("/".into())
        ]
    );
    assert!(routes.iter().all(|route| route.r#match.as_ref().unwrap().headers.is_empty()));
    let v1 = "outbound|9080||reviews-v1.default.svc.cluster.local".to_owned();
    assert_eq!(forwards_to(&routes[3]), [(v1, 0)]);
    assert!(matches!(routes[1].action, Some(Action::DirectResponse(_))));
    let limits = routes[2..].iter().map(|route| match route.action.as_ref().unwrap() {
        Action::Route(action) => {
            assert!(action.timeout.is_none());
            let limit = action.max_stream_duration.as_ref();
            limit.map(|limit| limit.max_stream_duration.as_ref().unwrap().seconds)
        }
        _ => panic!(),
    });
    assert_eq!(limits.collect::<Vec<_>>(), [Some(3), Some(3), None]);
}

#[test]
fn nothing_is_made_while_nobody_needs_it() {
    let snapshot = snapshot_of(&[MESH]);
    assert!(names_of(&snapshot, &web(&snapshot), LISTENER).iter().all(|name| !name.contains("reviews")));
    assert!(!snapshot.is_proxyless(&web(&snapshot)));
    let with = snapshot_of(&[GRPC, MESH]);
    assert!(with.is_proxyless(&caller(&with)));
    assert!(names_of(&with, &web(&with), LISTENER).iter().all(|name| !name.contains("rates")));
}
