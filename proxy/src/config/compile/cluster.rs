//! `Cluster`.

use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::cluster::v3 as wire;
use outrigger_xds_api::wire::core::v3::Metadata;
use outrigger_xds_api::wire::protobuf::value::Kind;
use prost::Message;

use super::circuit_breakers::compile_circuit_breakers;
use super::connection::{Connection, compile_connection};
use super::cx::{CompileCx, Compiled, ignored, unsupported};
use super::dns::{compile_cluster_type, compile_dns_discovery, compile_dns_fields};
use super::endpoint::{Assignment, compile_endpoints};
use super::health_check::{OfCluster, compile_health_checks};
use super::load_balancing::{LoadBalancing, compile_load_balancing};
use super::metadata::compile_metadata;
use super::original_dst::compile_original_dst_discovery;
use super::outlier::compile_outlier_detection;
use super::own_metadata::{OwnMetadata, compile_own_metadata};
use super::source::compile_config_source;
use super::values;
use crate::cluster::lb::SlowStart;
use crate::cluster::outlier::{OutlierDetection, Readmission};
use crate::cluster::{
    Balancing, CircuitBreakers, Cluster, MeshDestination, OriginalDestinations, Thresholds, UpstreamProtocol,
};
use crate::config::dns::DnsDiscovery;
use crate::config::sources::SourceId;
use crate::health_check::Checker;
use crate::stats::ClusterStats;

/// A compiled cluster with what publishing and the next update need.
#[derive(Debug, Clone)]
pub struct CompiledCluster {
    /// The cluster itself.
    pub cluster: Arc<Cluster>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// Limits of (default, high) priority, to be set when it is published.
    pub thresholds: (Thresholds, Thresholds),
    /// How the tables of its hosts are made.
    pub balancing: Balancing,
    /// The connection settings with their hash.
    pub connection: Connection,
    /// Hash of `outlier_detection`.
    outlier_hash: u64,
    /// Who checks its hosts: `health_checks`. Kept by an update that leaves them as they are.
    pub checker: Option<Arc<Checker>>,
    /// Hash of what it was made of.
    checker_hash: u64,
}

/// Where endpoints come from.
#[derive(Debug, Clone)]
pub enum Discovery {
    /// `STATIC`: they stand in the cluster.
    Static(Arc<Assignment>),
    /// `EDS`: a load assignment of this source.
    Eds {
        /// Whom to ask.
        source: SourceId,
        /// The load assignment's name.
        name: Arc<str>,
    },
    /// `STRICT_DNS`, `LOGICAL_DNS`: they are what names stand for.
    Dns(Arc<DnsDiscovery>),
    /// `ORIGINAL_DST`: they are made on demand.
    OriginalDst {
        /// The hosts so far; kept by updates.
        destinations: Arc<OriginalDestinations>,
        /// `cleanup_interval`, to be set when the cluster is published.
        cleanup_interval: Duration,
    },
}

/// Compiles a cluster. What an update leaves unchanged is taken from `previous`: connection settings, outlier detection and
/// the counters of circuit breakers.
pub fn compile_cluster(
    value: &wire::Cluster,
    previous: Option<&CompiledCluster>,
    cx: &mut CompileCx<'_>,
) -> Compiled<CompiledCluster> {
    let wire::Cluster {
        transport_socket_matches,
        transport_socket_matcher,
        name,
        alt_stat_name,
        stats_matcher,
        eds_cluster_config: _,
        connect_timeout: _,
        per_connection_buffer_limit_bytes: _,
        per_connection_buffer_high_watermark_timeout,
        lb_policy: _,
        load_assignment: _,
        health_checks,
        max_requests_per_connection: _,
        circuit_breakers,
        upstream_http_protocol_options: _,
        common_http_protocol_options: _,
        http_protocol_options: _,
        http2_protocol_options: _,
        typed_extension_protocol_options: _,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init: _,
        outlier_detection,
        cleanup_interval: _,
        upstream_bind_config: _,
        lb_subset_config: _,
        common_lb_config: _,
        transport_socket: _,
        metadata,
        protocol_selection: _,
        upstream_connection_options: _,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy: _,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config: _,
    } = value;
    unsupported!(cx; transport_socket_matches, transport_socket_matcher,
        close_connections_on_host_health_failure, filters, upstream_config,
        connection_pool_per_downstream_connection, queuing_policies);
    // Reports, extra statistics and preconnecting.
    ignored!(cx; stats_matcher, per_connection_buffer_high_watermark_timeout, lrs_server, lrs_report_endpoint_metrics, track_timeout_budgets,
        track_cluster_stats, preconnect_policy);
    if !has_dns_fields(cluster_discovery_type) {
        // There are no names to look up, or `cluster_type` says how.
        ignored!(cx; dns_refresh_rate, dns_jitter, dns_failure_refresh_rate, respect_dns_ttl, dns_lookup_family,
            dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config, typed_dns_resolver_config);
    }
    if name.is_empty() {
        return Err(cx.refuse("name", "value length must be at least 1 characters"));
    }
    let name: Arc<str> = name.as_str().into();
    let stats = cx.inputs.stats.cluster(if alt_stat_name.is_empty() { &name } else { alt_stat_name });
    let discovery = compile_discovery(cx, value, &name, &stats, previous);
    let destinations = match &discovery {
        Ok(Discovery::OriginalDst { destinations, .. }) => Some(destinations),
        _ => None,
    };
    let balancing = compile_load_balancing(cx, value, destinations, &stats);
    let thresholds = cx.field("circuit_breakers", |cx| compile_circuit_breakers(cx, circuit_breakers));
    let own = compile_own_metadata(cx, metadata).unwrap_or_default();
    if own.reporter.is_some() {
        cx.refuse("metadata.filter_metadata[\"outrigger.dev\"].reporter", "belongs to a listener");
    }
    if own.readmission != Readmission::Timed && outlier_detection.is_none() {
        cx.refuse("metadata.filter_metadata[\"outrigger.dev\"].readmission", "needs outlier_detection");
    }
    if own.readmission == Readmission::Check && health_checks.is_empty() {
        cx.refuse("metadata.filter_metadata[\"outrigger.dev\"].readmission", "\"check\" needs health_checks");
    }
    if own.readmission_ramp.is_some() && outlier_detection.is_none() {
        cx.refuse(
            "metadata.filter_metadata[\"outrigger.dev\"].readmission_ramp_seconds",
            "needs outlier_detection",
        );
    }
    let connection =
        compile_connection(cx, value, own.peer_certificate_grace, previous.map(|p| &p.connection));
    let (outlier, outlier_hash) = match &discovery {
        Ok(Discovery::OriginalDst { .. }) => {
            // There is no other host to go to.
            ignored!(cx; outlier_detection);
            (None, 0)
        }
        _ => compile_outlier(cx, outlier_detection, &own, previous)?,
    };
    let (thresholds, connection) = (thresholds?, connection?);
    let LoadBalancing { policy, mut balancing } = balancing?;
    if let Some(ramp) = own.readmission_ramp {
        warm_up_again(cx, ramp, &mut balancing);
    }
    let of_cluster = OfCluster {
        name: &name,
        is_http2: connection.settings.protocol == UpstreamProtocol::Http2,
        ignores_new_hosts: value
            .common_lb_config
            .as_ref()
            .is_some_and(|lb| lb.ignore_new_hosts_until_first_hc),
        ignores_health_on_removal: *ignore_health_on_host_removal,
        only_ejected: own.readmission == Readmission::Check,
    };
    let checked = match &discovery {
        Ok(Discovery::OriginalDst { .. }) => {
            unsupported!(cx; health_checks);
            None
        }
        _ => compile_health_checks(cx, health_checks, of_cluster)?,
    };
    let circuit_breakers = match previous {
        Some(previous) => previous.cluster.circuit_breakers.clone(),
        None => CircuitBreakers::new(stats.clone(), thresholds.0, thresholds.1),
    };
    let cluster = Cluster {
        lb: policy,
        endpoints: cx.inputs.registry.endpoints.cell(&name),
        connection: connection.settings.clone(),
        circuit_breakers,
        outlier,
        stats,
        destination: Arc::new(mesh_destination(&name, metadata.as_ref())),
        metadata: compile_metadata(metadata),
        name,
    };
    let cluster = Arc::new(cluster);
    let checker_hash = hash_of_checks(value, own.readmission == Readmission::Check);
    let checker = checked.map(|check| match previous.and_then(|previous| previous.checker.as_ref()) {
        Some(checker) if previous.is_some_and(|p| p.checker_hash == checker_hash) => checker.clone(),
        _ => Checker::new(check, cluster.clone(), cx.inputs.checks.clone()),
    });
    Ok(CompiledCluster {
        cluster,
        checker,
        checker_hash,
        discovery: discovery?,
        thresholds,
        balancing,
        connection,
        outlier_hash,
    })
}

/// Whether the cluster's own `dns_*` fields count.
fn has_dns_fields(discovery_type: &Option<wire::cluster::ClusterDiscoveryType>) -> bool {
    use wire::cluster::{ClusterDiscoveryType, DiscoveryType};
    let Some(ClusterDiscoveryType::Type(number)) = discovery_type else { return false };
    [DiscoveryType::StrictDns, DiscoveryType::LogicalDns].iter().any(|dns| *number == *dns as i32)
}

fn compile_discovery(
    cx: &mut CompileCx<'_>,
    value: &wire::Cluster,
    name: &Arc<str>,
    stats: &Arc<ClusterStats>,
    previous: Option<&CompiledCluster>,
) -> Compiled<Discovery> {
    use wire::cluster::{ClusterDiscoveryType, DiscoveryType};
    let discovery_type = match &value.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(value)) => values::enumeration(cx, "type", *value)?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            let lookup = cx.field("cluster_type", |cx| compile_cluster_type(cx, custom))?;
            return compile_dns_discovery(cx, value, lookup, stats, previous);
        }
    };
    let (eds, load_assignment) = (&value.eds_cluster_config, &value.load_assignment);
    if eds.is_some() && discovery_type != DiscoveryType::Eds {
        cx.refuse("eds_cluster_config", "cannot be set in a non-EDS cluster");
    }
    if value.cleanup_interval.is_some() && discovery_type != DiscoveryType::OriginalDst {
        cx.ignored("cleanup_interval");
    }
    match discovery_type {
        DiscoveryType::Static => {
            let assignment = cx.field("load_assignment", |cx| {
                compile_endpoints(&load_assignment.clone().unwrap_or_default(), cx)
            })?;
            Ok(Discovery::Static(Arc::new(assignment)))
        }
        DiscoveryType::Eds => {
            if load_assignment.is_some() {
                cx.refuse("load_assignment", "cannot be set in an EDS cluster");
            }
            let Some(wire::cluster::EdsClusterConfig { eds_config, service_name }) = eds else {
                return Err(cx.refuse("eds_cluster_config", "value is required"));
            };
            let fetch =
                cx.field("eds_cluster_config", |cx| compile_config_source(cx, "eds_config", eds_config))?;
            let endpoints = if service_name.is_empty() { name.clone() } else { service_name.as_str().into() };
            cx.watch(ResourceType::ClusterLoadAssignment, fetch, &endpoints);
            Ok(Discovery::Eds { source: fetch.source, name: endpoints })
        }
        DiscoveryType::OriginalDst => compile_original_dst_discovery(cx, value, stats, previous),
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            let lookup = compile_dns_fields(cx, value, discovery_type == DiscoveryType::LogicalDns)?;
            compile_dns_discovery(cx, value, lookup, stats, previous)
        }
    }
}

/// Outlier detection and its hash; the previous one when nothing changed.
fn compile_outlier(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::OutlierDetection>,
    own: &OwnMetadata,
    previous: Option<&CompiledCluster>,
) -> Compiled<(Option<Arc<OutlierDetection>>, u64)> {
    let Some(value) = value else { return Ok((None, 0)) };
    let (readmission, warms_up) = (own.readmission, own.readmission_ramp.is_some());
    let hash = values::content_hash(&[&value.encode_to_vec(), &[readmission as u8, u8::from(warms_up)]]);
    let old = previous.and_then(|p| p.cluster.outlier.clone().map(|outlier| (outlier, p.outlier_hash)));
    let state = old.as_ref().map(|(outlier, _)| outlier.state.clone()).unwrap_or_default();
    let compiled = cx.field("outlier_detection", |cx| {
        compile_outlier_detection(cx, value, readmission, warms_up, state)
    })?;
    let outlier = match old {
        Some((outlier, old_hash)) if old_hash == hash => outlier,
        _ => Arc::new(compiled),
    };
    Ok((Some(outlier), hash))
}

/// Hosts that are back warm up: as new ones do, if these do, else for this time.
fn warm_up_again(cx: &mut CompileCx<'_>, ramp: Duration, balancing: &mut Balancing) {
    if balancing.hashing.is_some() {
        // A hash finds its host whatever it weighs now.
        cx.ignored("metadata.filter_metadata[\"outrigger.dev\"].readmission_ramp_seconds");
        return;
    }
    let warm_ups = cx.inputs.warm_ups.clone();
    balancing.slow_start.get_or_insert_with(|| Arc::new(SlowStart::ramp(ramp, warm_ups)));
}

/// Of all that a [`Checker`] is made of.
fn hash_of_checks(value: &wire::Cluster, only_ejected: bool) -> u64 {
    let checks: Vec<Vec<u8>> = value.health_checks.iter().map(Message::encode_to_vec).collect();
    let ignores_new = value.common_lb_config.as_ref().is_some_and(|lb| lb.ignore_new_hosts_until_first_hc);
    let flags =
        [u8::from(ignores_new), u8::from(value.ignore_health_on_host_removal), u8::from(only_ejected)];
    let parts: Vec<&[u8]> = checks.iter().map(Vec::as_slice).chain([&flags[..]]).collect();
    values::content_hash(&parts)
}

/// Mesh labels: `metadata.filter_metadata.istio.services[0]`, else the host in `outbound|PORT|SUBSET|HOST`, else what is before the
/// first `|`.
fn mesh_destination(name: &str, metadata: Option<&Metadata>) -> MeshDestination {
    if let Some(service) = metadata.and_then(destination_of_metadata) {
        return service;
    }
    let host = match name.split('|').collect::<Vec<_>>().as_slice() {
        [_direction, _port, _subset, host] if !host.is_empty() => host,
        parts => parts.first().copied().unwrap_or(name),
    };
    let mut labels = host.split('.');
    let service_name = labels.next().unwrap_or(host);
    let namespace = if host.contains(".svc.") { labels.next() } else { None };
    MeshDestination {
        service: host.into(),
        service_name: if namespace.is_some() { service_name } else { host }.into(),
        service_namespace: namespace.unwrap_or("unknown").into(),
    }
}

fn destination_of_metadata(metadata: &Metadata) -> Option<MeshDestination> {
    let services = metadata.filter_metadata.get("istio")?.fields.get("services")?;
    let Some(Kind::ListValue(list)) = &services.kind else { return None };
    let Some(Kind::StructValue(service)) = &list.values.first()?.kind else { return None };
    let text = |key: &str| match &service.fields.get(key)?.kind {
        Some(Kind::StringValue(text)) => Some(Arc::<str>::from(text.as_str())),
        _ => None,
    };
    Some(MeshDestination {
        service: text("host")?,
        service_name: text("name")?,
        service_namespace: text("namespace")?,
    })
}
