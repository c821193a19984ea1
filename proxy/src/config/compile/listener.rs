//! `Listener`.

use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::listener::v3 as wire;

use super::access_log::compile_access_logs;
use super::cx::{CompileCx, Compiled, ignored, unsupported};
use super::filter_chain::{CompiledChain, compile_filter_chain};
use super::filter_chain_match::compile_match;
use super::listener_filter::compile_listener_filter;
use super::own_metadata::{OwnMetadata, compile_own_metadata};
use super::values;
use crate::formatter::CapturePlan;
use crate::listener::{FilterChains, Listener, ListenerFilter, ListenerFilterKind};
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
    /// `per_connection_buffer_limit_bytes`; `u32::MAX`: no limit.
    pub(crate) buffer_limit_bytes: u32,
}

/// A compiled listener and what its next version needs to keep chains.
#[derive(Debug, Clone)]
pub struct CompiledListener {
    /// The listener itself.
    pub listener: Arc<Listener>,
    /// `traffic_direction` is INBOUND.
    pub is_inbound: bool,
    /// All its chains, the default one included.
    pub chains: Vec<CompiledChain>,
}

/// Compiles a listener; chains that open connections as those of `previous` do are kept with their connections.
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
    // Each worker always has its own socket; the rest tunes sockets.
    ignored!(cx; stats_matcher, per_connection_buffer_high_watermark_timeout, drain_type, tcp_fast_open_queue_length,
        connection_balance_config, reuse_port, max_connections_to_accept_per_socket_event, tcp_keepalive);
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
    let OwnMetadata { reporter, peer_certificate_grace, readmission, readmission_ramp } =
        compile_own_metadata(cx, metadata)?;
    for (key, is_set) in [
        ("readmission", readmission != Default::default()),
        ("readmission_ramp_seconds", readmission_ramp.is_some()),
    ] {
        if is_set {
            cx.refuse(&format!("metadata.filter_metadata[\"outrigger.dev\"].{key}"), "belongs to a cluster");
        }
    }
    let buffer_limit_bytes = values::buffer_limit(per_connection_buffer_limit_bytes);
    let listener_cx = ListenerCx { reporter, peer_certificate_grace, buffer_limit_bytes };
    let mut chains = cx.each("filter_chains", filter_chains, |chain, cx| {
        let criteria = cx.field("filter_chain_match", |cx| compile_match(cx, &chain.filter_chain_match));
        let chain = compile_filter_chain(cx, chain, false, &listener_cx, previous)?;
        Ok((criteria?, chain))
    });
    let default = match default_filter_chain {
        Some(chain) => cx
            .field("default_filter_chain", |cx| {
                if chain.filter_chain_match.is_some() {
                    // Envoy takes it without looking at it.
                    cx.ignored("filter_chain_match");
                }
                compile_filter_chain(cx, chain, true, &listener_cx, previous)
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
    let all: Vec<CompiledChain> = all.cloned().collect();
    let matched = chains.into_iter().map(|(criteria, compiled)| (criteria, compiled.chain)).collect();
    let filter_chains = FilterChains::build(matched, default.map(|compiled| compiled.chain))
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
        ignores_connection_limit: *ignore_global_conn_limit,
        bypasses_overload: *bypass_overload_manager,
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
