//! Load of priorities, and panic.

use serde_json::{Value, json};

use super::{Balance, compare_balance, mixed, priority};

const STATISTICS: &[&str] = &["membership_healthy", "lb_healthy_panic", "upstream_cx_none_healthy"];

/// `healthy` of `total` hosts from this number on.
fn level(level: u32, first: u8, healthy: u8, total: u8) -> Value {
    let health = |number| if number < healthy { "HEALTHY" } else { "UNHEALTHY" };
    let hosts: Vec<(u8, &str)> = (0..total).map(|number| (first + number, health(number))).collect();
    mixed("a", &hosts, priority(level))
}

fn threshold(percent: u32) -> Value {
    json!({"common_lb_config": {"healthy_panic_threshold": {"value": percent}}})
}

#[test]
fn load_spills_over() {
    let of = |name, first, second, expected: [u32; 2]| {
        let expected = [(1..=4, expected[0]), (11..=14, expected[1])];
        Balance::of(name, vec![level(0, 1, first, 4), level(1, 11, second, 4)], &expected)
            .statistics(STATISTICS)
    };
    compare_balance(
        &[
            of("all-well", 4, 4, [100, 0]),
            of("three-quarters", 3, 4, [100, 0]),
            of("half", 2, 4, [70, 30]),
            of("quarter", 1, 4, [35, 65]),
            of("nobody", 0, 4, [0, 100]),
            of("both-half", 2, 2, [70, 30]),
            of("both-quarter", 1, 1, [50, 50]).with(threshold(0)),
        ],
        json!({}),
    );
}

#[test]
fn panic_of_some() {
    compare_balance(
        &[
            // 17 and 83 of a hundred: the first panics, all its hosts take part.
            Balance::of(
                "first",
                vec![level(0, 1, 1, 10), level(1, 11, 5, 10)],
                &[(1..=1, 2), (2..=10, 15), (11..=15, 83)],
            )
            .statistics(STATISTICS),
            // There is enough in sum.
            Balance::of(
                "enough",
                vec![level(0, 1, 2, 10), level(1, 11, 6, 10)],
                &[(1..=2, 28), (11..=16, 72)],
            )
            .statistics(STATISTICS),
            Balance::of(
                "lower-threshold",
                vec![level(0, 1, 1, 10), level(1, 11, 5, 10)],
                &[(1..=1, 17), (11..=15, 83)],
            )
            .with(threshold(10))
            .statistics(STATISTICS),
            Balance::of("fraction", vec![level(0, 1, 2, 4)], &[(1..=2, 100)])
                .with(json!({"common_lb_config": {"healthy_panic_threshold": {"value": 50.4}}}))
                .statistics(STATISTICS),
        ],
        json!({}),
    );
}

#[test]
fn panic_may_fail() {
    let fails = || json!({"common_lb_config": {"zone_aware_lb_config": {"fail_traffic_on_panic": true}}});
    let hashed = || json!({"lb_policy": "RING_HASH"});
    compare_balance(
        &[
            Balance::of("alone", vec![level(0, 1, 1, 4)], &[]).with(fails()).statistics(STATISTICS),
            Balance::of("enough", vec![level(0, 1, 2, 4)], &[(1..=2, 100)])
                .with(fails())
                .statistics(STATISTICS),
            // The share of the priority that panics is lost.
            Balance::of("first", vec![level(0, 1, 1, 10), level(1, 11, 5, 10)], &[(11..=15, 83)])
                .with(fails())
                .statistics(&["lb_healthy_panic"]),
            // Tables of hashes do not know it.
            Balance::of("ring", vec![level(0, 1, 1, 4)], &[(1..=4, 100)])
                .with(fails())
                .with(hashed())
                .statistics(STATISTICS),
        ],
        json!({}),
    );
}

#[test]
fn panic_of_all() {
    compare_balance(
        &[
            // By the number of hosts.
            Balance::of(
                "by-number",
                vec![level(0, 1, 1, 4), level(1, 11, 1, 12)],
                &[(1..=4, 25), (11..=22, 75)],
            )
            .statistics(STATISTICS),
            Balance::of(
                "nobody-left",
                vec![level(0, 1, 0, 1), level(1, 11, 0, 3)],
                &[(1..=1, 25), (11..=13, 75)],
            )
            .statistics(STATISTICS),
            Balance::of("not-allowed", vec![level(0, 1, 0, 1), level(1, 11, 0, 3)], &[])
                .with(threshold(0))
                .statistics(STATISTICS),
        ],
        json!({}),
    );
}
