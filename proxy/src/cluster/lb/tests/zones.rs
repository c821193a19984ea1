//! Zone-aware routing in whole clusters. This proxy stands in zone `a`.

use super::*;
use crate::config::live::Live;

/// The proxies of the mesh, and hosts, by zone.
fn zoned(
    proxies: &[&[EdsHealth]],
    hosts: &[&[EdsHealth]],
    of: impl Fn(&mut ZoneAware),
) -> (Arc<Cluster>, Arc<LocalCluster>) {
    let locality = Locality { zone: "a".into(), ..Locality::default() };
    let local = LocalCluster::new("local".into(), Arc::new(locality), Live::empty("local"));
    let balancing = Balancing { local_cluster: Some(local.clone()), ..Balancing::default() };
    local.endpoints.publish(EndpointSet::build(None, by_zone(proxies), 140, balancing));
    let stats = Stats::new().cluster("zoned");
    let mut zone_aware = ZoneAware {
        enabled_percent: 100,
        min_cluster_size: 1,
        force_min_size: None,
        local: local.clone(),
        stats: stats.clone(),
    };
    of(&mut zone_aware);
    let balancing = Balancing { zone_aware: Some(Box::new(zone_aware)), ..Balancing::default() };
    let mut cluster = cluster(LbPolicy::RoundRobin, by_zone(hosts), balancing);
    Arc::get_mut(&mut cluster).unwrap().stats = stats;
    (cluster, local)
}

/// Zone `a` has the ports from 10 on, zone `b` those from 20 on.
fn by_zone(zones: &[&[EdsHealth]]) -> Vec<HostSpec> {
    let names = ["a", "b", "c"];
    zones
        .iter()
        .enumerate()
        .flat_map(|(at, health)| zone(names[at], 0, 10 * (at as u16 + 1), health))
        .collect()
}

fn in_zones(cluster: &Cluster) -> [usize; 3] {
    let shares = shares(cluster);
    [sum(&shares, 10..20), sum(&shares, 20..30), sum(&shares, 30..40)]
}

fn near(got: [usize; 3], expected: [usize; 3]) -> bool {
    got.iter().zip(expected).all(|(got, expected)| got.abs_diff(expected) <= 20)
}

#[test]
fn what_a_zone_can_take_stays_there() {
    for (proxies, hosts, expected) in [
        (&[&[GOOD; 1][..], &[GOOD; 1]][..], &[&[GOOD; 2][..], &[GOOD; 2]][..], [1_000, 0, 0]),
        // Half of the proxies, a fourth of the hosts.
        (&[&[GOOD; 1], &[GOOD; 1]], &[&[GOOD; 1], &[GOOD; 3]], [500, 500, 0]),
        (&[&[GOOD; 2], &[GOOD; 2], &[GOOD; 1]], &[&[GOOD; 1], &[GOOD; 2], &[GOOD; 1]], [625, 250, 125]),
        // No host here: by room.
        (&[&[GOOD; 1], &[GOOD; 1]], &[&[BAD; 1], &[GOOD; 2]], [0, 1_000, 0]),
        // One zone of proxies, or none here: no routing by zone.
        (&[&[GOOD; 2]], &[&[GOOD; 1], &[GOOD; 3]], [250, 750, 0]),
        (&[&[], &[GOOD; 1], &[GOOD; 1]], &[&[GOOD; 1], &[GOOD; 3]], [250, 750, 0]),
    ] {
        let (cluster, _) = zoned(proxies, hosts, |_| {});
        let got = in_zones(&cluster);
        assert!(near(got, expected), "{proxies:?} {hosts:?}: {got:?}");
    }
}

#[test]
fn settings() {
    let (proxies, hosts): (&[&[EdsHealth]], &[&[EdsHealth]]) =
        (&[&[GOOD], &[GOOD; 3]], &[&[GOOD; 2], &[GOOD; 2]]);
    let (cluster, _) = zoned(proxies, hosts, |zone_aware| zone_aware.enabled_percent = 50);
    assert!(near(in_zones(&cluster), [750, 250, 0]));
    let (cluster, _) = zoned(proxies, hosts, |zone_aware| zone_aware.min_cluster_size = 5);
    assert!(near(in_zones(&cluster), [500, 500, 0]));
    assert_eq!(cluster.stats.zones.lb_zone_cluster_too_small.get(), 1);
    for (min, expected) in [(1, [1_000, 0, 0]), (2, [500, 500, 0])] {
        let few: &[&[EdsHealth]] = &[&[GOOD; 1], &[GOOD; 3]];
        let (cluster, _) =
            zoned(&[&[GOOD], &[GOOD]], few, |zone_aware| zone_aware.force_min_size = Some(min));
        assert!(near(in_zones(&cluster), expected), "{min}");
    }
}

#[test]
fn it_is_counted() {
    let (cluster, _) = zoned(&[&[GOOD], &[GOOD]], &[&[GOOD; 1], &[GOOD; 3]], |_| {});
    in_zones(&cluster);
    let stats = &cluster.stats;
    assert_eq!(stats.zones.lb_recalculate_zone_structures.get(), 1);
    assert!(stats.zones.lb_zone_routing_sampled.get().abs_diff(10_000) < 400);
    assert_eq!(
        stats.zones.lb_zone_routing_sampled.get() + stats.zones.lb_zone_routing_cross_zone.get(),
        20_000
    );
    let (cluster, _) = zoned(&[&[GOOD], &[GOOD]], &[&[GOOD], &[GOOD]], |_| {});
    in_zones(&cluster);
    assert_eq!(cluster.stats.zones.lb_zone_routing_all_directly.get(), 20_000);
    let (cluster, _) = zoned(&[&[], &[GOOD], &[GOOD]], &[&[GOOD], &[GOOD]], |_| {});
    assert_eq!(cluster.stats.zones.lb_local_cluster_not_ok.get(), 1);
}

#[test]
fn tables_follow_the_local_cluster() {
    let (cluster, local) = zoned(&[&[GOOD], &[GOOD]], &[&[GOOD; 1], &[GOOD; 3]], |_| {});
    assert!(near(in_zones(&cluster), [500, 500, 0]));
    // A proxy of the other zones more, and later one less.
    let balancing = Balancing { local_cluster: Some(local.clone()), ..Balancing::default() };
    let specs = by_zone(&[&[GOOD], &[GOOD; 3]]);
    local.endpoints.publish(EndpointSet::build(local.endpoints.get().as_deref(), specs, 140, balancing));
    local.has_changed();
    assert!(near(in_zones(&cluster), [1_000, 0, 0]));
    let set = local.endpoints.get().unwrap();
    set.hosts().skip(2).for_each(|host| host.ejected.store(true, Ordering::Relaxed));
    set.refresh();
    assert!(near(in_zones(&cluster), [500, 500, 0]), "its health counts");
}

#[test]
fn panic_and_other_priorities_know_no_zones() {
    let (cluster, _) = zoned(&[&[GOOD], &[GOOD]], &[&[GOOD, BAD, BAD], &[BAD, BAD, BAD]], |_| {});
    assert!(near(in_zones(&cluster), [500, 500, 0]));
    let (cluster, _) = zoned(&[&[BAD], &[BAD], &[GOOD]], &[&[GOOD], &[GOOD; 3]], |_| {});
    assert!(near(in_zones(&cluster), [250, 750, 0]), "most proxies are ill");
    assert_eq!(cluster.stats.zones.lb_local_cluster_not_ok.get(), 1);
}
