//! Services that Kubernetes does not know.

use super::virtual_service::virtual_service;
use super::*;
use outrigger_xds_api::wire::cluster::v3::cluster::ClusterDiscoveryType;
use outrigger_xds_api::wire::extensions::clusters::dns::v3::DnsCluster;

const ENTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [api.example]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  resolution: STATIC
  endpoints:
  - {address: 10.9.0.1, labels: {version: v1}, locality: r/z}
  - {address: 10.9.0.2, ports: {http: 9090}, weight: 3}
";
const CLUSTER: &str = "outbound|80||api.example";
const HOST: &str = "api.example:80";

#[test]
fn its_hosts_are_called_at_its_endpoints() {
    let snapshot = snapshot_of(&[MESH, ENTRY]);
    assert_valid(&snapshot);
    assert_eq!(endpoints(&snapshot, CLUSTER), ["10.9.0.2:9090", "10.9.0.1:8080"]);
    assert!(cluster(&snapshot, CLUSTER).transport_socket.is_none(), "it has no sidecar");
    let host = virtual_host(&snapshot, &web(&snapshot), HOST);
    assert_eq!(host.domains, ["api.example:80", "api.example"]);
    assert_eq!(snapshot.problems(), []);
}

#[test]
fn rules_lead_from_it_and_to_it() {
    let service = virtual_service(
        "v",
        "hosts: [api.example, reviews], http: [{match: [{uri: {prefix: /v1}}], route: [{destination: {host: api.example, subset: v1}}]}, \
         {route: [{destination: {host: api.example}}]}]",
    );
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r}, spec: {host: api.example, subsets: [{name: \
                v1, labels: {version: v1}}]}}";
    let snapshot = snapshot_of(&[MESH, ENTRY, &service, rule]);
    assert_valid(&snapshot);
    assert_eq!(endpoints(&snapshot, "outbound|80|v1|api.example"), ["10.9.0.1:8080"]);
    for host in [HOST, REVIEWS_HOST] {
        let cluster = |index: usize| match &routes(&snapshot, host)[index].action {
            Some(Action::Route(action)) => action.cluster_specifier.clone().unwrap(),
            _ => panic!(),
        };
        assert_eq!(cluster(0), ClusterSpecifier::Cluster("outbound|80|v1|api.example".into()));
        assert_eq!(cluster(1), ClusterSpecifier::Cluster(CLUSTER.into()));
    }
}

#[test]
fn only_those_see_it_that_it_is_exported_to() {
    let private = ENTRY.replace("  hosts:", "  exportTo: ['.']\n  addresses: [10.0.0.9]\n  hosts:");
    let captured = MESH.replace(
        "metadata: {name: web,",
        "metadata: {annotations: {sidecar.istio.io/interceptionMode: REDIRECT}, name: web,",
    );
    let captured = captured.replace(
        "metadata: {name: cache-0,",
        "metadata: {annotations: {sidecar.istio.io/interceptionMode: REDIRECT}, name: cache-0,",
    );
    let snapshot = snapshot_of(&[&captured, &private]);
    assert_valid(&snapshot);
    let has = |scope: &ScopeKey, of, name| snapshot.resources(scope, of).get(name).is_some();
    let (own, other) = (web(&snapshot), scope(&snapshot, "data", "cache-0", "cache"));
    for (of, name) in [(ResourceType::Listener, "10.0.0.9_80"), (ResourceType::RouteConfiguration, HOST)] {
        assert!(has(&own, of, name) && !has(&other, of, name), "{name}");
    }
    let shared = snapshot_of(&[&captured, &private.replace("'.'", "'*'")]);
    assert!(shared.resources(&other, ResourceType::Listener).get("10.0.0.9_80").is_some());
}

#[test]
fn of_two_for_one_host_the_older_counts() {
    let other =
        ENTRY.replace("{name: outside}", "{name: another, namespace: data}").replace("10.9.0.", "10.8.0.");
    let aged = |text: &str, at: &str| {
        text.replace("metadata: {", &format!("metadata: {{creationTimestamp: '{at}', "))
    };
    let snapshot = snapshot_of(&[MESH, &aged(ENTRY, "2020"), &aged(&other, "2021")]);
    assert_eq!(endpoints(&snapshot, CLUSTER), ["10.9.0.2:9090", "10.9.0.1:8080"]);
    assert!(snapshot.problems().iter().any(|found| {
        found.field == "spec.hosts[0]"
            && found.reason == "has no effect: ServiceEntry default/outside is for the same host, and older"
    }));
    let snapshot = snapshot_of(&[MESH, &aged(ENTRY, "2022"), &aged(&other, "2021")]);
    assert_eq!(endpoints(&snapshot, CLUSTER), ["10.8.0.2:9090", "10.8.0.1:8080"]);
}

#[test]
fn it_may_stand_for_pods() {
    let entry = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: inside}
spec:
  hosts: [reviews.example]
  location: MESH_INTERNAL
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  workloadSelector: {labels: {app: reviews}}
";
    let snapshot = snapshot_of(&[MESH, entry]);
    assert_valid(&snapshot);
    let name = "outbound|80||reviews.example";
    assert_eq!(endpoints(&snapshot, name), ["127.1.0.2:15006", "127.1.0.3:15006"]);
    let tls: UpstreamTlsContext = socket(&cluster(&snapshot, name).transport_socket);
    assert_eq!(tls.sni, "outbound_.80_._.reviews.example");
    // The callee's sidecar takes it by that name.
    let reviews = scope(&snapshot, "default", "reviews-v1-a", "reviews");
    let inbound: Listener = get(&snapshot, &reviews, ResourceType::Listener, "virtualInbound");
    let takes = |chain: &FilterChain| {
        let found = chain.filter_chain_match.as_ref();
        found.is_some_and(|found| found.server_names.contains(&tls.sni))
    };
    assert!(inbound.filter_chains.iter().any(takes));
}

/// What a cluster says of looking its names up.
fn settings(snapshot: &Snapshot, name: &str) -> DnsCluster {
    match cluster(snapshot, name).cluster_discovery_type {
        Some(ClusterDiscoveryType::ClusterType(kind)) => unpack(&kind.typed_config.unwrap()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Whether a cluster is a logical one, and the names in its own load assignment.
fn looked_up(snapshot: &Snapshot, name: &str) -> (bool, Vec<String>) {
    let is_logical = settings(snapshot, name).all_addresses_in_single_endpoint;
    let assignment = cluster(snapshot, name).load_assignment.unwrap();
    assert_eq!(assignment.cluster_name, name);
    let endpoints = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    (is_logical, endpoints.map(dialled).collect())
}

#[test]
fn proxies_resolve_names() {
    let (head, _) = ENTRY.split_once("  resolution:").unwrap();
    let of = |rest: &str| snapshot_of(&[MESH, &format!("{head}  resolution: {rest}\n")]);
    // A host without endpoints is its own.
    let snapshot = of("DNS");
    assert_valid(&snapshot);
    assert_eq!(looked_up(&snapshot, CLUSTER), (false, vec!["api.example:8080".into()]));
    let wire = cluster(&snapshot, CLUSTER);
    assert!(settings(&snapshot, CLUSTER).respect_dns_ttl);
    assert!(wire.eds_cluster_config.is_none() && wire.transport_socket.is_none());
    let assignments = snapshot.resources(&web(&snapshot), ResourceType::ClusterLoadAssignment);
    assert!(assignments.get(CLUSTER).is_none());

    let snapshot = of(
        "DNS\n  location: MESH_INTERNAL\n  endpoints: [{address: a.example, ports: {http: 81}}, {address: 10.0.0.1, weight: 2}]",
    );
    assert_valid(&snapshot);
    let expected = vec!["a.example:81".into(), "10.0.0.1:8080".into()];
    assert_eq!(looked_up(&snapshot, CLUSTER), (false, expected));
    assert!(cluster(&snapshot, CLUSTER).transport_socket.is_none(), "nobody knows who is there");

    let snapshot = of("DNS_ROUND_ROBIN\n  endpoints: [{address: a.example, labels: {version: v1}}]");
    assert_eq!(looked_up(&snapshot, CLUSTER), (true, vec!["a.example:8080".into()]));
}

#[test]
fn an_external_name_is_one_that_proxies_resolve() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: out}, spec: {type: ExternalName, externalName: api.example., \
                   ports: [{port: 81, name: http, targetPort: 8080}]}}";
    let snapshot = snapshot_of(&[MESH, service]);
    assert_valid(&snapshot);
    let name = "outbound|81||out.default.svc.cluster.local";
    assert_eq!(looked_up(&snapshot, name), (false, vec!["api.example.:81".into()]));
    assert!(cluster(&snapshot, name).transport_socket.is_none());
    assert_eq!(virtual_host(&snapshot, &web(&snapshot), "out.default.svc.cluster.local:81").routes.len(), 1);
    let refused = snapshot_of(&[&service.replace("api.example.", "'a b'")]);
    assert_eq!(refused.rejections()[0].field, "spec.externalName");
}

#[test]
fn subsets_and_detected_ports_of_names_have_clusters_too() {
    let entry = ENTRY
        .replace("STATIC", "DNS_ROUND_ROBIN")
        .replace("protocol: HTTP, ", "")
        .replace("name: http", "name: x");
    let (head, _) = entry.split_once("  - {address: 10.9.0.1").unwrap();
    let entry = format!("{head}  - {{address: a.example, labels: {{version: v1}}}}\n");
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r}, spec: {host: api.example, subsets: \
                [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}}";
    let snapshot = snapshot_of(&[MESH, &entry, rule]);
    assert_valid(&snapshot);
    let one = (true, vec!["a.example:8080".to_owned()]);
    assert_eq!(looked_up(&snapshot, "outbound|80|v1|api.example"), one);
    assert_eq!(looked_up(&snapshot, "outbound|80|v2|api.example"), (false, vec![]));
    assert_eq!(looked_up(&snapshot, "outbound|80|tcp|api.example"), one);
}

#[test]
fn what_is_not_supported_is_refused() {
    for (from, to, field) in [
        ("resolution: STATIC", "resolution: NONE", "spec.endpoints"),
        ("resolution: STATIC", "resolution: DYNAMIC_DNS", "spec.resolution"),
        ("resolution: STATIC", "resolution: DNS_ROUND_ROBIN", "spec.endpoints"),
        ("resolution: STATIC", "workloadSelector: {labels: {a: b}}\n  resolution: STATIC", "spec.endpoints"),
        ("[api.example]", "['*']", "spec.hosts[0]"),
        ("[api.example]", "['a.*.example']", "spec.hosts[0]"),
        ("[api.example]", "[api]", "spec.hosts[0]"),
        ("  hosts:", "  addresses: [10.0.0.0/33]\n  hosts:", "spec.addresses[0]"),
        ("address: 10.9.0.1", "address: other.example", "spec.endpoints[0].address"),
        ("[api.example]", "[reviews.default.svc.cluster.local]", "spec.hosts[0]"),
        ("protocol: HTTP", "protocol: UDP", "spec.ports[0].protocol"),
        ("address: 10.9.0.1", "address: 'unix://x'", "spec.endpoints[0].address"),
        ("address: 10.9.0.2", "address: unix:///x", "spec.endpoints[1].ports.http"),
        ("  hosts:", "  subjectAltNames: [a]\n  hosts:", "spec.subjectAltNames"),
    ] {
        let refused = snapshot_of(&[MESH, &ENTRY.replace(from, to)]);
        assert_eq!(refused.rejections()[0].field, field, "{to}");
    }
}
