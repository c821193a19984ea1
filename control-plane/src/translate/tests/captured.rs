//! Listeners and clusters of workloads whose connections are captured.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use outrigger_xds_api::wire::http_connection_manager::v3::HttpConnectionManager;
use outrigger_xds_api::wire::listener::v3::FilterChainMatch;
use outrigger_xds_api::wire::tcp_proxy::v3::tcp_proxy::ClusterSpecifier as TcpCluster;

use super::*;

/// `MESH` with captured Pods, one of them with two addresses, and cluster IPs.
fn mesh() -> String {
    MESH.replace(
        "metadata: {name: web,",
        "metadata: {annotations: {sidecar.istio.io/interceptionMode: NONE}, name: web,",
    )
    .replace("podIP: 127.1.0.3", "podIP: 127.1.0.3, podIPs: [{ip: 127.1.0.3}, {ip: 'fd00::3'}]")
    .replace("selector: {app: reviews},", "selector: {app: reviews}, clusterIPs: [10.0.0.1, 'fd00::1'],")
    .replace("selector: {app: cache},", "selector: {app: cache}, clusterIP: 10.0.0.2,")
}

pub(super) fn captured(texts: &[&str]) -> Arc<Snapshot> {
    let settings =
        MeshSettings { interception: crate::model::Interception::Redirect, ..MeshSettings::default() };
    let mesh = mesh();
    with_settings(settings, &[&[mesh.as_str()], texts].concat())
}

pub(super) fn v1(snapshot: &Snapshot) -> ScopeKey {
    scope(snapshot, "default", "reviews-v1-a", "reviews")
}

fn names(snapshot: &Snapshot, scope: &ScopeKey, of: ResourceType) -> Vec<String> {
    snapshot.resources(scope, of).iter().map(|resource| resource.name.to_string()).collect()
}

pub(super) fn listener(snapshot: &Snapshot, name: &str) -> Listener {
    get(snapshot, &v1(snapshot), ResourceType::Listener, name)
}

/// `name: match -> cluster` of each chain; `*` is a connection manager.
pub(super) fn chains(listener: &Listener) -> Vec<String> {
    let shown = |chain: &FilterChain| {
        let FilterChainMatch {
            destination_port,
            prefix_ranges,
            server_names,
            transport_protocol,
            application_protocols,
            ..
        } = chain.filter_chain_match.clone().unwrap_or_default();
        let mut parts: Vec<String> = destination_port.iter().map(|port| port.value.to_string()).collect();
        parts.extend(
            prefix_ranges
                .iter()
                .map(|range| format!("{}/{}", range.address_prefix, range.prefix_len.unwrap().value)),
        );
        parts.extend(server_names);
        parts.extend((!transport_protocol.is_empty()).then_some(transport_protocol));
        parts.extend(application_protocols);
        let Some(filter::ConfigType::TypedConfig(any)) = &chain.filters[0].config_type else { panic!() };
        let to = match unpack::<TcpProxy>(any) {
            Ok(proxy) => match proxy.cluster_specifier {
                Some(TcpCluster::Cluster(cluster)) => cluster,
                _ => panic!(),
            },
            Err(_) => "*".to_owned(),
        };
        let mutual_tls = if chain.transport_socket.is_some() { " mtls" } else { "" };
        format!("{}: {}{mutual_tls} -> {to}", chain.name, parts.join(" "))
    };
    listener.filter_chains.iter().map(shown).collect()
}

#[test]
fn who_gets_which_listeners() {
    let snapshot = captured(&[]);
    let of = ResourceType::Listener;
    // Explicit mode, by the Pod's own word.
    assert_eq!(names(&snapshot, &web(&snapshot), of), ["127.1.0.1_15001", "127.1.0.1_6379"]);
    assert_eq!(
        names(&snapshot, &v1(&snapshot), of),
        ["10.0.0.1_9080", "10.0.0.2_6379", "virtualOutbound", "virtualInbound"]
    );
    let dual = scope(&snapshot, "default", "reviews-v2-a", "reviews-two");
    assert_eq!(
        names(&snapshot, &dual, of),
        [
            "10.0.0.1_9080",
            "10.0.0.2_6379",
            "fd00::1_9080",
            "virtualOutbound",
            "virtualOutbound6",
            "virtualInbound",
            "virtualInbound6"
        ]
    );
    let inbound: Listener = get(&snapshot, &dual, of, "virtualInbound6");
    assert_eq!(text(inbound.address.as_ref().unwrap()), ":::15006");
}

#[test]
fn a_service_is_found_by_its_address() {
    let snapshot = captured(&[]);
    let http = listener(&snapshot, "10.0.0.1_9080");
    assert_eq!(text(http.address.as_ref().unwrap()), "10.0.0.1:9080");
    assert!(!http.bind_to_port.unwrap().value);
    let manager: HttpConnectionManager = only_filter(&http.filter_chains[0]);
    let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { panic!() };
    assert_eq!(rds.route_config_name, REVIEWS_HOST);
    let routes: RouteConfiguration =
        get(&snapshot, &v1(&snapshot), ResourceType::RouteConfiguration, REVIEWS_HOST);
    assert_eq!(routes.virtual_hosts[0].domains, ["*"]);
    let tcp = listener(&snapshot, "10.0.0.2_6379");
    assert_eq!(chains(&tcp), [":  -> outbound|6379||cache.data.svc.cluster.local"]);
}

#[test]
fn an_address_belongs_to_one_service() {
    let other = "{apiVersion: v1, kind: Service, metadata: {name: z}, spec: {clusterIP: 10.0.0.1, ports: [{port: 9080}]}}";
    let snapshot = captured(&[other]);
    let _: HttpConnectionManager = only_filter(&listener(&snapshot, "10.0.0.1_9080").filter_chains[0]);
    let problems: Vec<_> = snapshot.problems().iter().map(ToString::to_string).collect();
    assert!(
        problems.iter().any(|problem| problem.contains(
            "Service default/z: spec.clusterIP: 10.0.0.1 is the address of Service default/reviews too"
        )),
        "{problems:?}"
    );
}

#[test]
fn other_addresses_are_pods_of_the_mesh_or_unknown() {
    let snapshot = captured(&[]);
    let outbound = listener(&snapshot, "virtualOutbound");
    assert!(outbound.use_original_dst.unwrap().value);
    assert_eq!(
        chains(&outbound),
        [
            "uncaptured: 15001 -> BlackHoleCluster",
            "open-15020: 15020 -> PassthroughCluster",
            "open-15021: 15021 -> PassthroughCluster",
            "open-15090: 15090 -> PassthroughCluster",
            "PassthroughCluster|data/cache-0/latest/cache: 127.1.0.4/32 -> PassthroughCluster|data/cache-0/latest/cache",
            "PassthroughCluster|default/reviews-v1-a/v1/reviews: 127.1.0.2/32 -> PassthroughCluster|default/reviews-v1-a/v1/reviews",
            "PassthroughCluster|default/reviews-v2-a/v2/reviews-two: 127.1.0.3/32 -> PassthroughCluster|default/reviews-v2-a/v2/reviews-two",
            "unknown:  -> PassthroughCluster",
        ]
    );
    let cluster: Cluster = get(
        &snapshot,
        &v1(&snapshot),
        ResourceType::Cluster,
        "PassthroughCluster|default/reviews-v2-a/v2/reviews-two",
    );
    let tls: UpstreamTlsContext = socket(&cluster.transport_socket);
    let common = tls.common_tls_context.unwrap();
    assert_eq!(common.alpn_protocols, ["istio"]);
    let Some(ValidationContextType::CombinedValidationContext(combined)) = common.validation_context_type
    else {
        panic!()
    };
    let sans = combined.default_validation_context.unwrap().match_typed_subject_alt_names;
    let [san] = sans.as_slice() else { panic!() };
    let Some(MatchPattern::Exact(exact)) = &san.matcher.as_ref().unwrap().match_pattern else { panic!() };
    assert_eq!(exact, "spiffe://cluster.local/ns/default/sa/reviews-two");
}

#[test]
fn a_port_without_mutual_tls_is_told_apart_for_every_pod() {
    let disable =
        peer_authn("{selector: {matchLabels: {version: v2}}, portLevelMtls: {8080: {mode: DISABLE}}}");
    let snapshot = captured(&[&disable]);
    let chains = chains(&listener(&snapshot, "virtualOutbound"));
    assert_eq!(
        chains[4..7],
        [
            "PassthroughCluster|data/cache-0/latest/cache-8080: 8080 127.1.0.4/32 -> PassthroughCluster|data/cache-0/latest/cache",
            "PassthroughCluster|default/reviews-v1-a/v1/reviews-8080: 8080 127.1.0.2/32 -> PassthroughCluster|default/reviews-v1-a/v1/reviews",
            "unknown-8080: 8080 -> PassthroughCluster",
        ]
    );
    assert_eq!(chains.len(), 11);
}

#[test]
fn unknown_destinations_can_be_closed() {
    let settings = MeshSettings {
        interception: crate::model::Interception::Redirect,
        unknown_destinations: crate::model::UnknownDestinations::RegistryOnly,
        ..MeshSettings::default()
    };
    let snapshot = with_settings(settings, &[&mesh()]);
    assert_eq!(
        chains(&listener(&snapshot, "virtualOutbound")).last().unwrap(),
        "unknown:  -> BlackHoleCluster"
    );
}

#[test]
fn inbound_by_port_and_by_sni() {
    let permissive = captured(&[]);
    let inbound = listener(&permissive, "virtualInbound");
    assert_eq!(text(inbound.address.as_ref().unwrap()), "0.0.0.0:15006");
    let filters: Vec<_> = inbound.listener_filters.iter().map(|filter| filter.name.as_str()).collect();
    assert_eq!(filters, ["envoy.filters.listener.original_dst", "envoy.filters.listener.tls_inspector"]);
    let sni = |service: &str| format!("outbound_.9080_._.{service}.default.svc.cluster.local");
    let (reviews, reviews_v1) = (sni("reviews"), sni("reviews-v1"));
    let by_sni = [
        format!("{reviews}: 15006 {reviews} tls mtls -> *"),
        format!("{reviews_v1}: 15006 {reviews_v1} tls mtls -> *"),
        "uncaptured: 15006 -> BlackHoleCluster".to_owned(),
    ];
    let all = chains(&inbound);
    assert_eq!(all[..3], by_sni);
    assert_eq!(
        all[3..],
        [
            "8080-mtls: 8080 tls istio mtls -> *",
            "8080-tls: 8080 tls -> inbound|8080||",
            "8080: 8080 -> *",
            "other-mtls: tls istio mtls -> InboundPassthroughCluster",
            "other-tls: tls -> InboundPassthroughCluster",
            "other:  -> InboundPassthroughCluster",
        ]
    );
    let strict = captured(&[&peer_authn("{mtls: {mode: STRICT}}")]);
    assert_eq!(
        chains(&listener(&strict, "virtualInbound"))[3..],
        ["8080-mtls: 8080 tls istio mtls -> *", "other-mtls: tls istio mtls -> InboundPassthroughCluster"]
    );
    let disable = captured(&[&peer_authn("{mtls: {mode: DISABLE}}")]);
    assert_eq!(
        chains(&listener(&disable, "virtualInbound")),
        chains(&listener(&captured(&[]), "virtualInbound")),
        "callers that have not heard of it yet are let in"
    );
    // Without mutual TLS its clients call the port itself, where it is captured.
    assert_eq!(endpoints(&disable, REVIEWS), ["127.1.0.2:8080", "127.1.0.3:8080"]);
}
