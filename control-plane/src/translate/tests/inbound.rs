//! Inbound listeners and clusters.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn inbound(snapshot: &Snapshot) -> Listener {
    let scope = scope(snapshot, "default", "reviews-v1-a", "reviews");
    get(snapshot, &scope, ResourceType::Listener, "virtualInbound")
}

const SNIS: [&str; 2] = [
    "outbound_.9080_._.reviews.default.svc.cluster.local",
    "outbound_.9080_._.reviews-v1.default.svc.cluster.local",
];

#[test]
fn inbound_listener() {
    let snapshot = snapshot_of(&[MESH]);
    let listener = inbound(&snapshot);
    assert_eq!(text(listener.address.as_ref().unwrap()), "127.1.0.2:15006");
    assert_eq!(listener.listener_filters[0].name, "envoy.filters.listener.tls_inspector");
    assert_eq!(chain_names(&listener), [SNIS[0], SNIS[1], "plaintext"]);
    let chain = &listener.filter_chains[0];
    let matched = chain.filter_chain_match.as_ref().unwrap();
    assert_eq!(
        (matched.transport_protocol.as_str(), matched.server_names.as_slice()),
        ("tls", &[SNIS[0].to_owned()][..])
    );
    let tls: DownstreamTlsContext = socket(&chain.transport_socket);
    assert!(tls.require_client_certificate.unwrap().value);
    let manager: HttpConnectionManager = only_filter(chain);
    assert_eq!(manager.stat_prefix, "inbound_0.0.0.0_8080;");
    assert!(manager.access_log.is_empty());
    let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!() };
    assert_eq!(routes.name, "inbound|9080||");
    assert_eq!(routes.virtual_hosts[0].name, "inbound|http|9080");
    let Some(Action::Route(action)) = &routes.virtual_hosts[0].routes[0].action else { panic!() };
    assert_eq!(action.cluster_specifier, Some(ClusterSpecifier::Cluster("inbound|8080||".into())));

    let scope = scope(&snapshot, "default", "reviews-v1-a", "reviews");
    let cluster: Cluster = get(&snapshot, &scope, ResourceType::Cluster, "inbound|8080||");
    assert_eq!(
        cluster.cluster_discovery_type,
        Some(outrigger_xds_api::wire::cluster::v3::cluster::ClusterDiscoveryType::Type(
            DiscoveryType::Static as i32
        ))
    );
    let assignment = cluster.load_assignment.unwrap();
    assert_eq!(dialled(&assignment.endpoints[0].lb_endpoints[0]), "127.1.0.2:8080");
    let services = &cluster.metadata.unwrap().filter_metadata["istio"].fields["services"];
    let Some(outrigger_xds_api::wire::protobuf::value::Kind::ListValue(list)) = &services.kind else {
        panic!()
    };
    assert_eq!(list.values.len(), 2);
}

#[test]
fn peer_authentication_modes() {
    let chains = |spec: &str| {
        let snapshot = snapshot_of(&[MESH, &peer_authn(spec)]);
        let listener = inbound(&snapshot);
        chain_names(&listener).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(chains("{mtls: {mode: STRICT}}"), SNIS);
    assert_eq!(chains("{mtls: {mode: DISABLE}}"), chains("{mtls: {mode: PERMISSIVE}}"));
    assert_eq!(chains("{mtls: {mode: UNSET}}").len(), 3);
    let selector = "selector: {matchLabels: {app: reviews}}";
    assert_eq!(chains(&format!("{{{selector}, portLevelMtls: {{8080: {{mode: STRICT}}}}}}")), SNIS);
    assert_eq!(chains(&format!("{{{selector}, portLevelMtls: {{9080: {{mode: STRICT}}}}}}")).len(), 3);

    // The whole mesh, by a policy of the root namespace; the namespace's own one is stronger.
    let strict = peer_authn("{mtls: {mode: STRICT}}");
    let mesh = strict.replace("name: p", "name: m, namespace: istio-system");
    assert_eq!(chain_names(&inbound(&snapshot_of(&[MESH, &mesh]))), SNIS);
    let own = peer_authn("{mtls: {mode: PERMISSIVE}}");
    assert_eq!(chain_names(&inbound(&snapshot_of(&[MESH, &mesh, &own]))).len(), 3);
}

/// Another Service of the pods behind `reviews`, on another port.
const ADMIN: &str = "{apiVersion: v1, kind: Service, metadata: {name: reviews-admin}, \
     spec: {selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: 8081}]}}";

#[test]
fn plaintext_to_several_ports_goes_by_host() {
    let listener = inbound(&snapshot_of(&[MESH, ADMIN]));
    let plaintext = listener.filter_chains.last().unwrap();
    let manager: HttpConnectionManager = only_filter(plaintext);
    let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!() };
    assert_eq!(routes.virtual_hosts.len(), 3);
    assert!(routes.virtual_hosts[1].domains.contains(&"reviews-admin".to_owned()));
}

#[test]
fn plaintext_for_one_port_is_not_taken_as_for_another() {
    let strict = "{selector: {matchLabels: {app: reviews}}, portLevelMtls: {8081: {mode: STRICT}}}";
    let listener = inbound(&snapshot_of(&[MESH, ADMIN, &peer_authn(strict)]));
    let manager: HttpConnectionManager = only_filter(listener.filter_chains.last().unwrap());
    let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!() };
    let names: Vec<_> = routes.virtual_hosts.iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["inbound|http|9080|reviews.default", "inbound|http|9080|reviews-v1.default"]);
}
