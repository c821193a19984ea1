//! `Listener`, `FilterChain`, `FilterChainMatch`.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::listener::v3 as wire;
use prost::Message;

use super::access_log::compile_access_logs;
use super::cx::{CompileCx, Compiled, References, ignored, informational, unsupported};
use super::http_connection_manager::compile_http_connection_manager;
use super::listener_filter::compile_listener_filter;
use super::own_metadata::{OwnMetadata, compile_own_metadata};
use super::tcp_proxy::compile_tcp_proxy;
use super::tls::compile_downstream_transport;
use super::values;
use crate::formatter::CapturePlan;
use crate::listener::{
    FilterChain, FilterChainMatch, FilterChains, Listener, ListenerFilter, ListenerFilterKind, NetworkFilter,
    SourceType,
};
use crate::net::Address;
use crate::stats::Reporter;

/// Envoy's default.
const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
/// The system's limit (`net.core.somaxconn`) holds when nothing is said.
const BACKLOG: u32 = i32::MAX as u32;

/// What the filters of a listener's chains need to know about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenerCx {
    /// Which mesh metrics are reported, if any.
    pub(crate) reporter: Option<Reporter>,
    /// How long a connection may outlive its peer's certificate; `None`: as long as it lasts.
    pub(crate) peer_certificate_grace: Option<Duration>,
}

/// A compiled listener and what its next version needs to keep chains.
#[derive(Debug, Clone)]
pub struct CompiledListener {
    /// The listener itself.
    pub listener: Arc<Listener>,
    /// `traffic_direction` is INBOUND.
    pub is_inbound: bool,
    /// All its chains, the default one included, each with what it refers to.
    pub chains: Vec<(Arc<FilterChain>, References)>,
}

/// Compiles a listener; chains that are equal to those of `previous` are kept with their connections.
pub fn compile_listener(
    value: &wire::Listener,
    previous: Option<&CompiledListener>,
    cx: &mut CompileCx<'_>,
) -> Compiled<CompiledListener> {
    let wire::Listener {
        name,
        address,
        additional_addresses,
        stat_prefix,
        stats_matcher,
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata,
        deprecated_v1,
        drain_type,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    } = value;
    unsupported!(cx; fcds_config, filter_chain_matcher, deprecated_v1, socket_options, udp_listener_config,
        api_listener, enable_mptcp, listener_specifier);
    for (name, flag) in [("transparent", transparent), ("freebind", freebind)] {
        values::unsupported_if_true(cx, name, flag);
    }
    // Each worker always has its own socket; there is no overload manager yet; the rest tunes sockets.
    ignored!(cx; stats_matcher, per_connection_buffer_limit_bytes, per_connection_buffer_high_watermark_timeout, drain_type, tcp_fast_open_queue_length,
        connection_balance_config, reuse_port, max_connections_to_accept_per_socket_event, ignore_global_conn_limit,
        bypass_overload_manager, tcp_keepalive);
    if !values::boolean(enable_reuse_port, true) {
        cx.ignored("enable_reuse_port");
    }
    let first = values::address(cx, "address", address);
    let more = cx.each("additional_addresses", additional_addresses, |additional, cx| {
        let wire::AdditionalAddress { address, socket_options, tcp_keepalive } = additional;
        unsupported!(cx; socket_options);
        ignored!(cx; tcp_keepalive);
        values::address(cx, "address", address)
    });
    let filters = cx.each("listener_filters", listener_filters, compile_listener_filter);
    let OwnMetadata { reporter, peer_certificate_grace } = compile_own_metadata(cx, metadata)?;
    let listener_cx = ListenerCx { reporter, peer_certificate_grace };
    let mut chains = cx.each("filter_chains", filter_chains, |chain, cx| {
        let criteria = cx.field("filter_chain_match", |cx| compile_match(cx, &chain.filter_chain_match));
        let chain = compile_filter_chain(cx, chain, &listener_cx, previous)?;
        Ok((criteria?, chain))
    });
    let default = match default_filter_chain {
        Some(chain) => cx
            .field("default_filter_chain", |cx| {
                if chain.filter_chain_match.is_some() {
                    // Envoy takes it without looking at it.
                    cx.ignored("filter_chain_match");
                }
                compile_filter_chain(cx, chain, &listener_cx, previous)
            })
            .map(Some),
        None => Ok(None),
    };
    if filter_chains.is_empty() && default_filter_chain.is_none() {
        chains = Err(cx.refuse("filter_chains", "no filter chains specified"));
    }
    let access_logs = compile_access_logs(cx, access_log, CapturePlan::tcp())?;
    let listener_filters_timeout = values::timeout(
        cx,
        "listener_filters_timeout",
        listener_filters_timeout,
        Some(LISTENER_FILTERS_TIMEOUT),
    );
    let (first, default, chains) = (first?, default?, chains?);
    let mut addresses = vec![first];
    addresses.extend(more?);
    let name: Arc<str> = if name.is_empty() { addresses[0].to_string().into() } else { name.as_str().into() };
    let all = chains.iter().map(|(_, chain)| chain).chain(&default);
    let all: Vec<(Arc<FilterChain>, References)> = all.cloned().collect();
    let matched = chains.into_iter().map(|(criteria, (chain, _))| (criteria, chain)).collect();
    let filter_chains = FilterChains::build(matched, default.map(|(chain, _)| chain))
        .map_err(|e| cx.refuse("filter_chains", e))?;
    let hands_over = values::boolean(use_original_dst, false);
    let mut filters = filters?;
    if hands_over {
        // As in Envoy: it comes after the configured ones.
        filters.push(ListenerFilter { kind: ListenerFilterKind::OriginalDst, disabled: None });
    }
    let stats_name = if stat_prefix.is_empty() { stats_name(&addresses[0]) } else { stat_prefix.clone() };
    let listener = Listener {
        is_bound: values::boolean(bind_to_port, true),
        hands_over,
        filters,
        filter_chains,
        listener_filters_timeout,
        continue_on_timeout: *continue_on_listener_filters_timeout,
        backlog: values::uint32(tcp_backlog_size, BACKLOG),
        stats: cx.inputs.stats.listener(&stats_name),
        access_logs,
        addresses,
        name,
    };
    let is_inbound = *traffic_direction == core::TrafficDirection::Inbound as i32;
    Ok(CompiledListener { listener: Arc::new(listener), is_inbound, chains: all })
}

/// Envoy names a listener's statistics by its address.
fn stats_name(address: &Address) -> String {
    address.to_string()
}

fn compile_filter_chain(
    cx: &mut CompileCx<'_>,
    value: &wire::FilterChain,
    listener: &ListenerCx,
    previous: Option<&CompiledListener>,
) -> Compiled<(Arc<FilterChain>, References)> {
    let wire::FilterChain {
        filter_chain_match: _,
        filters,
        use_proxy_proto,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = value;
    let hash = chain_hash(value, listener);
    if let Some((chain, references)) = previous.and_then(|p| p.chains.iter().find(|(c, _)| c.hash == hash)) {
        cx.references.extend(references);
        return Ok((chain.clone(), references.clone()));
    }
    values::unsupported_if_true(cx, "use_proxy_proto", use_proxy_proto);
    informational!(metadata);
    // What this chain alone refers to is kept apart, for when it is reused.
    let before = std::mem::take(&mut cx.references);
    let transport = cx.field("transport_socket", |cx| compile_downstream_transport(cx, transport_socket));
    let handshake_timeout =
        values::timeout(cx, "transport_socket_connect_timeout", transport_socket_connect_timeout, None);
    let filter = match filters.as_slice() {
        [filter] => cx.item("filters", 0, |cx| compile_network_filter(cx, filter, listener)),
        [] => Err(cx
            .refuse("filters", "no network filter: one of http_connection_manager or tcp_proxy is required")),
        _ => Err(cx
            .refuse("filters", "only one network filter is supported: http_connection_manager or tcp_proxy")),
    };
    let references = std::mem::replace(&mut cx.references, before);
    cx.references.extend(&references);
    let chain = FilterChain {
        id: FilterChain::next_id(),
        name: name.as_str().into(),
        transport: transport?,
        handshake_timeout,
        peer_certificate_grace: listener.peer_certificate_grace,
        filter: filter?,
        hash,
    };
    Ok((Arc::new(chain), references))
}

/// Equal chains have equal hashes. The match is part of it, as in Envoy: it tells chains apart that serve the same, and who came by
/// a match that is gone has to come again.
fn chain_hash(value: &wire::FilterChain, listener: &ListenerCx) -> u64 {
    let content = wire::FilterChain { metadata: None, ..value.clone() };
    let of_listener = format!("{listener:?}");
    values::content_hash(&[&content.encode_to_vec(), of_listener.as_bytes()])
}

fn compile_network_filter(
    cx: &mut CompileCx<'_>,
    value: &wire::Filter,
    listener: &ListenerCx,
) -> Compiled<NetworkFilter> {
    let wire::Filter { name, config_type } = value;
    let any = match config_type {
        Some(wire::filter::ConfigType::TypedConfig(any)) => any,
        Some(wire::filter::ConfigType::ConfigDiscovery(_)) => {
            return Err(cx.refuse("config_discovery", "not supported"));
        }
        None => return Err(cx.refuse("typed_config", format!("network filter '{name}' has no typed_config"))),
    };
    cx.field("typed_config", |cx| match values::type_name(any) {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            let manager = values::unpack(cx, any)?;
            compile_http_connection_manager(cx, &manager, listener).map(|m| NetworkFilter::Http(Arc::new(m)))
        }
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            let proxy = values::unpack(cx, any)?;
            compile_tcp_proxy(cx, &proxy, listener).map(|p| NetworkFilter::Tcp(Arc::new(p)))
        }
        other => Err(cx.refuse("@type", format!("network filter '{other}' is not supported"))),
    })
}

fn compile_match(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::FilterChainMatch>,
) -> Compiled<FilterChainMatch> {
    use wire::filter_chain_match::ConnectionSourceType;
    let Some(value) = value else { return Ok(FilterChainMatch::default()) };
    let wire::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = value;
    unsupported!(cx; address_suffix, suffix_len);
    let destination_port = match destination_port {
        Some(port) => Some(port_number(cx, "destination_port", port.value)?),
        None => None,
    };
    let source_ports = source_ports
        .iter()
        .enumerate()
        .map(|(i, port)| port_number(cx, &format!("source_ports[{i}]"), *port))
        .collect::<Compiled<Vec<u16>>>();
    let server_names = cx.each("server_names", server_names, |name, cx| {
        // Envoy: a wildcard only as the whole first label.
        if name.is_empty() || name.strip_prefix("*.").unwrap_or(name).contains('*') {
            return Err(
                cx.refuse("", format!("partial wildcards are not supported in \"server_names\": '{name}'"))
            );
        }
        Ok(name.as_str().into())
    });
    let prefix_ranges = cx.each("prefix_ranges", prefix_ranges, compile_cidr);
    let direct = cx.each("direct_source_prefix_ranges", direct_source_prefix_ranges, compile_cidr);
    let source = cx.each("source_prefix_ranges", source_prefix_ranges, compile_cidr);
    Ok(FilterChainMatch {
        destination_port,
        prefix_ranges: prefix_ranges?,
        server_names: server_names?,
        transport_protocol: transport_protocol.as_str().into(),
        application_protocols: application_protocols.iter().map(|p| p.as_str().into()).collect(),
        direct_source_prefix_ranges: direct?,
        source_type: match values::enumeration(cx, "source_type", *source_type)? {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        source_prefix_ranges: source?,
        source_ports: source_ports?,
    })
}

fn port_number(cx: &mut CompileCx<'_>, name: &str, port: u32) -> Compiled<u16> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| cx.refuse(name, "value must be inside range [1, 65535]"))
}

/// `CidrRange`: an unset length means 0, as in Envoy.
pub(super) fn compile_cidr(value: &core::CidrRange, cx: &mut CompileCx<'_>) -> Compiled<IpNet> {
    let core::CidrRange { address_prefix, prefix_len } = value;
    let ip = address_prefix
        .parse()
        .map_err(|_| cx.refuse("address_prefix", format!("malformed IP address: {address_prefix}")))?;
    let len = values::uint32(prefix_len, 0);
    u8::try_from(len)
        .ok()
        .and_then(|len| IpNet::new(ip, len).ok())
        .map(|net| net.trunc())
        .ok_or_else(|| cx.refuse("prefix_len", format!("{len} is too long for {address_prefix}")))
}
