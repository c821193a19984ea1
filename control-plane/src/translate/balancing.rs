//! How an endpoint is chosen, in Envoy's words.

use outrigger_xds_api::peak_ewma::PeakEwma as WirePeakEwma;
use outrigger_xds_api::wire::cluster::v3::LoadBalancingPolicy;
use outrigger_xds_api::wire::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use outrigger_xds_api::wire::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
    RoundRobinLbConfig, SlowStartConfig,
};
use outrigger_xds_api::wire::cluster::v3::load_balancing_policy::Policy;
use outrigger_xds_api::wire::core::v3 as wire_core;
use outrigger_xds_api::wire::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use outrigger_xds_api::wire::protobuf::{Any, UInt64Value};
use outrigger_xds_api::wire::r#type::v3::Percent;

use crate::model::{ConsistentHash, HashTable, LoadBalancing, LocalityBalancing, PeakEwma, SlowStart};
use crate::translate::wire::{any, duration};

pub(super) fn lb_policy(of: &LoadBalancing) -> LbPolicy {
    match of {
        LoadBalancing::LeastRequest => LbPolicy::LeastRequest,
        LoadBalancing::RoundRobin => LbPolicy::RoundRobin,
        LoadBalancing::Random => LbPolicy::Random,
        // For proxies that do not know it; see `load_balancing_policy`.
        LoadBalancing::PeakEwma(_) => LbPolicy::LeastRequest,
        LoadBalancing::ConsistentHash(ConsistentHash { table: HashTable::Ring(_), .. }) => LbPolicy::RingHash,
        LoadBalancing::ConsistentHash(ConsistentHash { table: HashTable::Maglev(_), .. }) => LbPolicy::Maglev,
    }
}

pub(super) fn lb_config(of: &LoadBalancing, slow_start: Option<SlowStart>) -> Option<LbConfig> {
    let slow_start_config = slow_start.map(self::slow_start);
    let hash = match of {
        LoadBalancing::ConsistentHash(hash) => hash,
        LoadBalancing::LeastRequest if slow_start_config.is_some() => {
            let config = LeastRequestLbConfig { slow_start_config, ..Default::default() };
            return Some(LbConfig::LeastRequestLbConfig(config));
        }
        LoadBalancing::RoundRobin if slow_start_config.is_some() => {
            return Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config }));
        }
        LoadBalancing::LeastRequest
        | LoadBalancing::RoundRobin
        | LoadBalancing::Random
        | LoadBalancing::PeakEwma(_) => return None,
    };
    let size = |size: u32| Some(UInt64Value { value: size.into() });
    Some(match hash.table {
        HashTable::Ring(least) => LbConfig::RingHashLbConfig(RingHashLbConfig {
            minimum_ring_size: size(least),
            ..Default::default()
        }),
        HashTable::Maglev(table) => LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: size(table) }),
    })
}

fn slow_start(of: SlowStart) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: duration(of.window),
        aggression: Some(wire_core::RuntimeDouble {
            default_value: of.aggression,
            // Envoy wants the name of a runtime key; nothing sets it.
            runtime_key: "slow_start.aggression".to_owned(),
        }),
        min_weight_percent: Some(Percent { value: of.least_percent }),
    }
}

/// What holds for all policies: where endpoints that are not ready are told, they must not be used when there are too few others.
pub(super) fn common_lb(
    panic_percent: Option<u32>,
    balancing: Option<&LocalityBalancing>,
) -> Option<CommonLbConfig> {
    let threshold = panic_percent.or(balancing.map(|_| 0))?;
    let is_weighted = matches!(balancing, Some(LocalityBalancing::Distribute(_)));
    let weighted = || LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
    Some(CommonLbConfig {
        healthy_panic_threshold: Some(Percent { value: threshold.into() }),
        locality_config_specifier: is_weighted.then(weighted),
        ..Default::default()
    })
}

/// The policies that have no name of old, each with what is taken where it is not known: an Envoy has Peak EWMA when it was built with it. Not
/// where localities have weights, which it does not know.
pub(super) fn load_balancing_policy(
    of: &LoadBalancing,
    balancing: Option<&LocalityBalancing>,
) -> Option<LoadBalancingPolicy> {
    let LoadBalancing::PeakEwma(PeakEwma { decay }) = of else { return None };
    if matches!(balancing, Some(LocalityBalancing::Distribute(_))) {
        return None;
    }
    let policy = |name: &str, config: Any| Policy {
        typed_extension_config: Some(wire_core::TypedExtensionConfig {
            name: format!("envoy.load_balancing_policies.{name}"),
            typed_config: Some(config),
        }),
    };
    let peak_ewma = WirePeakEwma { decay_time: duration(*decay), ..WirePeakEwma::default() };
    let policies =
        vec![policy("peak_ewma", any(&peak_ewma)), policy("least_request", any(&LeastRequest::default()))];
    Some(LoadBalancingPolicy { policies })
}
