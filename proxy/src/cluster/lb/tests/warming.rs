//! Slow start in whole clusters, in virtual time.

use std::time::Duration;

use tokio::time::{Instant, advance};

use super::*;
use crate::cluster::lb::slow_start::{self, WarmUps};

const WINDOW: Duration = Duration::from_secs(60);

fn balancing(warm_ups: &WarmUps) -> Balancing {
    let warm_ups = warm_ups.clone();
    let slow_start =
        SlowStart { window: WINDOW, aggression: 1.0, min_weight: 0.1, of_new_hosts: true, warm_ups };
    Balancing { slow_start: Some(Arc::new(slow_start)), ..Balancing::default() }
}

/// Two hosts are there for long, a third one comes.
fn with_a_new_host(lb: LbPolicy, warm_ups: &WarmUps) -> Arc<Cluster> {
    let cluster = cluster(lb, zone("a", 0, 10, &[GOOD; 2]), balancing(warm_ups));
    let old = cluster.endpoints.get().unwrap();
    old.hosts().for_each(|host| host.warm_up(Instant::now() - 2 * WINDOW));
    let specs = zone("a", 0, 10, &[GOOD; 3]);
    cluster.endpoints.publish(EndpointSet::build(Some(&old), specs, 140, balancing(warm_ups)));
    cluster
}

/// Lets main do what is due.
async fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        advance(Duration::from_millis(500)).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_host_gets_its_traffic_by_envoys_formula() {
    for lb in [LbPolicy::RoundRobin, LbPolicy::LeastRequest { choices: 2, bias: 1.0 }] {
        let (warm_ups, started) = slow_start::channel();
        let main = tokio::spawn(slow_start::follow(started));
        let cluster = with_a_new_host(lb.clone(), &warm_ups);
        let mut passed = 0;
        for seconds in [1, 15, 30, 45, 61] {
            pass(Duration::from_secs(seconds - passed)).await;
            passed = seconds;
            let factor = (seconds as f64 / 60.0).clamp(0.1, 1.0);
            let expected = (factor / (2.0 + factor) * 1_000.0) as usize;
            let got = shares(&cluster)[&12];
            assert!(got.abs_diff(expected) <= 12, "{lb:?} after {seconds} s: {got} of 1000, not {expected}");
        }
        main.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn only_hosts_that_are_back_may_warm_up() {
    let (warm_ups, started) = slow_start::channel();
    let main = tokio::spawn(slow_start::follow(started));
    let mut balancing = balancing(&warm_ups);
    Arc::make_mut(balancing.slow_start.as_mut().unwrap()).of_new_hosts = false;
    let cluster = cluster(LbPolicy::RoundRobin, zone("a", 0, 10, &[GOOD; 2]), balancing.clone());
    let old = cluster.endpoints.get().unwrap();
    let specs = zone("a", 0, 10, &[GOOD; 3]);
    cluster.endpoints.publish(EndpointSet::build(Some(&old), specs, 140, balancing));
    assert!(shares(&cluster)[&12].abs_diff(333) <= 12, "a new host has its share at once");
    let set = cluster.endpoints.get().unwrap();
    set.hosts().last().unwrap().warm_up(Instant::now());
    set.refresh();
    let mut passed = 0;
    for (seconds, factor) in [(1, 0.1), (30, 0.5), (61, 1.0)] {
        pass(Duration::from_secs(seconds - passed)).await;
        passed = seconds;
        let expected = (factor / (2.0 + factor) * 1_000.0) as usize;
        let got = shares(&cluster)[&12];
        assert!(got.abs_diff(expected) <= 12, "after {seconds} s: {got} of 1000, not {expected}");
    }
    main.abort();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_built_at_rest() {
    let (warm_ups, mut started) = slow_start::channel();
    // All are new: they are alike.
    let alike = cluster(LbPolicy::RoundRobin, zone("a", 0, 10, &[GOOD; 3]), balancing(&warm_ups));
    assert!(started.try_recv().is_err());
    assert_eq!(alike.endpoints.get().unwrap().warm_on(), None);
    let cluster = with_a_new_host(LbPolicy::RoundRobin, &warm_ups);
    let set = started.try_recv().unwrap().upgrade().unwrap();
    assert!(Arc::ptr_eq(&set, &cluster.endpoints.get().unwrap()));
    // Who looks after it already is not told again.
    set.refresh();
    assert!(started.try_recv().is_err());
    assert_eq!(set.warm_on(), Some(WINDOW / 64));
    advance(WINDOW).await;
    assert_eq!(set.warm_on(), None);
    assert_eq!(shares(&cluster)[&12], 333);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_back_warms_up_again() {
    let (warm_ups, mut started) = slow_start::channel();
    let cluster = cluster(LbPolicy::RoundRobin, zone("a", 0, 10, &[GOOD; 2]), balancing(&warm_ups));
    advance(2 * WINDOW).await;
    let set = cluster.endpoints.get().unwrap();
    set.priorities[0].hosts[0].warm_up(Instant::now());
    set.refresh();
    assert!(started.try_recv().is_ok());
    // A tenth beside one.
    assert!(shares(&cluster)[&10].abs_diff(91) < 3);
}

#[tokio::test(start_paused = true)]
async fn a_host_begins_when_it_is_healthy() {
    let (warm_ups, _started) = slow_start::channel();
    let cluster = cluster(LbPolicy::RoundRobin, zone("a", 0, 10, &[GOOD, BAD]), balancing(&warm_ups));
    advance(2 * WINDOW).await;
    let old = cluster.endpoints.get().unwrap();
    let specs = zone("a", 0, 10, &[GOOD; 2]);
    cluster.endpoints.publish(EndpointSet::build(Some(&old), specs, 140, balancing(&warm_ups)));
    assert!(shares(&cluster)[&11].abs_diff(91) < 3);
}
