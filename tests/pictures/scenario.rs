//! What is played for each picture: hosts, the cluster, and three phases.

use outrigger_tests::bootstrap::type_url;
use serde_json::{Value, json};

/// One picture.
pub(crate) struct Scenario {
    /// Of the file.
    pub(crate) name: &'static str,
    /// What is shown.
    pub(crate) title: &'static str,
    pub(crate) hosts: Vec<Host>,
    /// Laid over the cluster.
    pub(crate) cluster: Value,
    /// Before, during and after.
    pub(crate) acts: [Act; 3],
    /// Requests of each phase.
    pub(crate) requests: usize,
}

/// One host, and where it stands.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) label: String,
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    pub(crate) zone: &'static str,
    pub(crate) zone_weight: Option<u32>,
}

/// What happens at the beginning of a phase; it lasts until the next one says otherwise.
#[derive(Clone, Default)]
pub(crate) struct Act {
    pub(crate) title: &'static str,
    /// Hosts that are not there.
    pub(crate) absent: &'static [usize],
    /// Hosts that are said to be ill.
    pub(crate) ill: &'static [usize],
    /// Hosts that answer 500.
    pub(crate) failing: &'static [usize],
    /// Hosts that take 20 ms for an answer.
    pub(crate) slow: &'static [usize],
    /// Goes by before requests are counted, in milliseconds; there are some meanwhile.
    pub(crate) settles: u64,
}

fn act(title: &'static str) -> Act {
    Act { title, ..Act::default() }
}

fn hosts(number: usize) -> Vec<Host> {
    (0..number)
        .map(|index| Host {
            label: char::from(b'A' + index as u8).to_string(),
            weight: 1,
            priority: 0,
            zone: "a",
            zone_weight: None,
        })
        .collect()
}

fn of(name: &'static str, title: &'static str, hosts: Vec<Host>, cluster: Value, acts: [Act; 3]) -> Scenario {
    Scenario { name, title, hosts, cluster, acts, requests: 1_200 }
}

/// Every picture.
pub(crate) fn all() -> Vec<Scenario> {
    let one_leaves = || [act("all are there"), Act { absent: &[2], ..act("C has gone") }, act("C is back")];
    let one_is_slow = || [act("alike"), Act { slow: &[2], ..act("C takes 20 ms") }, act("alike again")];
    let one_fails = || {
        [
            act("well"),
            Act { failing: &[2], settles: 500, ..act("C answers 500") },
            Act { settles: 2_500, ..act("C is well again") },
        ]
    };
    let ejects = json!({
        "consecutive_5xx": 3, "interval": "0.05s", "base_ejection_time": "1s", "enforcing_success_rate": 0,
        "max_ejection_percent": 100,
    });
    let probed = json!({"filter_metadata": {"outrigger.dev": {"readmission": "probe"}}});
    let weighted = |weights: &[u32]| {
        let hosts = hosts(weights.len()).into_iter().zip(weights);
        hosts
            .map(|(host, &weight)| Host { label: format!("{} ×{weight}", host.label), weight, ..host })
            .collect()
    };
    let spread = |places: &[(&'static str, u32, Option<u32>)]| -> Vec<Host> {
        let hosts = hosts(places.len()).into_iter().zip(places);
        hosts
            .map(|(host, &(zone, priority, zone_weight))| Host { zone, priority, zone_weight, ..host })
            .collect()
    };
    let prioritised = {
        let places = [("a", 0, None), ("a", 0, None), ("b", 1, None), ("b", 1, None)];
        let named = spread(&places).into_iter();
        named.map(|host| Host { label: format!("{} P{}", host.label, host.priority), ..host }).collect()
    };
    let zoned = {
        let places = [("a", 0, Some(3)), ("a", 0, Some(3)), ("b", 0, Some(1)), ("b", 0, Some(1))];
        let named = spread(&places).into_iter();
        named.map(|host| Host { label: format!("{} {}", host.label, host.zone), ..host }).collect()
    };
    let peak_ewma = json!({"load_balancing_policy": {"policies": [{"typed_extension_config": {
        "name": "peak_ewma",
        "typed_config": {"@type": type_url("extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma"), "decay_time": "0.2s"},
    }}]}});
    let hashed = |policy: &str| json!({"lb_policy": policy});
    vec![
        of("round-robin", "Round robin", hosts(4), json!({"lb_policy": "ROUND_ROBIN"}), one_leaves()),
        of(
            "weights",
            "Round robin with weights",
            weighted(&[1, 2, 3, 4]),
            json!({"lb_policy": "ROUND_ROBIN"}),
            one_leaves(),
        ),
        of("random", "Random", hosts(4), json!({"lb_policy": "RANDOM"}), one_leaves()),
        of("least-request", "Least request", hosts(4), json!({"lb_policy": "LEAST_REQUEST"}), one_is_slow()),
        of(
            "peak-ewma",
            "Peak EWMA",
            hosts(4),
            peak_ewma,
            [
                Act { settles: 300, ..act("alike") },
                Act { slow: &[2], settles: 300, ..act("C takes 20 ms") },
                Act { settles: 1_500, ..act("alike again") },
            ],
        ),
        of(
            "round-robin-slow",
            "Round robin, for comparison",
            hosts(4),
            json!({"lb_policy": "ROUND_ROBIN"}),
            one_is_slow(),
        ),
        of("ring-hash", "Ring hash", hosts(4), hashed("RING_HASH"), one_leaves()),
        of("maglev", "Maglev", hosts(4), hashed("MAGLEV"), one_leaves()),
        Scenario {
            requests: 300,
            ..of(
                "slow-start",
                "Slow start",
                hosts(4),
                json!({"lb_policy": "ROUND_ROBIN", "round_robin_lb_config": {"slow_start_config": {"slow_start_window": "3s"}}}),
                [
                    Act { absent: &[3], settles: 3_500, ..act("three are warm") },
                    act("D has just come"),
                    Act { settles: 3_500, ..act("after its window") },
                ],
            )
        },
        of(
            "localities",
            "Localities by weight, 3 to 1",
            zoned,
            json!({"common_lb_config": {"locality_weighted_lb_config": {}}}),
            [
                act("all are well"),
                Act { ill: &[0], ..act("A is ill") },
                Act { ill: &[0, 1], ..act("zone a is ill") },
            ],
        ),
        of(
            "priorities",
            "Failover by priority",
            prioritised,
            json!({}),
            [
                act("all are well"),
                Act { ill: &[0], ..act("A is ill") },
                Act { ill: &[0, 1], ..act("P0 is ill") },
            ],
        ),
        of(
            "panic",
            "Panic below half",
            hosts(4),
            json!({}),
            [
                act("all are well"),
                Act { ill: &[0, 1], ..act("two are ill") },
                Act { ill: &[0, 1, 2], ..act("three are ill") },
            ],
        ),
        of("ejection", "Outlier detection", hosts(4), json!({"outlier_detection": ejects}), one_fails()),
        of(
            "readmission",
            "Outlier detection, back by a probe",
            hosts(4),
            json!({"outlier_detection": ejects, "metadata": probed}),
            one_fails(),
        ),
    ]
}
