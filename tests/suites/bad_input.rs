//! Files that must not start a proxy: it ends with exit code 1 and says on standard error what is wrong and where.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::net::TcpListener;

use outrigger_tests::bootstrap::{any_host, cluster, http_connection_manager, listener, to, type_url};
use outrigger_tests::certs::{Leaf, Pki};
use outrigger_tests::proxy::{Ended, Launch};
use outrigger_tests::{Bootstrap, Engine, Proxy, Upstream, addr, client};
use serde_json::{Value, json};

/// A file that is good but for what a test does to it: one listener, one cluster.
fn good() -> Value {
    let manager = http_connection_manager(any_host(to("up")), json!({}));
    json!({"static_resources": {
        "listeners": [listener("ingress", addr::free_addr(), manager)],
        "clusters": [cluster("up", &[addr::free_addr()], json!({}))],
    }})
}

fn bootstrap(value: &Value) -> Bootstrap {
    let bootstrap = Bootstrap::new();
    bootstrap.write_value(value);
    bootstrap
}

fn validate(bootstrap: &Bootstrap) -> Ended {
    Launch::new(Engine::Outrigger).arg("--mode").arg("validate").run(bootstrap).unwrap()
}

/// Fails unless `--mode validate` refuses the file with all of `words` on standard error.
#[track_caller]
fn refused(bootstrap: &Bootstrap, words: &[&str]) {
    let ended = validate(bootstrap);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in:\n{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

/// The good file with the value at a JSON pointer replaced.
fn with(pointer: &str, value: Value) -> Bootstrap {
    let mut file = good();
    *file.pointer_mut(pointer).unwrap() = value;
    bootstrap(&file)
}

/// The good file with one more member in the object at a JSON pointer.
fn with_member(pointer: &str, name: &str, value: Value) -> Bootstrap {
    let mut file = good();
    file.pointer_mut(pointer).unwrap()[name] = value;
    bootstrap(&file)
}

const LISTENER: &str = "/static_resources/listeners/0";
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const VIRTUAL_HOST: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0";
const CLUSTER: &str = "/static_resources/clusters/0";

#[test]
fn the_good_file_is_good() {
    let ended = validate(&bootstrap(&good()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn no_file() {
    let bootstrap = Bootstrap::new();
    refused(&bootstrap, &["bootstrap.yaml"]);
}

#[test]
fn malformed_yaml_is_told_with_its_line() {
    let bootstrap = Bootstrap::new();
    bootstrap.write_text("static_resources:\n  listeners:\n  - name: [unclosed\n  clusters: {}\n");
    // FILE:LINE:COLUMN; the mistake shows where the next line begins.
    refused(&bootstrap, &["bootstrap.yaml:4:"]);
    bootstrap.write_text("{\"static_resources\": ");
    refused(&bootstrap, &["bootstrap.yaml"]);
}

#[test]
fn an_unknown_field_is_told_by_its_path() {
    refused(&with_member("", "no_such_field", json!(1)), &["no_such_field"]);
    refused(&with_member(LISTENER, "adress", json!({})), &["adress", "listeners[0]"]);
    refused(&with_member(VIRTUAL_HOST, "domain", json!(["*"])), &["domain", "virtual_hosts[0]"]);
    refused(&with_member(CLUSTER, "lb_polizy", json!("ROUND_ROBIN")), &["lb_polizy", "clusters[0]"]);
}

#[test]
fn a_wrong_enum_is_told() {
    refused(&with_member(CLUSTER, "lb_policy", json!("ROUND_ROBBIN")), &["lb_policy", "ROUND_ROBBIN"]);
    refused(&with_member(MANAGER, "codec_type", json!("HTTP9")), &["codec_type", "HTTP9"]);
}

#[test]
fn a_wrong_type_is_told() {
    refused(&with_member(CLUSTER, "connect_timeout", json!("soon")), &["connect_timeout", "soon"]);
    let port = "/static_resources/listeners/0/address/socket_address/port_value";
    refused(&with(port, json!("eighty")), &["port_value", "eighty"]);
    refused(&with(port, json!(65536)), &["port_value", "65535"]);
    refused(&with(&format!("{VIRTUAL_HOST}/domains"), json!({})), &["domains"]);
    let path = format!("{VIRTUAL_HOST}/routes/0/match");
    refused(&with(&path, json!({"safe_regex": {"regex": "a("}})), &["regex", "a("]);
}

#[test]
fn an_unknown_extension_is_told() {
    let unknown = json!({"@type": type_url("extensions.filters.network.no.v3.Such"), "x": 1});
    refused(&with(MANAGER, unknown), &["envoy.extensions.filters.network.no.v3.Such"]);
}

#[test]
fn what_every_message_needs_must_be_there() {
    refused(&with(&format!("{CLUSTER}/name"), json!("")), &["clusters[0]", "name"]);
    refused(&with(&format!("{VIRTUAL_HOST}/domains"), json!([])), &["domains"]);
    refused(&with(&format!("{VIRTUAL_HOST}/routes/0"), json!({"match": {"prefix": "/"}})), &["routes[0]"]);
    refused(&with(&format!("{MANAGER}/stat_prefix"), json!("")), &["stat_prefix"]);
}

#[test]
fn a_route_to_a_missing_cluster_is_told_with_the_name() {
    refused(&with(&format!("{VIRTUAL_HOST}/routes"), to("nowhere")), &["nowhere"]);
    let weighted = json!({"clusters": [{"name": "up", "weight": 1}, {"name": "nowhere", "weight": 1}]});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"weighted_clusters": weighted}}]);
    refused(&with(&format!("{VIRTUAL_HOST}/routes"), routes), &["nowhere"]);
}

#[test]
fn the_same_domain_twice_is_told() {
    let host = |name: &str| json!({"name": name, "domains": ["same.example.com"], "routes": to("up")});
    let hosts = with(&format!("{MANAGER}/route_config/virtual_hosts"), json!([host("a"), host("b")]));
    refused(&hosts, &["same.example.com"]);
}

#[test]
fn a_duplicate_listener_address_is_told() {
    let mut file = good();
    let mut second = file.pointer(LISTENER).unwrap().clone();
    second["name"] = "second".into();
    let port = second.pointer("/address/socket_address/port_value").unwrap().to_string();
    file["static_resources"]["listeners"].as_array_mut().unwrap().push(second);
    refused(&bootstrap(&file), &["second", "duplicate", &port]);
}

/// Fails unless serving the file ends at once with an exit code that is no success, and with `words`.
#[track_caller]
fn does_not_start(bootstrap: &Bootstrap, words: &[&str]) {
    let ended = Launch::new(Engine::Outrigger).run(bootstrap).unwrap();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in:\n{}", ended.stderr);
    }
}

#[test]
fn a_port_in_use_by_another_process_is_told() {
    let file = good();
    let address = file.pointer("/static_resources/listeners/0/address/socket_address").unwrap();
    let ip = address["address"].as_str().unwrap();
    let port: u16 = address["port_value"].as_u64().unwrap().try_into().unwrap();
    let _taken = TcpListener::bind((ip, port)).unwrap();
    does_not_start(&bootstrap(&file), &[&format!("{ip}:{port}"), "in use"]);
}

#[test]
fn a_port_in_use_by_another_proxy_is_told_and_the_first_serves_on() {
    let upstream = Upstream::start();
    let mut file = good();
    file["static_resources"]["clusters"][0] = cluster("up", &[upstream.addr()], json!({}));
    let address = file.pointer("/static_resources/listeners/0/address/socket_address").unwrap();
    let listener = format!("{}:{}", address["address"].as_str().unwrap(), address["port_value"]);
    let first = bootstrap(&file);
    let _serving = Proxy::outrigger(&first);
    // Another admin address, the same listener: sharing the port would steal half of the connections.
    does_not_start(&bootstrap(&file), &[&listener, "in use"]);
    for _ in 0..20 {
        assert_eq!(client::get(listener.parse().unwrap(), "h", "/").status, 200);
    }
}

/// The good file with a listener that shows this certificate.
fn showing(leaf: &Leaf) -> Bootstrap {
    with_member(
        "/static_resources/listeners/0/filter_chains/0",
        "transport_socket",
        json!({"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": type_url("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {"tls_certificates": [{
                "certificate_chain": {"filename": leaf.chain},
                "private_key": {"filename": leaf.key},
            }]},
        }}),
    )
}

#[test]
fn certificates_that_cannot_be_used_are_told() {
    let pki = Pki::new();
    let good = pki.trusted.leaf("server");
    assert_eq!(validate(&showing(&good)).code, Some(0));

    let missing = Leaf { key: pki.folder().join("no-such.key"), ..good.clone() };
    refused(&showing(&missing), &["no-such.key"]);

    let mismatched = pki.trusted.mismatched("server");
    refused(&showing(&mismatched), &["key"]);

    let garbage = Leaf { chain: pki.folder().join("garbage.pem"), ..good.clone() };
    fs::write(&garbage.chain, "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n").unwrap();
    refused(&showing(&garbage), &["certificate"]);

    let empty = Leaf { chain: pki.folder().join("empty.pem"), ..good.clone() };
    fs::write(&empty.chain, "").unwrap();
    refused(&showing(&empty), &["certificate"]);
}

#[test]
fn a_private_key_is_never_told() {
    let pki = Pki::new();
    let leaf = pki.trusted.leaf("server");
    let key = fs::read_to_string(&leaf.key).unwrap();
    let secret = key.lines().nth(1).unwrap().to_owned();
    // The key stands where the certificate should be, and the other way round.
    let swapped = Leaf { chain: leaf.key.clone(), key: leaf.chain };
    let ended = validate(&showing(&swapped));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(!ended.stderr.contains(&secret) && !ended.stdout.contains(&secret));
}

#[test]
fn an_unknown_flag_is_told() {
    let ended = Launch::new(Engine::Outrigger).arg("--no-such-flag").run(&bootstrap(&good())).unwrap();
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    assert!(ended.stderr.contains("--no-such-flag"), "{ended:?}");
}
