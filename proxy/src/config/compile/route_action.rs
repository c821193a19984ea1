//! What a route does: forward, redirect, answer.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::Bytes;
use outrigger_xds_api::wire::core::v3::RoutingPriority;
use outrigger_xds_api::wire::route::v3 as wire;

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::hash_policy::compile_hash_policies;
use super::header_mutation::compile_header_mutations;
use super::http_filter::compile_overrides;
use super::internal_redirect::compile_internal_redirects;
use super::rate_limit::{Place, compile_rate_limits};
use super::redirect::compile_redirect;
use super::retry::compile_retry_policy;
use super::rewrite::{compile_host_rewrite, compile_path_rewrite};
use super::route::RouteCx;
use super::route_match::compile_fraction;
use super::subsets::compile_metadata_match;
use super::upgrades::{compile_upgrade, compile_upgrades};
use super::values;
use crate::cluster::lb::Criteria;
use crate::formatter::CapturePlan;
use crate::route::{
    Action, ClusterHeader, ClusterSource, Clusters, DirectResponse, GrpcTimeout, MatchedHeader, Mirror,
    RateLimits, RouteAction, WeightedCluster,
};

/// Envoy's default route timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// Compiles `Route.action`.
pub(crate) fn compile_action(
    cx: &mut CompileCx<'_>,
    action: &Option<wire::route::Action>,
    route_cx: &RouteCx,
) -> Compiled<Action> {
    match action {
        Some(wire::route::Action::Route(action)) => cx
            .field("route", |cx| compile_route_action(cx, action, route_cx))
            .map(|a| Action::Route(Box::new(a))),
        Some(wire::route::Action::Redirect(action)) => {
            cx.field("redirect", |cx| compile_redirect(cx, action)).map(Action::Redirect)
        }
        Some(wire::route::Action::DirectResponse(action)) => cx
            .field("direct_response", |cx| compile_direct_response(cx, action, route_cx.max_body_bytes))
            .map(Action::DirectResponse),
        Some(wire::route::Action::FilterAction(_)) => Err(cx.refuse("filter_action", "not supported")),
        Some(wire::route::Action::NonForwardingAction(_)) => {
            Err(cx.refuse("non_forwarding_action", "not supported"))
        }
        None => Err(cx.refuse("", "one of route, redirect or direct_response is required")),
    }
}

fn compile_route_action(
    cx: &mut CompileCx<'_>,
    action: &wire::RouteAction,
    route_cx: &RouteCx,
) -> Compiled<RouteAction> {
    use wire::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier};
    let wire::RouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        include_vh_rate_limits,
        hash_policy,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = action;
    unsupported!(cx; path_rewrite_policy, retry_policy_typed_config, cors,
        internal_redirect_action, hedge_policy);
    // TLS early data is not accepted, so there is none to have a policy for. Sockets are flushed by the idle timeout.
    ignored!(cx; early_data_policy, flush_timeout);
    // Belongs to `internal_redirect_action`.
    informational!(max_internal_redirects);
    let rate_limits = compile_rate_limits(cx, rate_limits, Place::Route);
    let hash_policies = compile_hash_policies(cx, hash_policy);
    let path_rewrite = compile_path_rewrite(cx, prefix_rewrite, regex_rewrite, path_rewrite);
    let host_rewrite = compile_host_rewrite(cx, host_rewrite_specifier);
    let retry = match retry_policy {
        Some(policy) => cx
            .field("retry_policy", |cx| compile_retry_policy(cx, policy))
            .map(|policy| Some(Arc::new(policy))),
        None => Ok(route_cx.retry.clone()),
    };
    let internal_redirects = match internal_redirect_policy {
        Some(policy) => cx
            .field("internal_redirect_policy", |cx| compile_internal_redirects(cx, policy))
            .map(|policy| Some(Box::new(policy))),
        None => Ok(None),
    };
    let mirrors = match request_mirror_policies.is_empty() {
        true => Ok(route_cx.mirrors.clone()),
        false => compile_mirrors(cx, request_mirror_policies, route_cx.validate_clusters),
    };
    let grpc_timeout = max_grpc_timeout.is_some().then(|| GrpcTimeout {
        max: values::duration(cx, "max_grpc_timeout", max_grpc_timeout).unwrap_or_default(),
        offset: values::duration(cx, "grpc_timeout_offset", grpc_timeout_offset).unwrap_or_default(),
    });
    if grpc_timeout.is_none() {
        ignored!(cx; grpc_timeout_offset);
    }
    let limits_stream = max_stream_duration.is_some();
    let (max_stream_duration, grpc_stream_timeout) = match max_stream_duration {
        Some(durations) => cx.field("max_stream_duration", |cx| compile_max_stream_duration(cx, durations)),
        None => (None, None),
    };
    let code = values::enumeration(cx, "cluster_not_found_response_code", *cluster_not_found_response_code);
    let priority = values::enumeration::<RoutingPriority>(cx, "priority", *priority);
    let timeout = values::timeout(cx, "timeout", timeout, Some(DEFAULT_TIMEOUT));
    // As in Envoy: one way to limit a request takes the place of the other.
    let timeout = timeout.filter(|_| !limits_stream);
    // Zero stays zero here: it switches the connection manager's timeout off.
    let idle_timeout = values::duration(cx, "idle_timeout", idle_timeout);
    let upgrades = cx.each("upgrade_configs", upgrade_configs, |config, cx| {
        let wire::route_action::UpgradeConfig { upgrade_type, enabled, connect_config } = config;
        compile_upgrade(cx, upgrade_type, values::boolean(enabled, true), connect_config)
    });
    let upgrades = upgrades.and_then(|types| compile_upgrades(cx, types));
    let criteria = compile_metadata_match(cx, metadata_match, None);
    let mut plan = CapturePlan::live();
    let clusters = match cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            compile_cluster_name(cx, "cluster", name, route_cx.validate_clusters).map(Clusters::Single)
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => cx.field("weighted_clusters", |cx| {
            compile_weighted(cx, weighted, route_cx, criteria.as_ref(), &mut plan)
        }),
        Some(ClusterSpecifier::ClusterHeader(name)) => compile_cluster_header(cx, name).map(Clusters::Header),
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => {
            Err(cx.refuse("cluster_specifier_plugin", "not supported"))
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Err(cx.refuse("inline_cluster_specifier_plugin", "not supported"))
        }
        None => Err(cx.refuse("", "one of cluster, weighted_clusters or cluster_header is required")),
    };
    let retry = retry?;
    let per_try_timeout = retry.as_ref().and_then(|policy| policy.per_try_timeout);
    Ok(RouteAction {
        clusters: clusters?,
        criteria,
        timeout,
        expected_timeout: RouteAction::expected_timeout(match (per_try_timeout, timeout) {
            (Some(one), Some(all)) => Some(one.min(all)),
            (one, all) => one.or(all),
        }),
        idle_timeout,
        cluster_not_found: match code? {
            ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
            ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        },
        high_priority: priority? == RoutingPriority::High,
        upgrades: upgrades?,
        path_rewrite: path_rewrite?,
        host_rewrite: host_rewrite?,
        append_forwarded_host: *append_x_forwarded_host,
        limits_stream,
        max_stream_duration,
        grpc_stream_timeout,
        grpc_timeout,
        retry,
        internal_redirects: internal_redirects?,
        mirrors: mirrors?.into(),
        buffer_limit_bytes: route_cx.buffer_limit_bytes,
        keeps_request_head: plan.names_request(),
        hash_policies: hash_policies?,
        rate_limits: Some(RateLimits {
            of_route: rate_limits?.into(),
            of_virtual_host: route_cx.rate_limits.clone(),
            include_virtual_host: values::boolean(include_vh_rate_limits, false),
        })
        .filter(|limits| !(limits.of_route.is_empty() && limits.of_virtual_host.is_empty()))
        .map(Box::new),
    })
}

/// `max_stream_duration`: the route's own, and what a `grpc-timeout` may say.
fn compile_max_stream_duration(
    cx: &mut CompileCx<'_>,
    value: &wire::route_action::MaxStreamDuration,
) -> (Option<Duration>, Option<GrpcTimeout>) {
    let wire::route_action::MaxStreamDuration {
        max_stream_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset,
    } = value;
    let own = values::duration(cx, "max_stream_duration", max_stream_duration);
    let max = values::duration(cx, "grpc_timeout_header_max", grpc_timeout_header_max);
    let offset = values::duration(cx, "grpc_timeout_header_offset", grpc_timeout_header_offset);
    if max.is_none() {
        ignored!(cx; grpc_timeout_header_offset);
    }
    (own, max.map(|max| GrpcTimeout { max, offset: offset.unwrap_or_default() }))
}

/// Compiles `request_mirror_policies`.
pub(crate) fn compile_mirrors(
    cx: &mut CompileCx<'_>,
    policies: &[wire::route_action::RequestMirrorPolicy],
    validate_clusters: bool,
) -> Compiled<Vec<Mirror>> {
    cx.each("request_mirror_policies", policies, |policy, cx| {
        let wire::route_action::RequestMirrorPolicy {
            cluster,
            cluster_header,
            runtime_fraction,
            trace_sampled,
            disable_shadow_host_suffix_append,
            request_headers_mutations,
            host_rewrite_literal,
        } = policy;
        unsupported!(cx; request_headers_mutations);
        // Spans.
        ignored!(cx; trace_sampled);
        let fraction_ppm = match runtime_fraction {
            Some(fraction) => cx.field("runtime_fraction", |cx| compile_fraction(cx, fraction)).map(Some),
            None => Ok(None),
        };
        let host = match host_rewrite_literal.is_empty() {
            true => Ok(None),
            false => values::header_value(cx, "host_rewrite_literal", host_rewrite_literal).map(Some),
        };
        Ok(Mirror {
            cluster: compile_cluster_source(cx, ("cluster", cluster), cluster_header, validate_clusters)?,
            fraction_ppm: fraction_ppm?,
            host: host?,
            host_suffix: !disable_shadow_host_suffix_append,
        })
    })
}

fn compile_cluster_header(cx: &mut CompileCx<'_>, name: &str) -> Compiled<ClusterHeader> {
    let header = MatchedHeader::from_name(name).map_err(|reason| cx.refuse("cluster_header", reason))?;
    let clusters = cx.inputs.registry.cluster_names.clone();
    Ok(ClusterHeader { header, clusters })
}

/// A cluster that a field names, or the request by `cluster_header`.
fn compile_cluster_source(
    cx: &mut CompileCx<'_>,
    (field, name): (&str, &str),
    header: &str,
    must_exist: bool,
) -> Compiled<ClusterSource> {
    match (name.is_empty(), header.is_empty()) {
        (false, true) => compile_cluster_name(cx, field, name, must_exist).map(ClusterSource::Named),
        (true, false) => compile_cluster_header(cx, header).map(ClusterSource::Header),
        (true, true) => {
            Err(cx.refuse(field, format!("At least one of {field} or cluster_header need to be specified")))
        }
        (false, false) => {
            Err(cx
                .refuse("cluster_header", format!("Only one of {field} or cluster_header can be specified")))
        }
    }
}

/// A reference to a cluster by name. With `must_exist`, the name must be one that is known by now.
pub(crate) fn compile_cluster_name(
    cx: &mut CompileCx<'_>,
    field: &str,
    name: &str,
    must_exist: bool,
) -> Compiled<crate::route::ClusterRef> {
    if name.is_empty() {
        return Err(cx.refuse(field, "value length must be at least 1 characters"));
    }
    let cell = cx.inputs.registry.clusters.cell(name);
    if must_exist && !cx.inputs.known_clusters.contains(name) {
        return Err(cx.refuse(field, format!("route: unknown cluster '{name}'")));
    }
    cx.references.clusters.push(cell.name().clone());
    Ok(cell)
}

fn compile_weighted(
    cx: &mut CompileCx<'_>,
    value: &wire::WeightedCluster,
    route_cx: &RouteCx,
    criteria: Option<&Arc<Criteria>>,
    plan: &mut CapturePlan,
) -> Compiled<Clusters> {
    use wire::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    let wire::WeightedCluster { clusters, total_weight, runtime_key_prefix, random_value_specifier } = value;
    unsupported!(cx; random_value_specifier);
    ignored!(cx; runtime_key_prefix);
    let clusters = cx.each("clusters", clusters, |cluster, cx| {
        let wire::weighted_cluster::ClusterWeight {
            name,
            cluster_header,
            weight,
            metadata_match,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            typed_per_filter_config,
            host_rewrite_specifier,
        } = cluster;
        let criteria = compile_metadata_match(cx, metadata_match, criteria);
        let cluster = compile_cluster_source(cx, ("name", name), cluster_header, route_cx.validate_clusters);
        let Some(weight) = weight else {
            return Err(cx.refuse("weight", "a weight is required"));
        };
        let (add, remove) = (request_headers_to_add, request_headers_to_remove);
        let request = compile_header_mutations(cx, "request", add, remove, &mut CapturePlan::live());
        let (add, remove) = (response_headers_to_add, response_headers_to_remove);
        let response = compile_header_mutations(cx, "response", add, remove, plan);
        let host_rewrite = match host_rewrite_specifier {
            None => Ok(None),
            Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
                values::header_value(cx, "host_rewrite_literal", host).map(Some)
            }
        };
        Ok(WeightedCluster {
            cluster: cluster?,
            weight: weight.value,
            criteria,
            request_headers: request?,
            response_headers: response?,
            host_rewrite: host_rewrite?,
            overrides: match typed_per_filter_config.is_empty() {
                true => None,
                false => compile_overrides(cx, route_cx.overrides.as_ref(), typed_per_filter_config)?,
            },
        })
    })?;
    let sum = check_weights(cx, &clusters)?;
    if let Some(total) = total_weight
        && u64::from(total.value) != sum
    {
        cx.refuse(
            "total_weight",
            format!("Sum of weights in the weighted_cluster must equal {}", total.value),
        );
    }
    Ok(Clusters::Weighted { clusters: without_zero_weights(clusters), total: sum })
}

/// The sum of weights, which Envoy wants in 1..2^32.
pub(crate) fn check_weights(cx: &mut CompileCx<'_>, clusters: &[WeightedCluster]) -> Compiled<u64> {
    let sum: u64 = clusters.iter().map(|c| u64::from(c.weight)).sum();
    if sum == 0 {
        return Err(cx.refuse("clusters", "Sum of weights in the weighted_cluster must be greater than 0."));
    }
    if sum > u64::from(u32::MAX) {
        return Err(cx.refuse("clusters", "The sum of weights of all weighted clusters exceeds 4294967295"));
    }
    Ok(sum)
}

/// Entries that can be picked.
pub(crate) fn without_zero_weights(clusters: Vec<WeightedCluster>) -> Vec<WeightedCluster> {
    clusters.into_iter().filter(|c| c.weight > 0).collect()
}

fn compile_direct_response(
    cx: &mut CompileCx<'_>,
    action: &wire::DirectResponseAction,
    max_body_bytes: u32,
) -> Compiled<DirectResponse> {
    let wire::DirectResponseAction { status, body, body_format } = action;
    unsupported!(cx; body_format);
    let status = match u16::try_from(*status) {
        Ok(code @ 200..=599) => StatusCode::from_u16(code).ok(),
        _ => None,
    };
    let Some(status) = status else {
        return Err(cx.refuse("status", "value must be inside range [200, 600)"));
    };
    let body = match body {
        Some(source) => cx.field("body", |cx| values::data(cx, source))?,
        None => Vec::new(),
    };
    if body.len() > max_body_bytes as usize {
        return Err(cx.refuse(
            "body",
            format!("response body size is {} bytes; maximum is {max_body_bytes}", body.len()),
        ));
    }
    let mut headers = HeaderMap::new();
    if !body.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    Ok(DirectResponse { status, body: Bytes::from(body), headers })
}
