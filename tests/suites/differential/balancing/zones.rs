//! Zone-aware routing. The proxy stands in zone `a`.

use serde_json::{Value, json};

use super::{Balance, compare_balance, mixed, zone};

const STATISTICS: &[&str] = &[
    "lb_local_cluster_not_ok",
    "lb_recalculate_zone_structures",
    "lb_zone_cluster_too_small",
    "lb_zone_routing_all_directly",
    "lb_zone_routing_sampled",
    "lb_zone_routing_cross_zone",
    "lb_zone_no_capacity_left",
];

/// The mesh's proxies: so many in each zone, one of them this one.
fn proxies(zones: &[(&str, u8)]) -> Value {
    let mut number = 200;
    let zones: Vec<Value> = zones
        .iter()
        .map(|(name, count)| {
            number += count;
            zone(name, number - count..=number - 1, json!({}))
        })
        .collect();
    let assignment = json!({"cluster_name": "mesh", "endpoints": zones});
    json!({
        "clusters": [outrigger_tests::bootstrap::cluster("mesh", &[], json!({"load_assignment": assignment}))],
        "bootstrap": {
            "node": {"id": "n", "cluster": "c", "locality": {"region": "r", "zone": "a", "sub_zone": "s"}},
            "cluster_manager": {"local_cluster_name": "mesh"},
        },
    })
}

/// So many hosts in the zones `a`, `b` and `c`, from the numbers 1, 21 and 41 on.
fn hosts(counts: [u8; 3]) -> Vec<Value> {
    let zones = ["a", "b", "c"].into_iter().zip([1, 21, 41]).zip(counts);
    zones
        .filter(|(_, count)| *count > 0)
        .map(|((name, first), count)| zone(name, first..=first + count - 1, json!({})))
        .collect()
}

fn of(name: &'static str, counts: [u8; 3], expected: [u32; 3]) -> Balance {
    let expected = [(1..=20, expected[0]), (21..=40, expected[1]), (41..=60, expected[2])];
    Balance::of(name, hosts(counts), &expected).statistics(STATISTICS)
}

fn settings(zone_aware: Value) -> Value {
    json!({"common_lb_config": {"zone_aware_lb_config": zone_aware}})
}

#[test]
fn what_stays_in_the_zone() {
    compare_balance(
        &[
            of("all", [4, 4, 0], [100, 0, 0]),
            of("more-than-its-part", [6, 1, 1], [100, 0, 0]),
            // A fourth of the hosts for half of the proxies.
            of("half", [2, 6, 0], [50, 50, 0]),
            // Zone `b` has less room than proxies.
            of("three-zones", [2, 3, 3], [50, 0, 50]),
            of("nobody-here", [0, 4, 4], [0, 0, 100]),
            of("least-request", [2, 6, 0], [50, 50, 0]).with(json!({"lb_policy": "LEAST_REQUEST"})),
            of("random", [2, 6, 0], [50, 50, 0]).with(json!({"lb_policy": "RANDOM"})),
            // Not by zone.
            of("too-small", [2, 3, 0], [40, 60, 0]),
            of("maglev", [4, 4, 0], [50, 50, 0]).with(json!({"lb_policy": "MAGLEV"})),
        ],
        proxies(&[("a", 2), ("b", 2)]),
    );
}

#[test]
fn settings_of_the_cluster() {
    compare_balance(
        &[
            of("small-enough", [1, 3, 0], [50, 50, 0]).with(settings(json!({"min_cluster_size": 4}))),
            of("too-small", [1, 3, 0], [25, 75, 0]).with(settings(json!({"min_cluster_size": 5}))),
            of("off", [4, 4, 0], [50, 50, 0]).with(settings(json!({"routing_enabled": {"value": 0}}))),
            of("half-of-it", [4, 4, 0], [75, 25, 0])
                .with(settings(json!({"routing_enabled": {"value": 50}}))),
            // Weights of localities come first.
            of("weighted", [4, 4, 0], [50, 50, 0])
                .with(json!({"common_lb_config": {"locality_weighted_lb_config": {}}})),
        ],
        proxies(&[("a", 2), ("b", 2)]),
    );
}

#[test]
fn health() {
    let ill = |name: &'static str, ill_here: u8, expected: [u32; 2], percent: u32| {
        let here: Vec<(u8, &str)> = (1..=4)
            .map(|number| (number, if number <= ill_here { "UNHEALTHY" } else { "HEALTHY" }))
            .collect();
        let zones = vec![mixed("a", &here, json!({})), zone("b", 21..=24, json!({}))];
        Balance::of(name, zones, &[(1..=4, expected[0]), (21..=24, expected[1])])
            .with(json!({"common_lb_config": {
                "healthy_panic_threshold": {"value": percent}, "zone_aware_lb_config": {"min_cluster_size": 2}}}))
            .statistics(STATISTICS)
    };
    compare_balance(
        &[
            ill("one-ill", 1, [86, 14], 50),
            ill("two-ill", 2, [66, 34], 50),
            ill("all-ill", 4, [0, 100], 50),
            ill("panic", 4, [50, 50], 90),
        ],
        proxies(&[("a", 2), ("b", 2)]),
    );
}

#[test]
fn proxies_elsewhere() {
    // None in this zone: what the local cluster says cannot be.
    compare_balance(&[of("none-here", [4, 4, 0], [50, 50, 0])], proxies(&[("b", 2), ("c", 2)]));
    // All in this zone.
    compare_balance(&[of("one-zone", [4, 4, 0], [50, 50, 0])], proxies(&[("a", 2)]));
    // Most are elsewhere: the fifth that is here stays.
    compare_balance(&[of("most-elsewhere", [2, 6, 0], [100, 0, 0])], proxies(&[("a", 1), ("b", 4)]));
    // 75 % here and 25 % of the hosts: a third stays.
    compare_balance(&[of("most-here", [2, 6, 0], [33, 67, 0])], proxies(&[("a", 6), ("b", 2)]));
}
