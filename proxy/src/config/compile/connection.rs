//! How a cluster's connections are made: protocol, timeouts, source address, transport socket.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::wire::cluster::v3 as cluster;
use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::http_protocol_options::v3 as wire;
use prost::Message;

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::http_options::{CommonHttpOptions, Side, compile_common, compile_http1, compile_http2};
use super::response_match::compile_response_predicate;
use super::tls::compile_upstream_transport;
use super::values;
use crate::cluster::{ConnectionSettings, HappyEyeballs, UpstreamProtocol};
use crate::http::{HttpOptions1, HttpOptions2};
use crate::net::Keepalive;
use crate::route::ResponsePredicate;

/// Envoy's defaults.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The one key of `typed_extension_protocol_options` that is known.
const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Compiled connection settings and the hash of what they were compiled from.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The settings.
    pub settings: Arc<ConnectionSettings>,
    /// Hash of the wire form of everything that went into them.
    pub hash: u64,
}

/// Compiles the connection settings of a cluster; an equal `previous` one is kept, so that its pools stay.
pub(crate) fn compile_connection(
    cx: &mut CompileCx<'_>,
    value: &cluster::Cluster,
    peer_certificate_grace: Option<Duration>,
    previous: Option<&Connection>,
) -> Compiled<Connection> {
    let hash = connection_hash(cx, value, peer_certificate_grace);
    let connect_timeout =
        values::duration(cx, "connect_timeout", &value.connect_timeout).unwrap_or(CONNECT_TIMEOUT);
    if connect_timeout.is_zero() {
        cx.refuse("connect_timeout", "value must be greater than 0s");
    }
    let options = compile_protocol_options(cx, value);
    let source_address = compile_source_address(cx, &value.upstream_bind_config);
    let transport =
        cx.field("transport_socket", |cx| compile_upstream_transport(cx, &value.transport_socket));
    let connection_options = compile_connection_options(cx, &value.upstream_connection_options);
    let (options, transport, source_address) = (options?, transport?, source_address?);
    let (tcp_keepalive, happy_eyeballs) = connection_options?;
    // Compiled all the same, to find what is wrong and what is referred to.
    if let Some(previous) = previous.filter(|p| p.hash == hash) {
        return Ok(previous.clone());
    }
    let settings = ConnectionSettings {
        connect_timeout,
        transport,
        protocol: options.protocol,
        idle_timeout: options.common.idle_timeout,
        max_connection_duration: options.common.max_connection_duration,
        max_stream_duration: options.common.max_stream_duration,
        errors: options.errors.map(Arc::new),
        max_requests_per_connection: options.common.max_requests_per_connection,
        max_response_headers_bytes: options.common.max_response_headers_bytes,
        max_response_headers_count: options.common.max_headers_count,
        max_concurrent_streams: options.http2.max_concurrent_streams,
        buffer_limit_bytes: values::buffer_limit(&value.per_connection_buffer_limit_bytes),
        initial_stream_window_bytes: options.http2.initial_stream_window_bytes,
        initial_connection_window_bytes: options.http2.initial_connection_window_bytes,
        http2_keep_alive: options.http2.keep_alive,
        http1_trailers: options.http1.enable_trailers,
        header_case: options.http1.header_case,
        source_address,
        tcp_keepalive,
        happy_eyeballs,
        peer_certificate_grace,
    };
    Ok(Connection { settings: Arc::new(settings), hash })
}

fn connection_hash(cx: &CompileCx<'_>, value: &cluster::Cluster, grace: Option<Duration>) -> u64 {
    let part = cluster::Cluster {
        connect_timeout: value.connect_timeout,
        max_requests_per_connection: value.max_requests_per_connection,
        per_connection_buffer_limit_bytes: value.per_connection_buffer_limit_bytes,
        common_http_protocol_options: value.common_http_protocol_options,
        http_protocol_options: value.http_protocol_options.clone(),
        http2_protocol_options: value.http2_protocol_options.clone(),
        typed_extension_protocol_options: value.typed_extension_protocol_options.clone(),
        upstream_bind_config: value.upstream_bind_config.clone(),
        transport_socket: value.transport_socket.clone(),
        protocol_selection: value.protocol_selection,
        upstream_connection_options: value.upstream_connection_options,
        ..Default::default()
    };
    let more = format!("{:?} {grace:?}", cx.inputs.source_address);
    values::content_hash(&[&part.encode_to_vec(), more.as_bytes()])
}

/// Protocol, and the options of both HTTP versions.
#[derive(Debug)]
struct ProtocolOptions {
    protocol: UpstreamProtocol,
    common: CommonHttpOptions,
    http1: HttpOptions1,
    http2: HttpOptions2,
    errors: Option<ResponsePredicate>,
}

fn compile_protocol_options(cx: &mut CompileCx<'_>, value: &cluster::Cluster) -> Compiled<ProtocolOptions> {
    let mut typed = None;
    for (key, any) in &value.typed_extension_protocol_options {
        let field = format!("typed_extension_protocol_options[\"{key}\"]");
        if key != HTTP_PROTOCOL_OPTIONS {
            cx.refuse(&field, "not supported");
            continue;
        }
        typed = Some(cx.field(&field, |cx| {
            let options: wire::HttpProtocolOptions = values::unpack(cx, any)?;
            compile_http_protocol_options(cx, &options)
        }));
    }
    if let Some(options) = typed {
        let old = &value;
        if old.common_http_protocol_options.is_some()
            || old.http_protocol_options.is_some()
            || old.http2_protocol_options.is_some()
            || old.upstream_http_protocol_options.is_some()
        {
            return Err(cx.refuse(
                "typed_extension_protocol_options",
                "cannot be used together with the cluster's own http options",
            ));
        }
        let mut options = options?;
        if let Some(max) = &value.max_requests_per_connection
            && options.common.max_requests_per_connection == 0
        {
            options.common.max_requests_per_connection = max.value;
        }
        return Ok(options);
    }
    compile_deprecated_options(cx, value)
}

/// The cluster's own HTTP fields, from before `HttpProtocolOptions`.
fn compile_deprecated_options(cx: &mut CompileCx<'_>, value: &cluster::Cluster) -> Compiled<ProtocolOptions> {
    use cluster::cluster::ClusterProtocolSelection;
    let upstream = &value.upstream_http_protocol_options;
    upstream_http_options(cx, "upstream_http_protocol_options", upstream);
    let mut common = cx.field("common_http_protocol_options", |cx| {
        compile_common(cx, &value.common_http_protocol_options.unwrap_or_default(), Side::Upstream)
    })?;
    if let Some(max) = &value.max_requests_per_connection {
        common.max_requests_per_connection = max.value;
    }
    let http1 = http1(cx, &value.http_protocol_options)?;
    let http2 = http2(cx, &value.http2_protocol_options)?;
    let protocol = match values::enumeration(cx, "protocol_selection", value.protocol_selection)? {
        ClusterProtocolSelection::UseDownstreamProtocol => UpstreamProtocol::UseDownstream,
        ClusterProtocolSelection::UseConfiguredProtocol if value.http2_protocol_options.is_some() => {
            UpstreamProtocol::Http2
        }
        ClusterProtocolSelection::UseConfiguredProtocol => UpstreamProtocol::Http1,
    };
    Ok(ProtocolOptions { protocol, common, http1, http2, errors: None })
}

fn compile_http_protocol_options(
    cx: &mut CompileCx<'_>,
    value: &wire::HttpProtocolOptions,
) -> Compiled<ProtocolOptions> {
    use wire::http_protocol_options::UpstreamProtocolOptions;
    use wire::http_protocol_options::explicit_http_config::ProtocolConfig;
    let wire::HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = value;
    unsupported!(cx; http_filters, header_validation_config, request_mirror_policies, hash_policy,
        retry_policy);
    upstream_http_options(cx, "upstream_http_protocol_options", upstream_http_protocol_options);
    let common = cx.field("common_http_protocol_options", |cx| {
        compile_common(cx, &common_http_protocol_options.unwrap_or_default(), Side::Upstream)
    });
    // That there is one is among Envoy's validation rules.
    let matcher = outlier_detection.as_ref().and_then(|detection| detection.error_matcher.as_ref());
    let errors = matcher.map(|matcher| {
        cx.field("outlier_detection.error_matcher", |cx| compile_response_predicate(cx, matcher))
    });
    let (protocol, http1, http2) = match upstream_protocol_options {
        None => return Err(cx.refuse("upstream_protocol_options", "value is required")),
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
            cx.field("explicit_http_config", |cx| match &explicit.protocol_config {
                Some(ProtocolConfig::HttpProtocolOptions(options)) => {
                    let http1 =
                        cx.field("http_protocol_options", |cx| compile_http1(cx, options, Side::Upstream))?;
                    Ok((UpstreamProtocol::Http1, http1, http2(cx, &None)?))
                }
                Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
                    let http2 =
                        cx.field("http2_protocol_options", |cx| compile_http2(cx, options, Side::Upstream))?;
                    Ok((UpstreamProtocol::Http2, http1(cx, &None)?, http2))
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    Err(cx.refuse("http3_protocol_options", "not supported"))
                }
                None => {
                    Err(cx.refuse("", "one of http_protocol_options or http2_protocol_options is required"))
                }
            })?
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
            cx.field("use_downstream_protocol_config", |cx| {
                let wire::http_protocol_options::UseDownstreamHttpConfig {
                    http_protocol_options,
                    http2_protocol_options,
                    http3_protocol_options,
                } = config;
                // Only for requests that came by HTTP/3, of which there are none.
                ignored!(cx; http3_protocol_options);
                let http1 = http1(cx, http_protocol_options)?;
                Ok((UpstreamProtocol::UseDownstream, http1, http2(cx, http2_protocol_options)?))
            })?
        }
        Some(UpstreamProtocolOptions::AutoConfig(_)) => {
            return Err(cx.refuse("auto_config", "not supported: name the protocol in explicit_http_config"));
        }
    };
    Ok(ProtocolOptions { protocol, common: common?, http1, http2, errors: errors.transpose()? })
}

fn http1(cx: &mut CompileCx<'_>, options: &Option<core::Http1ProtocolOptions>) -> Compiled<HttpOptions1> {
    cx.field("http_protocol_options", |cx| {
        compile_http1(cx, &options.clone().unwrap_or_default(), Side::Upstream)
    })
}

fn http2(cx: &mut CompileCx<'_>, options: &Option<core::Http2ProtocolOptions>) -> Compiled<HttpOptions2> {
    cx.field("http2_protocol_options", |cx| {
        compile_http2(cx, &options.clone().unwrap_or_default(), Side::Upstream)
    })
}

/// SNI and SAN taken from each request's authority: one TLS configuration a connection pool here.
fn upstream_http_options(
    cx: &mut CompileCx<'_>,
    name: &str,
    options: &Option<core::UpstreamHttpProtocolOptions>,
) {
    let Some(options) = options else { return };
    cx.field(name, |cx| {
        let core::UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, override_auto_sni_header } =
            options;
        unsupported!(cx; auto_sni, auto_san_validation, override_auto_sni_header);
    });
}

/// `BindConfig` of the cluster, else the cluster manager's source address.
fn compile_source_address(
    cx: &mut CompileCx<'_>,
    value: &Option<core::BindConfig>,
) -> Compiled<Option<IpAddr>> {
    match value {
        None => Ok(cx.inputs.source_address),
        Some(bind) => cx.field("upstream_bind_config", |cx| compile_bind_config(cx, bind)),
    }
}

/// Compiles a `BindConfig` to the address that connections come from.
pub(crate) fn compile_bind_config(
    cx: &mut CompileCx<'_>,
    value: &core::BindConfig,
) -> Compiled<Option<IpAddr>> {
    let core::BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    } = value;
    unsupported!(cx; socket_options, extra_source_addresses, additional_source_addresses, local_address_selector);
    values::unsupported_if_true(cx, "freebind", freebind);
    informational!(validate_network_namespaces);
    let Some(source) = source_address else { return Ok(None) };
    let source = cx.field("source_address", |cx| values::socket_address(cx, source))?;
    if source.port() != 0 {
        return Err(
            cx.refuse("source_address.port_value", "only 0 is supported: one port makes one connection")
        );
    }
    Ok(Some(source.ip()).filter(|ip| !ip.is_unspecified()))
}

/// `upstream_connection_options`: TCP keepalive, and the order of a host's addresses.
fn compile_connection_options(
    cx: &mut CompileCx<'_>,
    value: &Option<cluster::UpstreamConnectionOptions>,
) -> Compiled<(Option<Keepalive>, HappyEyeballs)> {
    let Some(options) = value else { return Ok((None, HappyEyeballs::default())) };
    cx.field("upstream_connection_options", |cx| {
        let cluster::UpstreamConnectionOptions {
            tcp_keepalive,
            set_local_interface_name_on_upstream_connections,
            happy_eyeballs_config,
        } = options;
        // An interface name for other filters.
        ignored!(cx; set_local_interface_name_on_upstream_connections);
        let order = match happy_eyeballs_config {
            Some(config) => cx.field("happy_eyeballs_config", |cx| compile_happy_eyeballs(cx, config))?,
            None => HappyEyeballs::default(),
        };
        Ok((tcp_keepalive.as_ref().map(values::tcp_keepalive), order))
    })
}

fn compile_happy_eyeballs(
    cx: &mut CompileCx<'_>,
    value: &cluster::upstream_connection_options::HappyEyeballsConfig,
) -> Compiled<HappyEyeballs> {
    use cluster::upstream_connection_options::FirstAddressFamilyVersion as Version;
    let cluster::upstream_connection_options::HappyEyeballsConfig {
        first_address_family_version,
        first_address_family_count,
    } = value;
    let version = values::enumeration(cx, "first_address_family_version", *first_address_family_version)?;
    let ipv4_first = match version {
        Version::Default => None,
        Version::V4 => Some(true),
        Version::V6 => Some(false),
        other @ (Version::Pipe | Version::Internal) => {
            let reason = format!("{} is not supported", other.as_str_name());
            return Err(cx.refuse("first_address_family_version", reason));
        }
    };
    Ok(HappyEyeballs { ipv4_first, count: values::uint32(first_address_family_count, 1) })
}
