//! Picks from whole clusters: localities, health and priorities.
#![allow(clippy::unwrap_used)]

mod warming;
mod zones;

use std::collections::BTreeMap;

use super::*;
use crate::cluster::{Balancing, EdsHealth, EndpointSet, HealthFlag, HostSpec, Locality};
use crate::net::Address;
use crate::stats::Stats;
use crate::transport_socket::UpstreamTransport;

/// A host at this port of the zone's letter.
fn spec(zone: &str, port: u16) -> HostSpec {
    let locality = Locality { zone: zone.into(), ..Locality::default() };
    HostSpec { locality: Arc::new(locality), ..HostSpec::at(Address::Ip(([127, 0, 0, 1], port).into())) }
}

/// Hosts of one zone, with the zone's weight and the health of each.
fn zone(zone: &str, weight: u32, first: u16, health: &[EdsHealth]) -> Vec<HostSpec> {
    let of = |(port, health): (u16, &EdsHealth)| HostSpec {
        health: *health,
        locality_weight: weight,
        ..spec(zone, port)
    };
    (first..).zip(health).map(of).collect()
}

const GOOD: EdsHealth = EdsHealth::Healthy;
const WEAK: EdsHealth = EdsHealth::Degraded;
const BAD: EdsHealth = EdsHealth::Unhealthy;

fn cluster(lb: LbPolicy, specs: Vec<HostSpec>, balancing: Balancing) -> Arc<Cluster> {
    let mut cluster = crate::tcp::tests::cluster(&Stats::new(), &[], UpstreamTransport::Plaintext);
    let one = Arc::get_mut(&mut cluster).unwrap();
    one.endpoints.publish(EndpointSet::build(None, specs, 140, balancing));
    one.lb = lb;
    cluster
}

/// How many of a thousand requests each port gets.
fn shares(cluster: &Cluster) -> BTreeMap<u16, usize> {
    const PICKS: usize = 20_000;
    let mut counts = BTreeMap::new();
    for _ in 0..PICKS {
        let host = pick(cluster, Context::default());
        *counts.entry(host.map_or(0, |host| host.address.port().unwrap())).or_insert(0) += 1;
    }
    counts.values_mut().for_each(|count| *count = *count * 1_000 / PICKS);
    counts
}

fn sum(shares: &BTreeMap<u16, usize>, ports: std::ops::Range<u16>) -> usize {
    shares.range(ports).map(|(_, share)| share).sum()
}

fn policies() -> [LbPolicy; 3] {
    [LbPolicy::RoundRobin, LbPolicy::LeastRequest { choices: 2, bias: 1.0 }, LbPolicy::Random]
}

fn by_locality() -> Balancing {
    Balancing { by_locality_weight: true, ..Balancing::default() }
}

#[test]
fn localities_get_their_weights_and_lose_them_with_their_hosts() {
    for lb in policies() {
        for (health, expected) in [
            // The hosts of the small zone get as much together as the weights say, not as they are many.
            ([GOOD, GOOD, GOOD, GOOD], 250),
            // 1.4 of three quarters is enough.
            ([GOOD, GOOD, GOOD, BAD], 250),
            // 0.7 of 1 beside 3.
            ([GOOD, GOOD, BAD, BAD], 189),
            ([BAD, BAD, BAD, BAD], 0),
        ] {
            let specs = [zone("a", 1, 10, &health), zone("b", 3, 20, &[GOOD])].concat();
            let shares = shares(&cluster(lb.clone(), specs, Balancing { panic_percent: 0, ..by_locality() }));
            let got = sum(&shares, 10..20);
            assert!(got.abs_diff(expected) <= 15, "{lb:?} {health:?}: {shares:?}");
        }
    }
}

#[test]
fn hosts_of_a_locality_share_evenly() {
    // Both orders go round together and must not fall into step.
    let specs = [zone("a", 1, 10, &[GOOD; 2]), zone("b", 1, 20, &[GOOD; 4])].concat();
    let shares = shares(&cluster(LbPolicy::RoundRobin, specs, by_locality()));
    assert!(shares.range(10..20).all(|(_, share)| share.abs_diff(250) < 3), "{shares:?}");
    assert!(shares.range(20..30).all(|(_, share)| share.abs_diff(125) < 3), "{shares:?}");
    assert_eq!(shares.len(), 6);
}

#[test]
fn a_locality_without_a_weight_gets_nothing() {
    let specs = [zone("a", 0, 10, &[GOOD]), zone("b", 1, 20, &[GOOD])].concat();
    assert_eq!(shares(&cluster(LbPolicy::RoundRobin, specs.clone(), by_locality())), [(20, 1_000)].into());
    // Weights do not count when the cluster does not say so, nor when there are none.
    assert_eq!(shares(&cluster(LbPolicy::RoundRobin, specs, Balancing::default())).len(), 2);
    let specs = [zone("a", 0, 10, &[GOOD]), zone("b", 0, 20, &[GOOD])].concat();
    assert_eq!(shares(&cluster(LbPolicy::RoundRobin, specs, by_locality())).len(), 2);
}

#[test]
fn panic_forgets_localities() {
    let specs = [zone("a", 1, 10, &[BAD; 3]), zone("b", 9, 20, &[GOOD, BAD, BAD])].concat();
    let cluster = cluster(LbPolicy::RoundRobin, specs, by_locality());
    let shares = shares(&cluster);
    assert_eq!(shares.len(), 6, "{shares:?}");
    assert_eq!(cluster.stats.lb_healthy_panic.get(), 20_000);
}

#[test]
fn a_priority_that_panics_may_fail() {
    let balancing = Balancing { fails_on_panic: true, ..Balancing::default() };
    let cluster = cluster(LbPolicy::RoundRobin, zone("a", 0, 10, &[GOOD, BAD, BAD]), balancing);
    assert_eq!(shares(&cluster), [(0, 1_000)].into());
    assert_eq!(cluster.stats.lb_healthy_panic.get(), 20_000);
    assert_eq!(cluster.stats.upstream_cx_none_healthy.get(), 20_000);
}

#[test]
fn hash_tables_multiply_weights() {
    for table in [
        HashTableKind::Maglev { size: 65_537 },
        HashTableKind::Ring { min_size: 65_536, max_size: 8 << 20, function: HashFunction::XxHash },
    ] {
        let hashing = Hashing { table, by_hostname: false, balance_percent: None };
        let mut specs = [zone("a", 1, 10, &[GOOD; 2]), zone("b", 3, 20, &[GOOD; 2])].concat();
        specs[2].weight = 3;
        let balancing = Balancing { hashing: Some(hashing), ..by_locality() };
        let shares = shares(&cluster(LbPolicy::Hash(hashing), specs, balancing));
        for (port, expected) in [(10, 125), (11, 125), (20, 562), (21, 188)] {
            assert!(shares[&port].abs_diff(expected) < 25, "{table:?}: {shares:?}");
        }
    }
}

#[test]
fn degraded_hosts_get_what_is_left() {
    for lb in policies() {
        for (health, expected) in [
            (&[GOOD, GOOD, GOOD, WEAK][..], 0),
            (&[GOOD, GOOD, WEAK, WEAK], 300),
            (&[GOOD, WEAK, WEAK, WEAK], 650),
            (&[GOOD, WEAK, WEAK, BAD], 650),
            (&[WEAK, WEAK, WEAK, BAD], 1_000),
        ] {
            let shares = shares(&cluster(lb.clone(), zone("a", 0, 10, health), Balancing::default()));
            let degraded = (10..).zip(health).filter(|(_, health)| **health == WEAK);
            let got: usize = degraded.filter_map(|(port, _)| shares.get(&port)).sum();
            assert!(got.abs_diff(expected) <= 20, "{lb:?} {health:?}: {shares:?}");
            assert_eq!(sum(&shares, 0..1), 0);
        }
    }
}

#[test]
fn hosts_of_a_later_priority_come_before_degraded_ones() {
    let mut specs = zone("a", 0, 10, &[GOOD, WEAK]);
    specs.extend(zone("a", 0, 20, &[GOOD, GOOD]).into_iter().map(|spec| HostSpec { priority: 1, ..spec }));
    let cluster = cluster(LbPolicy::RoundRobin, specs, Balancing::default());
    let shares = shares(&cluster);
    assert!(sum(&shares, 10..11).abs_diff(700) < 20 && sum(&shares, 20..30).abs_diff(300) < 20, "{shares:?}");
    // A retry elsewhere leaves the degraded host of the first priority out too.
    let context = Context { excluded_priorities: &[1], ..Context::default() };
    let mut ports = BTreeMap::new();
    (0..1_000).for_each(|_| *ports.entry(pick(&cluster, context).unwrap().address.port()).or_insert(0) += 1);
    assert_eq!(ports.len(), 2, "{ports:?}");
}

#[test]
fn a_hash_finds_degraded_hosts_when_there_is_no_other() {
    let hashing =
        Hashing { table: HashTableKind::Maglev { size: 101 }, by_hostname: false, balance_percent: None };
    let balancing = || Balancing { hashing: Some(hashing), ..Balancing::default() };
    let of = |health: &[EdsHealth]| {
        shares(&cluster(LbPolicy::Hash(hashing), zone("a", 0, 10, health), balancing()))
    };
    assert_eq!(of(&[GOOD, WEAK, WEAK]), [(10, 1_000)].into());
    assert_eq!(of(&[WEAK, WEAK, BAD]).len(), 2);
}

#[test]
fn a_host_that_checks_find_degraded_counts_as_one() {
    let cluster = cluster(LbPolicy::RoundRobin, zone("a", 0, 10, &[GOOD, GOOD]), Balancing::default());
    let set = cluster.endpoints.get().unwrap();
    set.priorities[0].hosts[0].active_health().set(HealthFlag::Degraded, true);
    set.refresh();
    set.count(&cluster.stats);
    assert_eq!((cluster.stats.membership_healthy.get(), cluster.stats.membership_degraded.get()), (1, 1));
    assert!(shares(&cluster)[&10].abs_diff(300) < 20);
}

#[test]
fn a_locality_whose_hosts_were_ejected_a_moment_ago_is_passed_over() {
    let specs = [zone("a", 1, 10, &[GOOD]), zone("b", 1, 20, &[GOOD])].concat();
    let cluster = cluster(LbPolicy::RoundRobin, specs, by_locality());
    cluster.endpoints.get().unwrap().hosts().next().unwrap().ejected.store(true, Ordering::Relaxed);
    assert_eq!(shares(&cluster), [(20, 1_000)].into());
}

#[test]
fn load_of_the_priorities_that_are_left() {
    let of = |available: &[u32]| {
        let tier = |(priority, &availability): (u32, &u32)| Tier {
            cumulative: 0,
            priority,
            availability,
            panic: false,
            spread: Spread::All(Table::default()),
        };
        (0..).zip(available).map(tier).collect::<Vec<_>>()
    };
    // At the percentiles 0, 49, 50 and 99.
    for (available, excluded, expected) in [
        (&[100, 100, 100][..], &[][..], [None; 4]),
        (&[100, 100, 100], &[0], [Some(1); 4]),
        (&[100, 50, 50], &[0], [Some(1), Some(1), Some(2), Some(2)]),
        (&[100, 25, 25], &[0], [Some(1), Some(1), Some(2), Some(2)]),
        // 33 % each, and the rest for the first.
        (&[100, 20, 20, 20], &[0], [Some(1), Some(2), Some(2), Some(1)]),
        (&[100, 0, 100], &[0], [Some(2); 4]),
        (&[100, 0, 0], &[0], [None; 4]),
        (&[100, 100], &[1, 0], [None; 4]),
    ] {
        let at = |percentile| tier_without(&of(available), excluded, percentile);
        assert_eq!([0, 49, 50, 99].map(at), expected, "{available:?} without {excluded:?}");
    }
}
