//! Ports that nobody declares a protocol for.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use outrigger_xds_api::wire::cluster::v3::cluster::ClusterDiscoveryType;
use outrigger_xds_api::wire::http_protocol_options::v3::HttpProtocolOptions;
use outrigger_xds_api::wire::http_protocol_options::v3::http_protocol_options::UpstreamProtocolOptions;
use outrigger_xds_api::wire::listener::v3::listener_filter_chain_match_predicate::Rule;

use super::captured::{captured, chains, listener, v1};
use super::*;

const ANY: &str = "
apiVersion: v1
kind: Service
metadata: {name: any}
spec:
  selector: {version: v1}
  clusterIP: 10.0.0.9
  ports: [{port: 7000, targetPort: 7001}]
";
const ANY_SNI: &str = "outbound_.7000_._.any.default.svc.cluster.local";

#[test]
fn clients_look_at_the_first_bytes() {
    let snapshot = captured(&[ANY]);
    let outbound = listener(&snapshot, "10.0.0.9_7000");
    assert_eq!(
        chains(&outbound),
        [": http/1.0 http/1.1 h2c -> *", ":  -> outbound|7000|tcp|any.default.svc.cluster.local"]
    );
    assert_eq!(outbound.listener_filters[0].name, "envoy.filters.listener.http_inspector");
    assert!(outbound.continue_on_listener_filters_timeout);
    assert_eq!(outbound.listener_filters_timeout.unwrap().seconds, 1);
    // What is declared is not looked at.
    assert!(listener(&snapshot, "10.0.0.1_9080").listener_filters.is_empty());
}

#[test]
fn what_was_found_is_said_to_the_peer() {
    let snapshot = captured(&[ANY]);
    let get = |name: &str| -> Cluster { get(&snapshot, &v1(&snapshot), ResourceType::Cluster, name) };
    let alpn = |cluster: &Cluster| {
        socket::<UpstreamTlsContext>(&cluster.transport_socket).common_tls_context.unwrap().alpn_protocols
    };
    let http = get("outbound|7000||any.default.svc.cluster.local");
    assert_eq!(alpn(&http), ["istio-http"]);
    let options: HttpProtocolOptions =
        unpack(http.typed_extension_protocol_options.values().next().unwrap()).unwrap();
    let Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) = options.upstream_protocol_options
    else {
        panic!()
    };
    let tcp = get("outbound|7000|tcp|any.default.svc.cluster.local");
    assert_eq!(alpn(&tcp), [""; 0]);
    assert_eq!(tcp.cluster_discovery_type, Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)));
    assert_eq!(tcp.eds_cluster_config.unwrap().service_name, http.name);
}

#[test]
fn servers_go_by_what_the_peer_says_or_by_the_bytes() {
    let snapshot = captured(&[ANY]);
    let inbound = listener(&snapshot, "virtualInbound");
    let all = chains(&inbound);
    let of_port: Vec<_> = all.iter().filter(|chain| chain.contains("700")).map(String::as_str).collect();
    assert_eq!(
        of_port,
        [
            &format!("{ANY_SNI}-http: 15006 {ANY_SNI} tls istio-http mtls -> *"),
            &format!("{ANY_SNI}: 15006 {ANY_SNI} tls mtls -> inbound|7001||"),
            "7001-mtls: 7001 tls istio mtls -> inbound|7001||",
            "7001-tls: 7001 tls -> inbound|7001||",
            "7001-http: 7001 http/1.0 http/1.1 h2c -> *",
            "7001: 7001 -> inbound|7001||",
        ]
    );
    let inspector = &inbound.listener_filters[2];
    assert_eq!(inspector.name, "envoy.filters.listener.http_inspector");
    let Some(Rule::NotMatch(only)) = &inspector.filter_disabled.as_ref().unwrap().rule else { panic!() };
    let Some(Rule::DestinationPortRange(range)) = &only.rule else { panic!() };
    assert_eq!((range.start, range.end), (7001, 7002));
}

#[test]
fn explicit_mode_detects_too() {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: any, labels: {version: v3}}, spec: {}, status: {podIP: 127.1.0.9}}";
    let snapshot = snapshot_of(&[MESH, &ANY.replace("version: v1", "version: v3"), pod]);
    let scope = scope(&snapshot, "default", "any", "default");
    let inbound: Listener = get(&snapshot, &scope, ResourceType::Listener, "virtualInbound");
    assert_eq!(
        chains(&inbound)[2..],
        ["plaintext-http: raw_buffer http/1.0 http/1.1 h2c -> *", "plaintext: raw_buffer -> inbound|7001||"]
    );
    // By host name when it is HTTP, at its own port when it is not.
    assert_eq!(
        virtual_host(&snapshot, &web(&snapshot), "any.default.svc.cluster.local:7000").routes.len(),
        1
    );
    let tcp: Listener = get(&snapshot, &web(&snapshot), ResourceType::Listener, "127.1.0.1_7000");
    assert_eq!(chains(&tcp), [":  -> outbound|7000|tcp|any.default.svc.cluster.local"]);
}
