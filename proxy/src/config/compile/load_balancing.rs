//! How a cluster's hosts are picked: `lb_policy` with its settings, and `common_lb_config`. Policies as extensions are in
//! `load_balancing_policy`.

use std::sync::Arc;

use outrigger_xds_api::wire::cluster::v3 as wire;
use outrigger_xds_api::wire::core::v3::RuntimeDouble;
use outrigger_xds_api::wire::protobuf::{UInt32Value, UInt64Value};
use outrigger_xds_api::wire::r#type::v3::Percent;

use super::cx::{CompileCx, Compiled, ignored, informational};
use super::hashing::{compile_maglev, compile_ring_hash};
use super::load_balancing_policy::compile_policies;
use super::original_dst::compile_original_dst_lb;
use super::subsets::compile_subsets;
use super::values;
use crate::cluster::lb::{LbPolicy, SlowStart, ZoneAware};
use crate::cluster::{Balancing, OriginalDestinations};
use crate::stats::ClusterStats;

/// Envoy's default number of hosts that least request compares.
const CHOICE_COUNT: u32 = 2;
/// Envoy's default of `active_request_bias`.
const ACTIVE_REQUEST_BIAS: f64 = 1.0;
/// Envoy's default of `min_weight_percent` of slow start.
const MIN_WEIGHT_PERCENT: f64 = 10.0;
/// Envoy's default of `min_cluster_size` of zone-aware routing.
const MIN_CLUSTER_SIZE: u64 = 6;

/// What picks, and how the tables are made that it picks from.
pub(super) struct LoadBalancing {
    pub(super) policy: LbPolicy,
    pub(super) balancing: Balancing,
}

/// Compiles it; `destinations` are those of an `ORIGINAL_DST` cluster.
pub(super) fn compile_load_balancing(
    cx: &mut CompileCx<'_>,
    cluster: &wire::Cluster,
    destinations: Option<&Arc<OriginalDestinations>>,
    stats: &Arc<ClusterStats>,
) -> Compiled<LoadBalancing> {
    let mut balancing =
        Balancing { zone_aware: zone_aware(cx, &cluster.name, stats), ..Balancing::default() };
    let policy = match (&cluster.load_balancing_policy, destinations) {
        (Some(policies), _) => cx.field("load_balancing_policy", |cx| {
            compile_policies(cx, policies, (destinations, stats), &mut balancing)
        }),
        (None, Some(destinations)) => compile_original_dst_lb(cx, cluster, destinations),
        (None, None) => compile_policy(cx, cluster, &mut balancing),
    };
    if let Ok(policy) = &policy {
        balancing.hashing = policy.hashing();
        // Tables of hashes are the same in all zones.
        if matches!(policy, LbPolicy::Hash(_) | LbPolicy::OriginalDst { .. }) {
            balancing.zone_aware = None;
        }
    }
    if let Some(config) = &cluster.lb_subset_config {
        if cluster.load_balancing_policy.is_some() || destinations.is_some() {
            let other =
                if destinations.is_some() { "LB policy CLUSTER_PROVIDED" } else { "load_balancing_policy" };
            return Err(
                cx.refuse("lb_subset_config", format!("{other} cannot be combined with lb_subset_config"))
            );
        }
        balancing.subsets = cx.field("lb_subset_config", |cx| compile_subsets(cx, config, stats))?;
    }
    balancing.local_cluster = cx.inputs.local_cluster.clone().filter(|local| *local.name == *cluster.name);
    if let Some(config) = &cluster.common_lb_config {
        let is_whole = cluster.load_balancing_policy.is_none();
        cx.field("common_lb_config", |cx| compile_common(cx, config, is_whole, &mut balancing))?;
    }
    Ok(LoadBalancing { policy: policy?, balancing })
}

fn compile_policy(
    cx: &mut CompileCx<'_>,
    cluster: &wire::Cluster,
    balancing: &mut Balancing,
) -> Compiled<LbPolicy> {
    use wire::cluster::{LbConfig, LbPolicy as Wire};
    let policy = values::enumeration(cx, "lb_policy", cluster.lb_policy)?;
    match (policy, &cluster.lb_config) {
        (Wire::RoundRobin, None) => Ok(LbPolicy::RoundRobin),
        (Wire::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => {
            let wire::cluster::RoundRobinLbConfig { slow_start_config } = config;
            balancing.slow_start =
                cx.field("round_robin_lb_config", |cx| compile_slow_start(cx, slow_start_config))?;
            Ok(LbPolicy::RoundRobin)
        }
        (Wire::LeastRequest, None) => {
            Ok(LbPolicy::LeastRequest { choices: CHOICE_COUNT, bias: ACTIVE_REQUEST_BIAS })
        }
        (Wire::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => {
            cx.field("least_request_lb_config", |cx| {
                let wire::cluster::LeastRequestLbConfig {
                    choice_count,
                    active_request_bias,
                    slow_start_config,
                } = config;
                balancing.slow_start = compile_slow_start(cx, slow_start_config)?;
                let choices = compile_choices(cx, choice_count)?;
                let bias = compile_bias(cx, active_request_bias)?;
                Ok(LbPolicy::LeastRequest { choices, bias })
            })
        }
        (Wire::Random, None) => Ok(LbPolicy::Random),
        (Wire::RingHash, None) => compile_ring_hash(cx, &Default::default(), cluster),
        (Wire::RingHash, Some(LbConfig::RingHashLbConfig(config))) => compile_ring_hash(cx, config, cluster),
        (Wire::Maglev, None) => compile_maglev(cx, &Default::default(), cluster),
        (Wire::Maglev, Some(LbConfig::MaglevLbConfig(config))) => compile_maglev(cx, config, cluster),
        (Wire::RoundRobin | Wire::LeastRequest | Wire::Random | Wire::RingHash | Wire::Maglev, Some(_)) => {
            Err(cx.refuse("lb_config", "settings of another policy than lb_policy"))
        }
        (Wire::ClusterProvided, _) => Err(cx.refuse(
            "lb_policy",
            format!("cluster provided LB specified but cluster '{}' did not provide one", cluster.name),
        )),
        (other, _) => Err(cx.refuse("lb_policy", format!("{} is not supported", other.as_str_name()))),
    }
}

/// `choice_count`: at least two hosts are compared.
pub(super) fn compile_choices(cx: &mut CompileCx<'_>, value: &Option<UInt32Value>) -> Compiled<u32> {
    match values::uint32(value, CHOICE_COUNT) {
        0 | 1 => Err(cx.refuse("choice_count", "value must be greater than or equal to 2")),
        choices => Ok(choices),
    }
}

/// `active_request_bias`: a number from 0 on.
pub(super) fn compile_bias(cx: &mut CompileCx<'_>, value: &Option<RuntimeDouble>) -> Compiled<f64> {
    let Some(RuntimeDouble { default_value, runtime_key }) = value else { return Ok(ACTIVE_REQUEST_BIAS) };
    cx.field("active_request_bias", |cx| {
        ignored!(cx; runtime_key);
        match default_value.is_finite() && *default_value >= 0.0 {
            true => Ok(*default_value),
            false => Err(cx.refuse("default_value", "must not be less than 0")),
        }
    })
}

/// Without a window there is no slow start.
pub(super) fn compile_slow_start(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::cluster::SlowStartConfig>,
) -> Compiled<Option<Arc<SlowStart>>> {
    let Some(value) = value else { return Ok(None) };
    let wire::cluster::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = value;
    cx.field("slow_start_config", |cx| {
        let window = values::duration(cx, "slow_start_window", slow_start_window).unwrap_or_default();
        let aggression = match aggression {
            None => 1.0,
            Some(RuntimeDouble { default_value, runtime_key }) => cx.field("aggression", |cx| {
                ignored!(cx; runtime_key);
                match default_value.is_finite() && *default_value > 0.0 {
                    true => Ok(*default_value),
                    false => Err(cx.refuse("default_value", "must be greater than 0")),
                }
            })?,
        };
        let percent = min_weight_percent.as_ref().map_or(MIN_WEIGHT_PERCENT, |percent| percent.value);
        if !(0.0..=100.0).contains(&percent) {
            return Err(cx.refuse("min_weight_percent", "value must be inside range [0, 100]"));
        }
        let warm_ups = cx.inputs.warm_ups.clone();
        let slow_start =
            SlowStart { window, aggression, min_weight: percent / 100.0, of_new_hosts: true, warm_ups };
        Ok((!window.is_zero()).then(|| Arc::new(slow_start)))
    })
}

/// As in Envoy, whoever has a local cluster routes by zone, also when the cluster says nothing of it.
fn zone_aware(cx: &CompileCx<'_>, cluster: &str, stats: &Arc<ClusterStats>) -> Option<Box<ZoneAware>> {
    let local = cx.inputs.local_cluster.clone().filter(|local| *local.name != *cluster)?;
    Some(Box::new(ZoneAware {
        enabled_percent: 100,
        min_cluster_size: MIN_CLUSTER_SIZE,
        force_min_size: None,
        local,
        stats: stats.clone(),
    }))
}

/// The whole of `common_lb_config`, or what it may say beside a `load_balancing_policy`.
fn compile_common(
    cx: &mut CompileCx<'_>,
    value: &wire::cluster::CommonLbConfig,
    is_whole: bool,
    balancing: &mut Balancing,
) -> Compiled<()> {
    use wire::cluster::common_lb_config::{
        LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
    };
    let wire::cluster::CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = value;
    balancing.drains_on_change = *close_connections_on_host_set_change;
    // Updates are cheap enough to be applied one by one; there are no health checks or host overrides.
    ignored!(cx; update_merge_window, override_host_status);
    // Compiled with the health checks.
    informational!(ignore_new_hosts_until_first_hc);
    if !is_whole && (consistent_hashing_lb_config.is_some() || locality_config_specifier.is_some()) {
        return Err(cx.refuse(
            "",
            "load_balancing_policy cannot be combined with zone_aware_lb_config, locality_weighted_lb_config or \
             consistent_hashing_lb_config",
        ));
    }
    // Compiled with the hash table.
    if balancing.hashing.is_none() {
        ignored!(cx; consistent_hashing_lb_config);
    }
    match locality_config_specifier {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})) => {
            balancing.by_locality_weight = true;
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) if balancing.hashing.is_some() => {
            // Tables of hashes are the same in all zones.
            cx.ignored("zone_aware_lb_config");
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(config)) => {
            let ZoneAwareLbConfig { routing_enabled, min_cluster_size, fail_traffic_on_panic } = config;
            let zones = Zones {
                routing_enabled: routing_enabled.as_ref(),
                min_cluster_size: min_cluster_size.as_ref(),
                fails_on_panic: *fail_traffic_on_panic,
                force_min_size: None,
            };
            cx.field("zone_aware_lb_config", |cx| compile_zone_aware(cx, zones, balancing))?;
        }
    }
    if let Some(percent) = healthy_panic_threshold {
        balancing.panic_percent = values::percent(cx, "healthy_panic_threshold", percent.value)?;
    }
    Ok(())
}

/// `ZoneAwareLbConfig` in any of its forms.
pub(super) struct Zones<'a> {
    pub(super) routing_enabled: Option<&'a Percent>,
    pub(super) min_cluster_size: Option<&'a UInt64Value>,
    pub(super) fails_on_panic: bool,
    pub(super) force_min_size: Option<u32>,
}

/// Without a local cluster only `fail_traffic_on_panic` has an effect.
pub(super) fn compile_zone_aware(
    cx: &mut CompileCx<'_>,
    value: Zones<'_>,
    balancing: &mut Balancing,
) -> Compiled<()> {
    let Zones { routing_enabled, min_cluster_size, fails_on_panic, force_min_size } = value;
    balancing.fails_on_panic = fails_on_panic;
    let enabled_percent = match routing_enabled {
        None => 100,
        Some(percent) => values::percent(cx, "routing_enabled", percent.value)?,
    };
    match &mut balancing.zone_aware {
        Some(zone_aware) => {
            zone_aware.enabled_percent = enabled_percent;
            zone_aware.min_cluster_size = min_cluster_size.map_or(MIN_CLUSTER_SIZE, |size| size.value);
            zone_aware.force_min_size = force_min_size;
        }
        None => {
            ignored!(cx; routing_enabled, min_cluster_size);
        }
    }
    Ok(())
}
