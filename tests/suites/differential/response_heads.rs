//! How large the head of an upstream's response may be.

use outrigger_tests::bootstrap;
use outrigger_tests::differential::{Case, World, compare_cases};
use serde_json::{Value, json};

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn to(name: &'static str, cluster: &str) -> Case {
    Case::routes(name, bootstrap::to(cluster))
}

/// A cluster of each HTTP version with these common options.
fn limited(world: &World, http1: &str, http2: &str, options: Value) -> Vec<Value> {
    let cluster = |name: &str, addr, mut protocol: Value| {
        protocol["typed_extension_protocol_options"][OPTIONS]["common_http_protocol_options"] =
            options.clone();
        bootstrap::cluster(name, &[addr], protocol)
    };
    let plain = json!({"typed_extension_protocol_options": {OPTIONS: {
        "@type": format!("type.googleapis.com/{OPTIONS}"), "explicit_http_config": {"http_protocol_options": {}}}}});
    vec![cluster(http1, world.up.addr(), plain), cluster(http2, world.h2.addr(), bootstrap::http2_upstream())]
}

#[test]
fn defaults() {
    let paths = [
        "/kilobytes-17",
        "/kilobytes-55",
        "/kilobytes-65",
        "/kilobytes-80",
        "/fields-90",
        "/fields-98",
        "/fields-99",
        "/fields-100",
        "/fields-101",
        "/fields-110",
    ];
    compare_cases(&[
        to("HTTP/1", "up")
            .paths(&paths)
            .statistics("cluster.up.upstream_(cx_(protocol|http1)|rq_(200|5|rx_reset))"),
        to("HTTP/2", "h2")
            .paths(&paths)
            .statistics("cluster.h2.upstream_(cx_(protocol|http2)|rq_(200|5|rx_reset))"),
    ]);
}

#[test]
fn set() {
    compare_cases(&[
        to("HTTP/1, 8 KiB", "eight-1")
            .clusters(|world| limited(world, "eight-1", "eight-2", json!({"max_response_headers_kb": 8})))
            .paths(&["/kilobytes-6", "/kilobytes-10"]),
        to("HTTP/2, 8 KiB", "eight-2").paths(&["/kilobytes-6", "/kilobytes-10"]),
        to("HTTP/1, 90 KiB", "ninety-1")
            .clusters(|world| limited(world, "ninety-1", "ninety-2", json!({"max_response_headers_kb": 90})))
            .paths(&["/kilobytes-80", "/kilobytes-95"]),
        to("HTTP/2, 90 KiB", "ninety-2").paths(&["/kilobytes-80", "/kilobytes-95"]),
        to("HTTP/1, 10 fields", "ten-1")
            .clusters(|world| limited(world, "ten-1", "ten-2", json!({"max_headers_count": 10})))
            .paths(&["/fields-8", "/fields-9", "/fields-10", "/fields-11"]),
        to("HTTP/2, 10 fields", "ten-2").paths(&["/fields-8", "/fields-9", "/fields-10", "/fields-11"]),
        to("HTTP/1, 200 fields", "more-1")
            .clusters(|world| limited(world, "more-1", "more-2", json!({"max_headers_count": 200})))
            .paths(&["/fields-190", "/fields-210"]),
        to("HTTP/2, 200 fields", "more-2").paths(&["/fields-190", "/fields-210"]),
    ]);
}
