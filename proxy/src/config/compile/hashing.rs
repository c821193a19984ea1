//! Clusters with a hash table: `RING_HASH` and `MAGLEV`. Limits of sizes and of the balance factor are among Envoy's validation
//! rules, which were checked before.

use outrigger_xds_api::wire::cluster::v3::{Cluster, cluster as wire};
use outrigger_xds_api::wire::protobuf::UInt64Value;

use super::cx::{CompileCx, Compiled};
use super::values;
use crate::cluster::lb::{HashFunction, HashTableKind, Hashing, LbPolicy};

/// Envoy's default of `minimum_ring_size`, entries.
const MIN_RING_SIZE: u64 = 1024;
/// Envoy's default of `maximum_ring_size`, entries.
const MAX_RING_SIZE: u64 = 8 << 20;
/// Envoy's default of `table_size`, entries.
const TABLE_SIZE: u64 = 65_537;

/// Compiles `RING_HASH` with its `ring_hash_lb_config`.
pub(super) fn compile_ring_hash(
    cx: &mut CompileCx<'_>,
    value: &wire::RingHashLbConfig,
    cluster: &Cluster,
) -> Compiled<LbPolicy> {
    let table = cx.field("ring_hash_lb_config", |cx| ring_table(cx, value));
    compile_common(cx, table, cluster)
}

/// Compiles the ring itself.
pub(super) fn ring_table(cx: &mut CompileCx<'_>, value: &wire::RingHashLbConfig) -> Compiled<HashTableKind> {
    use wire::ring_hash_lb_config::HashFunction as Wire;
    let wire::RingHashLbConfig { minimum_ring_size, maximum_ring_size, hash_function } = value;
    let min_size = size(minimum_ring_size, MIN_RING_SIZE);
    let max_size = size(maximum_ring_size, MAX_RING_SIZE);
    let function = match values::enumeration(cx, "hash_function", *hash_function)? {
        Wire::XxHash => HashFunction::XxHash,
        Wire::MurmurHash2 => HashFunction::Murmur2,
    };
    if min_size > max_size {
        let reason = format!("ring hash: minimum_ring_size ({min_size}) > maximum_ring_size ({max_size})");
        return Err(cx.refuse("minimum_ring_size", reason));
    }
    Ok(HashTableKind::Ring { min_size, max_size, function })
}

/// Compiles `MAGLEV` with its `maglev_lb_config`.
pub(super) fn compile_maglev(
    cx: &mut CompileCx<'_>,
    value: &wire::MaglevLbConfig,
    cluster: &Cluster,
) -> Compiled<LbPolicy> {
    let table = cx.field("maglev_lb_config", |cx| maglev_table(cx, value));
    compile_common(cx, table, cluster)
}

/// Compiles the table itself.
pub(super) fn maglev_table(cx: &mut CompileCx<'_>, value: &wire::MaglevLbConfig) -> Compiled<HashTableKind> {
    let wire::MaglevLbConfig { table_size } = value;
    let size = size(table_size, TABLE_SIZE);
    if !is_prime(size) {
        return Err(cx.refuse("table_size", "The table size of maglev must be prime number"));
    }
    Ok(HashTableKind::Maglev { size })
}

/// Adds `common_lb_config.consistent_hashing_lb_config`.
fn compile_common(
    cx: &mut CompileCx<'_>,
    table: Compiled<HashTableKind>,
    cluster: &Cluster,
) -> Compiled<LbPolicy> {
    use wire::common_lb_config::ConsistentHashingLbConfig;
    use wire::{ClusterDiscoveryType, DiscoveryType};
    let config = cluster.common_lb_config.as_ref().and_then(|common| common.consistent_hashing_lb_config);
    let ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor } =
        config.unwrap_or_default();
    let strict_dns = ClusterDiscoveryType::Type(DiscoveryType::StrictDns.into());
    if use_hostname_for_hashing && cluster.cluster_discovery_type != Some(strict_dns) {
        cx.refuse(
            "common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing",
            "Cannot use hostname for consistent hashing loadbalancing for cluster of another type than STRICT_DNS",
        );
    }
    let balance_percent = hash_balance_factor.map(|factor| factor.value);
    Ok(LbPolicy::Hash(Hashing { table: table?, by_hostname: use_hostname_for_hashing, balance_percent }))
}

fn size(value: &Option<UInt64Value>, default: u64) -> u64 {
    value.as_ref().map_or(default, |value| value.value)
}

fn is_prime(number: u64) -> bool {
    let mut divisors = (2u64..).take_while(|divisor| divisor * divisor <= number);
    number > 1 && divisors.all(|divisor| !number.is_multiple_of(divisor))
}
