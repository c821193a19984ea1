//! Weights of localities.

use serde_json::{Value, json};

use super::{Balance, compare_balance, mixed, weight, zone};

fn weighted(policy: &str) -> Value {
    json!({"lb_policy": policy, "common_lb_config": {"locality_weighted_lb_config": {}}})
}

/// Five hosts with weight 1, one with weight 3.
fn five_and_one() -> Vec<Value> {
    vec![zone("a", 1..=5, weight(1)), zone("b", 11..=11, weight(3))]
}

#[test]
fn weights_not_numbers() {
    let of = |name, policy| {
        Balance::of(name, five_and_one(), &[(1..=5, 25), (11..=11, 75)]).with(weighted(policy))
    };
    compare_balance(
        &[
            of("round-robin", "ROUND_ROBIN"),
            of("least-request", "LEAST_REQUEST"),
            of("random", "RANDOM"),
            of("ring", "RING_HASH"),
            of("maglev", "MAGLEV"),
            Balance::of("not-asked-for", five_and_one(), &[(1..=5, 83), (11..=11, 17)]),
        ],
        json!({}),
    );
}

/// The same as `load_balancing_policy`, where the first policy that is known counts.
#[test]
fn policies_as_extensions() {
    let typed = |name: &str, mut config: Value| {
        config["@type"] =
            format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}").into();
        json!({"typed_extension_config": {"name": name, "typed_config": config}})
    };
    let by_weight = || json!({"locality_lb_config": {"locality_weighted_lb_config": {}}});
    let of = |name, policies: Value| {
        Balance::of(name, five_and_one(), &[(1..=5, 25), (11..=11, 75)])
            .with(json!({"load_balancing_policy": {"policies": policies}}))
    };
    let not_known = json!({"typed_extension_config": {"name": "not known", "typed_config": {
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": "example.com/not.known"}}});
    compare_balance(
        &[
            of("ext-round-robin", json!([typed("round_robin.v3.RoundRobin", by_weight())])),
            of("ext-least-request", json!([not_known, typed("least_request.v3.LeastRequest", by_weight())])),
            of("ext-random", json!([typed("random.v3.Random", by_weight())])),
            of("ext-ring", json!([typed("ring_hash.v3.RingHash", by_weight_of_hash())])),
            Balance::of("ext-plain", five_and_one(), &[(1..=5, 83), (11..=11, 17)]).with(
                json!({"load_balancing_policy": {"policies": [typed("round_robin.v3.RoundRobin", json!({}))]}}),
            ),
        ],
        json!({}),
    );
}

fn by_weight_of_hash() -> Value {
    json!({"locality_weighted_lb_config": {}})
}

#[test]
fn hosts_that_are_ill() {
    let good = |from: u8, to: u8| (from..=to).map(|number| (number, "HEALTHY"));
    let bad = |from: u8, to: u8| (from..=to).map(|number| (number, "UNHEALTHY"));
    let of_four = |healthy: u8| {
        let hosts: Vec<(u8, &str)> = good(1, healthy).chain(bad(healthy + 1, 4)).collect();
        vec![mixed("a", &hosts, weight(1)), zone("b", 11..=12, weight(1))]
    };
    let of = |name, healthy, first, second| {
        Balance::of(name, of_four(healthy), &[(1..=4, first), (11..=12, second)])
            .with(weighted("ROUND_ROBIN"))
    };
    compare_balance(
        &[
            // Three quarters are enough, with the overprovisioning factor; a half is 0.7; a quarter 0.35.
            of("three-of-four", 3, 50, 50),
            of("two-of-four", 2, 41, 59),
            of("one-of-four", 1, 26, 74),
            of("none-of-four", 0, 0, 100),
            // The tables of hashes know the weights only.
            Balance::of("ring", of_four(1), &[(1..=4, 50), (11..=12, 50)]).with(weighted("RING_HASH")),
        ],
        json!({}),
    );
}

#[test]
fn weights_that_are_not_there() {
    let named = |from: u8, to: u8, more| zone("a", from..=to, more);
    compare_balance(
        &[
            Balance::of(
                "one-has-none",
                vec![zone("a", 1..=2, json!({})), zone("b", 11..=11, weight(1))],
                &[(1..=2, 0), (11..=11, 100)],
            )
            .with(weighted("ROUND_ROBIN")),
            Balance::of(
                "none-has",
                vec![zone("a", 1..=3, json!({})), zone("b", 11..=11, json!({}))],
                &[(1..=3, 75), (11..=11, 25)],
            )
            .with(weighted("ROUND_ROBIN")),
            Balance::of("only-one", vec![named(1, 2, weight(7))], &[(1..=1, 50), (2..=2, 50)])
                .with(weighted("ROUND_ROBIN")),
            // The same locality twice.
            Balance::of(
                "twice",
                vec![named(1, 1, weight(1)), zone("b", 11..=11, weight(1)), named(2, 2, weight(1))],
                &[(1..=1, 25), (2..=2, 25), (11..=11, 50)],
            )
            .with(weighted("ROUND_ROBIN")),
        ],
        json!({}),
    );
}

#[test]
fn priorities_and_panic() {
    let second = |mut locality: Value| {
        locality["priority"] = 1.into();
        locality
    };
    let half = mixed("a", &[(1, "HEALTHY"), (2, "UNHEALTHY")], weight(1));
    let quarter = [(1, "HEALTHY"), (2, "UNHEALTHY"), (3, "UNHEALTHY"), (4, "UNHEALTHY")];
    compare_balance(
        &[
            // 70 % in the first priority; in the second one three to one.
            Balance::of(
                "second",
                vec![half, second(zone("b", 11..=11, weight(3))), second(zone("c", 12..=13, weight(1)))],
                &[(1..=1, 70), (11..=11, 22), (12..=13, 8)],
            )
            .with(weighted("ROUND_ROBIN")),
            Balance::of(
                "panic",
                vec![mixed("a", &quarter, weight(1)), mixed("b", &[(11, "UNHEALTHY")], weight(9))],
                &[(1..=4, 80), (11..=11, 20)],
            )
            .with(weighted("ROUND_ROBIN"))
            .statistics(&["lb_healthy_panic"]),
            // Also in panic the table of hashes knows the weights.
            Balance::of(
                "panic-ring",
                vec![mixed("a", &quarter, weight(1)), mixed("b", &[(11, "UNHEALTHY")], weight(9))],
                &[(1..=4, 10), (11..=11, 90)],
            )
            .with(weighted("RING_HASH"))
            .statistics(&["lb_healthy_panic"]),
        ],
        json!({}),
    );
}
