//! Rules of VirtualServices for connections: `tls` and `tcp`.

use outrigger_xds_api::wire::tcp_proxy::v3::tcp_proxy::ClusterSpecifier as TcpClusters;

use super::virtual_service::virtual_service;
use super::*;

/// A mesh with a captured client, a TCP port, a TLS port and one that is detected.
fn mesh() -> String {
    let captured = MESH.replace(
        "metadata: {name: web,",
        "metadata: {annotations: {sidecar.istio.io/interceptionMode: REDIRECT}, name: web,",
    );
    format!(
        "{captured}---
{{apiVersion: v1, kind: Service, metadata: {{name: db}}, spec: {{clusterIP: 10.0.0.1, selector: {{app: reviews}}, ports: [{{name: tcp, \
         port: 5000}}]}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: site}}, spec: {{clusterIP: 10.0.0.2, selector: {{app: reviews}}, ports: [{{name: https, \
         port: 443}}]}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: any}}, spec: {{clusterIP: 10.0.0.3, selector: {{app: reviews}}, ports: [{{name: any, \
         port: 7000}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: db}}, spec: {{host: db, subsets: [{{name: v1, labels: \
         {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}}}
"
    )
}

fn listener(snapshot: &Snapshot, name: &str) -> Listener {
    get(snapshot, &web(snapshot), ResourceType::Listener, name)
}

/// Server names, ranges of addresses, and clusters with weights of each chain.
fn shown(listener: &Listener) -> Vec<String> {
    let chain = |chain: &FilterChain| {
        let found = chain.filter_chain_match.clone().unwrap_or_default();
        let ranges: Vec<_> = found.prefix_ranges.iter().map(|range| range.address_prefix.clone()).collect();
        let is_http = !found.application_protocols.is_empty();
        let to = if is_http {
            "http".to_owned()
        } else {
            match only_filter::<TcpProxy>(chain).cluster_specifier.unwrap() {
                TcpClusters::Cluster(name) => name,
                TcpClusters::WeightedClusters(all) => {
                    let shares = all.clusters.iter().map(|share| format!("{} {}", share.name, share.weight));
                    shares.collect::<Vec<_>>().join(" + ")
                }
            }
        };
        format!("{}{} -> {to}", found.server_names.join(","), ranges.join(","))
    };
    listener.filter_chains.iter().map(chain).collect()
}

fn db(subset: &str) -> String {
    format!("outbound|5000|{subset}|db.default.svc.cluster.local")
}

#[test]
fn connections_are_split() {
    let service = virtual_service(
        "v",
        "hosts: [db], tcp: [{match: [{port: 5000}], route: [{destination: {host: db, subset: v1}, weight: 80}, {destination: {host: db, subset: \
         v2}, weight: 20}]}]",
    );
    let snapshot = snapshot_of(&[&mesh(), &service]);
    assert_eq!((snapshot.rejections(), snapshot.problems()), (&[][..], &[][..]));
    assert_valid(&snapshot);
    assert_eq!(
        shown(&listener(&snapshot, "10.0.0.1_5000")),
        [format!(" -> {} 80 + {} 20", db("v1"), db("v2"))]
    );
    // Others are as they were, and shared by all.
    assert_eq!(
        shown(&listener(&snapshot, "10.0.0.2_443")),
        [" -> outbound|443||site.default.svc.cluster.local"]
    );
    // In explicit mode the port is a listener of each workload's own.
    let explicit = scope(&snapshot, "data", "cache-0", "cache");
    let of: Listener = get(&snapshot, &explicit, ResourceType::Listener, "127.1.0.4_5000");
    assert_eq!(shown(&of), [format!(" -> {} 80 + {} 20", db("v1"), db("v2"))]);
}

#[test]
fn the_first_of_equal_matches_counts_and_the_rest_goes_to_the_service() {
    let to = |subset: &str| format!("route: [{{destination: {{host: db, subset: {subset}}}}}]");
    let (v1, v2) = (to("v1"), to("v2"));
    let service = virtual_service(
        "v",
        &format!(
            "hosts: [db], tcp: [{{match: [{{destinationSubnets: [10.0.0.0/8]}}, {{port: 1}}, {{sourceLabels: {{app: nobody}}}}], {v1}}}, \
             {{match: [{{destinationSubnets: [10.0.0.0/8]}}], {v2}}}]"
        ),
    );
    let snapshot = snapshot_of(&[&mesh(), &service]);
    assert_valid(&snapshot);
    let expected = [format!("10.0.0.0 -> {}", db("v1")), format!(" -> {}", db(""))];
    assert_eq!(shown(&listener(&snapshot, "10.0.0.1_5000")), expected);
    let maker = |chain: &FilterChain| crate::translate::metadata::maker(chain.metadata.as_ref()).unwrap().1;
    assert_eq!(maker(&listener(&snapshot, "10.0.0.1_5000").filter_chains[0]), "spec.tcp[0]");
}

#[test]
fn tls_is_led_by_server_name() {
    let service = virtual_service(
        "v",
        "hosts: [site], tls: [{match: [{port: 443, sniHosts: [site]}], route: [{destination: {host: db, port: {number: 5000}}}]}]",
    );
    let whole = service.replace("[site]", "[site.default.svc.cluster.local]");
    let snapshot = snapshot_of(&[&mesh(), &whole]);
    assert_eq!(snapshot.rejections(), []);
    assert_valid(&snapshot);
    let found = listener(&snapshot, "10.0.0.2_443");
    assert_eq!(
        shown(&found),
        [
            format!("site.default.svc.cluster.local -> {}", db("")),
            " -> outbound|443||site.default.svc.cluster.local".to_owned()
        ]
    );
    assert_eq!(found.listener_filters[0].name, "envoy.filters.listener.tls_inspector");
    assert!(found.continue_on_listener_filters_timeout, "whoever is silent is no TLS client");
    let foreign = whole.replace("sniHosts: [site.default.svc.cluster.local]", "sniHosts: [other.example]");
    let refused = snapshot_of(&[&mesh(), &foreign]);
    assert_eq!(refused.rejections()[0].field, "spec.tls[0].match[0].sniHosts[0]");
}

#[test]
fn http_on_a_detected_port_is_told_apart_before_ranges_of_addresses() {
    let service = virtual_service(
        "v",
        "hosts: [any], tcp: [{match: [{destinationSubnets: [10.0.0.3]}], route: [{destination: {host: db}}]}]",
    );
    let snapshot = snapshot_of(&[&mesh(), &service]);
    assert_valid(&snapshot);
    assert_eq!(
        shown(&listener(&snapshot, "10.0.0.3_7000")),
        [
            " -> http".to_owned(),
            "10.0.0.3 -> http".to_owned(),
            format!("10.0.0.3 -> {}", db("")),
            " -> outbound|7000|tcp|any.default.svc.cluster.local".to_owned()
        ]
    );
}

#[test]
fn callers_by_namespace_and_destinations_that_are_missing() {
    let service = virtual_service(
        "v",
        "hosts: [db], tcp: [{match: [{sourceNamespace: data}], route: [{destination: {host: gone}}]}]",
    );
    let snapshot = snapshot_of(&[&mesh(), &service]);
    assert_eq!(shown(&listener(&snapshot, "10.0.0.1_5000")), [format!(" -> {}", db(""))]);
    let [problem] = snapshot.problems() else { panic!() };
    assert_eq!(
        (problem.field.as_str(), problem.reason.as_str()),
        (
            "spec.tcp[0].route[0].destination",
            "Service default/gone does not exist: its share of connections fails"
        )
    );
    let cache = scope(&snapshot, "data", "cache-0", "cache");
    let of: Listener = get(&snapshot, &cache, ResourceType::Listener, "127.1.0.4_5000");
    assert_eq!(shown(&of), [" -> BlackHoleCluster"]);
}

#[test]
fn no_two_chains_match_the_same() {
    let rule = |names: &str, to: &str| {
        format!("{{match: [{{sniHosts: [{names}]}}], route: [{{destination: {{host: {to}}}}}]}}")
    };
    let service = virtual_service(
        "v",
        &format!(
            "hosts: [site.default.svc.cluster.local, a.example, b.example, c.example], tls: [{}, {}]",
            rule("a.example, b.example", "db"),
            rule("b.example, c.example", "site")
        ),
    );
    let snapshot = snapshot_of(&[&mesh(), &service]);
    assert_eq!(snapshot.rejections(), []);
    assert_eq!(
        shown(&listener(&snapshot, "10.0.0.2_443")),
        [
            format!("a.example,b.example -> {}", db("")),
            "c.example -> outbound|443||site.default.svc.cluster.local".to_owned(),
            " -> outbound|443||site.default.svc.cluster.local".to_owned(),
        ]
    );
    let ranges = virtual_service(
        "v",
        "hosts: [db], tcp: [{match: [{destinationSubnets: [10.0.0.1/8, 10.1.0.0/16]}], route: [{destination: {host: site}}]}, {match: \
         [{destinationSubnets: [10.0.0.0/8, 10.2.0.0/16]}], route: [{destination: {host: db}}]}]",
    );
    let site = "outbound|443||site.default.svc.cluster.local";
    assert_eq!(
        shown(&listener(&snapshot_of(&[&mesh(), &ranges]), "10.0.0.1_5000")),
        [
            format!("10.0.0.0,10.1.0.0 -> {site}"),
            format!("10.2.0.0 -> {}", db("")),
            format!(" -> {}", db(""))
        ]
    );
}
