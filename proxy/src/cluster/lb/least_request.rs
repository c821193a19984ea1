//! Least request. Among hosts of equal weight: of a few random ones that with the fewest requests in flight. Among others, as in Envoy:
//! each by `weight / (requests in flight + 1)^bias`.

use super::active;
use super::tables::Table;

/// How many hosts are looked at for one that is not busy.
const LOOKS: u32 = 8;

/// `bias` is `active_request_bias`: 0 looks at weights only.
pub(super) fn pick(table: &Table, choices: u32, bias: f64) -> usize {
    if table.turns.are_weighted() {
        return by_weight(table, bias);
    }
    let mut best = table.turns.random();
    for _ in 1..choices {
        let other = table.turns.random();
        if active(&table.hosts[other]) < active(&table.hosts[best]) {
            best = other;
        }
    }
    best
}

/// Draws by weight and takes what it draws with the probability that the host's requests leave. When all of `LOOKS` are refused, every
/// host is busy: one of those that were looked at is taken, by the same probabilities.
fn by_weight(table: &Table, bias: f64) -> usize {
    let (mut kept, mut sum) = (0, 0.0);
    for _ in 0..LOOKS {
        let drawn = table.turns.random();
        let room = room(active(&table.hosts[drawn]), bias);
        if fastrand::f64() < room {
            return drawn;
        }
        sum += room;
        if fastrand::f64() * sum < room {
            kept = drawn;
        }
    }
    kept
}

/// `1 / (requests in flight + 1)^bias`.
fn room(active: u32, bias: f64) -> f64 {
    let requests = f64::from(active) + 1.0;
    // Both are what nearly all clusters have.
    if active == 0 {
        1.0
    } else if bias == 1.0 {
        1.0 / requests
    } else {
        requests.powf(-bias)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::cluster::Host;
    use crate::cluster::lb::turns::Turns;
    use crate::net::Address;

    /// A table of hosts with these weights and requests in flight.
    fn table(hosts: &[(u64, u32)]) -> Table {
        let host = |&(_, active): &(u64, u32)| {
            let host = Host::new(Address::Ip(([127, 0, 0, 1], 1).into()), "".into(), 1, true, None);
            host.active_requests.store(active, Ordering::Relaxed);
            Arc::new(host)
        };
        let weights: Vec<u64> = hosts.iter().map(|(weight, _)| *weight).collect();
        Table { hosts: hosts.iter().map(host).collect(), turns: Turns::new(&weights), hashed: None }
    }

    /// How often the first host is picked, of a hundred thousand.
    fn first(hosts: &[(u64, u32)], bias: f64) -> usize {
        let table = table(hosts);
        (0..100_000).filter(|_| pick(&table, 2, bias) == 0).count()
    }

    #[test]
    fn the_idle_host_wins() {
        // Only when both draws hit the busy one: 1/4.
        let busy = first(&[(1, 9), (1, 0)], 1.0);
        assert!((24_000..26_000).contains(&busy), "{busy}");
    }

    #[test]
    fn weights_are_divided_by_what_a_host_has_to_do() {
        for (hosts, bias, expected) in [
            (&[(3, 0), (1, 0)][..], 1.0, 0.75),
            (&[(3, 2), (1, 0)], 1.0, 0.5),
            (&[(3, 2), (1, 0)], 0.0, 0.75),
            (&[(3, 2), (1, 0)], 2.0, 0.25),
            (&[(3, 8), (1, 0)], 1.0, 0.25),
            // All are busy alike.
            (&[(3, 50), (1, 50)], 1.0, 0.75),
        ] {
            let share = first(hosts, bias) as f64 / 100_000.0;
            assert!((share - expected).abs() < 0.035, "{hosts:?} {bias}: {share}");
        }
    }
}
