//! Accept and reject tables: what is refused, by which path, in which words.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use outrigger_xds_api::ResourceType::{self, Cluster, Listener, RouteConfiguration, Secret};

use super::testing::problems;

pub(super) fn accepts(resource_type: ResourceType, texts: &[&str]) {
    for yaml in texts {
        assert_eq!(problems(resource_type, yaml), Vec::<String>::new(), "{yaml}");
    }
}

pub(super) fn refuses(resource_type: ResourceType, table: &[(&str, &[&str])]) {
    for (yaml, expected) in table {
        assert_eq!(problems(resource_type, yaml), *expected, "{yaml}");
    }
}

#[test]
fn clusters() {
    accepts(
        Cluster,
        &[
            "{name: c}",
            "{name: c, type: STATIC, connect_timeout: 0.25s, lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 3}}",
            "{name: c, lb_policy: RANDOM}",
            "{name: c, lb_policy: MAGLEV, maglev_lb_config: {table_size: 101}}",
            "{name: c, lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 1024, hash_function: MURMUR_HASH_2}}",
            "{name: c, lb_policy: MAGLEV, common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 150}}}",
            "{name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}, service_name: s}}",
            "{name: c, type: EDS, eds_cluster_config: {eds_config: {path: /empty/x}}}",
            "{name: c, type: EDS, eds_cluster_config: {eds_config: {path_config_source: {path: /empty/x, poll_interval: 1s}}}}",
            "{name: c, http2_protocol_options: {}, dns_lookup_family: V4_ONLY, circuit_breakers: {thresholds: {max_requests: 0}}}",
            "{name: c, outlier_detection: {consecutive_5xx: 3, enforcing_success_rate: 0, base_ejection_time: 1s}}",
            "{name: c, common_lb_config: {healthy_panic_threshold: {value: 0}}}",
            "{name: c, common_lb_config: {locality_weighted_lb_config: {}}}",
            "{name: c, common_lb_config: {zone_aware_lb_config: {min_cluster_size: 3, fail_traffic_on_panic: true}}}",
            "{name: c, round_robin_lb_config: {slow_start_config: {slow_start_window: 60s, min_weight_percent: {value: 0}}}}",
            "{name: c, lb_policy: LEAST_REQUEST, least_request_lb_config: {active_request_bias: {default_value: 0, runtime_key: k}}}",
            "{name: c, upstream_bind_config: {source_address: {address: 127.1.0.1, port_value: 0}}}",
        ],
    );
    refuses(
        Cluster,
        &[
            (
                "{name: c, round_robin_lb_config: {slow_start_config: {slow_start_window: 60s, aggression: {default_value: 0, runtime_key: k}}}}",
                &["round_robin_lb_config.slow_start_config.aggression.default_value: must be greater than 0"],
            ),
            (
                "{name: c, lb_policy: LEAST_REQUEST, least_request_lb_config: {active_request_bias: {default_value: -1, runtime_key: k}}}",
                &["least_request_lb_config.active_request_bias.default_value: must not be less than 0"],
            ),
            (
                "{name: c, lb_policy: MAGLEV, maglev_lb_config: {table_size: 100}}",
                &["maglev_lb_config.table_size: The table size of maglev must be prime number"],
            ),
            (
                "{name: c, lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 20, maximum_ring_size: 10}}",
                &[
                    "ring_hash_lb_config.minimum_ring_size: ring hash: minimum_ring_size (20) > maximum_ring_size (10)",
                ],
            ),
            (
                "{name: c, lb_policy: RING_HASH, ring_hash_lb_config: {maximum_ring_size: 9000000}}",
                &["ring_hash_lb_config.maximum_ring_size: value must be less than or equal to 8388608"],
            ),
            (
                "{name: c, lb_policy: MAGLEV, common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 99}}}",
                &[
                    "common_lb_config.consistent_hashing_lb_config.hash_balance_factor: value must be greater than or equal to 100",
                ],
            ),
            (
                "{name: c, lb_policy: MAGLEV, common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}}",
                &[
                    "common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing: Cannot use hostname for consistent hashing loadbalancing for cluster of another type than STRICT_DNS",
                ],
            ),
            (
                "{name: c, lb_policy: LOAD_BALANCING_POLICY_CONFIG}",
                &["lb_policy: LOAD_BALANCING_POLICY_CONFIG is not supported"],
            ),
            ("{name: c, type: EDS}", &["eds_cluster_config: value is required"]),
            (
                "{name: c, type: EDS, eds_cluster_config: {eds_config: {path_config_source: {path: /x}}}}",
                &[
                    "eds_cluster_config.eds_config.path_config_source.path: paths must refer to an existing path in the system: '/x' does not exist",
                ],
            ),
            (
                "{name: c, type: EDS, eds_cluster_config: {eds_config: {path_config_source: {path: /empty/x, poll_interval: 1s, watched_directory: {path: /empty}}}}}",
                &[
                    "eds_cluster_config.eds_config.path_config_source.poll_interval: poll_interval and watched_directory cannot both be set",
                ],
            ),
            (
                "{name: c, type: EDS, eds_cluster_config: {eds_config: {api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: x}}]}}}}",
                &[
                    "eds_cluster_config.eds_config.api_config_source.grpc_services[0].envoy_grpc.cluster_name: must have a statically defined non-EDS cluster: 'x' does not exist, was added via api, or is an EDS cluster",
                ],
            ),
            (
                "{name: c, type: EDS, eds_cluster_config: {eds_config: {api_config_source: {api_type: REST, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: x}}]}}}}",
                &[
                    "eds_cluster_config.eds_config.api_config_source.api_type: only GRPC and DELTA_GRPC are supported",
                    "eds_cluster_config.eds_config.api_config_source.grpc_services[0].envoy_grpc.cluster_name: must have a statically defined non-EDS cluster: 'x' does not exist, was added via api, or is an EDS cluster",
                ],
            ),
            (
                "{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}, {timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]}",
                &["health_checks: Multiple health checks not supported"],
            ),
            (
                "{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, alt_port: 1, transport_socket_match_criteria: {}, custom_health_check: {name: redis}}]}",
                &[
                    "health_checks[0].alt_port: not supported",
                    "health_checks[0].transport_socket_match_criteria: not supported",
                    "health_checks[0].custom_health_check: not supported",
                ],
            ),
            (
                "{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: x, codec_client_type: HTTP2, host: 'a b', send: {text: 0g}, receive: [{text: '00'}], expected_statuses: [{start: 300, end: 200}, {start: 99, end: 200}, {start: 200, end: 601}]}}]}",
                &[
                    "health_checks[0].http_health_check.host: not a valid :authority",
                    "health_checks[0].http_health_check.path: not a path",
                    "health_checks[0].http_health_check.send.text: invalid hex string '0g'",
                    "health_checks[0].http_health_check.expected_statuses[0]: Invalid http expected status range: expecting start < end, but found start=300 and end=200",
                    "health_checks[0].http_health_check.expected_statuses[1].start: Invalid http expected status range: expecting start >= 100, but found start=99",
                    "health_checks[0].http_health_check.expected_statuses[2].end: Invalid http expected status range: expecting end <= 600, but found end=601",
                ],
            ),
            (
                "{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /, send: {text: aa}, receive: [{text: aabb}], response_buffer_size: 1, method: GET}}]}",
                &[
                    "health_checks[0].http_health_check.send: HTTP health check cannot specify a request payload with method 'GET'. Only methods that support a request body (POST, PUT, PATCH, OPTIONS) can be used with payload.",
                    "health_checks[0].http_health_check.receive: The expected response length '2' is over than http health response buffer size '1'",
                ],
            ),
            (
                "{name: c, metadata: {filter_metadata: {outrigger.dev: {readmission: probe}}}}",
                &["metadata.filter_metadata[\"outrigger.dev\"].readmission: needs outlier_detection"],
            ),
            (
                "{name: c, metadata: {filter_metadata: {outrigger.dev: {readmission_ramp_seconds: 30}}}}",
                &[
                    "metadata.filter_metadata[\"outrigger.dev\"].readmission_ramp_seconds: needs outlier_detection",
                ],
            ),
            (
                "{name: c, outlier_detection: {}, metadata: {filter_metadata: {outrigger.dev: {readmission_ramp_seconds: 0}}}}",
                &[
                    "metadata.filter_metadata[\"outrigger.dev\"].readmission_ramp_seconds: must be more than 0",
                ],
            ),
            (
                "{name: c, outlier_detection: {}, metadata: {filter_metadata: {outrigger.dev: {readmission: soon}}}}",
                &["metadata.filter_metadata[\"outrigger.dev\"].readmission: must be \"probe\" or \"check\""],
            ),
            (
                "{name: c, outlier_detection: {}, metadata: {filter_metadata: {outrigger.dev: {readmission: check}}}}",
                &["metadata.filter_metadata[\"outrigger.dev\"].readmission: \"check\" needs health_checks"],
            ),
            (
                "{name: 'a|b', health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, grpc_health_check: {}}]}",
                &[
                    "health_checks[0].grpc_health_check: a|b cluster must support HTTP/2 for gRPC healthchecking",
                    "health_checks[0].grpc_health_check.authority: needed: the cluster's name 'a|b', which is the default, is no valid :authority",
                ],
            ),
            (
                "{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {proxy_protocol_config: {}}}]}",
                &["health_checks[0].tcp_health_check.proxy_protocol_config: not supported"],
            ),
            (
                "{name: c, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {health_check_config: {port_value: 1}, address: {pipe: {path: /s}}}}]}]}}",
                &[
                    "load_assignment.endpoints[0].lb_endpoints[0].endpoint.health_check_config.port_value: Invalid host configuration: non-zero port for non-IP address",
                ],
            ),
            (
                "{name: c, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: 80}}}}]}]}}",
                &[
                    "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: malformed IP address: localhost (host names are not resolved)",
                ],
            ),
            (
                "{name: c, outlier_detection: {enforcing_consecutive_gateway_failure: 101, failure_percentage_threshold: 101, detect_degraded_hosts: true}, upstream_bind_config: {source_address: {address: 127.1.0.1, port_value: 9}}}",
                &[
                    "outlier_detection.enforcing_consecutive_gateway_failure: value must be less than or equal to 100",
                    "outlier_detection.failure_percentage_threshold: value must be less than or equal to 100",
                    "upstream_bind_config.source_address.port_value: only 0 is supported: one port makes one connection",
                    "outlier_detection.detect_degraded_hosts: not supported",
                ],
            ),
            (
                "{name: c, transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {tls_params: {tls_minimum_protocol_version: TLSv1_0, cipher_suites: [x]}}}}}",
                &[
                    "transport_socket.typed_config.common_tls_context.tls_params.cipher_suites: not supported",
                    "transport_socket.typed_config.common_tls_context.tls_params.tls_minimum_protocol_version: TLS 1.0 and 1.1 are not supported",
                ],
            ),
        ],
    );
}

fn routes(route: &str) -> String {
    format!("{{name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: [{route}]}}]}}")
}

#[test]
fn route_configurations() {
    for route in [
        "{match: {prefix: /}, route: {cluster: known}}",
        "{match: {path: /x}, route: {cluster: unknown}}",
        "{match: {path: /x}, route: {cluster_header: X-Cluster}}",
        "{match: {path: /x}, route: {weighted_clusters: {clusters: [{cluster_header: X-Cluster, weight: 1}]}, request_mirror_policies: [{cluster_header: x}]}}",
        "{match: {path: /x}, route: {cluster: c, path_rewrite: '/%REQ(x)%', host_rewrite: '%REQ(x)%'}}",
        "{match: {path: /x}, redirect: {path_rewrite: '/%REQ(x)%'}}",
        "{match: {path: /x}, route: {cluster: c, internal_redirect_policy: {redirect_response_codes: [301], response_headers_to_copy: [x-a]}}}",
        "{match: {safe_regex: {regex: '/[a-z]+'}}, redirect: {host_redirect: example.org, response_code: FOUND}}",
        "{match: {path_separated_prefix: /a}, direct_response: {status: 200, body: {inline_string: hi}}}",
        "{match: {prefix: /, headers: [{name: x, string_match: {exact: Hello, ignore_case: true}}, {name: ':method', range_match: {start: 1, end: 2}}]}, route: {weighted_clusters: {clusters: [{name: known, weight: 90}, {name: other, weight: 10}]}, timeout: 0s}}",
        "{match: {connect_matcher: {}}, route: {cluster: c, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}",
        "{match: {prefix: /}, redirect: {regex_rewrite: {pattern: {regex: '^/(.*)'}, substitution: '/x/\\1'}}}",
        "{match: {prefix: /, query_parameters: [{name: x}], grpc: {}}, route: {cluster: c, prefix_rewrite: /x, auto_host_rewrite: true}}",
        "{match: {prefix: /}, route: {cluster: c, regex_rewrite: {pattern: {regex: a}, substitution: b}, host_rewrite_header: x}}",
        "{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: '5xx,cancelled', num_retries: 3, per_try_timeout: 1s, retry_back_off: {base_interval: 1s}}}}",
        "{match: {prefix: /}, route: {cluster: c, hash_policy: [{header: {header_name: x, regex_rewrite: {pattern: {regex: a}, substitution: b}}, terminal: true}, {cookie: {name: c, ttl: 0s, path: /, attributes: [{name: SameSite, value: Lax}]}}, {connection_properties: {}}, {query_parameter: {name: q}}]}}",
        "{match: {prefix: /}, route: {cluster: c, request_mirror_policies: [{cluster: m, runtime_fraction: {default_value: {numerator: 5}}}]}}",
        "{match: {prefix: /}, route: {cluster: c, max_stream_duration: {max_stream_duration: 1s, grpc_timeout_header_max: 2s}, max_grpc_timeout: 0s}}",
        "{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: x, value: '%REQ(:PATH)%'}}], response_headers_to_remove: [x-y]}",
    ] {
        accepts(RouteConfiguration, &[&routes(route)]);
    }
    let at = "virtual_hosts[0].routes[0]";
    for (route, expected) in [
        (
            "{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_back_off: {base_interval: 1s, max_interval: 0.5s}}}}",
            "route.retry_policy.retry_back_off.max_interval: must be greater than or equal to the base_interval",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, hash_policy: [{connection_properties: {source_ip: true}}, {filter_state: {key: k}}]}}",
            "route.hash_policy[1].filter_state: not supported",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, hash_policy: [{query_parameter: {}}]}}",
            "route.hash_policy[0].query_parameter.name: value length must be at least 1 characters",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, hash_policy: [{cookie: {name: 'a b', ttl: 1s}}]}}",
            "route.hash_policy[0].cookie.name: not the name of a cookie",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_host_predicate: [{name: omit_canary}]}}}",
            "route.retry_policy.retry_host_predicate[0]: 'omit_canary' is not supported: previous_hosts, omit_canary_hosts and omit_host_metadata are",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_priority: {name: other}}}}",
            "route.retry_policy.retry_priority: 'other' is not supported: only previous_priorities is",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_options_predicates: [{name: a, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}}}",
            "route.retry_policy.retry_options_predicates: not supported",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, prefix_rewrite: /x, regex_rewrite: {pattern: {regex: a}}}}",
            "route.regex_rewrite: Cannot specify both prefix_rewrite and regex_rewrite",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, host_rewrite_header: 'a b'}}",
            "route.host_rewrite_header: 'a b' is not a header name",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, request_mirror_policies: [{cluster: m, request_headers_mutations: [{remove: x-y}]}]}}",
            "route.request_mirror_policies[0].request_headers_mutations: not supported",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, internal_redirect_policy: {response_headers_to_copy: [x-a, Host]}}}",
            "route.internal_redirect_policy.response_headers_to_copy[1]: :-prefixed headers or Hosts may not be specified here.",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, internal_redirect_policy: {predicates: [{name: p, typed_config: {'@type': type.googleapis.com/envoy.extensions.internal_redirect.filter_state.v3.FilterStateConfig, redirect_enabled_key: k}}]}}}",
            "route.internal_redirect_policy.predicates[0].typed_config.@type: predicate 'p' (envoy.extensions.internal_redirect.filter_state.v3.FilterStateConfig) is not supported",
        ),
        (
            "{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, cluster_header: x, weight: 1}]}}}",
            "route.weighted_clusters.clusters[0].cluster_header: Only one of name or cluster_header can be specified",
        ),
        (
            "{match: {prefix: /}, route: {weighted_clusters: {clusters: [{weight: 1}]}}}",
            "route.weighted_clusters.clusters[0].name: At least one of name or cluster_header need to be specified",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, request_mirror_policies: [{cluster: m, cluster_header: x}]}}",
            "route.request_mirror_policies[0].cluster_header: Only one of cluster or cluster_header can be specified",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, prefix_rewrite: /x, path_rewrite: /y}}",
            "route.path_rewrite: only one of prefix_rewrite, regex_rewrite and path_rewrite can be specified",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, path_rewrite: '%NOPE%'}}",
            "route.path_rewrite: Not supported field in StreamInfo: NOPE",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, host_rewrite: '100%'}}",
            "route.host_rewrite: Incorrect configuration: 100%. Couldn't find valid command at position 3",
        ),
        (
            "{match: {prefix: /}, redirect: {path_rewrite: '%NOPE%'}}",
            "redirect.path_rewrite: Not supported field in StreamInfo: NOPE",
        ),
        (
            "{match: {prefix: /}, route: {cluster_header: ':x'}}",
            "route.cluster_header: ':x' is not a header name",
        ),
        (
            "{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 0}]}}}",
            "route.weighted_clusters.clusters: Sum of weights in the weighted_cluster must be greater than 0.",
        ),
        (
            "{match: {prefix: /}, direct_response: {status: 200, body_format: {text_format: x}}}",
            "direct_response.body_format: not supported",
        ),
        (
            "{match: {prefix: /}, direct_response: {status: 200, body: {filename: /nope}}}",
            "direct_response.body.filename: cannot read '/nope': entity not found",
        ),
        (
            "{match: {prefix: /, cookies: [{name: x, string_match: {safe_regex: {regex: v}, ignore_case: true}}]}, route: {cluster: c}}",
            "match.cookies[0].string_match.ignore_case: ignore_case has no effect for safe_regex.",
        ),
        (
            "{match: {prefix: /, filter_state: [{key: x, string_match: {exact: v}}]}, route: {cluster: c}}",
            "match.filter_state: not supported",
        ),
        (
            "{match: {connect_matcher: {}}, route: {cluster: c, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {allow_post: true}}]}}",
            "route.upgrade_configs[0].connect_config.allow_post: not supported",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c, upgrade_configs: [{upgrade_type: websocket, connect_config: {}}]}}",
            "route.upgrade_configs[0].connect_config: only an upgrade of type CONNECT may have it",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c}, request_headers_to_remove: [host]}",
            "request_headers_to_remove[0]: :-prefixed or host headers may not be removed",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c}, response_headers_to_add: [{header: {key: x, value: '%NOPE%'}}]}",
            "response_headers_to_add[0].header.value: Not supported field in StreamInfo: NOPE",
        ),
        (
            "{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: x}, append: true, append_action: ADD_IF_ABSENT}]}",
            "request_headers_to_add[0].append: both append and append_action are set and it's not allowed",
        ),
    ] {
        assert_eq!(problems(RouteConfiguration, &routes(route)), [format!("{at}.{expected}")], "{route}");
    }
    refuses(
        RouteConfiguration,
        &[
            (
                "{name: r, virtual_hosts: [{name: a, domains: [x]}, {name: b, domains: [X]}]}",
                &["virtual_hosts: Only unique values for domains are permitted. Duplicate entry of domain x"],
            ),
            (
                "{name: r, virtual_hosts: [{name: a, domains: [x]}, {name: a, domains: [z]}]}",
                &["virtual_hosts[1].name: virtual host 'a' must have a unique name"],
            ),
            (
                "{name: r, internal_only_headers: [x, 'a b']}",
                &["internal_only_headers[1]: 'a b' is not a header name"],
            ),
            (
                "{name: r, vhds: {config_source: {path_config_source: {path: /empty/x}}}}",
                &[
                    "vhds.config_source: vhds: only 'DELTA_GRPC' or 'ADS' (which uses Delta xDS) is supported as a config source.",
                ],
            ),
        ],
    );
}

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
pub(super) const ROUTER: &str = "{name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";

/// A listener with a connection manager that has these fields.
pub(super) fn manager(fields: &str) -> String {
    format!(
        "{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, filter_chains: [{{filters: [{{name: hcm, \
         typed_config: {{'@type': {MANAGER}, stat_prefix: s, {fields}}}}}]}}]}}"
    )
}

/// A log with this filter, and more.
fn filtered(filter: &str, more: &str) -> String {
    let log = "{'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}";
    format!("access_log: [{{name: a, filter: {filter}, typed_config: {log}}}], {more}")
}

#[test]
fn connection_managers() {
    let inline = |cluster: &str| {
        format!(
            "http_filters: [{ROUTER}], route_config: {{name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]}}"
        )
    };
    accepts(
        Listener,
        &[
            &manager(&inline("known")),
            &manager(&format!("tracing: {{}}, request_timeout: 1s, {}", inline("known"))),
            &manager(&format!(
                "normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT, {}",
                inline("known")
            )),
            &manager(&format!(
                "http_filters: [{ROUTER}], rds: {{route_config_name: r, config_source: {{ads: {{}}}}}}"
            )),
        ],
    );
    let at = "filter_chains[0].filters[0].typed_config";
    for (fields, expected) in [
        (
            format!("http_filters: [{ROUTER}], route_config: {{name: r, vhds: {{config_source: {{ads: {{}}}}}}}}"),
            "route_config.vhds: only supported in route configurations that come by RDS",
        ),
        (inline("missing"), "route_config.virtual_hosts[0].routes[0].route.cluster: route: unknown cluster 'missing'"),
        (format!("original_ip_detection_extensions: [{{name: x, typed_config: {{'@type': type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig}}}}], {}", inline("known")), "original_ip_detection_extensions: not supported"),
        (
            format!("path_normalization_options: {{}}, {}", inline("known")),
            "path_normalization_options: not supported",
        ),
        (
            format!("set_current_client_cert_details: {{format: JSON}}, {}", inline("known")),
            "set_current_client_cert_details.format: not supported",
        ),
        (
            format!("internal_address_config: {{cidr_ranges: [{{address_prefix: x}}]}}, {}", inline("known")),
            "internal_address_config.cidr_ranges[0].address_prefix: malformed IP address: x",
        ),
        (
            format!("local_reply_config: {{mappers: [{{filter: {{not_health_check_filter: {{}}}}, status_code: 99}}]}}, {}", inline("known")),
            "local_reply_config.mappers[0].status_code: value must be greater than or equal to 200",
        ),
        (
            format!("local_reply_config: {{body_format: {{json_format: {{a: '%FILTER_STATE(x)%'}}}}}}, {}", inline("known")),
            "local_reply_config.body_format.json_format: a: Not supported field in StreamInfo: FILTER_STATE",
        ),
        (filtered("{extension_filter: {name: cel}}", &inline("known")), "access_log[0].filter.extension_filter: not supported"),
        (
            filtered("{response_flag_filter: {flags: [UH, XX]}}", &inline("known")),
            "access_log[0].filter.response_flag_filter.flags[1]: value must be in list of allowed values",
        ),
        (
            filtered("{and_filter: {filters: [{not_health_check_filter: {}}]}}", &inline("known")),
            "access_log[0].filter.and_filter.filters: value must contain at least 2 items",
        ),
        (format!("upgrade_configs: [{{upgrade_type: CONNECT-UDP}}], {}", inline("known")), "upgrade_configs[0].upgrade_type: CONNECT-UDP is not supported"),
        (
            format!("http_protocol_options: {{header_key_format: {{}}}}, {}", inline("known")),
            "http_protocol_options.header_key_format.header_format: is required",
        ),
        (
            format!("http_protocol_options: {{header_key_format: {{stateful_formatter: {{name: p, typed_config: {{'@type': type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig, forward_reason_phrase: true}}}}}}}}, {}", inline("known")),
            "http_protocol_options.header_key_format.stateful_formatter.typed_config.forward_reason_phrase: not supported",
        ),
        (
            inline("known").replace(ROUTER, ""),
            "http_filters: the list must end with envoy.filters.http.router",
        ),
        (
            inline("known").replace(ROUTER, "{name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}"),
            "http_filters[0].typed_config.@type: http filter 'envoy.extensions.filters.http.lua.v3.Lua' is not supported",
        ),
        (
            format!("access_log: [{{name: a, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, log_format: {{text_format_source: {{inline_string: '%NOPE%'}}}}}}}}], {}", inline("known")),
            "access_log[0].typed_config.log_format.text_format_source: Not supported field in StreamInfo: NOPE",
        ),
    ] {
        assert_eq!(problems(Listener, &manager(&fields)), [format!("{at}.{expected}")], "{fields}");
    }
}

#[test]
fn listeners() {
    let tcp = "{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: later}}";
    let listener = |fields: &str| {
        format!("{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, {fields}}}")
    };
    let chains = format!("filter_chains: [{{filters: [{tcp}]}}]");
    accepts(
        Listener,
        &[
            &listener(&chains),
            &listener(&format!(
                "{chains}, metadata: {{filter_metadata: {{outrigger.dev: {{reporter: source}}, other: {{x: y}}}}}}"
            )),
            &listener(&format!(
                "{chains}, listener_filters: [{{name: i, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}]"
            )),
            &listener(&format!("{chains}, use_original_dst: true, bind_to_port: false")),
            &listener(&format!(
                "filter_chains: [{{filter_chain_match: {{server_names: ['*.example.org', x], source_prefix_ranges: [{{address_prefix: 10.0.0.0, prefix_len: 8}}]}}, filters: [{tcp}]}}]"
            )),
        ],
    );
    for (fields, expected) in [
        ("filter_chains: []".to_owned(), "filter_chains: no filter chains specified"),
        (format!("{chains}, transparent: true"), "transparent: not supported"),
        (format!("{chains}, freebind: true"), "freebind: not supported"),
        (
            format!("filter_chains: [{{filters: [{tcp}, {tcp}]}}]"),
            "filter_chains[0].filters: only one network filter is supported: http_connection_manager or tcp_proxy",
        ),
        (
            format!("{chains}, metadata: {{filter_metadata: {{outrigger.dev: {{reporter: both}}}}}}"),
            "metadata.filter_metadata[\"outrigger.dev\"].reporter: must be \"source\" or \"destination\"",
        ),
        (
            format!("filter_chains: [{{filters: [{tcp}]}}, {{filters: [{tcp}]}}]"),
            "filter_chains: filter chain '' has the same matching rules defined as ''",
        ),
        (
            format!("filter_chains: [{{filter_chain_match: {{server_names: ['a*b']}}, filters: [{tcp}]}}]"),
            "filter_chains[0].filter_chain_match.server_names[0]: partial wildcards are not supported in \"server_names\": 'a*b'",
        ),
        (
            format!(
                "filter_chains: [{{filters: [{tcp}], transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{}}}}}}}}]"
            ),
            "filter_chains[0].transport_socket.typed_config.common_tls_context: No TLS certificates found for server context",
        ),
    ] {
        assert_eq!(problems(Listener, &listener(&fields)), [expected], "{fields}");
    }
}

#[test]
fn original_dst_clusters() {
    let cluster =
        |fields: &str| format!("{{name: c, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED{fields}}}");
    accepts(
        Cluster,
        &[
            &cluster(""),
            &cluster(", cleanup_interval: 0.2s, connect_timeout: 1s, http2_protocol_options: {}"),
            &cluster(", original_dst_lb_config: {upstream_port_override: 15006}"),
            &cluster(", original_dst_lb_config: {}, outlier_detection: {}"),
        ],
    );
    refuses(
        Cluster,
        &[
            (
                "{name: c, type: ORIGINAL_DST}",
                &[
                    "lb_policy: LB policy ROUND_ROBIN is not valid for Cluster type ORIGINAL_DST. Only 'CLUSTER_PROVIDED' is allowed with \
                   cluster type 'ORIGINAL_DST'",
                ],
            ),
            (
                "{name: c, lb_policy: CLUSTER_PROVIDED}",
                &["lb_policy: cluster provided LB specified but cluster 'c' did not provide one"],
            ),
            (
                &cluster(", load_assignment: {cluster_name: c}"),
                &["load_assignment: ORIGINAL_DST clusters must have no load assignment configured"],
            ),
            (
                &cluster(", eds_cluster_config: {eds_config: {ads: {}}}"),
                &["eds_cluster_config: cannot be set in a non-EDS cluster"],
            ),
            (&cluster(", cleanup_interval: 0s"), &["cleanup_interval: value must be greater than 0s"]),
            (
                &cluster(", original_dst_lb_config: {use_http_header: true}"),
                &["original_dst_lb_config.use_http_header: not supported"],
            ),
            (
                &cluster(", original_dst_lb_config: {http_header_name: x}"),
                &["original_dst_lb_config.http_header_name: has no meaning while use_http_header is false"],
            ),
            (
                &cluster(", original_dst_lb_config: {metadata_key: {key: k, path: [{key: p}]}}"),
                &["original_dst_lb_config.metadata_key: not supported"],
            ),
            (
                &cluster(", original_dst_lb_config: {upstream_port_override: 70000}"),
                &["original_dst_lb_config.upstream_port_override: value must be less than or equal to 65535"],
            ),
            (
                &cluster(", ring_hash_lb_config: {}"),
                &["lb_config: settings of another policy than lb_policy"],
            ),
        ],
    );
}

#[test]
fn listener_filters() {
    let filters = |filters: &str| {
        format!(
            "{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, listener_filters: [{filters}], filter_chains: \
             [{{filters: [{{name: t, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
             stat_prefix: s, cluster: later}}}}]}}]}}"
        )
    };
    let filter = |kind: &str, fields: &str| {
        let message = match kind {
            "original_dst" => "OriginalDst",
            "http_inspector" => "HttpInspector",
            _ => "TlsInspector",
        };
        format!(
            "{{name: f, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.{kind}.v3.{message}}}{fields}}}"
        )
    };
    let disabled =
        |predicate: &str| filters(&filter("http_inspector", &format!(", filter_disabled: {predicate}")));
    accepts(
        Listener,
        &[
            &filters(
                &["original_dst", "tls_inspector", "http_inspector"].map(|kind| filter(kind, "")).join(", "),
            ),
            &disabled("{any_match: true}"),
            &disabled("{destination_port_range: {start: 25, end: 26}}"),
            &disabled(
                "{or_match: {rules: [{destination_port_range: {start: 25, end: 26}}, {and_match: {rules: [{any_match: true}, \
                 {not_match: {any_match: true}}]}}]}}",
            ),
        ],
    );
    let at = "listener_filters[0]";
    for (yaml, expected) in [
        (disabled("{any_match: false}"), "filter_disabled.any_match: value must equal true"),
        (disabled("{}"), "filter_disabled.rule: is required"),
        (
            disabled("{or_match: {rules: [{any_match: true}]}}"),
            "filter_disabled.or_match.rules: value must contain at least 2 items",
        ),
        (filters("{name: f}"), "typed_config: listener filter 'f' has no typed_config"),
        (
            filters(
                "{name: f, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}",
            ),
            "typed_config.@type: listener filter 'envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol' is not supported",
        ),
    ] {
        assert_eq!(problems(Listener, &yaml), [format!("{at}.{expected}")], "{yaml}");
    }
}

#[test]
fn secrets() {
    refuses(
        Secret,
        &[
            ("{name: s, generic_secret: {secret: {inline_string: x}}}", &["generic_secret: not supported"]),
            (
                "{name: s, tls_certificate: {private_key: {inline_string: hush}}}",
                &["tls_certificate.certificate_chain: value is required"],
            ),
            (
                "{name: s, validation_context: {trusted_ca: {filename: /nope}, crl: {filename: /c}}}",
                &[
                    "validation_context.crl: not supported",
                    "validation_context.trusted_ca.filename: cannot read '/nope': entity not found",
                ],
            ),
        ],
    );
    let told = problems(
        Secret,
        "{name: s, tls_certificate: {certificate_chain: {inline_string: hush}, private_key: {inline_string: hush}}}",
    );
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("tls_certificate: failed to load certificate chain") && !told[0].contains("hush"),
        "{told:?}"
    );
}
