//! Hosts with several addresses beside Envoy: which is connected, and what is counted.

use std::net::{Ipv6Addr, SocketAddr};

use outrigger_tests::bootstrap::{cluster, socket_address, to};
use outrigger_tests::differential::{Case, World, compare_cases};
use serde_json::{Value, json};

/// A cluster of one host with these addresses.
fn host(name: &str, addresses: &[SocketAddr], more: Value) -> Value {
    let others: Vec<Value> =
        addresses[1..].iter().map(|address| json!({"address": socket_address(*address)})).collect();
    let endpoint = json!({"address": socket_address(addresses[0]), "additional_addresses": others});
    let mut whole = cluster(name, &[], more);
    whole["load_assignment"] =
        json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]});
    whole
}

/// Nobody listens there either.
fn on_ipv6(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port())
}

fn clusters(world: &World) -> Vec<Value> {
    let (up, refusing) = (world.up.addr(), world.refusing());
    let order = |version: &str, count: u32| {
        json!({"upstream_connection_options": {"happy_eyeballs_config":
            {"first_address_family_version": version, "first_address_family_count": count}}})
    };
    vec![
        host("second", &[refusing, up], json!({})),
        host("first", &[up, refusing], json!({})),
        host("last", &[refusing, on_ipv6(refusing), up], json!({})),
        host("none", &[refusing, on_ipv6(refusing)], json!({})),
        host("v6_first", &[up, on_ipv6(refusing)], order("V6", 1)),
        host("v6_twice", &[up, on_ipv6(refusing), on_ipv6(refusing)], order("V6", 2)),
        host("v4_first", &[on_ipv6(refusing), up], order("V4", 1)),
    ]
}

const NAMES: [&str; 7] = ["second", "first", "last", "none", "v6_first", "v6_twice", "v4_first"];

const TWO: &str = "GET /1 HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HTTP/1.1\r\nhost: h\r\n\r\n";

const COUNTED: &str = "^cluster.(second|first|last|none|v._.*).upstream_cx_(total|connect_fail|connect_timeout|active|destroy)$";

#[test]
fn addresses_are_tried_in_turn() {
    let cases = NAMES.map(|name| Case::routes(name, to(name)).send_for(2, "two requests", TWO));
    // Clusters of one case are there for all.
    let counted = Case::plain("counted").clusters(clusters).paths(&["/"]).statistics(COUNTED);
    let cases: Vec<Case> = cases.into_iter().chain([counted]).collect();
    compare_cases(&cases);
}
