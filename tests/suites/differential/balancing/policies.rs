//! What holds for each policy: weights, health, priorities, panic, localities with weights.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::{Balance, compare_balance, mixed, priority, weight, zone};

const POLICIES: [(&str, &str); 5] = [
    ("round-robin", "ROUND_ROBIN"),
    ("least-request", "LEAST_REQUEST"),
    ("random", "RANDOM"),
    ("ring-hash", "RING_HASH"),
    ("maglev", "MAGLEV"),
];

/// How many percent of the requests the hosts of these numbers get together.
type Shares = Vec<(RangeInclusive<u8>, u32)>;

/// A case for each policy.
fn of_each(name: &str, localities: &[Value], expected: fn(&str) -> Shares) -> Vec<Balance> {
    POLICIES
        .iter()
        .map(|(short, policy)| {
            let name: &'static str = Box::leak(format!("{short}-{name}").into_boxed_str());
            Balance::of(name, localities.to_vec(), &expected(policy)).with(json!({"lb_policy": policy}))
        })
        .collect()
}

#[test]
fn each_of_them() {
    let ill = [mixed("a", &[(1, "HEALTHY"), (2, "UNHEALTHY"), (3, "HEALTHY")], json!({}))];
    let mut weights = mixed("a", &[(1, "HEALTHY"), (2, "HEALTHY")], json!({}));
    weights["lb_endpoints"][1]["load_balancing_weight"] = 3.into();
    let failover = [
        mixed("a", &[(1, "UNHEALTHY"), (2, "UNHEALTHY")], json!({})),
        mixed("b", &[(11, "HEALTHY"), (12, "HEALTHY")], priority(1)),
    ];
    let few = [(1, "HEALTHY"), (2, "UNHEALTHY"), (3, "UNHEALTHY"), (4, "UNHEALTHY")];
    let panic = [mixed("a", &few, json!({}))];
    let localities = [zone("a", 1..=2, weight(1)), zone("b", 11..=11, weight(4))];
    let mut by_locality = of_each("localities", &localities, |_| vec![(1..=2, 20), (11..=11, 80)]);
    for case in &mut by_locality {
        case.more["common_lb_config"] = json!({"locality_weighted_lb_config": {}});
    }
    let cases = [
        of_each("all", &[zone("a", 1..=4, json!({}))], |_| vec![(1..=2, 50), (3..=4, 50)]),
        of_each("weights", &[weights], |policy| match policy {
            // It knows no weights of hosts.
            "RANDOM" => vec![(1..=1, 50), (2..=2, 50)],
            _ => vec![(1..=1, 25), (2..=2, 75)],
        }),
        of_each("ill", &ill, |_| vec![(1..=1, 50), (3..=3, 50)]),
        of_each("failover", &failover, |_| vec![(11..=11, 50), (12..=12, 50)]),
        of_each("panic", &panic, |_| vec![(1..=2, 50), (3..=4, 50)]),
        by_locality,
    ];
    compare_balance(&cases.into_iter().flatten().collect::<Vec<_>>(), json!({}));
}
