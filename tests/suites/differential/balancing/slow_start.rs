//! Slow start. How far a host has come depends on the time, so the curve is bent until nearly all of the window gives the least weight:
//! that is compared.

use std::time::{Duration, Instant};

use outrigger_tests::RawClient;
use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{Bootstrap, any_host, http_connection_manager, listener, overlay};
use outrigger_tests::differential::{View, compare};
use outrigger_tests::proxy::Launch;
use outrigger_tests::wait::until;
use serde_json::{Value, json};

use super::{Balance, route, zone};

const WINDOW: Duration = Duration::from_secs(15);
/// Few, so that the window is long enough for them on a busy machine.
const REQUESTS: u32 = 400;

/// Two hosts from the beginning; a third one comes when they are warm, and gets so many percent.
fn of(name: &'static str, new_host: u32, policy: &str, slow_start: Value) -> Balance {
    let settings = match policy {
        "LEAST_REQUEST" => "least_request_lb_config",
        _ => "round_robin_lb_config",
    };
    Balance::of(name, Vec::new(), &[(1..=2, 100 - new_host), (3..=3, new_host)])
        .with(json!({"lb_policy": policy, settings: {"slow_start_config": slow_start}}))
}

/// The least weight for a whole window.
fn window(more: Value) -> Value {
    let mut settings =
        json!({"slow_start_window": "15s", "aggression": {"default_value": 0.01, "runtime_key": "k"}});
    overlay(&mut settings, more);
    settings
}

#[test]
fn a_host_that_comes_later() {
    let least = |percent: u32| window(json!({"min_weight_percent": {"value": percent}}));
    let cases = [
        // By default a tenth of a weight beside two whole ones.
        of("ten-percent", 5, "ROUND_ROBIN", window(json!({}))),
        of("half", 20, "ROUND_ROBIN", least(50)),
        of("whole", 33, "ROUND_ROBIN", least(100)),
        of("least-request", 20, "LEAST_REQUEST", least(50)),
        of("no-window", 33, "ROUND_ROBIN", json!({})),
    ];
    let (bootstrap, addr) = (Bootstrap::new(), free_addr());
    let write = |name: &str, hosts: u8| {
        let assignment = json!({
            "@type": outrigger_tests::bootstrap::type_url("config.endpoint.v3.ClusterLoadAssignment"),
            "cluster_name": name,
            "endpoints": [zone("a", 1..=hosts, json!({}))],
        });
        let file = bootstrap.path(&format!("{name}.json"));
        std::fs::write(file.with_extension("new"), json!({"resources": [assignment]}).to_string()).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    };
    let clusters = cases.iter().map(|case| {
        let path = bootstrap.path(&format!("{}.json", case.name));
        let mut cluster = json!({"name": case.name, "type": "EDS", "connect_timeout": "1s",
            "eds_cluster_config": {"eds_config": {"path_config_source": {"path": path}}}});
        overlay(&mut cluster, case.more.clone());
        cluster
    });
    let clusters: Vec<Value> = clusters.collect();
    let routes: Vec<Value> = cases.iter().map(|case| route(case.name)).collect();
    let filter = http_connection_manager(any_host(json!(routes)), json!({}));
    bootstrap.write_value(&json!({
        "node": {"id": "node", "cluster": "service"},
        "static_resources": {"listeners": [listener("in", addr, filter)], "clusters": clusters},
    }));
    compare(|engine| {
        cases.iter().for_each(|case| write(case.name, 2));
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        let started = Instant::now();
        let mut client = RawClient::connect(addr).unwrap();
        let mut view = View::default();
        until("the first hosts are warm", || started.elapsed() > WINDOW);
        for case in &cases {
            write(case.name, 3);
            let members = format!("cluster.{}.membership_total: 3", case.name);
            until("the endpoints", || {
                proxy.admin("/stats?filter=membership_total").text().contains(&members)
            });
            view.add(case.name, case.look(&proxy, &mut client, REQUESTS));
        }
        proxy.stop();
        Some(view)
    });
}
