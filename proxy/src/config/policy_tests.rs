//! `load_balancing_policy`, `lb_subset_config` and `error_matcher`: what is taken, and what is said of the rest.

use outrigger_xds_api::ResourceType::Cluster;

use super::compile_tests::{accepts, refuses};

#[test]
fn policies_as_extensions() {
    let policies = |first: &str, second: &str| {
        let typed = |text: &str| {
            format!(
                "{{typed_extension_config: {{name: p, typed_config: {{'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.{text}}}}}}}"
            )
        };
        format!("{{name: c, load_balancing_policy: {{policies: [{}, {}]}}}}", typed(first), typed(second))
    };
    let unknown = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin";
    let none = format!(
        "load_balancing_policy.policies: none of these policies is supported: {0}{unknown}, {0}{unknown}",
        "envoy.extensions.load_balancing_policies."
    );
    accepts(
        Cluster,
        &[
            &policies(unknown, "round_robin.v3.RoundRobin, slow_start_config: {slow_start_window: 60s}"),
            &policies(
                "peak_ewma.v3alpha.PeakEwma, decay_time: 5s, default_rtt: 0.1s, penalty_value: 1000",
                unknown,
            ),
            &policies(
                "wrr_locality.v3.WrrLocality, endpoint_picking_policy: {policies: [{typed_extension_config: {name: p, typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random}}}]}",
                unknown,
            ),
        ],
    );
    refuses(
        Cluster,
        &[
            (&policies(unknown, unknown), &[none.as_str()]),
            (
                &policies(
                    unknown,
                    "least_request.v3.LeastRequest, active_request_bias: {default_value: -1, runtime_key: k}",
                ),
                &[
                    "load_balancing_policy.policies[1].typed_extension_config.typed_config.active_request_bias.default_value: must not be less than 0",
                ],
            ),
            (
                &policies("peak_ewma.v3alpha.PeakEwma, decay_time: 0s", unknown),
                &[
                    "load_balancing_policy.policies[0].typed_extension_config.typed_config.decay_time: value must be greater than 0s",
                ],
            ),
            (
                &policies("cluster_provided.v3.ClusterProvided", unknown),
                &[
                    "load_balancing_policy.policies[0].typed_extension_config.typed_config: a cluster of this type provides no policy",
                ],
            ),
        ],
    );
}

#[test]
fn subsets() {
    let with = |config: &str| format!("{{name: c, lb_subset_config: {{{config}}}}}");
    let selector = |more: &str| with(&format!("subset_selectors: [{{keys: [a, b], {more}}}]"));
    let inner = "policies: [{typed_extension_config: {name: p, typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random}}}]";
    let policy = |policies: &str| {
        format!(
            "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: p, typed_config: {{'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.subset.v3.Subset, subset_selectors: [{{keys: [a]}}], allow_redundant_keys: true, subset_lb_policy: {{{policies}}}}}}}}}]}}"
        )
    };
    accepts(
        Cluster,
        &[
            &with(
                "subset_selectors: [{keys: [a]}, {keys: [a]}], fallback_policy: DEFAULT_SUBSET, default_subset: {x: [1, true]}, locality_weight_aware: true, scale_locality_weight: true, panic_mode_any: true, list_as_any: true, metadata_fallback_policy: FALLBACK_LIST",
            ),
            &selector(
                "fallback_policy: KEYS_SUBSET, fallback_keys_subset: [b], single_host_per_subset: true",
            ),
            &format!("{{name: c, {}}}", policy(inner)),
        ],
    );
    let keys = "lb_subset_config.subset_selectors[0].fallback_keys_subset: fallback_keys_subset";
    refuses(
        Cluster,
        &[
            (
                &selector("fallback_keys_subset: [a]"),
                &[&format!("{keys} can be set only for KEYS_SUBSET fallback_policy")],
            ),
            (&selector("fallback_policy: KEYS_SUBSET"), &[&format!("{keys} cannot be empty")]),
            (
                &selector("fallback_policy: KEYS_SUBSET, fallback_keys_subset: [c]"),
                &[&format!("{keys} must be a subset of selector keys")],
            ),
            (
                &selector("fallback_policy: KEYS_SUBSET, fallback_keys_subset: [b, a]"),
                &[&format!("{keys} cannot be equal to keys")],
            ),
            (
                &format!(
                    "{{name: c, lb_subset_config: {{subset_selectors: [{{keys: [a]}}]}}, {}}}",
                    policy(inner)
                ),
                &["lb_subset_config: load_balancing_policy cannot be combined with lb_subset_config"],
            ),
            (
                "{name: c, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, lb_subset_config: {subset_selectors: [{keys: [a]}]}}",
                &["lb_subset_config: LB policy CLUSTER_PROVIDED cannot be combined with lb_subset_config"],
            ),
            (
                &format!("{{name: c, {}}}", policy("")),
                &[
                    "load_balancing_policy.policies[0].typed_extension_config.typed_config.subset_lb_policy.policies: none of these policies is supported: ",
                ],
            ),
        ],
    );
}

#[test]
fn which_responses_are_errors() {
    let key = "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"]";
    let cluster = |detection: &str| {
        format!(
            "{{name: c, outlier_detection: {{}}, typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
             {{'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http_protocol_options: {{}}}}, \
             outlier_detection: {detection}}}}}}}"
        )
    };
    let matcher = |rule: &str| cluster(&format!("{{error_matcher: {rule}}}"));
    let status =
        "{http_response_headers_match: {headers: [{name: ':status', range_match: {start: 400, end: 500}}]}}";
    accepts(
        Cluster,
        &[
            &matcher(status),
            &matcher(&format!("{{or_match: {{rules: [{{not_match: {status}}}, {{any_match: true}}]}}}}")),
        ],
    );
    let other = format!(
        "{key}.outlier_detection.error_matcher.and_match.rules[1].http_response_trailers_match: not supported: only heads of responses are looked at"
    );
    let name = format!(
        "{key}.outlier_detection.error_matcher.http_response_headers_match.headers[0].name: 'a b' is not a header name"
    );
    let none = format!("{key}.outlier_detection.error_matcher: value is required");
    refuses(
        Cluster,
        &[
            (
                &matcher(&format!(
                    "{{and_match: {{rules: [{status}, {{http_response_trailers_match: {{}}}}]}}}}"
                )),
                &[other.as_str()],
            ),
            (
                &matcher("{http_response_headers_match: {headers: [{name: 'a b', present_match: true}]}}"),
                &[name.as_str()],
            ),
            (&cluster("{}"), &[none.as_str()]),
        ],
    );
}
