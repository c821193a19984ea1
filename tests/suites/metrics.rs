//! What the proxy tells about itself, read by the real tools: promtool and Prometheus.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use outrigger_tests::bootstrap::{any_host, cluster, http_connection_manager, listener, to};
use outrigger_tests::prometheus_server::PrometheusServer;
use outrigger_tests::{Bootstrap, Proxy, RawClient, Upstream, addr, client, prometheus};
use serde_json::json;

fn one_hop(stat_prefix: &str, upstream: std::net::SocketAddr) -> (Bootstrap, std::net::SocketAddr) {
    let addr = addr::free_addr();
    let manager = http_connection_manager(any_host(to("up")), json!({"stat_prefix": stat_prefix}));
    (Bootstrap::of(&[listener("l", addr, manager)], &[cluster("up", &[upstream], json!({}))]), addr)
}

#[test]
fn promtool_finds_nothing_to_say() {
    let upstream = Upstream::start();
    let (bootstrap, addr) = one_hop("ingress", upstream.addr());
    let proxy = Proxy::outrigger(&bootstrap);
    for _ in 0..3 {
        assert_eq!(client::get(addr, "h", "/").status, 200);
    }
    let text = proxy.admin("/stats/prometheus");
    assert!(text.headers.get("content-type").unwrap().starts_with("text/plain"), "{:?}", text.headers);
    let Some(complaints) = prometheus::complaints(&text.body) else { return };
    assert_eq!(complaints, Vec::<String>::new());
}

#[test]
fn counters_agree_with_the_requests() {
    let upstream = Upstream::start();
    let (bootstrap, addr) = one_hop("ingress", upstream.addr());
    let proxy = Proxy::outrigger(&bootstrap);
    let mut client = RawClient::connect(addr).unwrap();
    for _ in 0..7 {
        assert_eq!(client.get("h", "/").unwrap().status, 200);
    }
    let scrape = proxy.scrape();
    let up = [("envoy_cluster_name", "up")];
    assert_eq!(scrape.sum("envoy_cluster_upstream_rq_total", &up), 7.0);
    assert_eq!(scrape.sum("envoy_cluster_upstream_cx_total", &up), 1.0);
    let ingress = [("envoy_http_conn_manager_prefix", "ingress")];
    assert_eq!(scrape.sum("envoy_http_downstream_rq_total", &ingress), 7.0);
    assert_eq!(scrape.sum("envoy_http_downstream_cx_active", &ingress), 1.0);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_2xx"), Some(7));
    assert_eq!(proxy.stat("cluster.up.upstream_rq_200"), Some(7));
}

#[test]
fn a_real_prometheus_sums_up_what_two_proxies_served() {
    let upstream = Upstream::start();
    let (second, second_addr) = one_hop("second", upstream.addr());
    let (first, first_addr) = one_hop("first", second_addr);
    let (second, first) = (Proxy::outrigger(&second), Proxy::outrigger(&first));
    let Some(prometheus) = PrometheusServer::start(&[first.admin_addr(), second.admin_addr()]) else {
        return;
    };
    prometheus.wait_up(2);
    for _ in 0..40 {
        assert_eq!(client::get(first_addr, "h", "/").status, 200);
    }
    for _ in 0..2 {
        assert_eq!(client::get(second_addr, "h", "/").status, 200);
    }
    prometheus.wait_for("sum(envoy_cluster_upstream_rq_total)", 82.0);
    prometheus
        .wait_for("sum(envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"first\"})", 40.0);
    prometheus
        .wait_for("sum(envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"second\"})", 42.0);
}
