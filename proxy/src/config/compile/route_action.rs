//! What a route does: forward, redirect, answer.

use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::Bytes;
use outrigger_xds_api::wire::core::v3::RoutingPriority;
use outrigger_xds_api::wire::route::v3 as wire;

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::route::RouteCx;
use super::route_match::regex_text;
use super::upgrades::{compile_upgrade, compile_upgrades};
use super::values;
use crate::route::{Action, Clusters, DirectResponse, PathRedirect, Redirect, RouteAction, WeightedCluster};

/// Envoy's default route timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// Compiles `Route.action`.
pub(crate) fn compile_action(
    cx: &mut CompileCx<'_>,
    action: &Option<wire::route::Action>,
    route_cx: &RouteCx,
) -> Compiled<Action> {
    match action {
        Some(wire::route::Action::Route(action)) => {
            cx.field("route", |cx| compile_route_action(cx, action, route_cx)).map(Action::Route)
        }
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
    use wire::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier};
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
    unsupported!(cx; metadata_match, prefix_rewrite, regex_rewrite, path_rewrite_policy, path_rewrite,
        append_x_forwarded_host, retry_policy, retry_policy_typed_config, request_mirror_policies, rate_limits,
        hash_policy, cors, max_grpc_timeout, grpc_timeout_offset, internal_redirect_policy, internal_redirect_action,
        hedge_policy, max_stream_duration);
    // TLS early data is not accepted, so there is none to have a policy for. Sockets are flushed by the idle timeout.
    ignored!(cx; early_data_policy, flush_timeout);
    // No effect without rate limits and internal redirects.
    informational!(include_vh_rate_limits, max_internal_redirects);
    match host_rewrite_specifier {
        None => {}
        Some(HostRewriteSpecifier::AutoHostRewrite(wanted)) if !wanted.value => {}
        Some(_) => {
            cx.refuse("host_rewrite_specifier", "not supported");
        }
    }
    let code = values::enumeration(cx, "cluster_not_found_response_code", *cluster_not_found_response_code);
    let priority = values::enumeration::<RoutingPriority>(cx, "priority", *priority);
    let timeout = values::timeout(cx, "timeout", timeout, Some(DEFAULT_TIMEOUT));
    // Zero stays zero here: it switches the connection manager's timeout off.
    let idle_timeout = values::duration(cx, "idle_timeout", idle_timeout);
    let upgrades = cx.each("upgrade_configs", upgrade_configs, |config, cx| {
        let wire::route_action::UpgradeConfig { upgrade_type, enabled, connect_config } = config;
        unsupported!(cx; connect_config);
        compile_upgrade(cx, upgrade_type, values::boolean(enabled, true))
    });
    let upgrades = upgrades.and_then(|types| compile_upgrades(cx, types));
    let clusters = match cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            compile_cluster_name(cx, "cluster", name, route_cx.validate_clusters).map(Clusters::Single)
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            cx.field("weighted_clusters", |cx| compile_weighted(cx, weighted, route_cx))
        }
        Some(ClusterSpecifier::ClusterHeader(_)) => Err(cx.refuse("cluster_header", "not supported")),
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => {
            Err(cx.refuse("cluster_specifier_plugin", "not supported"))
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Err(cx.refuse("inline_cluster_specifier_plugin", "not supported"))
        }
        None => Err(cx.refuse("", "one of cluster or weighted_clusters is required")),
    };
    Ok(RouteAction {
        clusters: clusters?,
        timeout,
        expected_timeout: RouteAction::expected_timeout(timeout),
        idle_timeout,
        cluster_not_found: match code? {
            ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
            ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        },
        high_priority: priority? == RoutingPriority::High,
        upgrades: upgrades?,
    })
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
) -> Compiled<Clusters> {
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
        unsupported!(cx; cluster_header, metadata_match, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, typed_per_filter_config, host_rewrite_specifier);
        let cell = compile_cluster_name(cx, "name", name, route_cx.validate_clusters);
        let Some(weight) = weight else {
            return Err(cx.refuse("weight", "a weight is required"));
        };
        Ok(WeightedCluster { cluster: cell?, weight: weight.value })
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

fn compile_redirect(cx: &mut CompileCx<'_>, action: &wire::RedirectAction) -> Compiled<Redirect> {
    use wire::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let wire::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = action;
    let status = match values::enumeration(cx, "response_code", *response_code)? {
        RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => StatusCode::FOUND,
        RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    };
    let port = u16::try_from(*port_redirect)
        .map_err(|_| cx.refuse("port_redirect", "value must be less than or equal to 65535"));
    let scheme = match scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => {
            Some(scheme.as_str().into())
        }
        _ => None,
    };
    let path = match path_rewrite_specifier {
        None => PathRedirect::Keep,
        Some(PathRewriteSpecifier::PathRedirect(path)) => redirect_text(cx, "path_redirect", path)
            .map(|path| if path.is_empty() { PathRedirect::Keep } else { PathRedirect::Replace(path) })?,
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            PathRedirect::Prefix(redirect_text(cx, "prefix_rewrite", prefix)?)
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            cx.field("regex_rewrite", |cx| compile_regex_rewrite(cx, rewrite))?
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => return Err(cx.refuse("path_rewrite", "not supported")),
    };
    let host = redirect_text(cx, "host_redirect", host_redirect)?;
    Ok(Redirect {
        status,
        scheme,
        host: Some(host).filter(|h| !h.is_empty()),
        port: port?,
        path,
        strip_query: *strip_query,
    })
}

/// Text that becomes part of a `location` header.
fn redirect_text(cx: &mut CompileCx<'_>, name: &str, text: &str) -> Compiled<Box<str>> {
    if HeaderValue::from_str(text).is_err() {
        return Err(cx.refuse(name, "not allowed in a header"));
    }
    Ok(text.into())
}

fn compile_regex_rewrite(
    cx: &mut CompileCx<'_>,
    value: &outrigger_xds_api::wire::r#type::matcher::v3::RegexMatchAndSubstitute,
) -> Compiled<PathRedirect> {
    let outrigger_xds_api::wire::r#type::matcher::v3::RegexMatchAndSubstitute { pattern, substitution } =
        value;
    let Some(pattern) = pattern else {
        return Err(cx.refuse("pattern", "value is required"));
    };
    let regex = cx.field("pattern", |cx| {
        let text = regex_text(cx, pattern)?;
        // A rewrite replaces every match, so unlike in a matcher the pattern is not anchored.
        regex::RegexBuilder::new(text)
            .size_limit(1 << 20)
            .build()
            .map_err(|e| cx.refuse("regex", format!("invalid regex '{text}': {e}")))
    })?;
    let substitution = compile_substitution(cx, substitution, regex.captures_len())?;
    Ok(PathRedirect::Regex(regex, substitution))
}

/// RE2's `\1` as the regex crate's `${1}`.
fn compile_substitution(cx: &mut CompileCx<'_>, text: &str, groups: usize) -> Compiled<Box<str>> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => {
                match chars.next() {
                    Some('\\') => out.push('\\'),
                    Some(digit) if digit.to_digit(10).is_some_and(|d| (d as usize) < groups) => {
                        out.push_str("${");
                        out.push(digit);
                        out.push('}');
                    }
                    _ => {
                        return Err(cx.refuse(
                        "substitution",
                        format!("invalid substitution '{text}': '\\' must be followed by a group number or '\\'"),
                    ));
                    }
                }
            }
            other => out.push(other),
        }
    }
    if HeaderValue::from_str(&out).is_err() {
        return Err(cx.refuse("substitution", "not allowed in a header"));
    }
    Ok(out.into())
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
