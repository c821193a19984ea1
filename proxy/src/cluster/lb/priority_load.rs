//! How much of the traffic each priority gets. Pure; the formulas are Envoy's ("Priority levels", "Degraded endpoints" and "Panic
//! threshold" of its documentation).

/// The hosts of one priority, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) healthy: u32,
    pub(super) degraded: u32,
    pub(super) total: u32,
}

/// What one priority could take of the traffic, in percent, at most 100 each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Availability {
    pub(super) healthy: u32,
    pub(super) degraded: u32,
}

/// What one priority takes of the traffic, in percent; 100 over all priorities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) healthy: u32,
    pub(super) degraded: u32,
    /// Too few hosts are well: all of them take the load.
    pub(super) panic: bool,
}

/// `min(100, overprovisioning × share of the hosts)`.
pub(super) fn availability(hosts: Counted, overprovisioning_percent: u32) -> Availability {
    let of = |some: u32| {
        let percent = u64::from(overprovisioning_percent) * u64::from(some);
        percent.checked_div(hosts.total.into()).unwrap_or(0).min(100) as u32
    };
    Availability { healthy: of(hosts.healthy), degraded: of(hosts.degraded) }
}

/// Splits the traffic over the priorities.
///
/// Healthy hosts take what they can, priority by priority; of what is left, degraded hosts take what they can. When that does not reach
/// 100 % in sum, all loads are scaled up, and a priority with less than `panic_percent` of its hosts healthy or degraded panics. When all
/// panic, the load follows the number of hosts. Nobody panics with a threshold of 0.
pub(super) fn split(hosts: &[Counted], availability: &[Availability], panic_percent: u32) -> Vec<Load> {
    let total = normalized(availability);
    let mut loads = distribute(availability, total);
    if total < 100 && panic_percent > 0 {
        for (load, counted) in loads.iter_mut().zip(hosts) {
            load.panic = is_below(*counted, panic_percent);
        }
        if loads.iter().all(|load| load.panic) {
            follow_numbers(&mut loads, hosts);
        }
    } else if total == 0
        && let Some(first) = loads.first_mut()
    {
        // Nobody can take it; it has to be somewhere.
        first.healthy = 100;
    }
    loads
}

/// The sum over all priorities, at most 100 %.
pub(super) fn normalized(availability: &[Availability]) -> u32 {
    availability.iter().map(|a| a.healthy + a.degraded).sum::<u32>().min(100)
}

/// The load of each priority when all of them together can take `total` percent.
fn distribute(availability: &[Availability], total: u32) -> Vec<Load> {
    let mut loads = vec![Load::default(); availability.len()];
    if total == 0 {
        return loads;
    }
    let mut left = 100;
    let mut take = |available: u32| {
        let load = left.min(available * 100 / total);
        left -= load;
        load
    };
    for (load, available) in loads.iter_mut().zip(availability) {
        load.healthy = take(available.healthy);
    }
    for (load, available) in loads.iter_mut().zip(availability) {
        load.degraded = take(available.degraded);
    }
    // Rounding leaves a few percent: the first with something to give takes them.
    if let Some(first) = availability.iter().position(|a| a.healthy > 0) {
        loads[first].healthy += left;
    } else if let Some(first) = availability.iter().position(|a| a.degraded > 0) {
        loads[first].degraded += left;
    }
    loads
}

fn is_below(hosts: Counted, panic_percent: u32) -> bool {
    let well = 100 * u64::from(hosts.healthy + hosts.degraded);
    hosts.total == 0 || well < u64::from(panic_percent) * u64::from(hosts.total)
}

/// Total panic: the load follows the number of hosts, however they are.
fn follow_numbers(loads: &mut [Load], hosts: &[Counted]) {
    let all: u64 = hosts.iter().map(|counted| u64::from(counted.total)).sum();
    let mut left = 100;
    for (load, counted) in loads.iter_mut().zip(hosts) {
        load.healthy = (100 * u64::from(counted.total)).checked_div(all).unwrap_or(0) as u32;
        load.degraded = 0;
        left -= load.healthy;
    }
    let first = hosts.iter().position(|counted| counted.total > 0).unwrap_or(0);
    if let Some(load) = loads.get_mut(first) {
        load.healthy += left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a hundred hosts each.
    fn loads(healthy_and_degraded: &[(u32, u32)], panic_percent: u32) -> Vec<(u32, u32, bool)> {
        let counted: Vec<Counted> = healthy_and_degraded
            .iter()
            .map(|&(healthy, degraded)| Counted { healthy, degraded, total: 100 })
            .collect();
        all(&counted, panic_percent)
    }

    fn all(counted: &[Counted], panic_percent: u32) -> Vec<(u32, u32, bool)> {
        let available: Vec<Availability> = counted.iter().map(|&c| availability(c, 140)).collect();
        let loads = split(counted, &available, panic_percent);
        loads.into_iter().map(|l| (l.healthy, l.degraded, l.panic)).collect()
    }

    #[test]
    fn load_follows_envoys_tables() {
        // Envoy's documentation of priority levels: percent healthy of P0, P1 (and P2), and what goes there.
        for (healthy, expected) in [
            (&[100, 100][..], &[100, 0][..]),
            (&[72, 72], &[100, 0]),
            (&[71, 71], &[99, 1]),
            (&[50, 50], &[70, 30]),
            (&[25, 100], &[35, 65]),
            (&[0, 100], &[0, 100]),
            (&[25, 25], &[50, 50]),
            (&[100, 100, 100], &[100, 0, 0]),
            (&[72, 72, 100], &[100, 0, 0]),
            (&[71, 71, 100], &[99, 1, 0]),
            (&[50, 50, 100], &[70, 30, 0]),
            (&[25, 100, 100], &[35, 65, 0]),
            (&[25, 25, 100], &[35, 35, 30]),
            // Scaled up from 35, 35, 28, and rounded down: the first one takes what that leaves.
            (&[25, 25, 20], &[37, 35, 28]),
        ] {
            let hosts: Vec<(u32, u32)> = healthy.iter().map(|&healthy| (healthy, 0)).collect();
            let got: Vec<u32> = loads(&hosts, 0).into_iter().map(|(healthy, ..)| healthy).collect();
            assert_eq!(got, expected, "{healthy:?}");
        }
    }

    #[test]
    fn degraded_hosts_take_what_healthy_ones_leave() {
        // Envoy's documentation of degraded endpoints: healthy and degraded percent of one priority.
        for (hosts, expected) in [
            ((100, 0), (100, 0)),
            ((71, 0), (100, 0)),
            ((71, 29), (99, 1)),
            ((25, 65), (35, 65)),
            ((5, 0), (100, 0)),
            ((0, 60), (0, 100)),
        ] {
            let (healthy, degraded, _) = loads(&[hosts], 0)[0];
            assert_eq!((healthy, degraded), expected, "{hosts:?}");
        }
        // Healthy hosts of any priority come before degraded ones of the first.
        assert_eq!(loads(&[(50, 50), (100, 0)], 50), [(70, 0, false), (30, 0, false)]);
        assert_eq!(loads(&[(25, 75), (25, 75)], 50), [(35, 30, false), (35, 0, false)]);
    }

    #[test]
    fn panic_below_the_threshold_only() {
        let of_ten = |healthy, degraded| Counted { healthy, degraded, total: 10 };
        let none = Counted::default();
        for (hosts, threshold, expected) in [
            (&[of_ten(4, 0)][..], 50, &[(100, 0, true)][..]),
            (&[of_ten(5, 0)], 50, &[(100, 0, false)]),
            (&[of_ten(4, 1)], 50, &[(80, 20, false)]),
            (&[of_ten(4, 0)], 0, &[(100, 0, false)]),
            (&[of_ten(0, 0)], 50, &[(100, 0, true)]),
            (&[of_ten(0, 0)], 0, &[(100, 0, false)]),
            // Enough in sum.
            (&[of_ten(4, 0), of_ten(10, 0)], 50, &[(56, 0, false), (44, 0, false)]),
            // One of two panics and gets what it could take.
            (&[of_ten(1, 0), of_ten(5, 0)], 50, &[(17, 0, true), (83, 0, false)]),
            // All panic: by the number of hosts.
            (
                &[of_ten(1, 0), Counted { healthy: 5, degraded: 0, total: 30 }],
                50,
                &[(25, 0, true), (75, 0, true)],
            ),
            (&[none, of_ten(0, 0)], 50, &[(0, 0, true), (100, 0, true)]),
            (&[none], 50, &[(100, 0, true)]),
        ] {
            assert_eq!(all(hosts, threshold), expected, "{hosts:?} {threshold}");
        }
    }

    #[test]
    fn the_sum_is_always_a_hundred() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let hosts: Vec<Counted> = (0..random.usize(1..6))
                .map(|_| {
                    let total = random.u32(..12);
                    let healthy = random.u32(..=total);
                    Counted { healthy, degraded: random.u32(..=total - healthy), total }
                })
                .collect();
            let threshold = *random.choice(&[0, 1, 50, 100]).unwrap_or(&0);
            let loads = all(&hosts, threshold);
            let sum: u32 = loads.iter().map(|(healthy, degraded, _)| healthy + degraded).sum();
            assert_eq!(sum, 100, "{hosts:?} {threshold}: {loads:?}");
        }
    }
}
