//! `RouteConfiguration`, `VirtualHost`, `Route`.

use std::sync::Arc;

use outrigger_xds_api::wire::route::v3 as wire;
use prost::Message;

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::route_action::compile_action;
use super::route_match::compile_route_match;
use super::values;
use crate::route::{DomainIndex, RequireTls, Route, RouteConfiguration, VirtualHost};

/// Envoy's default of `max_direct_response_body_size_bytes`.
const MAX_DIRECT_RESPONSE_BODY_BYTES: u32 = 4096;

/// What holds for all routes of one configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteCx {
    /// Clusters that routes name must be known (`validate_clusters`).
    pub(crate) validate_clusters: bool,
    /// `max_direct_response_body_size_bytes`.
    pub(crate) max_body_bytes: u32,
}

/// Compiles a route configuration.
///
/// `previous` is the last compiled one of the same name: virtual hosts that are equal keep their `Arc`. `inline` says that
/// it stands in a listener, which makes `validate_clusters` default to true (for a static listener; a dynamic one waits for
/// its clusters instead).
pub fn compile_route_configuration(
    value: &wire::RouteConfiguration,
    version: &str,
    previous: Option<&RouteConfiguration>,
    inline: bool,
    cx: &mut CompileCx<'_>,
) -> Compiled<RouteConfiguration> {
    let wire::RouteConfiguration {
        name,
        virtual_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata,
        route_specifiers,
    } = value;
    unsupported!(cx; vhds, internal_only_headers, response_headers_to_add, response_headers_to_remove,
        request_headers_to_add, request_headers_to_remove, cluster_specifier_plugins, request_mirror_policies,
        vhost_header, ignore_path_parameters_in_path_matching, typed_per_filter_config, route_specifiers);
    // Only says which header mutations win, and there are none.
    informational!(metadata, most_specific_header_mutations_wins);
    let route_cx = RouteCx {
        validate_clusters: cx.is_static && values::boolean(validate_clusters, inline),
        max_body_bytes: values::uint32(max_direct_response_body_size_bytes, MAX_DIRECT_RESPONSE_BODY_BYTES),
    };
    unique_names(cx, virtual_hosts);
    let virtual_hosts = cx.each("virtual_hosts", virtual_hosts, |virtual_host, cx| {
        // Compiled even when an equal one exists, to know what it refers to; the old `Arc` is kept for its readers.
        let compiled = compile_virtual_host(virtual_host, &route_cx, cx)?;
        let kept = previous.and_then(|p| {
            p.virtual_hosts.iter().find(|v| v.hash == compiled.hash && v.name == compiled.name)
        });
        Ok(kept.cloned().unwrap_or_else(|| Arc::new(compiled)))
    })?;
    let domains = DomainIndex::build(virtual_hosts.iter().map(|v| v.domains.iter().map(|d| &**d)))
        .map_err(|e| cx.refuse("virtual_hosts", e))?;
    Ok(RouteConfiguration {
        name: name.as_str().into(),
        domains,
        virtual_hosts,
        ignore_port: *ignore_port_in_host_matching,
        version: version.into(),
    })
}

/// Envoy refuses two virtual hosts of one name.
fn unique_names(cx: &mut CompileCx<'_>, virtual_hosts: &[wire::VirtualHost]) {
    let mut seen = rustc_hash::FxHashSet::default();
    for (i, virtual_host) in virtual_hosts.iter().enumerate() {
        if !seen.insert(virtual_host.name.as_str()) {
            cx.refuse(
                &format!("virtual_hosts[{i}].name"),
                format!("virtual host '{}' must have a unique name", virtual_host.name),
            );
        }
    }
}

fn compile_virtual_host(
    value: &wire::VirtualHost,
    route_cx: &RouteCx,
    cx: &mut CompileCx<'_>,
) -> Compiled<VirtualHost> {
    let wire::VirtualHost {
        name,
        domains,
        routes,
        matcher,
        require_tls,
        virtual_clusters,
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata,
        route_specifiers,
    } = value;
    unsupported!(cx; matcher, rate_limits, request_headers_to_add, request_headers_to_remove,
        response_headers_to_add, response_headers_to_remove, cors, typed_per_filter_config, retry_policy,
        retry_policy_typed_config, hedge_policy, request_mirror_policies, route_specifiers);
    // Statistics and headers about retries, buffers for them: there is exactly one attempt.
    ignored!(cx; virtual_clusters, include_request_attempt_count, include_attempt_count_in_response,
        include_is_timeout_retry_header, per_request_buffer_limit_bytes, request_body_buffer_limit);
    informational!(metadata);
    if name.is_empty() {
        cx.refuse("name", "value length must be at least 1 characters");
    }
    if domains.is_empty() {
        cx.refuse("domains", "value must contain at least 1 item(s)");
    }
    let require_tls = values::enumeration(cx, "require_tls", *require_tls);
    let routes = cx.each("routes", routes, |route, cx| compile_route(route, route_cx, cx).map(Arc::new));
    let require_tls = match require_tls? {
        wire::virtual_host::TlsRequirementType::None => RequireTls::None,
        wire::virtual_host::TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
        wire::virtual_host::TlsRequirementType::All => RequireTls::All,
    };
    Ok(VirtualHost::new(
        name.as_str().into(),
        domains.iter().map(|d| d.as_str().into()).collect(),
        routes?,
        require_tls,
        values::content_hash(&[&value.encode_to_vec(), &[u8::from(route_cx.validate_clusters)]]),
    ))
}

fn compile_route(value: &wire::Route, route_cx: &RouteCx, cx: &mut CompileCx<'_>) -> Compiled<Route> {
    let wire::Route {
        name,
        r#match,
        metadata,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = value;
    unsupported!(cx; typed_per_filter_config, request_headers_to_add, request_headers_to_remove,
        response_headers_to_add, response_headers_to_remove, route_specifiers);
    // Spans, statistics of a route and buffers for retries.
    ignored!(cx; decorator, tracing, per_request_buffer_limit_bytes, stat_prefix, request_body_buffer_limit);
    informational!(metadata);
    let matcher = match r#match {
        Some(matcher) => cx.field("match", |cx| compile_route_match(cx, matcher)),
        None => Err(cx.refuse("match", "value is required")),
    };
    let action = compile_action(cx, action, route_cx);
    Ok(Route {
        name: Some(name).filter(|n| !n.is_empty()).map(|n| n.as_str().into()),
        matcher: matcher?,
        action: action?,
    })
}
