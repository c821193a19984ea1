//! What it costs to pick a host: instructions by callgrind, for each policy, among ten hosts and among ten thousand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};

use outrigger_tests::bootstrap::{any_host, cluster, http_connection_manager, listener, type_url};
use outrigger_tests::callgrind::Counted;
use outrigger_tests::proxy::{Launch, release_binary};
use outrigger_tests::tools::{require_tool, skip};
use outrigger_tests::{Bootstrap, Engine, RawClient, Upstream, addr, wait};
use serde_json::{Value, json};

/// Most that a pick may cost. Peak EWMA works out what two hosts cost by now.
fn most(policy: &str) -> f64 {
    match policy {
        PEAK_EWMA => 600.0,
        _ => 400.0,
    }
}

const REQUESTS: usize = 100;
const SIZES: [u32; 2] = [10, 10_000];
const POLICIES: [&str; 6] = ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV", PEAK_EWMA];
const PEAK_EWMA: &str = "PeakEwma";
/// The function that picks; it is not inlined.
const PICK: &str = "--toggle-collect=outrigger_proxy::cluster::lb::pick";

/// All addresses of the loopback network lead to the one upstream.
fn hosts(number: u32, upstream: &Upstream) -> Vec<SocketAddr> {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    (first..first + number).map(|ip| (Ipv4Addr::from(ip), upstream.addr().port()).into()).collect()
}

#[test]
fn a_pick_is_cheap_however_many_hosts_there_are() {
    let Some(valgrind) = require_tool("valgrind") else { return };
    let Some(program) = release_binary("outrigger-proxy") else {
        return skip("outrigger-proxy is not built in the release profile");
    };
    let upstream = Upstream::start_at((Ipv4Addr::UNSPECIFIED, 0).into());
    let of = |policy: &str, size: u32| format!("{policy}-{size}");
    let all = || POLICIES.iter().flat_map(|&policy| SIZES.map(|size| (policy, size)));
    let clusters: Vec<Value> = all()
        .map(|(policy, size)| {
            let more = if policy == PEAK_EWMA {
                let typed = type_url("extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma");
                let one =
                    json!({"typed_extension_config": {"name": policy, "typed_config": {"@type": typed}}});
                json!({"load_balancing_policy": {"policies": [one]}})
            } else if policy == "MAGLEV" {
                // Entries for all of them.
                json!({"lb_policy": policy, "maglev_lb_config": {"table_size": 65_537}})
            } else {
                json!({"lb_policy": policy})
            };
            cluster(&of(policy, size), &hosts(size, &upstream), more)
        })
        .collect();
    let routes: Vec<Value> = all()
        .map(|(policy, size)| {
            let name = of(policy, size);
            json!({
                "match": {"path": format!("/{name}")},
                "route": {"cluster": name, "hash_policy": [{"header": {"header_name": "x-key"}}]},
            })
        })
        .collect();
    let (addr, bootstrap) = (addr::free_addr(), Bootstrap::new());
    bootstrap.write(
        &[listener("in", addr, http_connection_manager(any_host(json!(routes)), json!({})))],
        &clusters,
    );
    let counted = Counted::new(valgrind, &[PICK]);
    let proxy = counted.launch(Launch::new(Engine::Outrigger).program(program)).spawn(&bootstrap).unwrap();
    // Under valgrind all of it takes a while.
    let is_ready = || proxy.try_admin("GET", "/ready").ok().filter(|page| page.status == 200);
    wait::within(10 * wait::PATIENCE, is_ready).expect("it is ready");
    let mut client = RawClient::connect(addr).unwrap();
    let mut ask = |name: &str, requests: usize| {
        for key in 0..requests {
            client.send(format!("GET /{name} HTTP/1.1\r\nhost: h\r\nx-key: {key}\r\n\r\n").as_bytes());
            let answer =
                client.response().unwrap_or_else(|error| panic!("{name}: {error}: {}", proxy.stderr()));
            assert_eq!(answer.status, 200);
        }
    };
    let mut costs = Vec::new();
    for (policy, size) in all() {
        let name = of(policy, size);
        ask(&name, 1);
        counted.take(&proxy);
        ask(&name, REQUESTS);
        let cost = counted.take(&proxy).others / REQUESTS as f64;
        let _ = writeln!(
            io::stderr(),
            "MEASURED {cost:.0} instructions of a pick by {policy} among {size} hosts"
        );
        costs.push((name, cost, most(policy)));
    }
    for (name, cost, most) in costs {
        assert!(cost > 0.0, "{name}: the function that picks was not found");
        assert!(cost <= most, "{name}: {cost:.0} instructions");
    }
}
