//! Outbound listeners.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn outbound_listeners() {
    let settings = MeshSettings { access_log: true, ..MeshSettings::default() };
    let snapshot = with_settings(settings, &[MESH]);
    let http: Listener = get(&snapshot, &web(&snapshot), ResourceType::Listener, "127.1.0.1_15001");
    assert_eq!(text(http.address.as_ref().unwrap()), "127.1.0.1:15001");
    let manager: HttpConnectionManager = only_filter(&http.filter_chains[0]);
    assert_eq!(manager.stat_prefix, "outbound_0.0.0.0_15001");
    assert_eq!(manager.access_log.len(), 1);
    let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { panic!() };
    assert_eq!(rds.route_config_name, "15001");
    let tcp: Listener = get(&snapshot, &web(&snapshot), ResourceType::Listener, "127.1.0.1_6379");
    let proxy: TcpProxy = only_filter(&tcp.filter_chains[0]);
    assert_eq!(
        proxy.cluster_specifier,
        Some(outrigger_xds_api::wire::tcp_proxy::v3::tcp_proxy::ClusterSpecifier::Cluster(
            "outbound|6379||cache.data.svc.cluster.local".into()
        ))
    );
    // `web` has no Service, so no inbound listener; `cache-0` listens on 6379 itself.
    let names = |scope: &ScopeKey| {
        let set = snapshot.resources(scope, ResourceType::Listener);
        set.iter().map(|listener| listener.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&web(&snapshot)), ["127.1.0.1_15001", "127.1.0.1_6379"]);
    let cache = scope(&snapshot, "data", "cache-0", "cache");
    assert_eq!(names(&cache), ["127.1.0.4_15001", "virtualInbound"]);
    let inbound: Listener = get(&snapshot, &cache, ResourceType::Listener, "virtualInbound");
    let _: TcpProxy = only_filter(&inbound.filter_chains[0]);
    assert_eq!(chain_names(&inbound)[1], "plaintext");
}

#[test]
fn tcp_ports_that_clash() {
    let other = "{apiVersion: v1, kind: Service, metadata: {name: redis}, spec: {ports: [{port: 6379}, {port: 15006}]}}";
    let snapshot = snapshot_of(&[MESH, other]);
    let tcp: Listener = get(&snapshot, &web(&snapshot), ResourceType::Listener, "127.1.0.1_6379");
    let proxy: TcpProxy = only_filter(&tcp.filter_chains[0]);
    assert_eq!(proxy.stat_prefix, "outbound|6379||redis.default.svc.cluster.local");
    let reasons: Vec<_> = snapshot.problems().iter().map(|problem| problem.reason.as_str()).collect();
    assert!(
        reasons.iter().any(|reason| reason.contains("clients in namespace default cannot use TCP port 6379"))
    );
    assert!(reasons.iter().any(|reason| reason.contains("TCP port 15006 is the sidecar's own")));
}
