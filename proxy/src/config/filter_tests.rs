//! Accept and reject tables of HTTP filters, and of what routes say to them.

use outrigger_xds_api::ResourceType::{Listener, RouteConfiguration};

use super::compile_tests::{ROUTER, manager};
use super::testing::problems;

fn packed(message: &str, fields: &str) -> String {
    format!("{{'@type': type.googleapis.com/envoy.extensions.filters.http.{message}, {fields}}}")
}

/// What is wrong with a chain of these filters, behind the path of the connection manager.
fn chain_problems(filters: &str) -> Vec<String> {
    let fields = format!("http_filters: [{filters}], route_config: {{name: r}}");
    let at = "filter_chains[0].filters[0].typed_config.";
    let all = problems(Listener, &manager(&fields));
    all.iter().map(|problem| problem.strip_prefix(at).unwrap_or(problem).to_owned()).collect()
}

#[test]
fn chains() {
    let filter =
        |message: &str, fields: &str| format!("{{name: f, typed_config: {}}}", packed(message, fields));
    for (message, fields) in [
        ("buffer.v3.Buffer", "max_request_bytes: 10"),
        ("cors.v3.Cors", ""),
        ("fault.v3.HTTPFault", ""),
        ("fault.v3.HTTPFault", "response_rate_limit: {header_limit: {}, percentage: {numerator: 50}}"),
        ("grpc_web.v3.GrpcWeb", ""),
        ("fault.v3.HTTPFault", "delay: {fixed_delay: 1s, percentage: {numerator: 5, denominator: MILLION}}"),
        ("fault.v3.HTTPFault", "abort: {grpc_status: 14}, headers: [{name: x}], max_active_faults: 3"),
        (
            "header_mutation.v3.HeaderMutation",
            "mutations: {request_mutations: [{remove: x-a}, {append: {header: {key: x-b, value: '%PROTOCOL%'}}}]}",
        ),
        (
            "health_check.v3.HealthCheck",
            "pass_through_mode: true, cache_time: 1s, headers: [{name: ':path'}]",
        ),
        (
            "grpc_stats.v3.FilterConfig",
            "stats_for_all_methods: true, replace_dots_in_grpc_service_name: true",
        ),
        (
            "grpc_stats.v3.FilterConfig",
            "individual_method_stats_allowlist: {services: [{name: a.S, method_names: [M]}]}, enable_upstream_stats: true",
        ),
        (
            "health_check.v3.HealthCheck",
            "pass_through_mode: false, cluster_min_healthy_percentages: {nowhere: {value: 25}}",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, token_bucket: {max_tokens: 1, fill_interval: 1s}",
        ),
        ("on_demand.v3.OnDemand", ""),
        ("on_demand.v3.OnDemand", "odcds: {source: {ads: {}}, timeout: 0.5s}"),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, local_rate_limit_per_downstream_connection: true, vh_rate_limits: INCLUDE, max_dynamic_descriptors: 5,
             descriptors: [{entries: [{key: a}], token_bucket: {max_tokens: 1, fill_interval: 1s}, shadow_mode: true}],
             rate_limits: [{actions: [{request_headers: {header_name: x-a, descriptor_key: a}}]}]",
        ),
    ] {
        let filters = format!("{}, {ROUTER}", filter(message, fields));
        assert_eq!(chain_problems(&filters), Vec::<String>::new(), "{message} {fields}");
    }
    let at = "http_filters[0].typed_config";
    for (message, fields, expected) in [
        ("buffer.v3.Buffer", "", "max_request_bytes: value must be greater than 0"),
        (
            "fault.v3.HTTPFault",
            "abort: {http_status: 99}",
            "abort.http_status: value must be inside range [200, 600)",
        ),
        (
            "fault.v3.HTTPFault",
            "delay: {fixed_delay: 0s}",
            "delay.fixed_delay: value must be greater than 0s",
        ),
        (
            "fault.v3.HTTPFault",
            "response_rate_limit: {fixed_limit: {}}",
            "response_rate_limit.fixed_limit.limit_kbps: value must be greater than or equal to 1",
        ),
        (
            "header_mutation.v3.HeaderMutation",
            "mutations: {request_mutations: [{remove: host}]}",
            "mutations.request_mutations[0].remove: :-prefixed or host headers may not be modified",
        ),
        (
            "header_mutation.v3.HeaderMutation",
            "mutations: {query_parameter_mutations: [{append: {record: {key: a, value: '%REQ(x)%'}}}]}",
            "mutations.query_parameter_mutations[0].append.record.value: commands and encoded text are not supported",
        ),
        ("grpc_stats.v3.FilterConfig", "emit_filter_state: true", "emit_filter_state: not supported"),
        (
            "grpc_stats.v3.FilterConfig",
            "individual_method_stats_allowlist: {services: [{name: a.S}]}",
            "individual_method_stats_allowlist.services[0].method_names: value must contain at least 1 item(s)",
        ),
        ("health_check.v3.HealthCheck", "", "pass_through_mode: value is required"),
        (
            "health_check.v3.HealthCheck",
            "pass_through_mode: false, cache_time: 1s",
            "cache_time: cache_time_ms must not be set when path_through_mode is disabled",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, token_bucket: {max_tokens: 1, fill_interval: 0.01s}",
            "token_bucket.fill_interval: local rate limit token bucket fill timer must be >= 50ms",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, local_cluster_rate_limit: {}",
            "local_cluster_rate_limit: not supported",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, descriptors: [{entries: [{key: a, value: b}], token_bucket: {max_tokens: 1, fill_interval: 0s}}]",
            "descriptors[0].token_bucket.fill_interval: local rate limit descriptor token bucket fill timer must be >= 50ms",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, descriptors: [
                {entries: [{key: a}], token_bucket: {max_tokens: 1, fill_interval: 1s}},
                {entries: [{key: a}], token_bucket: {max_tokens: 2, fill_interval: 1s}}]",
            "descriptors[1]: duplicate descriptor in the local rate descriptor: a=",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, rate_limits: [{stage: 1, actions: [{remote_address: {}}]}]",
            "rate_limits[0].stage: 'stage' field and 'disable_key' field are not supported",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, rate_limits: [{actions: [{metadata: {descriptor_key: k, metadata_key: {key: m, path: [{key: p}]}}}]}]",
            "rate_limits[0].actions[0].metadata: not supported",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, rate_limits: [{actions: [{generic_key: {descriptor_value: '%NOTHING%'}}]}]",
            "rate_limits[0].actions[0].generic_key.descriptor_value: Not supported field in StreamInfo: NOTHING",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, max_dynamic_descriptors: 65537",
            "max_dynamic_descriptors: value must be less than or equal to 65536",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, rate_limits: [{actions: [{header_value_match: {descriptor_value: v}}]}]",
            "rate_limits[0].actions[0].header_value_match.headers: value must contain at least 1 item(s)",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, rate_limits: [{actions: [{query_parameter_value_match: {descriptor_value: v}}]}]",
            "rate_limits[0].actions[0].query_parameter_value_match.query_parameters: value must contain at least 1 item(s)",
        ),
        (
            "health_check.v3.HealthCheck",
            "pass_through_mode: false, cluster_min_healthy_percentages: {c: {value: 150}}",
            "cluster_min_healthy_percentages[\"c\"]: value must be inside range [0, 100]",
        ),
        ("on_demand.v3.OnDemand", "odcds: {}", "odcds.source: a config source is required"),
        (
            "on_demand.v3.OnDemand",
            "odcds: {source: {ads: {}}, resources_locator: 'xdstp://a/envoy.config.cluster.v3.Cluster/x/*'}",
            "odcds.resources_locator: not supported",
        ),
        (
            "on_demand.v3.OnDemand",
            "odcds: {source: {ads: {}}, timeout: -1s}",
            "odcds.timeout: invalid duration: -1s 0ns, must not be negative",
        ),
        (
            "on_demand.v3.OnDemand",
            "odcds: {source: {path_config_source: {path: /empty/x}}}",
            "odcds.source: only a source of incremental xDS can be asked on demand",
        ),
    ] {
        let filters = format!("{}, {ROUTER}", filter(message, fields));
        assert!(
            chain_problems(&filters).contains(&format!("{at}.{expected}")),
            "{message} {fields}: {:?}",
            chain_problems(&filters)
        );
    }
    let optional = format!(
        "{{name: f, is_optional: true, typed_config: {}}}, {ROUTER}",
        packed("lua.v3.Lua", "default_source_code: {inline_string: x}")
    );
    assert_eq!(chain_problems(&optional), Vec::<String>::new(), "an optional filter is left out");
    assert_eq!(
        chain_problems(&format!("{ROUTER}, {ROUTER}")),
        ["http_filters: envoy.filters.http.router must be the terminal filter and occur once"]
    );
}

#[test]
fn overrides() {
    let routes = |said: &str| {
        format!(
            "{{name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: c}}, typed_per_filter_config: {{f: {said}}}}}]}}]}}"
        )
    };
    let filter_config = |fields: &str| {
        format!("{{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, {fields}}}")
    };
    for said in [
        filter_config("disabled: true"),
        filter_config(&format!("config: {}", packed("fault.v3.HTTPFault", ""))),
        packed("cors.v3.CorsPolicy", "allow_origin_string_match: [{exact: '*'}]"),
        packed("buffer.v3.BufferPerRoute", "disabled: true"),
        packed("header_mutation.v3.HeaderMutationPerRoute", "mutations: {}"),
        packed("on_demand.v3.PerRouteConfig", "odcds: {source: {ads: {}}}"),
        packed("on_demand.v3.PerRouteConfig", ""),
    ] {
        assert_eq!(problems(RouteConfiguration, &routes(&said)), Vec::<String>::new(), "{said}");
    }
    let at = "virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"]";
    for (said, expected) in [
        (
            packed("local_ratelimit.v3.LocalRateLimit", "stat_prefix: s"),
            "token_bucket: local rate limit token bucket must be set for per filter configs",
        ),
        (filter_config(""), "config: Empty route/virtual host per filter configuration for a filter"),
        (packed("cors.v3.Cors", ""), "@type: 'envoy.extensions.filters.http.cors.v3.Cors' is not supported"),
        (packed("buffer.v3.BufferPerRoute", ""), "one of disabled or buffer is required"),
        (packed("on_demand.v3.PerRouteConfig", "odcds: {}"), "odcds.source: a config source is required"),
    ] {
        let found = problems(RouteConfiguration, &routes(&said));
        assert!(
            found.iter().any(|problem| problem.starts_with(at) && problem.ends_with(expected)),
            "{found:?}"
        );
    }
}
