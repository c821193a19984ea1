//! Tables against those that an Envoy 1.40 logs at level trace, and what consistent hashing promises.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;
use crate::cluster::lb::locality::shares_of_hosts;
use crate::cluster::lb::{self, Context};
use crate::cluster::{Balancing, EdsHealth, EndpointSet, HostSpec};
use crate::metadata::Metadata;
use crate::net::Address;

/// An address and a weight.
fn host((address, weight): (&str, u32)) -> Arc<Host> {
    let host = Host::new(Address::Ip(address.parse().unwrap()), "".into(), weight, true, None);
    Arc::new(host)
}

fn with_key(host: Arc<Host>, key: serde_json::Value) -> Arc<Host> {
    let fields = json!({ "hash_key": key }).as_object().unwrap().clone();
    host.metadata.store(Metadata::new([("envoy.lb".to_owned(), fields)]).map(Arc::new));
    host
}

/// Ports 90 to 95.
fn six() -> Vec<Arc<Host>> {
    (90..96).map(|port| host((&format!("127.0.0.1:{port}"), 1))).collect()
}

/// Ports 90, 91 with a key, and 92, weighted 1 : 2 : 3.
fn weighted() -> Vec<Arc<Host>> {
    let keyed = with_key(host(("127.0.0.1:91", 2)), json!("key-b"));
    vec![host(("127.0.0.1:90", 1)), keyed, host(("[::1]:92", 3))]
}

fn table(hosts: &[Arc<Host>], table: HashTableKind) -> HashTable {
    build(hosts, Hashing { table, by_hostname: false, balance_percent: None })
}

fn build(hosts: &[Arc<Host>], hashing: Hashing) -> HashTable {
    let shares: Vec<f64> = shares_of_hosts(hosts, 1.0).into_iter().map(|(_, share)| share).collect();
    HashTable::build(hosts, &shares, hashing)
}

fn ring(min_size: u64) -> HashTableKind {
    HashTableKind::Ring { min_size, max_size: 8 << 20, function: HashFunction::XxHash }
}

fn maglev(size: u64) -> HashTableKind {
    HashTableKind::Maglev { size }
}

fn pick(table: &HashTable, hosts: &[Arc<Host>], hash: u64, attempt: u32) -> Option<usize> {
    table.pick(hosts, hash, attempt, || 0)
}

/// The points of a ring, each with the port of its host.
fn points(table: &HashTable, hosts: &[Arc<Host>]) -> Vec<(u16, u64)> {
    let Slots::Ring(ring) = &table.slots else { panic!("a ring") };
    let points = ring.points();
    points.map(|(point, host)| (hosts[host].address.port().unwrap(), point)).collect()
}

#[test]
fn a_ring_is_envoys() {
    let hosts = six();
    let table = table(&hosts, ring(12));
    let expected = [
        (94, 833437586790550860),
        (92, 928266305478181108),
        (90, 1033482794131418490),
        (95, 3551244743356806947),
        (93, 3851675632748031481),
        (91, 5583722120771150861),
        (91, 6311230543546372928),
        (93, 7700377290971790572),
        (95, 13144177310400110813),
        (92, 13444792449719432967),
        (94, 15516499411664133160),
        (90, 16117243373044804889),
    ];
    assert_eq!(points(&table, &hosts), expected);
    for (hash, attempt, port) in [
        (0, 0, 94),
        (833437586790550860, 0, 94),
        (833437586790550861, 0, 92),
        (833437586790550861, 1, 90),
        (16117243373044804889, 0, 90),
        (16117243373044804889, 1, 94),
        (16117243373044804890, 0, 94),
        (u64::MAX, 0, 94),
        (u64::MAX, 12, 94),
    ] {
        let picked = pick(&table, &hosts, hash, attempt).unwrap();
        assert_eq!(hosts[picked].address.port(), Some(port), "{hash} + {attempt}");
    }
}

#[test]
fn a_ring_with_weights_a_key_murmur_and_too_little_room_is_envoys() {
    let hosts = weighted();
    let kind = HashTableKind::Ring { min_size: 8, max_size: 9, function: HashFunction::Murmur2 };
    let expected = [
        (92, 188036807872145759),
        (92, 4462350750195819972),
        (90, 5656417760668758976),
        (90, 7593076544525390372),
        (91, 10170262118981898754),
        (92, 11377616168294109527),
        (92, 11705803773193020638),
        (91, 12372458631716863587),
        (91, 14595218554230428769),
    ];
    assert_eq!(points(&table(&hosts, kind), &hosts), expected);
}

#[test]
fn a_maglev_table_is_envoys() {
    let ports = |hosts: &[Arc<Host>], size: u64| {
        let table = table(hosts, maglev(size));
        let port = |entry| hosts[pick(&table, hosts, entry, 0).unwrap()].address.port().unwrap();
        (0..size).map(port).collect::<Vec<u16>>()
    };
    let six = six();
    let expected = [
        92, 93, 94, 91, 94, 91, 94, 91, 95, 92, 92, 95, 94, 91, 90, 94, 95, 90, 93, 93, 92, 93, 93, 91, 90,
        90, 92, 95, 90,
    ];
    assert_eq!(ports(&six, 29), expected);
    // The endpoints' order does not matter.
    let reversed: Vec<Arc<Host>> = six.into_iter().rev().collect();
    assert_eq!(ports(&reversed, 29), expected);
    let expected = [
        90, 90, 92, 92, 90, 91, 92, 92, 91, 92, 92, 92, 90, 91, 91, 92, 91, 91, 92, 91, 92, 90, 91, 92, 90,
        92, 92, 92, 91, 91, 92,
    ];
    assert_eq!(ports(&weighted(), 31), expected);
}

#[test]
fn another_attempt_looks_at_another_entry() {
    let hosts = six();
    let table = table(&hosts, maglev(29));
    // As the hash with its bits turned over: `hash ^ -attempt`.
    for (hash, attempt, turned) in [(5, 1, 5 ^ u64::MAX), (5, 2, 5 ^ (u64::MAX - 1)), (5, 0, 5)] {
        assert_eq!(pick(&table, &hosts, hash, attempt), pick(&table, &hosts, turned, 0), "{attempt}");
    }
}

#[test]
fn what_names_a_host() {
    let plain =
        || Arc::new(Host::new(Address::Ip(([127, 0, 0, 1], 80).into()), "name".into(), 1, true, None));
    assert_eq!(hash_key(&plain(), false), "127.0.0.1:80");
    assert_eq!(hash_key(&plain(), true), "name");
    for (key, expected) in [(json!("key"), "key"), (json!(""), "name"), (json!(7), "name")] {
        assert_eq!(hash_key(&with_key(plain(), key), true), expected);
    }
}

#[test]
fn empty_tables_have_no_host() {
    for kind in [ring(1024), maglev(101)] {
        assert_eq!(pick(&table(&[], kind), &[], 7, 0), None);
    }
    let hosts = six();
    assert_eq!(pick(&table(&hosts, ring(0)), &hosts, 7, 0), None);
}

/// Hosts 10.0.x.y, `count` of them.
fn many(count: u32) -> Vec<Arc<Host>> {
    (0..count).map(|n| host((&format!("10.0.{}.{}:80", n >> 8, n & 255), 1))).collect()
}

#[test]
fn few_hashes_move_when_a_host_leaves_or_comes() {
    const HASHES: usize = 20_000;
    for kind in [ring(1024 * 64), maglev(65_537)] {
        for count in [3, 10, 50] {
            let hosts = many(count);
            let all = table(&hosts, kind);
            for gone in [0, hosts.len() / 2, hosts.len() - 1] {
                let rest: Vec<Arc<Host>> = hosts.iter().filter(|h| h.id != hosts[gone].id).cloned().collect();
                let less = table(&rest, kind);
                let mut random = fastrand::Rng::with_seed(7);
                let moved = (0..HASHES).filter(|_| {
                    let hash = random.u64(..);
                    let (before, after) = (pick(&all, &hosts, hash, 0), pick(&less, &rest, hash, 0));
                    hosts[before.unwrap()].id != rest[after.unwrap()].id
                });
                let (moved, least) = (moved.count(), HASHES / count as usize);
                // Its own, and on a ring about as many that the others' new points take; chance may add some.
                assert!(moved <= 2 * least + 100, "{kind:?}, {count} hosts: {moved} of {HASHES} moved");
                assert!(moved * 2 >= least, "{kind:?}, {count} hosts: its own share moves: {moved}");
            }
        }
    }
}

#[test]
fn hosts_get_their_weights() {
    const HASHES: usize = 100_000;
    for kind in [ring(1 << 16), maglev(65_537)] {
        for weights in [vec![1, 1, 1, 1], vec![1, 2, 3], vec![1, 99], vec![1000, 500, 250, 125, 125]] {
            let hosts: Vec<Arc<Host>> = many(weights.len() as u32);
            hosts.iter().zip(&weights).for_each(|(h, w)| h.weight.store(*w, Ordering::Relaxed));
            let table = table(&hosts, kind);
            let mut counts = vec![0usize; hosts.len()];
            let mut random = fastrand::Rng::with_seed(7);
            (0..HASHES).for_each(|_| counts[pick(&table, &hosts, random.u64(..), 0).unwrap()] += 1);
            let sum: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let expected = f64::from(*weight) / f64::from(sum) * HASHES as f64;
                // A ring of 65536 points is off by some percent itself.
                let off = (*count as f64 - expected).abs();
                assert!(off < expected * 0.12 + 100.0, "{kind:?} {weights:?}: {counts:?}");
            }
        }
    }
}

#[test]
fn a_loaded_host_passes_requests_on() {
    let hosts = six();
    let hashing = Hashing { table: maglev(29), by_hostname: false, balance_percent: Some(120) };
    let table = build(&hosts, hashing);
    let busy = |index: usize, requests| hosts[index].active_requests.store(requests, Ordering::Relaxed);
    let pick = |hash, active| table.pick(&hosts, hash, 0, || active).unwrap();
    // Six requests of 20 are no more than 1.2 * 21 / 6, rounded up.
    let own = pick(5, 0);
    busy(own, 5);
    assert_eq!(pick(5, 20), own);
    busy(own, 6);
    let other = pick(5, 20);
    assert_ne!(other, own);
    // The same hash always takes the same way round.
    assert_eq!(pick(5, 20), other);
    busy(other, 6);
    assert!(![own, other].contains(&pick(5, 20)));
    // When all have too much, the one with the least is taken.
    (0..hosts.len()).for_each(|index| busy(index, 50 + index as u32));
    busy(3, 40);
    assert_eq!(pick(5, 20), 3);
    // Each host is looked at once.
    let mut seen = BTreeMap::new();
    for least in 0..hosts.len() {
        (0..hosts.len()).for_each(|index| busy(index, 50));
        busy(least, 49);
        seen.insert(pick(5, 20), ());
    }
    assert_eq!(seen.len(), hosts.len());
}

fn spec(port: u16, priority: u32) -> HostSpec {
    HostSpec { priority, ..HostSpec::at(Address::Ip(([127, 0, 0, 1], port).into())) }
}

/// A cluster over `specs` with a hash table.
fn cluster(specs: Vec<HostSpec>, kind: HashTableKind) -> Arc<crate::cluster::Cluster> {
    let stats = crate::stats::Stats::new();
    let transport = crate::transport_socket::UpstreamTransport::Plaintext;
    let mut cluster = crate::tcp::tests::cluster(&stats, &[], transport);
    let hashing = Hashing { table: kind, by_hostname: false, balance_percent: None };
    let balancing = Balancing { hashing: Some(hashing), ..Default::default() };
    let one = Arc::get_mut(&mut cluster).unwrap();
    one.lb = lb::LbPolicy::Hash(hashing);
    one.endpoints.publish(EndpointSet::build(None, specs, 140, balancing));
    cluster
}

fn port(cluster: &crate::cluster::Cluster, hash: u64) -> u16 {
    lb::pick(cluster, Context { hash: Some(hash), ..Default::default() }).unwrap().address.port().unwrap()
}

#[test]
fn the_hash_picks_the_priority_too() {
    // A third of the first priority is healthy: it gets 46 %.
    let mut specs: Vec<HostSpec> = (1..=3).map(|port| spec(port, 0)).collect();
    specs[0].health = EdsHealth::Unhealthy;
    specs[1].health = EdsHealth::Unhealthy;
    specs.extend((11..=13).map(|port| spec(port, 1)));
    let cluster = cluster(specs, maglev(101));
    assert_eq!(port(&cluster, 45), 3);
    assert!(port(&cluster, 46) > 10);
    assert_eq!(port(&cluster, 145), 3);
    assert!(port(&cluster, 199) > 10);
}

#[test]
fn an_ejected_host_is_passed_over_and_its_hashes_alone_move() {
    for kind in [ring(1024), maglev(1009)] {
        let cluster = cluster((1..=10).map(|port| spec(port, 0)).collect(), kind);
        let hashes: Vec<u64> = (0..2000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let before: Vec<u16> = hashes.iter().map(|hash| port(&cluster, *hash)).collect();
        let set = cluster.endpoints.get().unwrap();
        set.hosts().find(|h| h.address.port() == Some(4)).unwrap().ejected.store(true, Ordering::Relaxed);
        let meanwhile: Vec<u16> = hashes.iter().map(|hash| port(&cluster, *hash)).collect();
        set.refresh();
        let after: Vec<u16> = hashes.iter().map(|hash| port(&cluster, *hash)).collect();
        for (at, was) in before.iter().enumerate() {
            assert_ne!(meanwhile[at], 4);
            assert!(*was == 4 || *was == meanwhile[at], "{kind:?}: a host that is healthy keeps its hashes");
        }
        if let HashTableKind::Ring { .. } = kind {
            let same = meanwhile.iter().zip(&after).filter(|(a, b)| a == b).count();
            assert!(same > hashes.len() * 9 / 10, "the new ring says mostly the same: {same}");
        }
    }
}

#[test]
fn requests_without_a_hash_go_anywhere() {
    let cluster = cluster((1..=4).map(|port| spec(port, 0)).collect(), maglev(101));
    let mut counts = BTreeMap::new();
    for _ in 0..4000 {
        *counts.entry(lb::pick(&cluster, Context::default()).unwrap().address.port()).or_insert(0) += 1;
    }
    assert!(counts.len() == 4 && counts.values().all(|n| (700..1300).contains(n)), "{counts:?}");
}

#[test]
fn a_ring_finds_the_next_point_from_wherever_the_hash_is() {
    for (number, size) in [(0, 1), (1, 1), (1, 2), (2, 3), (3, 100), (6, 1024), (6, 5000)] {
        let table = table(&six()[..number], ring(size));
        let Slots::Ring(ring) = &table.slots else { panic!("a ring") };
        let points: Vec<(u64, usize)> = ring.points().collect();
        let near =
            points.iter().flat_map(|(point, _)| [point.wrapping_sub(1), *point, point.wrapping_add(1)]);
        for hash in near.chain([0, 1 << 63, u64::MAX]) {
            let next = points.iter().find(|(point, _)| *point >= hash).or(points.first());
            assert_eq!(ring.host(hash, 0), next.map(|(_, host)| *host), "{hash:#x} of {}", points.len());
        }
    }
}
