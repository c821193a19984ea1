//! Hosts whose `health_status` is DEGRADED, and the other states.

use serde_json::{Value, json};

use super::{Balance, compare_balance, mixed, weight};

const STATISTICS: &[&str] =
    &["membership_total", "membership_healthy", "membership_degraded", "lb_healthy_panic"];

/// Hosts from number 1 on, by the letters of their health.
fn hosts(letters: &str, first: u8) -> Vec<(u8, &'static str)> {
    let health = |letter| match letter {
        'h' => "HEALTHY",
        'd' => "DEGRADED",
        'u' => "UNHEALTHY",
        't' => "TIMEOUT",
        'r' => "DRAINING",
        _ => "UNKNOWN",
    };
    (first..).zip(letters.chars().map(health)).collect()
}

fn one(letters: &str) -> Vec<Value> {
    vec![mixed("a", &hosts(letters, 1), json!({}))]
}

#[test]
fn what_healthy_hosts_cannot_take() {
    compare_balance(
        &[
            Balance::of("enough", one("hhhdd"), &[(1..=3, 84), (4..=5, 16)]).statistics(STATISTICS),
            Balance::of("all-of-it", one("hhhhd"), &[(1..=4, 100), (5..=5, 0)]).statistics(STATISTICS),
            Balance::of("half", one("hhdd"), &[(1..=2, 70), (3..=4, 30)]).statistics(STATISTICS),
            Balance::of("few", one("hdddd"), &[(1..=1, 28), (2..=5, 72)]).statistics(STATISTICS),
            Balance::of("none", one("ddd"), &[(1..=3, 100)]).statistics(STATISTICS),
        ],
        json!({}),
    );
}

#[test]
fn every_policy() {
    let of = |name, policy: &str| {
        Balance::of(name, one("hhdd"), &[(1..=2, 70), (3..=4, 30)]).with(json!({"lb_policy": policy}))
    };
    // There are no degraded hosts in tables of hashes.
    let hashed = |name, policy: &str| {
        Balance::of(name, one("hhdd"), &[(1..=2, 100), (3..=4, 0)]).with(json!({"lb_policy": policy}))
    };
    compare_balance(
        &[
            of("least-request", "LEAST_REQUEST"),
            of("random", "RANDOM"),
            hashed("ring", "RING_HASH"),
            hashed("maglev", "MAGLEV"),
        ],
        json!({}),
    );
}

#[test]
fn panic_counts_degraded_hosts_as_well() {
    compare_balance(
        &[
            Balance::of("enough-with-them", one("hduu"), &[(1..=1, 50), (2..=2, 50), (3..=4, 0)])
                .statistics(STATISTICS),
            Balance::of("not-enough", one("hduuuu"), &[(1..=2, 33), (3..=6, 67)]).statistics(STATISTICS),
            Balance::of("never", one("hduuuu"), &[(1..=1, 50), (2..=2, 50), (3..=6, 0)])
                .with(json!({"common_lb_config": {"healthy_panic_threshold": {"value": 0}}}))
                .statistics(STATISTICS),
        ],
        json!({}),
    );
}

#[test]
fn other_states() {
    let never = json!({"common_lb_config": {"healthy_panic_threshold": {"value": 0}}});
    compare_balance(
        &[
            Balance::of("all", one("hxdutr"), &[(1..=2, 66), (3..=3, 34), (4..=6, 0)])
                .with(never.clone())
                .statistics(STATISTICS),
            Balance::of("out", one("utr"), &[]).with(never).statistics(STATISTICS),
            Balance::of("panic", one("utr"), &[(1..=1, 33), (2..=2, 33), (3..=3, 34)]).statistics(STATISTICS),
        ],
        json!({}),
    );
}

#[test]
fn priorities_and_localities() {
    let second = |letters| mixed("b", &hosts(letters, 11), json!({"priority": 1}));
    let first = |letters| mixed("a", &hosts(letters, 1), json!({}));
    let weighted = json!({"common_lb_config": {"locality_weighted_lb_config": {}}});
    compare_balance(
        &[
            // Healthy hosts of the second priority come before degraded ones of the first.
            Balance::of(
                "healthy-first",
                vec![first("hd"), second("hh")],
                &[(1..=1, 70), (2..=2, 0), (11..=12, 30)],
            ),
            Balance::of(
                "then-degraded",
                vec![first("hddd"), second("hddd")],
                &[(1..=1, 35), (2..=4, 30), (11..=11, 35), (12..=14, 0)],
            ),
            // Each tier has its own weights of localities: one third, and one half.
            Balance::of(
                "localities",
                vec![mixed("a", &hosts("hd", 1), weight(1)), mixed("b", &hosts("hd", 11), weight(3))],
                &[(1..=1, 17), (2..=2, 8), (11..=11, 53), (12..=12, 22)],
            )
            .with(weighted),
        ],
        json!({}),
    );
}
