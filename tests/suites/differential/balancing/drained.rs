//! `close_connections_on_host_set_change`: what becomes of the connections to hosts that stay when another one comes.

use outrigger_tests::RawClient;
use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{Bootstrap, any_host, http_connection_manager, listener, type_url};
use outrigger_tests::differential::{View, compare};
use outrigger_tests::proxy::Launch;
use outrigger_tests::wait::until;
use serde_json::{Value, json};

use super::{mixed, route};

const CLUSTERS: [(&str, bool); 2] = [("closes", true), ("keeps", false)];

#[test]
fn connections_when_a_host_comes() {
    let (bootstrap, addr) = (Bootstrap::new(), free_addr());
    let write = |name: &str, hosts: &[(u8, &str)]| {
        let assignment = json!({
            "@type": type_url("config.endpoint.v3.ClusterLoadAssignment"),
            "cluster_name": name,
            "endpoints": [mixed("a", hosts, json!({}))],
        });
        let file = bootstrap.path(&format!("{name}.json"));
        std::fs::write(file.with_extension("new"), json!({"resources": [assignment]}).to_string()).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    };
    let clusters = CLUSTERS.map(|(name, closes)| {
        let path = bootstrap.path(&format!("{name}.json"));
        json!({"name": name, "type": "EDS", "connect_timeout": "1s",
            "common_lb_config": {"close_connections_on_host_set_change": closes},
            "eds_cluster_config": {"eds_config": {"path_config_source": {"path": path}}}})
    });
    let routes: Vec<Value> = CLUSTERS.iter().map(|(name, _)| route(name)).collect();
    let filter = http_connection_manager(any_host(json!(routes)), json!({}));
    bootstrap.write_value(&json!({
        "node": {"id": "node", "cluster": "service"},
        "static_resources": {"listeners": [listener("in", addr, filter)], "clusters": clusters},
    }));
    compare(|engine| {
        CLUSTERS.iter().for_each(|(name, _)| write(name, &[(1, "HEALTHY")]));
        let proxy = Launch::new(engine).workers(1).arg("-l").arg("error").start(&bootstrap)?;
        let mut client = RawClient::connect(addr).unwrap();
        let mut view = View::default();
        for (name, closes) in CLUSTERS {
            let stat = |stat: &str| proxy.stat(&format!("cluster.{name}.{stat}")).unwrap_or_default();
            let mut ask = || {
                let statuses: Vec<u16> =
                    (0..3).map(|_| client.get("h", &format!("/{name}")).unwrap().status).collect();
                format!("{statuses:?}, connections: {}\n", stat("upstream_cx_total"))
            };
            view.add(format!("{name}: before"), ask());
            // It takes no request, so that those that follow are for the same host.
            write(name, &[(1, "HEALTHY"), (2, "UNHEALTHY")]);
            until("the endpoints", || stat("membership_total") == 2);
            if closes {
                until("the connection is given up", || stat("upstream_cx_active") == 0);
            }
            view.add(format!("{name}: after"), ask());
        }
        proxy.stop();
        Some(view)
    });
}
