//! `load_balancing_policy`: policies as extensions. They are those of `lb_policy`; what else stands in `common_lb_config` stands in them.

use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::peak_ewma;
use outrigger_xds_api::wire::cluster::v3 as wire;
use outrigger_xds_api::wire::extensions::load_balancing_policies as policies;
use outrigger_xds_api::wire::protobuf::Any;
use policies::common::v3 as common;

use super::cx::{CompileCx, Compiled, ignored, unsupported};
use super::hashing::{maglev_table, ring_table};
use super::load_balancing::{Zones, compile_bias, compile_choices, compile_slow_start, compile_zone_aware};
use super::subsets::compile_subset_policy;
use super::values;
use crate::cluster::lb::{HashTableKind, Hashing, LbPolicy, PeakEwma};
use crate::cluster::{Balancing, OriginalDestinations};
use crate::stats::ClusterStats;

/// Envoy's default `decay_time` of Peak EWMA.
const DECAY: Duration = Duration::from_secs(10);
/// Envoy's default `default_rtt` of Peak EWMA.
const DEFAULT_RTT: Duration = Duration::from_millis(10);
/// How deep policies may stand in each other.
const MAX_DEPTH: u32 = 4;

/// The destinations of an `ORIGINAL_DST` cluster, and the cluster's statistics.
type OfCluster<'a> = (Option<&'a Arc<OriginalDestinations>>, &'a Arc<ClusterStats>);

/// The first policy of the list that is known here, as in Envoy.
pub(super) fn compile_policies(
    cx: &mut CompileCx<'_>,
    value: &wire::LoadBalancingPolicy,
    cluster: OfCluster<'_>,
    balancing: &mut Balancing,
) -> Compiled<LbPolicy> {
    let policy = compile_list(cx, value, cluster, balancing, MAX_DEPTH)?;
    if cluster.0.is_some() && !matches!(policy, LbPolicy::OriginalDst { .. }) {
        return Err(cx.refuse("", "a cluster of type ORIGINAL_DST wants the policy ClusterProvided"));
    }
    Ok(policy)
}

fn compile_list(
    cx: &mut CompileCx<'_>,
    value: &wire::LoadBalancingPolicy,
    cluster: OfCluster<'_>,
    balancing: &mut Balancing,
    depth: u32,
) -> Compiled<LbPolicy> {
    let mut unknown = Vec::new();
    for (index, policy) in value.policies.iter().enumerate() {
        let wire::load_balancing_policy::Policy { typed_extension_config } = policy;
        let config = typed_extension_config.as_ref().and_then(|extension| extension.typed_config.as_ref());
        let Some(config) = config else { continue };
        let compiled = cx.item("policies", index, |cx| {
            cx.field("typed_extension_config.typed_config", |cx| {
                compile_one(cx, config, cluster, balancing, depth)
            })
        });
        match compiled {
            Some(policy) => return policy,
            None => unknown.push(values::type_name(config)),
        }
    }
    Err(cx.refuse("policies", format!("none of these policies is supported: {}", unknown.join(", "))))
}

/// `None`: the policy is not known here.
fn compile_one(
    cx: &mut CompileCx<'_>,
    config: &Any,
    cluster: OfCluster<'_>,
    balancing: &mut Balancing,
    depth: u32,
) -> Option<Compiled<LbPolicy>> {
    let name = values::type_name(config).strip_prefix("envoy.extensions.load_balancing_policies.")?;
    Some(match name {
        "round_robin.v3.RoundRobin" => compile_round_robin(cx, config, balancing),
        "least_request.v3.LeastRequest" => compile_least_request(cx, config, balancing),
        "random.v3.Random" => values::unpack(cx, config).and_then(|random: policies::random::v3::Random| {
            let policies::random::v3::Random { locality_lb_config } = random;
            compile_locality(cx, &locality_lb_config, balancing)?;
            Ok(LbPolicy::Random)
        }),
        "peak_ewma.v3alpha.PeakEwma" => compile_peak_ewma(cx, config),
        "ring_hash.v3.RingHash" => compile_ring_hash(cx, config, balancing),
        "maglev.v3.Maglev" => compile_maglev(cx, config, balancing),
        "cluster_provided.v3.ClusterProvided" => match cluster.0 {
            Some(destinations) => {
                Ok(LbPolicy::OriginalDst { destinations: destinations.clone(), port: None })
            }
            None => Err(cx.refuse("", "a cluster of this type provides no policy")),
        },
        "wrr_locality.v3.WrrLocality" if depth > 0 => {
            values::unpack(cx, config).and_then(|wrr: policies::wrr_locality::v3::WrrLocality| {
                balancing.by_locality_weight = true;
                let policies::wrr_locality::v3::WrrLocality { endpoint_picking_policy } = wrr;
                let inner = endpoint_picking_policy.unwrap_or_default();
                cx.field("endpoint_picking_policy", |cx| {
                    compile_list(cx, &inner, cluster, balancing, depth - 1)
                })
            })
        }
        "subset.v3.Subset" if depth > 0 && balancing.subsets.is_none() => values::unpack(cx, config)
            .and_then(|subset: policies::subset::v3::Subset| {
                let inner = subset.subset_lb_policy.clone().unwrap_or_default();
                balancing.subsets = compile_subset_policy(cx, subset, cluster.1)?;
                cx.field("subset_lb_policy", |cx| compile_list(cx, &inner, cluster, balancing, depth - 1))
            }),
        _ => return None,
    })
}

fn compile_round_robin(
    cx: &mut CompileCx<'_>,
    config: &Any,
    balancing: &mut Balancing,
) -> Compiled<LbPolicy> {
    let policies::round_robin::v3::RoundRobin { slow_start_config, locality_lb_config } =
        values::unpack(cx, config)?;
    balancing.slow_start = compile_slow_start(cx, &slow_start_config.map(legacy_slow_start))?;
    compile_locality(cx, &locality_lb_config, balancing)?;
    Ok(LbPolicy::RoundRobin)
}

fn compile_least_request(
    cx: &mut CompileCx<'_>,
    config: &Any,
    balancing: &mut Balancing,
) -> Compiled<LbPolicy> {
    let policies::least_request::v3::LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = values::unpack(cx, config)?;
    // A look at all hosts for each request.
    values::unsupported_if_true(cx, "enable_full_scan", &enable_full_scan);
    unsupported!(cx; selection_method);
    balancing.slow_start = compile_slow_start(cx, &slow_start_config.map(legacy_slow_start))?;
    compile_locality(cx, &locality_lb_config, balancing)?;
    let choices = compile_choices(cx, &choice_count)?;
    Ok(LbPolicy::LeastRequest { choices, bias: compile_bias(cx, &active_request_bias)? })
}

fn compile_peak_ewma(cx: &mut CompileCx<'_>, config: &Any) -> Compiled<LbPolicy> {
    let peak_ewma::PeakEwma {
        decay_time,
        aggregation_interval,
        max_samples_per_host,
        default_rtt,
        penalty_value,
    } = values::unpack(cx, config)?;
    // Workers share what they know; what a host costs that has not answered is above all others.
    ignored!(cx; aggregation_interval, max_samples_per_host, penalty_value);
    let decay = values::duration(cx, "decay_time", &decay_time).unwrap_or(DECAY);
    let default_rtt = values::duration(cx, "default_rtt", &default_rtt).unwrap_or(DEFAULT_RTT);
    if decay.is_zero() {
        return Err(cx.refuse("decay_time", "value must be greater than 0s"));
    }
    Ok(LbPolicy::PeakEwma(PeakEwma { decay, default_rtt }))
}

/// The same settings under their older name.
fn legacy_slow_start(value: common::SlowStartConfig) -> wire::cluster::SlowStartConfig {
    let common::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = value;
    wire::cluster::SlowStartConfig { slow_start_window, aggression, min_weight_percent }
}

fn compile_ring_hash(cx: &mut CompileCx<'_>, config: &Any, balancing: &mut Balancing) -> Compiled<LbPolicy> {
    use policies::ring_hash::v3::ring_hash::HashFunction;
    use wire::cluster::ring_hash_lb_config::HashFunction as Legacy;
    let policies::ring_hash::v3::RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = values::unpack(cx, config)?;
    let function = match values::enumeration(cx, "hash_function", hash_function)? {
        HashFunction::DefaultHash | HashFunction::XxHash => Legacy::XxHash,
        HashFunction::MurmurHash2 => Legacy::MurmurHash2,
    };
    let ring = wire::cluster::RingHashLbConfig {
        minimum_ring_size,
        maximum_ring_size,
        hash_function: function.into(),
    };
    let table = ring_table(cx, &ring)?;
    balancing.by_locality_weight |= locality_weighted_lb_config.is_some();
    let older = common::ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
        hash_policy: Vec::new(),
    };
    Ok(hashed(cx, table, consistent_hashing_lb_config.unwrap_or(older)))
}

fn compile_maglev(cx: &mut CompileCx<'_>, config: &Any, balancing: &mut Balancing) -> Compiled<LbPolicy> {
    let policies::maglev::v3::Maglev {
        table_size,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = values::unpack(cx, config)?;
    let table = maglev_table(cx, &wire::cluster::MaglevLbConfig { table_size })?;
    balancing.by_locality_weight |= locality_weighted_lb_config.is_some();
    Ok(hashed(cx, table, consistent_hashing_lb_config.unwrap_or_default()))
}

fn hashed(
    cx: &mut CompileCx<'_>,
    table: HashTableKind,
    consistent: common::ConsistentHashingLbConfig,
) -> LbPolicy {
    let common::ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor, hash_policy } =
        consistent;
    cx.field("consistent_hashing_lb_config", |cx| {
        unsupported!(cx; hash_policy);
    });
    LbPolicy::Hash(Hashing {
        table,
        by_hostname: use_hostname_for_hashing,
        balance_percent: hash_balance_factor.map(|factor| factor.value),
    })
}

fn compile_locality(
    cx: &mut CompileCx<'_>,
    value: &Option<common::LocalityLbConfig>,
    balancing: &mut Balancing,
) -> Compiled<()> {
    use common::locality_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig};
    let specifier = value.as_ref().and_then(|value| value.locality_config_specifier.as_ref());
    cx.field("locality_lb_config", |cx| match specifier {
        None => Ok(()),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})) => {
            balancing.by_locality_weight = true;
            Ok(())
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(config)) => cx.field("zone_aware_lb_config", |cx| {
            let ZoneAwareLbConfig {
                routing_enabled,
                min_cluster_size,
                fail_traffic_on_panic,
                force_locality_direct_routing,
                force_local_zone,
                locality_basis,
            } = config;
            unsupported!(cx; locality_basis);
            if balancing.zone_aware.is_none() {
                ignored!(cx; force_locality_direct_routing, force_local_zone);
            }
            let by_size = force_local_zone.as_ref().map(|force| values::uint32(&force.min_size, 1));
            let zones = Zones {
                routing_enabled: routing_enabled.as_ref(),
                min_cluster_size: min_cluster_size.as_ref(),
                fails_on_panic: *fail_traffic_on_panic,
                force_min_size: by_size.or_else(|| force_locality_direct_routing.then_some(1)),
            };
            compile_zone_aware(cx, zones, balancing)
        }),
    })
}
