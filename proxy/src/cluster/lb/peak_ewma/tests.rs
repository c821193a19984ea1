//! In a time of their own: ticks are counted by the tests.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::cluster::lb::turns::Turns;
use crate::cluster::{Balancing, EndpointSet, HostSpec};
use crate::net::Address;
use crate::stats::Stats;
use crate::transport_socket::UpstreamTransport;

const POLICY: PeakEwma = PeakEwma { decay: Duration::from_secs(10), default_rtt: Duration::from_millis(10) };
const SECOND: u32 = 100;

/// Hosts of a cluster that gets requests one after the other or several at once.
struct World {
    cluster: Arc<Cluster>,
    table: Table,
    now: u32,
    picks: Vec<usize>,
}

impl World {
    fn of(hosts: u16) -> Self {
        let specs = (1..=hosts).map(|port| HostSpec::at(Address::Ip(([127, 0, 0, 1], port).into())));
        let cluster = crate::tcp::tests::cluster(&Stats::new(), &[], UpstreamTransport::Plaintext);
        cluster.endpoints.publish(EndpointSet::build(None, specs.collect(), 140, Balancing::default()));
        let hosts = cluster.endpoints.get().unwrap().priorities[0].hosts.clone();
        let turns = Turns::new(&vec![1; hosts.len()]);
        let picks = vec![0; hosts.len()];
        Self { cluster, table: Table { hosts, turns, hashed: None }, now: 0, picks }
    }

    fn answers(&self, host: usize, millis: u64, has_failed: bool) {
        let time = Duration::from_millis(millis);
        POLICY.answered_at(&self.cluster, &self.table.hosts[host], time, has_failed, self.now);
    }

    fn pick(&self) -> usize {
        POLICY.pick_at(&self.table, self.now)
    }

    fn cost(&self, host: usize) -> f64 {
        POLICY.cost(&self.table.hosts[host], self.now) / 1e3
    }

    fn is_busy(&self, host: usize, requests: u32) {
        self.table.hosts[host].active_requests.store(requests, Ordering::Relaxed);
    }

    /// A hundred requests a second for so long; `answer` says how long each host takes, and whether it fails. Four at once: a host that is
    /// slow has more of them in flight.
    fn run(&mut self, seconds: u32, answer: impl Fn(usize) -> (u64, bool)) {
        self.picks.fill(0);
        let mut in_flight: Vec<(u32, usize)> = Vec::new();
        let end = self.now + seconds * SECOND;
        while self.now < end {
            in_flight.retain(|(until, host)| {
                let is_on = *until > self.now;
                if !is_on {
                    let (millis, has_failed) = answer(*host);
                    self.answers(*host, millis, has_failed);
                    self.table.hosts[*host].active_requests.fetch_sub(1, Ordering::Relaxed);
                }
                is_on
            });
            let host = self.pick();
            self.picks[host] += 1;
            self.table.hosts[host].active_requests.fetch_add(1, Ordering::Relaxed);
            in_flight.push((self.now + (answer(host).0 / 10) as u32, host));
            self.now += 1;
        }
        self.table.hosts.iter().for_each(|host| host.active_requests.store(0, Ordering::Relaxed));
    }

    /// In percent.
    fn share(&self, host: usize) -> usize {
        self.picks[host] * 100 / self.picks.iter().sum::<usize>()
    }
}

#[test]
fn the_average_jumps_up_and_sinks_slowly() {
    let mut world = World::of(1);
    let near = |world: &World, expected: f64| {
        let cost = world.cost(0);
        assert!((cost - expected).abs() < expected / 50.0, "{cost}, not {expected}");
    };
    near(&world, 10.0);
    world.answers(0, 20, false);
    near(&world, 20.0);
    world.answers(0, 100, false);
    near(&world, 100.0);
    // At once a faster answer changes nothing; after the time of decay it counts for two thirds.
    world.answers(0, 20, false);
    near(&world, 100.0);
    world.now += 10 * SECOND;
    near(&world, 100.0 / std::f64::consts::E);
    world.answers(0, 20, false);
    near(&world, 20.0 + 80.0 / std::f64::consts::E);
    world.is_busy(0, 3);
    near(&world, 4.0 * (20.0 + 80.0 / std::f64::consts::E));
    // Forgotten: not for nothing, but like a new one.
    world.is_busy(0, 0);
    world.now += 60 * SECOND;
    near(&world, 10.0);
}

#[test]
fn a_new_host_gets_one_request_until_it_has_answered() {
    let world = World::of(2);
    world.answers(0, 200, false);
    assert!((0..100).all(|_| world.pick() == 1));
    world.is_busy(1, 1);
    world.is_busy(0, 50);
    assert!((0..100).all(|_| world.pick() == 0));
    world.answers(1, 2, false);
    assert!((0..100).all(|_| world.pick() == 1));
}

#[test]
fn who_fails_fast_is_not_fast() {
    let mut world = World::of(2);
    world.answers(0, 2_000, false);
    world.answers(1, 1, true);
    // Ten times as slow as the other one, also when nothing was known of it.
    assert!((world.cost(1) - 20_000.0).abs() < 100.0, "{}", world.cost(1));
    // More failures do not make it worse, nor does another host's failure.
    world.answers(1, 1, true);
    world.answers(1, 1, true);
    assert!((world.cost(1) - 20_000.0).abs() < 100.0, "{}", world.cost(1));
    // Later it is tried, with one request at a time.
    world.now += 30 * SECOND;
    world.answers(0, 2_000, false);
    assert!((0..100).all(|_| world.pick() == 1));
    world.is_busy(1, 1);
    world.is_busy(0, 50);
    assert!((0..100).all(|_| world.pick() == 0));
    // A good answer makes up for it.
    world.answers(1, 3, false);
    assert!(world.cost(1) < 10.0);
}

#[test]
fn when_all_fail_none_is_worse_and_it_has_an_end() {
    let world = World::of(3);
    for _ in 0..20 {
        (0..3).for_each(|host| world.answers(host, 1, true));
    }
    assert!((0..3).all(|host| world.cost(host) == world.cost(0)), "{}", world.cost(0));
    assert!(world.cost(0) <= 100.0, "{}", world.cost(0));
    let world = World::of(2);
    world.answers(0, 50_000, false);
    world.answers(1, 1, true);
    assert!((world.cost(1) - 60_000.0).abs() < 100.0);
}

#[test]
fn shares_of_a_slow_and_a_failing_host() {
    let mut world = World::of(3);
    let of = |slow: u64, fails: bool| {
        move |host: usize| match host {
            0 => (10, false),
            1 => (slow, false),
            _ => (10, fails),
        }
    };
    world.run(60, of(10, false));
    assert!((0..3).all(|host| world.share(host).abs_diff(33) < 8), "{:?}", world.picks);
    world.run(60, of(200, false));
    assert!(world.share(1) < 3, "{:?}", world.picks);
    assert!(world.share(2).abs_diff(50) < 8, "{:?}", world.picks);
    world.run(60, of(200, true));
    assert!(world.share(1) + world.share(2) < 35, "{:?}", world.picks);
    assert!(world.share(2) < 3, "{:?}", world.picks);
    // All are well again. The one that failed has its part at once, the one that was slow comes back cautiously.
    world.run(60, of(10, false));
    world.run(60, of(10, false));
    assert!(world.share(2) > 25 && world.share(1) > 10, "{:?}", world.picks);
}

#[test]
fn a_word_holds_all() {
    for (micros, now, has_failed) in [(1.0, 0, false), (2_500.0, 7, true), (60e6, TICKS, false)] {
        assert_eq!(unpack(pack(micros, has_failed, now)), Some((micros, now, has_failed)));
    }
    assert_eq!(unpack(0), None);
    assert_eq!(ages(3, TICKS - 1, TICK * 2), 2.5);
    assert_eq!(ages(3, 4, TICK), 0.0);
}

#[test]
fn what_is_left_is_near_the_exponential_function() {
    for ages in [0.0, 0.001, 0.01, 0.5, 0.999, 1.0, 2.345, 4.9] {
        let (rest, exact) = (rest(ages), (-ages).exp());
        assert!((rest - exact).abs() < exact / 10_000.0, "{ages}: {rest}, not {exact}");
    }
    assert_eq!(rest(KNOWN), 0.0);
    assert!(rest(0.001) < 1.0, "answers in quick succession take their part");
}
