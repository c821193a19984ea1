//! What requests see of a filter whose configuration comes from a source. A worker, real sockets.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::Duration;

use outrigger_xds_api::ResourceType::ExtensionConfig;
use tokio::time::Instant;

use crate::config::testing::{apply, remove};
use crate::listener::drain_tests::{Proxy, answer, chain_of, get, holding_upstream, read_response};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const MESSAGE: &str = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";

/// Writes this into requests and responses.
fn mark(value: &str) -> String {
    let set = |name| format!("{{append: {{header: {{key: {name}, value: {value}}}}}}}");
    format!(
        "{{name: mark, typed_config: {{'@type': {MESSAGE}, mutations: {{request_mutations: [{}], response_mutations: [{}]}}}}}}",
        set("x-request"),
        set("x-response")
    )
}

#[test]
fn a_request_meets_one_version_on_its_way_there_and_back() {
    let (upstream, held) = holding_upstream();
    let filter = format!(
        "{{name: mark, config_discovery: {{config_source: {{ads: {{}}}}, type_urls: ['{MESSAGE}'], \
         default_config: {{'@type': {MESSAGE}}}, apply_default_config_without_warming: true}}}},"
    );
    let mut proxy = Proxy::start(upstream, &[chain_of(HERE, "", &filter)]);
    let publish = |proxy: &mut Proxy, value: &str| {
        let now = Instant::now();
        assert_eq!(apply(&mut proxy.configuration, ExtensionConfig, "mark", &mark(value), now), []);
    };
    publish(&mut proxy, "old");
    let mut client = proxy.connect(HERE);
    get(&mut client, "/held");
    let request = held.recv_timeout(Duration::from_secs(10)).unwrap();
    publish(&mut proxy, "new");
    answer(request);
    let marked = |response: &str, mark: &str| {
        assert!(response.contains(&format!("\r\nx-response: {mark}\r\n")), "{response}");
        assert!(!response.contains("connection: close"), "{response}");
    };
    marked(&read_response(&mut client), "old");
    get(&mut client, "/");
    marked(&read_response(&mut client), "new");
    drop(client);
    proxy.finish();
}

#[test]
fn without_configuration_and_default_requests_fail_and_say_why() {
    let (upstream, _held) = holding_upstream();
    let filter = format!(
        "{{name: mark, config_discovery: {{config_source: {{ads: {{}}}}, type_urls: ['{MESSAGE}']}}}},"
    );
    let mut proxy = Proxy::start(upstream, &[chain_of(HERE, "", &filter)]);
    let now = Instant::now();
    assert_eq!(apply(&mut proxy.configuration, ExtensionConfig, "mark", &mark("there"), now), []);
    proxy.tell();
    let mut client = proxy.connect(HERE);
    for (is_there, status) in [(true, "204"), (false, "500"), (true, "204")] {
        if is_there {
            apply(&mut proxy.configuration, ExtensionConfig, "mark", &mark("there"), now);
        } else {
            remove(&mut proxy.configuration, ExtensionConfig, "mark", now);
        }
        get(&mut client, "/");
        let response = read_response(&mut client);
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    }
    drop(client);
    proxy.finish();
}
