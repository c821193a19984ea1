//! Which hosts get what, by what routes ask for.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::cluster::lb::{LbPolicy, has_other_priority, pick};
use crate::cluster::{Balancing, EdsHealth, HostSpec, Locality};
use crate::metadata::{BALANCING, Metadata};
use crate::net::Address;
use crate::stats::Stats;
use crate::transport_socket::UpstreamTransport;

/// A host at this port with these values.
fn spec(port: u16, values: Value) -> HostSpec {
    let metadata = Metadata::new([(BALANCING.to_owned(), values.as_object().unwrap().clone())]);
    let address = Address::Ip(([127, 0, 0, 1], port).into());
    HostSpec { metadata: metadata.map(Arc::new), ..HostSpec::at(address) }
}

/// Two hosts of version 1, in two stages; one of version 2.
fn versions() -> Vec<HostSpec> {
    vec![
        spec(1, json!({"version": "1", "stage": "prod"})),
        spec(2, json!({"version": "1", "stage": "dev"})),
        spec(3, json!({"version": "2", "stage": "prod"})),
    ]
}

fn values(values: Value) -> Values {
    let fields = values.as_object().unwrap().clone();
    fields.into_iter().map(|(key, value)| (key.into_boxed_str(), value)).collect()
}

fn ask(asked: Value) -> Arc<Criteria> {
    Criteria::new(values(asked), None).unwrap()
}

fn keys(keys: &[&str]) -> BTreeSet<Box<str>> {
    keys.iter().map(|key| Box::from(*key)).collect()
}

fn selector(of: &[&str]) -> Selector {
    Selector { keys: keys(of), fallback: None, single_host: false }
}

fn subsets(selectors: Vec<Selector>) -> Subsets {
    Subsets {
        fallback: Fallback::Nothing,
        default_subset: Values::new(),
        selectors,
        locality_weight_aware: false,
        scale_locality_weight: false,
        panic_mode_any: false,
        list_as_any: false,
        fallback_list: false,
        allow_redundant_keys: false,
        stats: Stats::new().cluster("upstream"),
    }
}

fn balancing(subsets: Subsets) -> Balancing {
    Balancing { subsets: Some(Arc::new(subsets)), ..Balancing::default() }
}

fn cluster(specs: Vec<HostSpec>, balancing: Balancing) -> Arc<Cluster> {
    let mut cluster = crate::tcp::tests::cluster(&Stats::new(), &[], UpstreamTransport::Plaintext);
    let one = Arc::get_mut(&mut cluster).unwrap();
    one.endpoints.publish(EndpointSet::build(None, specs, 140, balancing));
    one.lb = LbPolicy::RoundRobin;
    cluster
}

/// The ports that requests go to; 0 for those that find no host.
fn ports(cluster: &Cluster, criteria: Option<&Criteria>) -> Vec<u16> {
    let context = Context { criteria, ..Context::default() };
    let port = |_| pick(cluster, context).map_or(0, |host| host.address.port().unwrap());
    (0..60).map(port).collect::<BTreeSet<u16>>().into_iter().collect()
}

/// Of the cluster: selected, fallback, fallback in panic.
fn counts(cluster: &Cluster) -> [bool; 3] {
    let stats = &cluster.stats.subsets;
    [&stats.lb_subsets_selected, &stats.lb_subsets_fallback, &stats.lb_subsets_fallback_panic]
        .map(|counter| counter.get() > 0)
}

#[test]
fn a_request_gets_the_hosts_that_it_asks_for() {
    let cluster = cluster(
        versions(),
        balancing(subsets(vec![selector(&["version"]), selector(&["stage", "version"])])),
    );
    for (asked, expected) in [
        (json!({"version": "1"}), &[1, 2][..]),
        (json!({"version": "2"}), &[3]),
        (json!({"version": "1", "stage": "prod"}), &[1]),
        // A selector wants all of its keys and no other.
        (json!({"stage": "prod"}), &[0]),
        (json!({"version": "1", "more": "x"}), &[0]),
        (json!({"version": "3"}), &[0]),
        (json!({"version": 1}), &[0]),
    ] {
        assert_eq!(ports(&cluster, Some(&ask(asked.clone()))), expected, "{asked}");
    }
    assert_eq!(ports(&cluster, None), [0]);
}

#[test]
fn the_cluster_says_what_is_for_others() {
    for (fallback, default, expected) in [
        (Fallback::Nothing, json!({}), &[0][..]),
        (Fallback::Any, json!({}), &[1, 2, 3]),
        (Fallback::Default, json!({"stage": "dev"}), &[2]),
        (Fallback::Default, json!({"stage": "test"}), &[0]),
        (Fallback::Default, json!({}), &[1, 2, 3]),
    ] {
        let config =
            Subsets { fallback, default_subset: values(default), ..subsets(vec![selector(&["version"])]) };
        let cluster = cluster(versions(), balancing(config));
        for asked in [None, Some(ask(json!({"version": "3"}))), Some(ask(json!({"stage": "dev"})))] {
            assert_eq!(ports(&cluster, asked.as_deref()), expected, "{fallback:?} {asked:?}");
        }
        assert_eq!(counts(&cluster), [false, expected != [0], false], "{fallback:?}");
    }
}

#[test]
fn any_host_is_better_than_none() {
    let config = Subsets {
        fallback: Fallback::Default,
        default_subset: values(json!({"stage": "test"})),
        panic_mode_any: true,
        ..subsets(vec![selector(&["version"])])
    };
    let cluster = cluster(versions(), balancing(config));
    assert_eq!(ports(&cluster, None), [1, 2, 3]);
    assert_eq!(counts(&cluster), [false, false, true]);
}

#[test]
fn a_selector_says_what_is_for_values_that_no_host_has() {
    let to = |fallback| Some(SelectorFallback::To(fallback));
    for (fallback, expected) in [
        (None, &[2][..]),
        (to(Fallback::Nothing), &[0]),
        (to(Fallback::Any), &[1, 2, 3]),
        (to(Fallback::Default), &[2]),
        // Less is asked for: of this stage any version.
        (Some(SelectorFallback::Keys(keys(&["stage"]))), &[1, 3]),
    ] {
        let both = Selector { fallback: fallback.clone(), ..selector(&["stage", "version"]) };
        let config = Subsets {
            fallback: Fallback::Default,
            default_subset: values(json!({"stage": "dev"})),
            ..subsets(vec![both, selector(&["stage"])])
        };
        let cluster = cluster(versions(), balancing(config));
        let asked = ask(json!({"version": "3", "stage": "prod"}));
        assert_eq!(ports(&cluster, Some(&asked)), expected, "{fallback:?}");
        // What there is needs no fallback.
        assert_eq!(ports(&cluster, Some(&ask(json!({"version": "1", "stage": "prod"})))), [1]);
    }
}

#[test]
fn values_are_of_any_type() {
    let hosts = || {
        vec![
            spec(1, json!({"v": 1})),
            spec(2, json!({"v": "1"})),
            spec(3, json!({"v": true})),
            spec(4, json!({"v": ["a", "b"]})),
            spec(5, json!({"v": {"x": 1, "y": 2}})),
            spec(6, json!({"v": null})),
            spec(7, json!({})),
        ]
    };
    let config = subsets(vec![selector(&["v"])]);
    let exact = cluster(hosts(), balancing(config.clone()));
    for (asked, expected) in [
        (json!(1), 1),
        (json!("1"), 2),
        (json!(true), 3),
        (json!(["a", "b"]), 4),
        (json!(["b", "a"]), 0),
        (json!("a"), 0),
        (json!({"x": 1, "y": 2}), 5),
        (json!(null), 6),
    ] {
        assert_eq!(ports(&exact, Some(&ask(json!({"v": asked})))), [expected], "{asked}");
    }
    let any = cluster(hosts(), balancing(Subsets { list_as_any: true, ..config }));
    assert_eq!(ports(&any, Some(&ask(json!({"v": "b"})))), [4]);
    assert_eq!(ports(&any, Some(&ask(json!({"v": ["a", "b"]})))), [0]);
}

#[test]
fn lists_multiply_and_match_the_default() {
    let config = Subsets {
        list_as_any: true,
        fallback: Fallback::Default,
        default_subset: values(json!({"zone": "z2"})),
        ..subsets(vec![selector(&["v", "zone"])])
    };
    let hosts = vec![
        spec(1, json!({"v": ["1", "2", "2"], "zone": ["z1", "z2"]})),
        spec(2, json!({"v": "2", "zone": "z1"})),
    ];
    let cluster = cluster(hosts, balancing(config));
    assert_eq!(ports(&cluster, Some(&ask(json!({"v": "1", "zone": "z2"})))), [1]);
    assert_eq!(ports(&cluster, Some(&ask(json!({"v": "2", "zone": "z1"})))), [1, 2]);
    assert_eq!(ports(&cluster, None), [1]);
}

#[test]
fn alternatives_are_tried_one_after_the_other() {
    let config = Subsets { fallback_list: true, ..subsets(vec![selector(&["stage", "version"])]) };
    let cluster = cluster(versions(), balancing(config));
    for (list, expected) in [
        (json!([{"version": "3"}, {"version": "2"}, {"version": "1"}]), 3),
        (json!([{"version": "3"}]), 0),
        (json!([{"version": "2", "stage": "dev"}, {"version": "1", "stage": "dev"}]), 2),
        (json!([]), 0),
    ] {
        let asked = ask(json!({"stage": "prod", "fallback_list": list}));
        assert_eq!(ports(&cluster, Some(&asked)), [expected], "{list}");
    }
}

#[test]
fn keys_of_no_selector_may_be_too_many() {
    let config = Subsets { allow_redundant_keys: true, ..subsets(vec![selector(&["version"])]) };
    let cluster = cluster(versions(), balancing(config));
    assert_eq!(ports(&cluster, Some(&ask(json!({"version": "2", "more": "x"})))), [3]);
}

#[test]
fn a_single_host_is_the_first_one_however_it_is() {
    let single = Selector { single_host: true, ..selector(&["version"]) };
    let config = subsets(vec![single]);
    let stats = config.stats.clone();
    let mut hosts = versions();
    hosts[0].health = EdsHealth::Unhealthy;
    let cluster = cluster(hosts, balancing(config));
    assert_eq!(ports(&cluster, Some(&ask(json!({"version": "1"})))), [1]);
    assert_eq!(stats.subsets.lb_subsets_single_host_per_subset_duplicate.get(), 1);
}

#[test]
fn what_is_worked_out_is_kept_until_the_hosts_are_others() {
    let config = subsets(vec![selector(&["version"])]);
    let stats = config.stats.clone();
    let cluster = cluster(versions(), balancing(config.clone()));
    let (one, two) = (ask(json!({"version": "1"})), ask(json!({"version": "2"})));
    assert_eq!((ports(&cluster, Some(&one)), ports(&cluster, Some(&two))), (vec![1, 2], vec![3]));
    let active = || {
        let subsets = &stats.subsets;
        let [created, removed] = [&subsets.lb_subsets_created, &subsets.lb_subsets_removed].map(|c| c.get());
        (subsets.lb_subsets_active.get(), created, removed)
    };
    assert_eq!(active(), (2, 2, 0));

    // The same host has another value now.
    let mut hosts = versions();
    hosts[2] = spec(3, json!({"version": "3"}));
    let old = cluster.endpoints.get().unwrap();
    cluster.endpoints.publish(EndpointSet::build(Some(&old), hosts, 140, balancing(config.clone())));
    assert_eq!((ports(&cluster, Some(&one)), ports(&cluster, Some(&two))), (vec![1, 2], vec![0]));
    assert_eq!(ports(&cluster, Some(&ask(json!({"version": "3"})))), [3]);
    assert_eq!(active(), (2, 3, 1));

    // The cluster has other rules.
    let set = cluster.endpoints.get().unwrap();
    set.set_balancing(balancing(Subsets { fallback: Fallback::Any, ..config }));
    assert_eq!(ports(&cluster, Some(&two)), [1, 2, 3]);
    assert_eq!(active(), (2, 3, 1));
    set.set_balancing(Balancing::default());
    assert_eq!(ports(&cluster, Some(&two)), [1, 2, 3]);
    assert_eq!(active(), (0, 3, 3));
}

#[test]
fn health_panic_and_priorities_are_those_of_the_subset() {
    let priority = |priority, spec| HostSpec { priority, ..spec };
    let specs = vec![
        spec(1, json!({"version": "1"})),
        spec(2, json!({"version": "1"})),
        spec(3, json!({"version": "1"})),
        spec(4, json!({"version": "2"})),
        priority(1, spec(5, json!({"version": "2"}))),
        priority(1, spec(6, json!({"version": "3"}))),
    ];
    let cluster = cluster(specs, balancing(subsets(vec![selector(&["version"])])));
    let set = cluster.endpoints.get().unwrap();
    let eject = |port: u16| {
        let host = set.hosts().find(|host| host.address.port() == Some(port)).unwrap();
        host.ejected.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let [one, two, three] = ["1", "2", "3"].map(|version| ask(json!({"version": version})));
    // A subset without hosts in the first priority.
    assert_eq!(ports(&cluster, Some(&three)), [6]);
    assert_eq!(ports(&cluster, Some(&two)), [4]);
    assert!(has_other_priority(&cluster, Some(&two), &[0]));
    assert!(!has_other_priority(&cluster, Some(&one), &[0]));
    // Ejected a moment ago: before main has seen it, and after.
    eject(4);
    assert_eq!(ports(&cluster, Some(&two)), [5]);
    eject(1);
    assert_eq!(ports(&cluster, Some(&one)), [2, 3]);
    set.refresh();
    assert_eq!(ports(&cluster, Some(&two)), [5]);
    assert_eq!(ports(&cluster, Some(&one)), [2, 3]);
    assert_eq!(cluster.stats.lb_healthy_panic.get(), 0);
    // A third is well: panic, in this subset only.
    eject(2);
    set.refresh();
    assert_eq!(ports(&cluster, Some(&one)), [1, 2, 3]);
    assert!(cluster.stats.lb_healthy_panic.get() >= 60);
    assert_eq!(ports(&cluster, Some(&three)), [6]);
}

#[test]
fn weights_of_localities_count_where_they_are_to() {
    let zone = |name: &str, weight, port, version: &str| HostSpec {
        locality: Arc::new(Locality { zone: name.into(), ..Locality::default() }),
        locality_weight: weight,
        ..spec(port, json!({"version": version}))
    };
    let share = |aware, scale| {
        let specs =
            vec![zone("a", 3, 1, "1"), zone("a", 3, 2, "2"), zone("a", 3, 3, "2"), zone("b", 1, 4, "1")];
        let config = Subsets {
            locality_weight_aware: aware,
            scale_locality_weight: scale,
            ..subsets(vec![selector(&["version"])])
        };
        let cluster = cluster(specs, Balancing { by_locality_weight: true, ..balancing(config) });
        let asked = ask(json!({"version": "1"}));
        let context = Context { criteria: Some(&asked), ..Context::default() };
        (0..1_000).filter(|_| pick(&cluster, context).unwrap().address.port() == Some(1)).count()
    };
    assert!(share(false, false).abs_diff(500) < 20);
    assert!(share(true, false).abs_diff(750) < 20);
    // One of three hosts of the zone: a third of its weight.
    assert!(share(true, true).abs_diff(500) < 20);
}

#[test]
fn a_weighted_cluster_asks_for_more_or_for_something_else() {
    let route = ask(json!({"version": "1", "stage": "prod"}));
    let own = Criteria::new(values(json!({"version": "2"})), Some(&route)).unwrap();
    let cluster = cluster(versions(), balancing(subsets(vec![selector(&["stage", "version"])])));
    assert_eq!(ports(&cluster, Some(&own)), [3]);
    assert!(Criteria::new(Values::new(), None).is_none());
}

#[test]
fn many_clusters_ask_with_the_same_criteria() {
    let asked = ask(json!({"version": "2"}));
    let clusters: Vec<_> =
        (0..20).map(|_| cluster(versions(), balancing(subsets(vec![selector(&["version"])])))).collect();
    for _ in 0..2 {
        assert!(clusters.iter().all(|cluster| ports(cluster, Some(&asked)) == [3]));
    }
}
