//! `HttpConnectionManager`.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use ipnet::IpNet;
use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::http_connection_manager::v3 as wire;

use super::access_log::compile_access_logs;
use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::filter_chain_match::compile_cidr;
use super::http_filter::compile_http_filters;
use super::http_options::{Side, compile_common, compile_http1, compile_http2};
use super::listener::ListenerCx;
use super::local_reply::compile_local_replies;
use super::route::compile_route_configuration;
use super::source::compile_config_source;
use super::upgrades::{compile_upgrade, compile_upgrades};
use super::values::{self, boolean, timeout, uint32, unsupported_if_true};
use crate::formatter::CapturePlan;
use crate::http::{
    ClientCertDetails, CodecType, ConnectionOptions, EscapedSlashes, ForwardClientCert,
    HttpConnectionManager, InternalAddresses, PathRules, ProxyStatus, RouteSource, ServerHeader,
    StreamLimits,
};

/// Envoy's defaults.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's default of `delayed_close_timeout`.
const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_REQUEST_HEADERS_KB: u32 = 60;

/// Compiles the connection manager of one filter chain, at the context's present path, and what it opens connections with.
pub(crate) fn compile_http_connection_manager(
    cx: &mut CompileCx<'_>,
    value: &wire::HttpConnectionManager,
    listener: &ListenerCx,
) -> Compiled<(HttpConnectionManager, ConnectionOptions)> {
    let wire::HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        forward_client_cert_matcher,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        add_proxy_protocol_connection_state,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = value;
    unsupported!(cx; scheme_header_transformation, original_ip_detection_extensions,
        early_header_mutation_extensions, forward_client_cert_matcher,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        path_normalization_options, typed_header_validation_config, forward_proto_config);
    unsupported_if_true(cx, "add_user_agent", add_user_agent);
    // Spans, extra log lines, jitter, extra response headers and HTTP/3 settings; a malformed message always ends
    // its connection; a last flush is bounded by the drain.
    ignored!(cx; tracing, http1_safe_max_connection_duration, http3_protocol_options, stream_flush_timeout, drain_timeout_jitter, access_log_flush_interval, stream_error_on_invalid_http_message,
        add_proxy_protocol_connection_state);
    if stat_prefix.is_empty() {
        cx.refuse("stat_prefix", "value length must be at least 1 characters");
    }
    let forward_client_cert =
        compile_client_cert(cx, *forward_client_cert_details, set_current_client_cert_details);
    let internal_addresses = compile_internal_addresses(cx, internal_address_config);
    let via = match via.as_str() {
        "" => Ok(None),
        via => values::header_value(cx, "via", via).map(Some),
    };
    let escaped_slashes = escaped_slashes(cx, *path_with_escaped_slashes_action);
    request_id(cx, request_id_extension);
    let codec = compile_codec(cx, *codec_type);
    let filters = compile_http_filters(cx, http_filters);
    let common = cx.field("common_http_protocol_options", |cx| {
        compile_common(cx, &common_http_protocol_options.unwrap_or_default(), Side::Downstream)
    });
    let http1 = cx.field("http_protocol_options", |cx| {
        compile_http1(cx, &http_protocol_options.clone().unwrap_or_default(), Side::Downstream)
    });
    let http2 = cx.field("http2_protocol_options", |cx| {
        compile_http2(cx, &http2_protocol_options.clone().unwrap_or_default(), Side::Downstream)
    });
    let server_header = compile_server_header(cx, *server_header_transformation);
    let server_name = if server_name.is_empty() {
        Ok(HeaderValue::from_static("envoy"))
    } else {
        values::header_value(cx, "server_name", server_name)
    };
    let proxy_status = match (proxy_status_config, &server_name) {
        (Some(config), Ok(server_name)) => Some(compile_proxy_status(cx, config, server_name)?),
        _ => None,
    };
    let max_request_headers_kb = uint32(max_request_headers_kb, MAX_REQUEST_HEADERS_KB);
    if !(1..=8192).contains(&max_request_headers_kb) {
        cx.refuse("max_request_headers_kb", "value must be inside range (0, 8192]");
    }
    let strip_host_port = match strip_port_mode {
        Some(wire::http_connection_manager::StripPortMode::StripAnyHostPort(true))
            if *strip_matching_host_port =>
        {
            cx.refuse(
                "strip_matching_host_port",
                "strip_matching_host_port and strip_any_host_port must not both be set",
            );
            None
        }
        Some(wire::http_connection_manager::StripPortMode::StripAnyHostPort(true)) => Some(true),
        _ => strip_matching_host_port.then_some(false),
    };
    let mut access_logs = compile_access_logs(cx, access_log, CapturePlan::default())?;
    let local_replies = match local_reply_config {
        Some(config) => {
            Some(cx.field("local_reply_config", |cx| compile_local_replies(cx, config, &mut access_logs))?)
        }
        None => None,
    };
    let options = compile_log_options(cx, access_log_options, *flush_access_log_on_new_request);
    let on_demand = filters.as_ref().is_ok_and(|(filters, _)| filters.asks_for_clusters());
    let routes = match on_demand {
        true => cx.on_demand(|cx| compile_route_source(cx, route_specifier, true)),
        false => compile_route_source(cx, route_specifier, false),
    };
    let upgrades = cx.each("upgrade_configs", upgrade_configs, |config, cx| {
        let wire::http_connection_manager::UpgradeConfig { upgrade_type, filters, enabled } = config;
        unsupported!(cx; filters);
        compile_upgrade(cx, upgrade_type, boolean(enabled, true), &None)
    });
    let upgrades = upgrades.and_then(|types| compile_upgrades(cx, types));
    let (common, http1, http2) = (common?, http1?, http2?);
    let (filters, router) = filters?;
    let request_timeout = timeout(cx, "request_timeout", request_timeout, None);
    let request_headers_timeout = timeout(cx, "request_headers_timeout", request_headers_timeout, None);
    let stream_idle_timeout =
        timeout(cx, "stream_idle_timeout", stream_idle_timeout, Some(STREAM_IDLE_TIMEOUT));
    let internal_addresses = internal_addresses?;
    let asks_address =
        !access_logs.logs.is_empty() || !internal_addresses.is_empty() || filters.counts_by_address();
    let connection = ConnectionOptions {
        codec: codec?,
        idle_timeout: common.idle_timeout,
        max_duration: common.max_connection_duration,
        drain_timeout: values::duration(cx, "drain_timeout", drain_timeout).unwrap_or(DRAIN_TIMEOUT),
        delayed_close: timeout(
            cx,
            "delayed_close_timeout",
            delayed_close_timeout,
            Some(DELAYED_CLOSE_TIMEOUT),
        ),
        stall_timeout: stream_idle_timeout,
        max_requests: common.max_requests_per_connection,
        request_headers_timeout,
        max_request_headers_bytes: max_request_headers_kb * 1024,
        max_headers_count: common.max_headers_count,
        buffer_limit_bytes: listener.buffer_limit_bytes,
        http2,
        header_case: http1.header_case,
        forward_client_cert: forward_client_cert?,
    };
    let manager = HttpConnectionManager {
        stat_prefix: stat_prefix.as_str().into(),
        routes: routes?,
        access_logs,
        local_replies,
        log_on_new_request: options.flush_access_log_on_new_request,
        log_on_tunnel: options.flush_log_on_tunnel_successfully_established,
        append_local_overload: *append_local_overload,
        proxy_status,
        server_name: server_name?,
        server_header: server_header?,
        use_remote_address: boolean(use_remote_address, false),
        skip_xff_append: *skip_xff_append,
        asks_address,
        xff_num_trusted_hops: *xff_num_trusted_hops,
        internal_addresses,
        append_x_forwarded_port: *append_x_forwarded_port,
        via: via?,
        generate_request_id: boolean(generate_request_id, true),
        preserve_external_request_id: *preserve_external_request_id,
        always_set_request_id_in_response: *always_set_request_id_in_response,
        suppress_envoy_headers: router.suppress_envoy_headers,
        respect_expected_timeout: router.respect_expected_rq_timeout,
        filters,
        path: PathRules {
            normalize: boolean(normalize_path, false),
            merge_slashes: *merge_slashes,
            escaped_slashes: escaped_slashes?,
        },
        strip_host_port,
        proxy_100_continue: *proxy_100_continue,
        strip_trailing_host_dot: *strip_trailing_host_dot,
        limits: StreamLimits {
            request_timeout,
            stream_idle_timeout,
            max_stream_duration: common.max_stream_duration,
        },
        http1,
        underscores: common.underscores,
        upgrades: upgrades?,
        reporter: listener.reporter,
        stats: cx.inputs.stats.http(stat_prefix),
    };
    Ok((manager, connection))
}

/// `forward_client_cert_details`; what is to be set is only looked at where something is set.
fn compile_client_cert(
    cx: &mut CompileCx<'_>,
    mode: i32,
    details: &Option<wire::http_connection_manager::SetCurrentClientCertDetails>,
) -> Compiled<ForwardClientCert> {
    use wire::http_connection_manager::ForwardClientCertDetails as Wire;
    let wire::http_connection_manager::SetCurrentClientCertDetails {
        subject,
        cert,
        chain,
        dns,
        uri,
        issuer,
        format,
    } = details.unwrap_or_default();
    cx.field("set_current_client_cert_details", |cx| {
        unsupported!(cx; format);
    });
    let details = ClientCertDetails { subject: boolean(&subject, false), cert, chain, dns, uri, issuer };
    Ok(match values::enumeration(cx, "forward_client_cert_details", mode)? {
        Wire::Sanitize => ForwardClientCert::Sanitize,
        Wire::ForwardOnly => ForwardClientCert::ForwardOnly,
        Wire::AppendForward => ForwardClientCert::AppendForward(details),
        Wire::SanitizeSet => ForwardClientCert::SanitizeSet(details),
        Wire::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    })
}

fn compile_internal_addresses(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::http_connection_manager::InternalAddressConfig>,
) -> Compiled<InternalAddresses> {
    let Some(wire::http_connection_manager::InternalAddressConfig { unix_sockets, cidr_ranges }) = value
    else {
        return Ok(InternalAddresses::default());
    };
    let ranges = cx.field("internal_address_config", |cx| cx.each("cidr_ranges", cidr_ranges, compile_cidr));
    let mut ranges = ranges?;
    if ranges.is_empty() {
        ranges.extend(InternalAddresses::PRIVATE.iter().filter_map(|range| range.parse::<IpNet>().ok()));
    }
    Ok(InternalAddresses { unix_sockets: *unix_sockets, ranges: ranges.into() })
}

/// `proxy_status_config`.
fn compile_proxy_status(
    cx: &mut CompileCx<'_>,
    value: &wire::http_connection_manager::ProxyStatusConfig,
    server_name: &HeaderValue,
) -> Compiled<ProxyStatus> {
    use wire::http_connection_manager::proxy_status_config::ProxyName;
    let wire::http_connection_manager::ProxyStatusConfig {
        remove_details,
        remove_connection_termination_details,
        remove_response_flags,
        set_recommended_response_code,
        proxy_name,
    } = value;
    // Nothing here ends a connection with such details.
    informational!(remove_connection_termination_details);
    let node_id = cx.inputs.node_id.clone();
    let name = cx.field("proxy_status_config", |cx| match proxy_name {
        Some(ProxyName::LiteralProxyName(name)) => values::header_value(cx, "literal_proxy_name", name),
        Some(ProxyName::UseNodeId(_)) => values::header_value(cx, "use_node_id", &node_id),
        None => Ok(server_name.clone()),
    });
    Ok(ProxyStatus {
        name: name?.to_str().unwrap_or_default().into(),
        details: !remove_details,
        flags: !remove_response_flags,
        recommended_status: *set_recommended_response_code,
    })
}

/// `access_log_options`, or what it was called before.
fn compile_log_options(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::http_connection_manager::HcmAccessLogOptions>,
    flush_on_new_request: bool,
) -> wire::http_connection_manager::HcmAccessLogOptions {
    let Some(options) = value else {
        return wire::http_connection_manager::HcmAccessLogOptions {
            flush_access_log_on_new_request: flush_on_new_request,
            ..Default::default()
        };
    };
    let wire::http_connection_manager::HcmAccessLogOptions {
        access_log_flush_interval,
        flush_access_log_on_new_request: _,
        flush_log_on_tunnel_successfully_established: _,
    } = options;
    // Lines in between: each stream has its line at its end.
    cx.field("access_log_options", |cx| ignored!(cx; access_log_flush_interval));
    if flush_on_new_request {
        cx.refuse(
            "access_log_options",
            "only one of flush_access_log_on_new_request or access_log_options can be specified",
        );
    }
    *options
}

fn compile_codec(cx: &mut CompileCx<'_>, value: i32) -> Compiled<CodecType> {
    use wire::http_connection_manager::CodecType as Wire;
    match values::enumeration(cx, "codec_type", value)? {
        Wire::Auto => Ok(CodecType::Auto),
        Wire::Http1 => Ok(CodecType::Http1),
        Wire::Http2 => Ok(CodecType::Http2),
        Wire::Http3 => Err(cx.refuse("codec_type", "HTTP3 is not supported")),
    }
}

fn compile_server_header(cx: &mut CompileCx<'_>, value: i32) -> Compiled<ServerHeader> {
    use wire::http_connection_manager::ServerHeaderTransformation as Wire;
    Ok(match values::enumeration(cx, "server_header_transformation", value)? {
        Wire::Overwrite => ServerHeader::Overwrite,
        Wire::AppendIfAbsent => ServerHeader::AppendIfAbsent,
        Wire::PassThrough => ServerHeader::PassThrough,
    })
}

fn escaped_slashes(cx: &mut CompileCx<'_>, action: i32) -> Compiled<EscapedSlashes> {
    use wire::http_connection_manager::PathWithEscapedSlashesAction as Action;
    Ok(match values::enumeration(cx, "path_with_escaped_slashes_action", action)? {
        Action::ImplementationSpecificDefault | Action::KeepUnchanged => EscapedSlashes::Keep,
        Action::RejectRequest => EscapedSlashes::Reject,
        Action::UnescapeAndRedirect => EscapedSlashes::Redirect,
        Action::UnescapeAndForward => EscapedSlashes::Forward,
    })
}

/// The UUID extension is Envoy's default; its options only concern sampling of traces.
fn request_id(cx: &mut CompileCx<'_>, extension: &Option<wire::RequestIdExtension>) {
    let Some(wire::RequestIdExtension { typed_config: Some(any) }) = extension else { return };
    if values::type_name(any) == "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" {
        cx.ignored("request_id_extension");
    } else {
        cx.refuse("request_id_extension.typed_config", "only UuidRequestIdConfig is supported");
    }
}

/// `route_config` or `rds`. `on_demand`: requests ask for clusters that are not there.
fn compile_route_source(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::http_connection_manager::RouteSpecifier>,
    on_demand: bool,
) -> Compiled<RouteSource> {
    use wire::http_connection_manager::RouteSpecifier;
    match value {
        Some(RouteSpecifier::RouteConfig(routes)) => cx.field("route_config", |cx| {
            let (routes, _) = compile_route_configuration(routes, "", None, true, cx)?;
            Ok(RouteSource::Inline(Arc::new(routes)))
        }),
        Some(RouteSpecifier::Rds(rds)) => cx.field("rds", |cx| {
            let wire::Rds { config_source, route_config_name } = rds;
            let fetch = compile_config_source(cx, "config_source", config_source)?;
            if route_config_name.is_empty() {
                return Err(cx.refuse("route_config_name", "value length must be at least 1 characters"));
            }
            cx.watch(ResourceType::RouteConfiguration, fetch, route_config_name);
            let cell = cx.inputs.registry.routes.of_mut(fetch.source).cell(route_config_name);
            if on_demand {
                cx.references.on_demand_routes.push((fetch.source, cell.name().clone()));
            }
            Ok(RouteSource::Rds(cell))
        }),
        Some(RouteSpecifier::ScopedRoutes(_)) => Err(cx.refuse("scoped_routes", "not supported")),
        None => Err(cx.refuse("", "one of route_config or rds is required")),
    }
}
