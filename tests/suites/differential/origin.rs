//! Where requests come from: `x-forwarded-*`, who is inside, and what upstreams and logs are told.

use outrigger_tests::bootstrap::any_host;
use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

/// Requests from behind no, one and several proxies, which claim to be this and that.
const CLAIMS: [&str; 12] = [
    "",
    "x-forwarded-for: 10.1.1.1\r\n",
    "x-forwarded-for: 10.1.1.1, 1.2.3.4\r\n",
    "x-forwarded-for: 1.2.3.4,10.1.1.1,10.2.2.2\r\n",
    "x-forwarded-for: nobody\r\n",
    "x-forwarded-for: 10.1.1.1\r\nx-forwarded-for: 1.2.3.4\r\n",
    "via: 1.1 a\r\nvia: 1.1 b\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-for: 10.1.1.1, 10.2.2.2\r\n",
    "x-forwarded-for: ::1\r\nx-forwarded-port: 99\r\n",
    "x-forwarded-proto: https\r\nx-forwarded-for: 10.1.1.1\r\n",
    "x-envoy-internal: true\r\nx-envoy-external-address: 9.9.9.9\r\nx-request-id: 6f5902ac-237b-4f1d-9d5c-0123456789ab\r\n",
    "x-envoy-decorator-operation: o\r\nx-envoy-downstream-service-cluster: c\r\nx-envoy-downstream-service-node: n\r\n",
    "via: 1.1 before\r\nx-envoy-ip-tags: t\r\nx-envoy-expected-rq-timeout-ms: 7\r\n",
];

fn case(name: &'static str, hcm: Value) -> Case {
    Case::plain(name).hcm(hcm).header_lines(&CLAIMS)
}

fn inside(ranges: &[(&str, u8)]) -> Value {
    let ranges: Vec<Value> =
        ranges.iter().map(|(ip, length)| json!({"address_prefix": ip, "prefix_len": length})).collect();
    json!({"cidr_ranges": ranges})
}

#[test]
fn addresses() {
    compare_cases(&[
        case("the last of the list", json!({})),
        case("behind one", json!({"xff_num_trusted_hops": 1})),
        case("behind two", json!({"xff_num_trusted_hops": 2})),
        case("the peer", json!({"use_remote_address": true})),
        case("the peer behind one", json!({"use_remote_address": true, "xff_num_trusted_hops": 1})),
        case("the peer behind two", json!({"use_remote_address": true, "xff_num_trusted_hops": 2})),
        case("the peer, not told", json!({"use_remote_address": true, "skip_xff_append": true})),
    ]);
}

#[test]
fn inside_and_outside() {
    let private = inside(&[("10.0.0.0", 8), ("::1", 128)]);
    let here = inside(&[("127.0.0.0", 8)]);
    compare_cases(&[
        case("by the list", json!({"internal_address_config": private})),
        case("by the peer", json!({"use_remote_address": true, "internal_address_config": here})),
        case("not the peer", json!({"use_remote_address": true, "internal_address_config": private})),
        case(
            "by the list behind one",
            json!({"use_remote_address": true, "xff_num_trusted_hops": 1, "internal_address_config": private}),
        ),
        case("sockets", json!({"internal_address_config": {"unix_sockets": true}})),
    ]);
}

#[test]
fn what_is_added() {
    compare_cases(&[
        case("via", json!({"via": "1.1 us"})),
        case("port", json!({"append_x_forwarded_port": true})),
        case("port of the peer", json!({"append_x_forwarded_port": true, "use_remote_address": true})),
        case(
            "port of the peer behind one",
            json!({"append_x_forwarded_port": true, "use_remote_address": true, "xff_num_trusted_hops": 1}),
        ),
        case("no id", json!({"generate_request_id": false, "always_set_request_id_in_response": true})),
        case("server passes", json!({"server_header_transformation": "PASS_THROUGH", "via": "x"})),
    ]);
}

/// `require_tls: EXTERNAL_ONLY` lets plaintext from inside pass.
#[test]
fn tls_for_those_outside() {
    let mut hosts = any_host(json!([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]));
    hosts[0]["require_tls"] = "EXTERNAL_ONLY".into();
    let case = |name, hcm: Value| Case::hosts(name, hosts.clone()).hcm(hcm).header_lines(&CLAIMS);
    compare_cases(&[
        case("nobody inside", json!({})),
        case("some inside", json!({"internal_address_config": inside(&[("10.0.0.0", 8)])})),
    ]);
}

#[test]
fn hosts() {
    let hosts = ["a.example.", "a.example.:80", "a.example:80", "a.", "1.2.3.4.", "a..", "a.example"];
    let case = |name, hcm: Value| Case::plain(name).hcm(hcm).authorities(&hosts);
    compare_cases(&[
        case("as they are", json!({})),
        case("without the dot", json!({"strip_trailing_host_dot": true})),
        case("without dot and port", json!({"strip_trailing_host_dot": true, "strip_any_host_port": true})),
    ]);
}
