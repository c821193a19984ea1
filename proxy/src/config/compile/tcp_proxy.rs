//! `TcpProxy`.

use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::wire::protobuf;
use outrigger_xds_api::wire::tcp_proxy::v3 as wire;

use super::access_log::compile_access_logs;
use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::hash_policy::compile_tcp_hash_policy;
use super::listener::ListenerCx;
use super::route_action::{check_weights, compile_cluster_name, without_zero_weights};
use super::subsets::compile_metadata_match;
use super::values;
use crate::cluster::lb::Criteria;
use crate::formatter::CapturePlan;
use crate::route::{Clusters, WeightedCluster};
use crate::tcp::TcpProxy;

/// Envoy's default idle timeout.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Compiles the `tcp_proxy` of one filter chain, at the context's present path.
pub(crate) fn compile_tcp_proxy(
    cx: &mut CompileCx<'_>,
    value: &wire::TcpProxy,
    listener: &ListenerCx,
) -> Compiled<TcpProxy> {
    let wire::TcpProxy {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = value;
    unsupported!(cx; on_demand, downstream_idle_timeout, upstream_idle_timeout, backoff_options,
        tunneling_config, proxy_protocol_tlvs, upstream_connect_mode);
    // Jitter; early data only exists in other connect modes; a drain waits for the connection.
    ignored!(cx; max_downstream_connection_duration_jitter_percentage, max_early_data_bytes, check_drain_close);
    informational!(proxy_protocol_tlv_merge_policy);
    if stat_prefix.is_empty() {
        cx.refuse("stat_prefix", "value length must be at least 1 characters");
    }
    let idle_timeout = values::timeout(cx, "idle_timeout", idle_timeout, Some(IDLE_TIMEOUT));
    let max_connection_duration =
        values::timeout(cx, "max_downstream_connection_duration", max_downstream_connection_duration, None);
    let max_connect_attempts = values::uint32(max_connect_attempts, 1);
    if max_connect_attempts == 0 {
        cx.refuse("max_connect_attempts", "value must be greater than or equal to 1");
    }
    let criteria = compile_metadata_match(cx, metadata_match, None);
    let clusters = match cluster_specifier {
        // Envoy does not ask whether the cluster exists: a connection that finds none is closed.
        Some(wire::tcp_proxy::ClusterSpecifier::Cluster(name)) => {
            compile_cluster_name(cx, "cluster", name, false).map(Clusters::Single)
        }
        Some(wire::tcp_proxy::ClusterSpecifier::WeightedClusters(weighted)) => {
            cx.field("weighted_clusters", |cx| compile_weighted(cx, weighted, criteria.as_ref()))
        }
        None => Err(cx.refuse("", "one of cluster or weighted_clusters is required")),
    };
    let hashes_source_ip = compile_tcp_hash_policy(cx, hash_policy);
    let access_logs = compile_access_logs(cx, access_log, CapturePlan::tcp())?;
    let options = compile_log_options(
        cx,
        access_log_options,
        access_log_flush_interval,
        *flush_access_log_on_connected,
    );
    Ok(TcpProxy {
        stat_prefix: stat_prefix.as_str().into(),
        clusters: clusters?,
        criteria,
        idle_timeout,
        max_connection_duration,
        max_connect_attempts,
        hashes_source_ip: hashes_source_ip?,
        access_logs,
        log_on_connected: options.flush_access_log_on_connected,
        log_on_start: options.flush_access_log_on_start,
        log_interval: cx.field("access_log_options", |cx| {
            values::timeout(cx, "access_log_flush_interval", &options.access_log_flush_interval, None)
        }),
        stats: cx.inputs.stats.tcp(stat_prefix),
        reporter: listener.reporter,
    })
}

/// `access_log_options`, or what its parts were called before.
fn compile_log_options(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::tcp_proxy::TcpAccessLogOptions>,
    interval: &Option<protobuf::Duration>,
    on_connected: bool,
) -> wire::tcp_proxy::TcpAccessLogOptions {
    let Some(options) = value else {
        return wire::tcp_proxy::TcpAccessLogOptions {
            access_log_flush_interval: *interval,
            flush_access_log_on_connected: on_connected,
            flush_access_log_on_start: false,
        };
    };
    if interval.is_some() || on_connected {
        cx.refuse("access_log_options", "must not be set beside the fields that it stands for");
    }
    *options
}

fn compile_weighted(
    cx: &mut CompileCx<'_>,
    value: &wire::tcp_proxy::WeightedCluster,
    criteria: Option<&Arc<Criteria>>,
) -> Compiled<Clusters> {
    let wire::tcp_proxy::WeightedCluster { clusters } = value;
    let clusters = cx.each("clusters", clusters, |cluster, cx| {
        let wire::tcp_proxy::weighted_cluster::ClusterWeight { name, weight, metadata_match } = cluster;
        let criteria = compile_metadata_match(cx, metadata_match, criteria);
        if *weight == 0 {
            cx.refuse("weight", "value must be greater than or equal to 1");
        }
        let cluster = compile_cluster_name(cx, "name", name, false)?;
        Ok(WeightedCluster { criteria, ..WeightedCluster::new(cluster, *weight) })
    })?;
    let total = check_weights(cx, &clusters)?;
    Ok(Clusters::Weighted { clusters: without_zero_weights(clusters), total })
}
