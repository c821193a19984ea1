//! Which object made what.

use super::virtual_service::virtual_service;
use super::*;
use crate::translate::causes;

const POLICY: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: limits}
spec: {host: reviews, trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}}}
";

/// `OBJECT FIELD` of each cause.
fn shown(snapshot: &Snapshot, of: ResourceType, name: &str, field: &str) -> Vec<String> {
    let set = snapshot.resources(&web(snapshot), of);
    let resource = set.get(name).unwrap();
    let causes = causes(of, &resource.content, field).into_iter();
    causes.map(|(object, field)| format!("{object} {field}")).collect()
}

#[test]
fn the_way_back_of_translation() {
    use ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};

    let snapshot = snapshot_of(&[MESH, POLICY, &split()]);
    let reviews = "outbound|9080||reviews.default.svc.cluster.local";
    let (service, policy) = ("Service default/reviews ", "DestinationRule default/limits ");
    for (field, expected) in [
        (
            "circuit_breakers.thresholds[0].max_connections",
            vec!["DestinationRule default/limits spec.trafficPolicy"],
        ),
        ("transport_socket.typed_config", vec![service]),
        ("", vec![service, policy]),
    ] {
        assert_eq!(shown(&snapshot, Cluster, reviews, field), expected, "{field}");
    }
    assert_eq!(shown(&snapshot, ClusterLoadAssignment, reviews, "endpoints[0]"), [service]);
    assert_eq!(shown(&snapshot, Cluster, "BlackHoleCluster", ""), [""; 0]);

    let routes: super::RouteConfiguration = get(&snapshot, &web(&snapshot), RouteConfiguration, "15001");
    let at = |host: &str| routes.virtual_hosts.iter().position(|found| found.name == host).unwrap();
    let (ruled, plain) =
        (at("reviews.default.svc.cluster.local:9080"), at("reviews-v1.default.svc.cluster.local:9080"));
    for (field, expected) in [
        (format!("virtual_hosts[{ruled}].routes[0].match"), "HTTPRoute default/split spec.rules[0]"),
        (format!("virtual_hosts[{ruled}].domains[0]"), service),
        (format!("virtual_hosts[{plain}].routes[0].match"), "Service default/reviews-v1 "),
        ("virtual_hosts".to_owned(), "HTTPRoute default/split spec.rules[0]"),
    ] {
        assert_eq!(shown(&snapshot, RouteConfiguration, "15001", &field), [expected], "{field}");
    }

    let entry = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, spec: {hosts: [api.example], ports: [{number: \
                 80, name: http}], resolution: STATIC, endpoints: [{address: 10.9.0.1}]}}";
    let rule = virtual_service(
        "v",
        "hosts: [cache.data.svc.cluster.local], tcp: [{route: [{destination: {host: reviews}}]}]",
    );
    let others = snapshot_of(&[MESH, entry, &rule]);
    assert_eq!(others.rejections(), []);
    assert_eq!(shown(&others, Cluster, "outbound|80||api.example", ""), ["ServiceEntry default/e "]);
    let cause = shown(&others, Listener, "127.1.0.1_6379", "filter_chains[0].filters");
    assert!(cause.contains(&"VirtualService default/v spec.tcp[0]".to_owned()), "{cause:?}");

    // A TCP port is a listener of its own; a name in the chain says whose.
    assert_eq!(shown(&snapshot, Listener, "127.1.0.1_6379", "address"), ["Service data/cache "]);
    assert_eq!(shown(&snapshot, Listener, "127.1.0.1_15001", "address"), [""; 0]);
    let captured = "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}, annotations: \
                    {sidecar.istio.io/interceptionMode: REDIRECT}}, spec: {serviceAccountName: web}, status: {podIP: 127.1.0.1}}";
    let own = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 80}]}}";
    let snapshot = snapshot_of(&[captured, own]);
    assert_eq!(
        shown(&snapshot, Listener, "virtualInbound", "filter_chains[0].filters"),
        ["Service default/web "]
    );
}

#[test]
fn what_filters_refuse_is_the_policys() {
    let policy = |name: &str, target: &str, parts: &str| {
        format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}}}\nspec: {{targetRefs: [{target}], {parts}}}\n"
        )
    };
    let service = "{group: '', kind: Service, name: reviews}";
    let of_service = policy("s", service, "rateLimit: {requests: 5}, queryParameters: {remove: [a]}");
    let route = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: split}";
    let of_route = policy("r", route, "rateLimit: {requests: 5}");
    let snapshot = snapshot_of(&[MESH, &split(), &of_service, &of_route]);
    let routes: super::RouteConfiguration =
        get(&snapshot, &web(&snapshot), ResourceType::RouteConfiguration, "15001");
    let host = routes.virtual_hosts.iter().position(|found| found.name == REVIEWS_HOST).unwrap();
    let at = |part: &str| {
        let field = format!("virtual_hosts[{host}].routes[0].{part}");
        shown(&snapshot, ResourceType::RouteConfiguration, "15001", &field)
    };
    let filter = |name: &str| at(&format!("typed_per_filter_config[\"envoy.filters.http.{name}\"].status"));
    assert_eq!(filter("local_ratelimit"), ["TrafficPolicy default/r spec.rateLimit"]);
    assert_eq!(filter("header_mutation"), ["TrafficPolicy default/s spec.queryParameters"]);
    assert_eq!(filter("cors"), ["HTTPRoute default/split spec.rules[0]"]);
    assert_eq!(at("match"), ["HTTPRoute default/split spec.rules[0]"]);
    let all = shown(&snapshot, ResourceType::RouteConfiguration, "15001", "");
    assert!(all.contains(&"TrafficPolicy default/s spec.queryParameters".to_owned()), "{all:?}");

    let scope = scope(&snapshot, "default", "reviews-v1-a", "reviews");
    let set = snapshot.resources(&scope, ResourceType::Listener);
    let listener = &set.get("virtualInbound").unwrap().content;
    let field = "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].typed_per_filter_config[\
                 \"envoy.filters.http.local_ratelimit\"].status.code";
    let found: Vec<String> = causes(ResourceType::Listener, listener, field)
        .into_iter()
        .map(|(object, field)| format!("{object} {field}"))
        .collect();
    assert_eq!(found, ["TrafficPolicy default/s spec.rateLimit"]);
}
