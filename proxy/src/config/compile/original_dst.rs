//! `ORIGINAL_DST` clusters: hosts that no configuration names.

use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::wire::cluster::v3 as wire;

use super::cluster::{CompiledCluster, Discovery};
use super::cx::{CompileCx, Compiled, unsupported};
use super::endpoint;
use super::values;
use crate::cluster::OriginalDestinations;
use crate::cluster::lb::LbPolicy;
use crate::stats::ClusterStats;

/// Envoy's default of `cleanup_interval`.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(5);

/// What says in a cluster of type `ORIGINAL_DST` where its hosts come from; those of `previous` are kept.
pub(super) fn compile_original_dst_discovery(
    cx: &mut CompileCx<'_>,
    value: &wire::Cluster,
    stats: &Arc<ClusterStats>,
    previous: Option<&CompiledCluster>,
) -> Compiled<Discovery> {
    if value.load_assignment.is_some() {
        cx.refuse("load_assignment", "ORIGINAL_DST clusters must have no load assignment configured");
    }
    let cleanup_interval = values::duration(cx, "cleanup_interval", &value.cleanup_interval);
    // No endpoint says whose the addresses are; the cluster may.
    let workload = value.metadata.as_ref().and_then(endpoint::workload);
    let destinations = match previous.map(|previous| &previous.discovery) {
        Some(Discovery::OriginalDst { destinations, .. }) if destinations.workload == workload => {
            destinations.clone()
        }
        _ => OriginalDestinations::new(stats.clone(), workload, cx.inputs.inhabited.clone()),
    };
    Ok(Discovery::OriginalDst {
        destinations,
        cleanup_interval: cleanup_interval.unwrap_or(CLEANUP_INTERVAL),
    })
}

/// `lb_policy` and `original_dst_lb_config` of such a cluster.
pub(super) fn compile_original_dst_lb(
    cx: &mut CompileCx<'_>,
    value: &wire::Cluster,
    destinations: &Arc<OriginalDestinations>,
) -> Compiled<LbPolicy> {
    let policy: wire::cluster::LbPolicy = values::enumeration(cx, "lb_policy", value.lb_policy)?;
    if policy != wire::cluster::LbPolicy::ClusterProvided {
        return Err(cx.refuse(
            "lb_policy",
            format!(
                "LB policy {} is not valid for Cluster type ORIGINAL_DST. Only 'CLUSTER_PROVIDED' is allowed with cluster type \
                 'ORIGINAL_DST'",
                policy.as_str_name()
            ),
        ));
    }
    let port = match &value.lb_config {
        None => Ok(None),
        Some(wire::cluster::LbConfig::OriginalDstLbConfig(config)) => {
            cx.field("original_dst_lb_config", |cx| compile_settings(cx, config))
        }
        Some(_) => Err(cx.refuse("lb_config", "settings of another policy than lb_policy")),
    };
    Ok(LbPolicy::OriginalDst { destinations: destinations.clone(), port: port? })
}

/// Gives `upstream_port_override`.
fn compile_settings(
    cx: &mut CompileCx<'_>,
    value: &wire::cluster::OriginalDstLbConfig,
) -> Compiled<Option<u16>> {
    let wire::cluster::OriginalDstLbConfig {
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key,
    } = value;
    // Both would let somebody else than the kernel say where a connection goes.
    unsupported!(cx; use_http_header, metadata_key);
    if !http_header_name.is_empty() && !use_http_header {
        cx.refuse("http_header_name", "has no meaning while use_http_header is false");
    }
    // More than 65535 is against one of Envoy's validation rules.
    Ok(upstream_port_override.as_ref().and_then(|port| u16::try_from(port.value).ok()))
}
