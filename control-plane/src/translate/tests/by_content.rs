//! Hosts that captured connections say themselves.

use super::*;
use crate::model::UnknownDestinations;
use outrigger_xds_api::wire::cluster::v3::cluster::{ClusterDiscoveryType, LbConfig};

/// The Pod `web`, captured.
fn captured() -> String {
    MESH.replace(
        "metadata: {name: web,",
        "metadata: {annotations: {sidecar.istio.io/interceptionMode: REDIRECT}, name: web,",
    )
}

fn entry(name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
    )
}

const WIKI: &str = "hosts: ['*.wiki.example'], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: \
                    tls, protocol: TLS}, {number: 27017, name: mongo, protocol: MONGO}]";

fn listener(snapshot: &Snapshot, name: &str) -> Listener {
    get(snapshot, &web(snapshot), ResourceType::Listener, name)
}

fn routes_of(snapshot: &Snapshot, name: &str) -> RouteConfiguration {
    get(snapshot, &web(snapshot), ResourceType::RouteConfiguration, name)
}

/// Each chain as `[RANGE] [NAMES] -> CLUSTER`, or `http`.
fn chains(listener: &Listener) -> Vec<String> {
    let chain =
        |chain: &FilterChain| {
            let found = chain.filter_chain_match.clone().unwrap_or_default();
            let mut words: Vec<String> = Vec::new();
            let ranges = found.prefix_ranges.iter();
            words.extend(ranges.map(|range| {
                format!("{}/{}", range.address_prefix, range.prefix_len.as_ref().unwrap().value)
            }));
            words.extend(found.server_names);
            if found.application_protocols.is_empty() {
                use outrigger_xds_api::wire::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
                let proxy: TcpProxy = only_filter(chain);
                let Some(ClusterSpecifier::Cluster(cluster)) = proxy.cluster_specifier else { panic!() };
                words.push(format!("-> {cluster}"));
            } else {
                let manager: HttpConnectionManager = only_filter(chain);
                let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { panic!() };
                words.push(format!("http {}", rds.route_config_name));
            }
            words.join(" ")
        };
    listener.filter_chains.iter().map(chain).collect()
}

fn filters(listener: &Listener) -> Vec<&str> {
    listener.listener_filters.iter().map(|filter| filter.name.rsplit('.').next().unwrap()).collect()
}

#[test]
fn connections_go_where_the_client_meant_them_to() {
    let snapshot = snapshot_of(&[&captured(), &entry("wiki", WIKI)]);
    assert_valid(&snapshot);
    assert_eq!(snapshot.problems(), []);
    for (port, subset) in [(80, ""), (443, ""), (27017, "")] {
        let wire = cluster(&snapshot, &format!("outbound|{port}|{subset}|*.wiki.example"));
        let of_client = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32);
        assert_eq!(wire.cluster_discovery_type, Some(of_client));
        assert_eq!(wire.lb_policy, LbPolicy::ClusterProvided as i32);
        assert!(wire.transport_socket.is_none() && wire.eds_cluster_config.is_none());
    }
    let http = listener(&snapshot, "0.0.0.0_80");
    assert_eq!(
        chains(&http),
        ["127.1.0.1/32 -> PassthroughCluster|default/web/latest/web", "http 80", "-> PassthroughCluster"]
    );
    assert_eq!(filters(&http), ["http_inspector"]);
    assert!(http.continue_on_listener_filters_timeout && !http.bind_to_port.unwrap().value);
    let tls = listener(&snapshot, "0.0.0.0_443");
    assert_eq!(
        chains(&tls)[1..],
        ["*.wiki.example -> outbound|443||*.wiki.example", "-> PassthroughCluster"]
    );
    assert_eq!(filters(&tls), ["tls_inspector"]);
    let tcp = listener(&snapshot, "0.0.0.0_27017");
    assert_eq!(chains(&tcp)[1..], ["-> outbound|27017||*.wiki.example"]);
    assert_eq!(filters(&tcp), [""; 0]);

    let routes = routes_of(&snapshot, "80");
    let [host, others] = routes.virtual_hosts.as_slice() else { panic!("{routes:?}") };
    assert_eq!(host.domains, ["*.wiki.example:80", "*.wiki.example"]);
    assert_eq!((others.name.as_str(), others.domains.as_slice()), ("allow_any", &["*".to_owned()][..]));
}

#[test]
fn the_registry_alone_is_let_out_where_that_is_asked_for() {
    let settings =
        MeshSettings { unknown_destinations: UnknownDestinations::RegistryOnly, ..MeshSettings::default() };
    let snapshot = with_settings(settings, &[&captured(), &entry("wiki", WIKI)]);
    assert_valid(&snapshot);
    assert_eq!(chains(&listener(&snapshot, "0.0.0.0_80")).last().unwrap(), "-> BlackHoleCluster");
    assert_eq!(chains(&listener(&snapshot, "0.0.0.0_443")).last().unwrap(), "-> BlackHoleCluster");
    let others = routes_of(&snapshot, "80").virtual_hosts.pop().unwrap();
    let Some(Action::DirectResponse(answer)) = &others.routes[0].action else { panic!() };
    assert_eq!((others.name.as_str(), answer.status), ("block_all", 502));
}

#[test]
fn explicit_clients_are_told_that_they_mean_no_address() {
    let snapshot = snapshot_of(&[MESH, &entry("wiki", WIKI)]);
    assert_valid(&snapshot);
    let Some(Action::DirectResponse(answer)) = &routes(&snapshot, "*.wiki.example:80")[0].action else {
        panic!()
    };
    assert_eq!(answer.status, 503);
    let set = snapshot.resources(&web(&snapshot), ResourceType::Listener);
    assert!(set.iter().all(|resource| !resource.name.ends_with("_27017")));
}

#[test]
fn ranges_tell_connections_apart() {
    let snapshot = snapshot_of(&[
        &captured(),
        &entry(
            "wide",
            "hosts: [wide.example], addresses: [10.0.0.0/8], resolution: NONE, ports: [{number: 9000, name: tcp, protocol: TCP}]",
        ),
        &entry(
            "narrow",
            "hosts: [narrow.example], addresses: [10.1.0.0/16, 'fd00::/8'], resolution: STATIC, endpoints: [{address: 10.9.0.1}], \
             ports: [{number: 9000, name: tcp, protocol: TCP}]",
        ),
        &entry(
            "named",
            "hosts: [tls.example], addresses: [10.0.0.0/8], resolution: NONE, ports: [{number: 9000, name: t, protocol: TLS}]",
        ),
    ]);
    assert_valid(&snapshot);
    assert_eq!(snapshot.problems(), []);
    // The longest range first, and a name everywhere in its range.
    assert_eq!(
        chains(&listener(&snapshot, "0.0.0.0_9000"))[1..],
        [
            "10.0.0.0/8 tls.example -> outbound|9000||tls.example",
            "10.0.0.0/8 -> outbound|9000||wide.example",
            "10.1.0.0/16 -> outbound|9000||narrow.example",
            "10.1.0.0/16 tls.example -> outbound|9000||tls.example",
            "-> PassthroughCluster",
        ]
        .map(String::from)
    );
    let set = snapshot.resources(&web(&snapshot), ResourceType::Listener);
    assert!(set.get("::_9000").is_none(), "the Pod has no such address");
}

#[test]
fn several_hosts_share_addresses_and_one_has_its_own() {
    let spec = "hosts: [a.example, b.example], addresses: [10.7.0.1], resolution: STATIC, endpoints: [{address: 10.9.0.1}], ports: \
                [{number: 443, name: t, protocol: HTTPS}]";
    let snapshot = snapshot_of(&[&captured(), &entry("both", spec)]);
    assert_valid(&snapshot);
    assert_eq!(
        chains(&listener(&snapshot, "0.0.0.0_443"))[1..],
        [
            "10.7.0.1/32 a.example -> outbound|443||a.example",
            "10.7.0.1/32 b.example -> outbound|443||b.example",
            "10.7.0.1/32 -> PassthroughCluster",
            "-> PassthroughCluster",
        ]
    );
    let one = snapshot_of(&[
        &captured(),
        &entry("one", &spec.replace(", b.example", "").replace("10.7.0.1", "10.7.0.1/32")),
    ]);
    assert_eq!(chains(&listener(&one, "10.7.0.1_443")), ["-> outbound|443||a.example"]);
    let refused = snapshot_of(&[&entry("both", &spec.replace("HTTPS", "TCP"))]);
    assert_eq!(refused.rejections()[0].field, "spec.ports[0].protocol");
}

#[test]
fn a_host_without_an_address_is_asked_for_by_name() {
    let spec = "hosts: [api.example], resolution: STATIC, endpoints: [{address: 10.9.0.1}], ports: [{number: 81, name: http, protocol: HTTP}]";
    let snapshot = snapshot_of(&[&captured(), &entry("api", spec)]);
    assert_valid(&snapshot);
    assert_eq!(chains(&listener(&snapshot, "0.0.0.0_81"))[1..], ["http 81", "-> PassthroughCluster"]);
    let routes = routes_of(&snapshot, "81");
    assert_eq!(routes.virtual_hosts[0].domains, ["api.example:81", "api.example"]);
    let Some(Action::Route(action)) = &routes.virtual_hosts[0].routes[0].action else { panic!() };
    assert_eq!(action.cluster_specifier, Some(ClusterSpecifier::Cluster("outbound|81||api.example".into())));
}

#[test]
fn rules_and_policies_for_a_host_with_a_wildcard() {
    let service = virtual_service::virtual_service(
        "v",
        "hosts: ['*.wiki.example'], http: [{match: [{uri: {prefix: /no}}], directResponse: {status: 403}}, {route: [{destination: {host: \
         '*.wiki.example'}}]}], tls: [{match: [{sniHosts: [a.wiki.example], port: 443}], route: [{destination: {host: reviews}}]}]",
    );
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r}, spec: {host: '*.wiki.example', trafficPolicy: \
                {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, caCertificates: /roots}}], connectionPool: {tcp: \
                {maxConnections: 7}}, loadBalancer: {simple: ROUND_ROBIN}}}}";
    let entry = entry("wiki", &WIKI.replace("protocol: HTTP}", "protocol: HTTP, targetPort: 443}"));
    let snapshot = snapshot_of(&[&captured(), &entry, &service, rule]);
    assert_valid(&snapshot);
    let [problem] = snapshot.problems() else { panic!("{:?}", snapshot.problems()) };
    assert!(
        problem.reason.starts_with("loadBalancer has no effect: *.wiki.example has resolution NONE"),
        "{problem}"
    );
    assert_eq!(routes_of(&snapshot, "80").virtual_hosts[0].routes.len(), 2);
    assert_eq!(
        chains(&listener(&snapshot, "0.0.0.0_443"))[1..],
        [
            "a.wiki.example -> outbound|9080||reviews.default.svc.cluster.local",
            "*.wiki.example -> outbound|443||*.wiki.example",
            "-> PassthroughCluster"
        ]
    );
    let wire = cluster(&snapshot, "outbound|80||*.wiki.example");
    assert_eq!(wire.lb_policy, LbPolicy::ClusterProvided as i32);
    let Some(LbConfig::OriginalDstLbConfig(config)) = &wire.lb_config else { panic!() };
    assert_eq!(config.upstream_port_override.as_ref().unwrap().value, 443);
    // Which host is called is not known to the cluster, but what it may prove is.
    let tls: UpstreamTlsContext = socket(&wire.transport_socket);
    assert_eq!(tls.sni, "");
    let Some(ValidationContextType::ValidationContext(context)) =
        tls.common_tls_context.unwrap().validation_context_type
    else {
        panic!()
    };
    let matcher = context.match_typed_subject_alt_names[0].matcher.clone().unwrap();
    assert_eq!(matcher.match_pattern, Some(MatchPattern::Suffix(".wiki.example".into())));
    let tcp = cluster(&snapshot, "outbound|27017||*.wiki.example");
    assert_eq!(tcp.circuit_breakers.unwrap().thresholds[0].max_connections.as_ref().unwrap().value, 7);
}

#[test]
fn only_those_see_a_port_whose_namespace_sees_the_host() {
    let data = captured().replace(
        "{name: cache-0,",
        "{annotations: {sidecar.istio.io/interceptionMode: REDIRECT}, name: cache-0,",
    );
    let private = entry("wiki", &WIKI.replace("resolution", "exportTo: ['.'], resolution"));
    let public = entry(
        "other",
        "hosts: [o.example], resolution: NONE, ports: [{number: 443, name: t, protocol: TLS}]",
    );
    let snapshot = snapshot_of(&[&data, &private, &public]);
    assert_valid(&snapshot);
    let other = scope(&snapshot, "data", "cache-0", "cache");
    let has =
        |scope: &ScopeKey, name: &str| snapshot.resources(scope, ResourceType::Listener).get(name).is_some();
    for name in ["0.0.0.0_80", "0.0.0.0_27017"] {
        assert!(has(&web(&snapshot), name) && !has(&other, name), "{name}");
    }
    let theirs: Listener = get(&snapshot, &other, ResourceType::Listener, "0.0.0.0_443");
    let to_name = |found: &Vec<String>| {
        found.iter().filter(|chain| chain.contains(".example")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(to_name(&chains(&theirs)), ["o.example -> outbound|443||o.example"]);
    assert_eq!(to_name(&chains(&listener(&snapshot, "0.0.0.0_443"))).len(), 2);
}

#[test]
fn what_nothing_tells_apart_is_told() {
    let tcp = |host: &str, port: u16, more: &str| {
        entry(
            host,
            &format!("hosts: [{host}.example], ports: [{{number: {port}, name: t, protocol: TCP}}], {more}"),
        )
    };
    let known = "resolution: STATIC, endpoints: [{address: 10.9.0.1}]";
    let rule = "---\n{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r}, spec: {host: d.example, trafficPolicy: {tls: \
                {mode: ISTIO_MUTUAL}}}}";
    let snapshot = snapshot_of(&[
        &captured(),
        &tcp("a", 9000, known),
        &tcp("b", 9000, "resolution: NONE"),
        &tcp("c", 15006, "resolution: NONE"),
        &tcp("d", 9001, "resolution: NONE"),
        rule,
    ]);
    assert_valid(&snapshot);
    let found: Vec<String> = snapshot.problems().iter().map(ToString::to_string).collect();
    for begin in [
        "a: spec.ports[0]: has no address: all captured connections to port 9000 of addresses that are no Service's go here",
        "b: spec.ports[0]: captured connections to port 9000 go to ServiceEntry default/a, which is older",
        "c: spec.ports[0]: port 15006 is the sidecar's own",
        "d: spec.resolution: a DestinationRule asks for ISTIO_MUTUAL",
    ] {
        assert!(found.iter().any(|found| found.contains(begin)), "{begin}: {found:#?}");
    }
    assert_eq!(found.len(), 4, "{found:#?}");
}
