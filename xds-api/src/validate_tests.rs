//! Unit tests of the validation rules, one accepted and one refused message for each kind of rule.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::json::{self, Notation};

/// What is wrong with a message written in YAML.
fn violations(full_name: &str, text: &str) -> Vec<String> {
    let node = json::parse_one(text).unwrap();
    let bytes =
        json::encode(full_name, &node, Notation::Yaml).unwrap_or_else(|error| panic!("{text}: {error}"));
    validate(full_name, &bytes).violations.iter().map(ToString::to_string).collect()
}

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const VIRTUAL_HOST: &str = "envoy.config.route.v3.VirtualHost";
const HEADER: &str = "envoy.config.core.v3.HeaderValue";

#[test]
fn good_messages_pass() {
    let cases = [
        (
            CLUSTER,
            "{name: a, connect_timeout: 1s, common_lb_config: {healthy_panic_threshold: {value: 100}}}",
        ),
        (CLUSTER, "{name: a, max_requests_per_connection: 0, load_assignment: {cluster_name: a}}"),
        (VIRTUAL_HOST, "{name: v, domains: ['*'], routes: [{match: {prefix: ''}, redirect: {}}]}"),
        (HEADER, "{key: x-a, value: b}"),
        (
            "envoy.config.endpoint.v3.ClusterLoadAssignment",
            "{cluster_name: a, endpoints: [{priority: 128, load_balancing_weight: 1}]}",
        ),
    ];
    for (name, text) in cases {
        assert!(violations(name, text).is_empty(), "{text}: {:?}", violations(name, text));
    }
}

#[test]
fn broken_rules_are_told_with_their_path() {
    const HEALTH: &str = "timeout: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}";
    let no_interval = format!("{{name: a, health_checks: [{{{HEALTH}}}]}}");
    let cases = [
        (CLUSTER, "{}", "name: value length must be at least 1 characters"),
        (CLUSTER, "{name: a, connect_timeout: 0s}", "connect_timeout: value must be greater than 0s"),
        (CLUSTER, "{name: a, lb_policy: 99}", "lb_policy: value must be one of the defined enum values"),
        (
            CLUSTER,
            "{name: a, common_lb_config: {healthy_panic_threshold: {value: 101}}}",
            "common_lb_config.healthy_panic_threshold.value: value must be less than or equal to 100",
        ),
        (CLUSTER, no_interval.as_str(), "health_checks[0].interval: value is required"),
        (
            CLUSTER,
            "{name: a, load_assignment: {}}",
            "load_assignment.cluster_name: value length must be at least 1 characters",
        ),
        (
            CLUSTER,
            "{name: a, outlier_detection: {max_ejection_percent: 101}}",
            "outlier_detection.max_ejection_percent: value must be less than or equal to 100",
        ),
        (
            CLUSTER,
            "{name: a, outlier_detection: {interval: 0s}}",
            "outlier_detection.interval: value must be greater than 0s",
        ),
        (VIRTUAL_HOST, "{name: v}", "domains: value must contain at least 1 item"),
        (
            VIRTUAL_HOST,
            "{name: v, domains: ['*'], routes: [{match: {prefix: /}}]}",
            "routes[0].action: is required",
        ),
        (
            VIRTUAL_HOST,
            "{name: v, domains: ['*'], routes: [{redirect: {}}]}",
            "routes[0].match: value is required",
        ),
        (
            VIRTUAL_HOST,
            "{name: v, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 20}}]}",
            "routes[0].direct_response.status: value must be greater than or equal to 200",
        ),
        (HEADER, "{value: b}", "key: value length must be at least 1 characters"),
        (HEADER, "{key: \"a\\nb\"}", "key: value is not a valid HTTP header name"),
        (HEADER, "{key: a, value: \"b\\nc\"}", "value: value is not a valid HTTP header value"),
        (
            "envoy.config.endpoint.v3.ClusterLoadAssignment",
            "{cluster_name: a, endpoints: [{priority: 129}]}",
            "endpoints[0].priority: value must be less than or equal to 128",
        ),
        (
            "envoy.config.core.v3.SocketAddress",
            "{address: a, port_value: 65536}",
            "port_value: value must be less than or equal to 65535",
        ),
        ("envoy.config.core.v3.Address", "{}", "address: is required"),
        // Inside an Any.
        (
            CLUSTER,
            "{name: a, transport_socket: {name: x, typed_config: {'@type': type.googleapis.com/envoy.config.core.v3.Pipe}}}",
            "transport_socket.typed_config.path: value length must be at least 1 characters",
        ),
    ];
    for (name, text, expected) in cases {
        assert_eq!(violations(name, text), [expected], "{text}");
    }
}

#[test]
fn what_is_not_known_is_listed_apart() {
    // A field number and an enum value of a later version, and an Any of a type that is not Envoy's.
    let node = json::parse_one("{name: a, metadata: {}}").unwrap();
    let mut bytes = json::encode(CLUSTER, &node, Notation::Yaml).unwrap();
    bytes.extend([0xf8, 0x7f, 1]);
    let report = validate(CLUSTER, &bytes);
    assert!(report.violations.is_empty());
    let unknown: Vec<String> = report.unknown.iter().map(ToString::to_string).collect();
    assert_eq!(unknown, ["unknown field number 2047 of envoy.config.cluster.v3.Cluster"]);

    let any = crate::wire::protobuf::Any { type_url: "x/foo.Bar".to_owned(), value: vec![1, 2, 3] };
    let socket = crate::wire::core::v3::TransportSocket {
        name: "x".to_owned(),
        config_type: Some(crate::wire::core::v3::transport_socket::ConfigType::TypedConfig(any)),
    };
    let report = validate("envoy.config.core.v3.TransportSocket", &prost::Message::encode_to_vec(&socket));
    let unknown: Vec<String> = report.unknown.iter().map(ToString::to_string).collect();
    assert_eq!(unknown, ["typed_config: unknown type \"x/foo.Bar\""]);

    assert_eq!(validate("foo.Bar", &[]).unknown[0].reason, "unknown message type foo.Bar");
}

#[test]
fn deprecated_and_disallowed_fields_are_told() {
    let text = "{name: a, max_requests_per_connection: 5}";
    let node = json::parse_one(text).unwrap();
    let report = validate(CLUSTER, &json::encode(CLUSTER, &node, Notation::Yaml).unwrap());
    assert_eq!(report.deprecated, ["max_requests_per_connection"]);
    assert_eq!(report.into_result(), Ok(()));

    let disallowed = Message::all().find_map(|message| {
        let field = message.fields().find(|field| {
            field.is_disallowed() && field.kind() == Kind::Scalar(Scalar::String) && !field.is_list()
        })?;
        Some((message, field))
    });
    let (message, field) = disallowed.unwrap();
    let mut bytes = Vec::new();
    encoding::write_bytes(&mut bytes, field.number(), b"x");
    let report = validate(message.full_name(), &bytes);
    let expected = format!("{}: the field is deprecated and no longer allowed", field.name());
    assert!(report.violations.iter().any(|violation| violation.to_string() == expected), "{report:?}");
}

#[test]
fn every_pattern_of_the_schema_compiles() {
    fn patterns(rules: &'static Rules, found: &mut Vec<&'static str>) {
        match &rules.check {
            Check::String(rules) => found.extend(rules.pattern),
            Check::Repeated(rules) => rules.items.into_iter().for_each(|rules| patterns(rules, found)),
            Check::Map(rules) => {
                rules.keys.into_iter().chain(rules.values).for_each(|rules| patterns(rules, found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for rules in Message::all().flat_map(Message::fields).filter_map(Field::rules) {
        patterns(rules, &mut found);
    }
    assert!(!found.is_empty());
    for pattern in found {
        assert!(Regex::new(pattern).is_ok(), "{pattern}");
    }
}

#[test]
fn header_formats() {
    let name = |strict, text| has_format(Format::HttpHeaderName { strict }, text);
    let value = |strict, text| has_format(Format::HttpHeaderValue { strict }, text);
    assert!(name(true, "x-a") && name(true, ":path") && name(false, "a b") && name(false, ""));
    assert!(!name(true, "a b") && !name(true, "") && !name(true, ":") && !name(false, "a\nb"));
    assert!(value(true, "a\tb é") && value(false, "a\x01b") && value(true, ""));
    assert!(!value(true, "a\x01b") && !value(true, "a\x7fb") && !value(false, "a\0b"));
}

#[test]
fn malformed_bytes_are_a_violation_and_never_panic() {
    let report = validate(CLUSTER, &[0x0a, 0x7f]);
    assert_eq!(report.violations[0].to_string(), "malformed message: it ends too early");
    let not_utf8 = validate(CLUSTER, &[0x0a, 1, 0xff]);
    assert_eq!(not_utf8.violations[0].to_string(), "name: malformed message: a string is not UTF-8");

    let text = "{name: a, connect_timeout: 1s, filters: {name: x}, metadata: {filter_metadata: {a: {b: c}}}}";
    let valid = json::encode(CLUSTER, &json::parse_one(text).unwrap(), Notation::Yaml).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..20_000 {
        let mut bytes = valid.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let _ = validate(CLUSTER, &bytes);
    }
    let mut nested = Vec::new();
    for _ in 0..5_000 {
        let mut list = Vec::new();
        encoding::write_bytes(&mut list, 1, &nested);
        nested.clear();
        encoding::write_bytes(&mut nested, 6, &list);
    }
    assert!(validate("google.protobuf.Value", &nested).violations[0].reason.contains("nested too deeply"));
}
