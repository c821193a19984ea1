//! `load_balancing_policy`: which policies are taken, and what is said of the others.

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
                &policies("cluster_provided.v3.ClusterProvided", unknown),
                &[
                    "load_balancing_policy.policies[0].typed_extension_config.typed_config: a cluster of this type provides no policy",
                ],
            ),
        ],
    );
}
