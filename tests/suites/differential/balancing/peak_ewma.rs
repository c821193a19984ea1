//! Peak EWMA, which the Envoy beside has not: our own proxy alone, with least request to compare. Three hosts: one answers, one is slow, one
//! fails at once.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{
    Bootstrap, any_host, cluster, http_connection_manager, listener, to, type_url,
};
use outrigger_tests::proxy::Proxy;
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, Upstream};
use serde_json::json;

const SLOW: Duration = Duration::from_millis(20);
const CLIENTS: usize = 4;
const REQUESTS: usize = 60;

/// How the host that fails does it.
type Answer = fn() -> Reply;

/// How many percent of the requests each host gets.
fn shares(policy: &str, failure: Answer) -> [usize; 3] {
    let hosts = [0, 1, 2].map(|_| Upstream::start());
    hosts[1].answer_with(|_| {
        thread::sleep(SLOW);
        Reply::status(200, "ok")
    });
    hosts[2].answer_with(move |_| failure());
    let addrs: Vec<SocketAddr> = hosts.iter().map(Upstream::addr).collect();
    let typed = json!({"@type": type_url(&format!("extensions.load_balancing_policies.{policy}"))});
    let policies = json!([{"typed_extension_config": {"name": "p", "typed_config": typed}}]);
    let cluster = cluster("hosts", &addrs, json!({"load_balancing_policy": {"policies": policies}}));
    let addr = free_addr();
    let routes = to("hosts");
    let bootstrap = Bootstrap::of(
        &[listener("in", addr, http_connection_manager(any_host(routes), json!({})))],
        &[cluster],
    );
    let proxy = Proxy::outrigger(&bootstrap);
    let ask = || {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                thread::spawn(move || {
                    let mut client = RawClient::connect(addr).unwrap();
                    (0..REQUESTS).for_each(|_| drop(client.get("h", "/").unwrap()));
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        [0, 1, 2].map(|host: usize| hosts[host].recorded())
    };
    // Of each host something is known, before they are compared.
    let before = ask();
    let after = ask();
    let counts = [0, 1, 2].map(|host| after[host] - before[host]);
    proxy.stop();
    counts.map(|count| count * 100 / counts.iter().sum::<usize>())
}

#[test]
fn slow_hosts_and_those_that_fail_fast_get_little() {
    let peak_ewma = "peak_ewma.v3alpha.PeakEwma";
    let failures: [(&str, Answer); 3] = [
        ("503", || Reply::status(503, "no")),
        ("429", || Reply::status(429, "no")),
        ("reset", || Reply::Reset),
    ];
    for (name, failure) in failures {
        let [good, slow, failing] = shares(peak_ewma, failure);
        // Two of three pairs have the good host in them; the slow one wins the third.
        assert!(good >= 55 && slow + failing >= 10, "{name}: {good}, {slow}, {failing}");
        assert!(failing <= 5, "{name}: {good}, {slow}, {failing}");
    }
    // What it would be without: who fails fast is never busy.
    let [_, _, failing] = shares("least_request.v3.LeastRequest", || Reply::status(503, "no"));
    assert!(failing >= 25, "{failing}");
}
