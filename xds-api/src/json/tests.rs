//! Tables of what is accepted and refused, with paths and positions. Where it matters the verdict is that of a real
//! Envoy 1.40.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;
use crate::wire::bootstrap::v3::Bootstrap;
use crate::wire::cluster::v3::Cluster;
use crate::wire::core::v3::Node as WireNode;
use crate::wire::route::v3::VirtualHost;
use crate::wire::tls::v3::{Secret, UpstreamTlsContext};

/// YAML to the wire and back to JSON.
fn round<M: Message + Name + Default>(text: &str) -> serde_json::Value {
    let message: M = from_yaml(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    to_json(&M::full_name(), &message.encode_to_vec()).unwrap()
}

fn refused<M: Message + Name + Default>(text: &str) -> String {
    from_yaml::<M>(text).err().unwrap_or_else(|| panic!("{text} was accepted")).to_string()
}

#[test]
fn clusters_that_envoy_takes() {
    let cases = [
        (
            "{name: a, type: STRICT_DNS, connect_timeout: 1.5s}",
            json!({"name": "a", "type": "STRICT_DNS", "connect_timeout": "1.500s"}),
        ),
        ("{name: a, connectTimeout: 1s}", json!({"name": "a", "connect_timeout": "1s"})),
        ("{name: a, type: strict_dns}", json!({"name": "a", "type": "STRICT_DNS"})),
        ("{name: a, type: 3}", json!({"name": "a", "type": "EDS"})),
        ("{name: a, type: '3'}", json!({"name": "a", "type": "EDS"})),
        ("{name: a, type: 77}", json!({"name": "a", "type": 77})),
        (
            "{name: a, connect_timeout: {seconds: 1, nanos: 5000000}}",
            json!({"name": "a", "connect_timeout": "1.005s"}),
        ),
        ("{name: 1.50}", json!({"name": "1.50"})),
        ("{name: 99999999999}", json!({"name": "99999999999"})),
        ("{name: a, alt_stat_name: null, health_checks: ~}", json!({"name": "a"})),
        (
            "{name: a, per_connection_buffer_limit_bytes: '80', max_requests_per_connection: 80.0}",
            json!({"name": "a", "per_connection_buffer_limit_bytes": 80, "max_requests_per_connection": 80}),
        ),
        (
            "{name: a, per_connection_buffer_limit_bytes: 0x10}",
            json!({"name": "a", "per_connection_buffer_limit_bytes": 16}),
        ),
        (
            "{name: a, per_connection_buffer_limit_bytes: {value: 5}}",
            json!({"name": "a", "per_connection_buffer_limit_bytes": 5}),
        ),
        (
            "{name: a, per_connection_buffer_limit_bytes: 0}",
            json!({"name": "a", "per_connection_buffer_limit_bytes": 0}),
        ),
        (
            "{name: a, ignore_health_on_host_removal: 'true'}",
            json!({"name": "a", "ignore_health_on_host_removal": true}),
        ),
        (
            "{name: a, ignore_health_on_host_removal: on}",
            json!({"name": "a", "ignore_health_on_host_removal": true}),
        ),
        (
            "{name: a, ring_hash_lb_config: {minimum_ring_size: 5}}",
            json!({"name": "a", "ring_hash_lb_config": {"minimum_ring_size": "5"}}),
        ),
        (
            "{name: a, common_lb_config: {healthy_panic_threshold: {value: 1.5}}}",
            json!({"name": "a", "common_lb_config": {"healthy_panic_threshold": {"value": 1.5}}}),
        ),
        ("{name: a, filters: {name: b}}", json!({"name": "a", "filters": [{"name": "b"}]})),
        ("{name: a, filters: [null]}", json!({"name": "a", "filters": [{}]})),
        (
            "{name: a, transport_socket: {name: b, typed_config: {}}}",
            json!({"name": "a", "transport_socket": {"name": "b", "typed_config": {}}}),
        ),
        (
            "{name: a, transport_socket: {name: b, typed_config: null}}",
            json!({"name": "a", "transport_socket": {"name": "b"}}),
        ),
        ("{name: a, !ignore x: &t 7s, connect_timeout: *t}", json!({"name": "a", "connect_timeout": "7s"})),
    ];
    for (text, expected) in cases {
        assert_eq!(round::<Cluster>(text), expected, "{text}");
    }
}

#[test]
fn clusters_that_envoy_refuses() {
    let cases = [
        ("{name: 5}", "line 1, column 8: name: expected a string in quotes, got the integer 5"),
        ("{name: yes}", "line 1, column 8: name: expected a string in quotes, got the boolean true"),
        ("{name: [a]}", "line 1, column 8: name: expected a string, got a list"),
        ("{typ: STATIC}", "line 1, column 2: typ: unknown field"),
        ("{hosts: []}", "line 1, column 2: hosts: unknown field"),
        (
            "{type: FOO}",
            "line 1, column 8: type: expected one of STATIC, STRICT_DNS, LOGICAL_DNS, EDS, ORIGINAL_DST, got the string \"FOO\"",
        ),
        (
            "{type: strict-dns}",
            "line 1, column 8: type: expected one of STATIC, STRICT_DNS, LOGICAL_DNS, EDS, ORIGINAL_DST, got the string \"strict-dns\"",
        ),
        (
            "{type: STATIC, cluster_type: {name: x}}",
            "line 1, column 16: cluster_type: only one of the oneof cluster_discovery_type may be set, and type is",
        ),
        (
            "{connect_timeout: 1}",
            "line 1, column 19: connect_timeout: expected a string in quotes, got the integer 1",
        ),
        (
            "{connect_timeout: 1m}",
            "line 1, column 19: connect_timeout: expected a duration in seconds such as 1.5s, got the string \"1m\"",
        ),
        (
            "{connect_timeout: 1.5}",
            "line 1, column 19: connect_timeout: expected a duration in seconds such as 1.5s, got the number 1.5",
        ),
        (
            "{per_connection_buffer_limit_bytes: -1}",
            "line 1, column 37: per_connection_buffer_limit_bytes: expected 0 to 4294967295, got the integer -1",
        ),
        (
            "{per_connection_buffer_limit_bytes: 1.5}",
            "line 1, column 37: per_connection_buffer_limit_bytes: expected an integer, got the number 1.5",
        ),
        (
            "{ignore_health_on_host_removal: 1}",
            "line 1, column 33: ignore_health_on_host_removal: expected true or false, got the integer 1",
        ),
        (
            "{metadata: {filter_metadata: [1]}}",
            "line 1, column 30: metadata.filter_metadata: expected a map, got a list",
        ),
        (
            "{metadata: {filter_metadata: {a.b: 1}}}",
            "line 1, column 36: metadata.filter_metadata[\"a.b\"]: expected a map, got the integer 1",
        ),
        (
            "{transport_socket: {typed_config: {a: 1}}}",
            "line 1, column 35: transport_socket.typed_config: @type is missing",
        ),
        (
            "{transport_socket: {typed_config: {'@type': a/b.C}}}",
            "line 1, column 36: transport_socket.typed_config.@type: unknown type b.C",
        ),
        (
            "{transport_socket: {typed_config: {'@type': b.C}}}",
            "line 1, column 36: transport_socket.typed_config.@type: \"b.C\" is no type URL: expected type.googleapis.com/...",
        ),
        (
            "[1]",
            "line 1, column 1: expected a map of the fields of envoy.config.cluster.v3.Cluster, got a list",
        ),
        (
            "text",
            "line 1, column 1: expected a map of the fields of envoy.config.cluster.v3.Cluster, got the string \"text\"",
        ),
        // Stricter than Envoy, which keeps the last.
        (
            "{connect_timeout: 1s, connectTimeout: 2s}",
            "line 1, column 23: connect_timeout: the field is given twice",
        ),
        ("name: a\nname: b", "line 2, column 1: duplicate key \"name\""),
    ];
    for (text, expected) in cases {
        assert_eq!(refused::<Cluster>(text), expected, "{text}");
    }
}

#[test]
fn paths_lead_through_lists_and_anys() {
    let text = "
static_resources:
  listeners:
  - name: l
    filter_chains:
    - filters:
      - name: h
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          route_config:
            virtual_hosts:
            - name: v
              domain: ['*']
";
    assert_eq!(
        refused::<Bootstrap>(text),
        "line 13, column 15: static_resources.listeners[0].filter_chains[0].filters[0].typed_config\
         .route_config.virtual_hosts[0].domain: unknown field"
    );
}

#[test]
fn structs_read_as_in_envoy() {
    let text = "metadata: {f: 1.5, big: 3000000000, i: 7, s: x, b: yes, n: null, h: 0x10, l: [1, [2.5], {a: ~}], q: '5'}";
    let expected = json!({"metadata": {"f": "1.5", "big": "3000000000", "i": 7, "s": "x", "b": true, "n": null,
        "h": 16, "l": [1, ["2.5"], {"a": null}], "q": "5"}});
    assert_eq!(round::<WireNode>(text), expected);
    // JSON has numbers.
    let node: WireNode = from_json(r#"{"metadata": {"f": 1.5, "big": 3000000000}}"#).unwrap();
    let printed = to_json("envoy.config.core.v3.Node", &node.encode_to_vec()).unwrap();
    assert_eq!(printed, json!({"metadata": {"f": 1.5, "big": 3_000_000_000_u64}}));
}

#[test]
fn prints_as_envoy_does() {
    // The text and what the `config_dump` of an Envoy 1.40 shows for it.
    let text = r#"
name: a
connect_timeout: 0.000000001s
type: static
common_lb_config:
  {healthy_panic_threshold: {value: 50.0}, update_merge_window: 1.25s, zone_aware_lb_config: {min_cluster_size: 6}}
ring_hash_lb_config: {minimum_ring_size: 5}
metadata:
  filter_metadata: {x: {b: 2, a: 0.1}}
  typed_filter_metadata:
    x: {"@type": type.googleapis.com/google.protobuf.Duration, value: 1.5s}
    y: {"@type": type.googleapis.com/google.protobuf.Struct, value: {a: 1}}
    z: {"@type": type.googleapis.com/google.protobuf.UInt32Value, value: 5}
    w: {"@type": type.googleapis.com/google.protobuf.Empty}
load_assignment:
  cluster_name: a
  endpoints:
  - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}}]
    load_balancing_weight: 3
"#;
    let expected = json!({"name": "a", "type": "STATIC", "connect_timeout": "0.000000001s",
        "ring_hash_lb_config": {"minimum_ring_size": "5"},
        "metadata": {"filter_metadata": {"x": {"b": 2, "a": "0.1"}}, "typed_filter_metadata": {
            "z": {"@type": "type.googleapis.com/google.protobuf.UInt32Value", "value": 5},
            "w": {"@type": "type.googleapis.com/google.protobuf.Empty"},
            "x": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1.500s"},
            "y": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": 1}}}},
        "common_lb_config": {"healthy_panic_threshold": {"value": 50},
            "zone_aware_lb_config": {"min_cluster_size": "6"}, "update_merge_window": "1.250s"},
        "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
            {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}}], "load_balancing_weight": 3}]}});
    assert_eq!(round::<Cluster>(text), expected);
}

#[test]
fn a_default_that_is_written_out_is_not_set() {
    // `drain_type`, and `stat_prefix` twice.
    let listener = [0x40, 0, 0xe2, 1, 1, b'a', 0xe2, 1, 0];
    assert_eq!(to_json("envoy.config.listener.v3.Listener", &listener).unwrap(), json!({}));
    // A wrapper is set all the same.
    let cluster = [0x2a, 2, 8, 0];
    let expected = json!({"per_connection_buffer_limit_bytes": 0});
    assert_eq!(to_json("envoy.config.cluster.v3.Cluster", &cluster).unwrap(), expected);
}

#[test]
fn well_known_types_in_an_any() {
    let any = |content: &str| {
        format!("{{name: v, typed_per_filter_config: {{a: {{'@type': type.googleapis.com/{content}}}}}}}")
    };
    let cases = [
        ("google.protobuf.Duration, value: 1s", json!("1s")),
        ("google.protobuf.Timestamp, value: '2026-01-31T12:00:00.5Z'", json!("2026-01-31T12:00:00.500Z")),
        ("google.protobuf.Struct, value: {a: [1]}", json!({"a": [1]})),
        ("google.protobuf.Value, value: null", json!(null)),
        ("google.protobuf.ListValue, value: [a, null]", json!(["a", null])),
        ("google.protobuf.UInt64Value, value: 5", json!("5")),
        ("google.protobuf.BoolValue, value: false", json!(false)),
        (
            "google.protobuf.Any, value: {'@type': x/google.protobuf.Empty}",
            json!({"@type": "x/google.protobuf.Empty"}),
        ),
    ];
    for (content, expected) in cases {
        let printed = round::<VirtualHost>(&any(content));
        assert_eq!(printed["typed_per_filter_config"]["a"]["value"], expected, "{content}");
    }
    let text = any("google.protobuf.Duration, value: 1s, x: 1");
    assert!(refused::<VirtualHost>(&text).ends_with(
        "typed_per_filter_config[\"a\"].x: unknown field: google.protobuf.Duration has its content under `value`"
    ));
    let text = any("xds.type.v3.TypedStruct, type_url: x/y, value: {a: 1}");
    assert_eq!(round::<VirtualHost>(&text)["typed_per_filter_config"]["a"]["value"], json!({"a": 1}));
}

#[test]
fn json_is_read_too() {
    let cluster: Cluster = from_json("{\"name\": \"a\",\n \"connectTimeout\": \"0.25s\"}").unwrap();
    assert_eq!(cluster.connect_timeout.unwrap().nanos, 250_000_000);
    let error = from_json::<Cluster>("{\"name\": \"a\",\n \"x\": 1}").unwrap_err();
    assert_eq!(error.to_string(), "line 2, column 2: x: unknown field");
}

#[test]
fn load_applies_the_rules_with_positions() {
    let text = "static_resources:\n  clusters:\n  - name: a\n    connect_timeout: 0s\n  - type: 77\n";
    let errors = load::<Bootstrap>(&parse_one(text).unwrap(), Notation::Yaml).unwrap_err();
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "line 4, column 5: static_resources.clusters[0].connect_timeout: value must be greater than 0s",
            "line 5, column 5: static_resources.clusters[1].name: value length must be at least 1 characters",
            "line 5, column 5: static_resources.clusters[1].type: value must be one of the defined enum values",
        ]
    );
    let text = "static_resources: {clusters: [{name: a}]}";
    let (bootstrap, report) = load::<Bootstrap>(&parse_one(text).unwrap(), Notation::Yaml).unwrap();
    assert_eq!(bootstrap.static_resources.unwrap().clusters.len(), 1);
    assert_eq!(report, Report::default());
}

#[test]
fn secrets_are_never_printed() {
    let text = "
name: s
tls_certificate:
  certificate_chain: {inline_string: public}
  private_key: {inline_string: hidden-text}
  password: {inline_bytes: aGlkZGVuLWJ5dGVz}
";
    let printed = round::<Secret>(text);
    assert_eq!(
        printed,
        json!({"name": "s", "tls_certificate": {
            "certificate_chain": {"inline_string": "public"},
            "private_key": {"inline_string": "[redacted]"},
            "password": {"inline_bytes": "W3JlZGFjdGVkXQ=="},
        }})
    );
    // Nor quoted by an error.
    for wrong in
        ["private_key: hidden", "private_key: {inline_bytes: hidden!}", "password: {inline_string: 7734}"]
    {
        let error = refused::<Secret>(&format!("name: s\ntls_certificate: {{{wrong}}}"));
        assert!(
            error.contains("expected") && !error.contains("hidden") && !error.contains("7734"),
            "{error}"
        );
    }
    let text = "common_tls_context: {tls_certificates: [{private_key: {inline_string: hidden-text}}]}";
    assert!(!round::<UpstreamTlsContext>(text).to_string().contains("hidden"));
}

#[test]
fn printing_never_panics() {
    let cluster: Cluster =
        from_yaml("{name: a, metadata: {filter_metadata: {a: {b: [1, {c: d}]}}}, connect_timeout: 1s}")
            .unwrap();
    let valid = cluster.encode_to_vec();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..20_000 {
        let mut bytes = valid.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let _ = to_json("envoy.config.cluster.v3.Cluster", &bytes);
    }
    let mut nested = Vec::new();
    for _ in 0..5_000 {
        let mut outer = Vec::new();
        crate::encoding::write_bytes(&mut outer, 1, &nested);
        let mut value = Vec::new();
        crate::encoding::write_bytes(&mut value, 6, &outer);
        nested = value;
    }
    assert_eq!(to_json("google.protobuf.Value", &nested), Err("nested too deeply".to_owned()));
}
