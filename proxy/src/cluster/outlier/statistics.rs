//! Who is an outlier among its peers. Pure: Envoy's formulas over what was counted in one interval.

use super::monitor::Counted;
use super::settings::{FailurePercentage, SuccessRate};

/// What an interval's counts say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// Success rate per host, of those with enough requests.
    pub(super) rates: Vec<Option<f64>>,
    /// Mean of the rates, and below which one a host is an outlier; `None` when too few hosts have enough requests.
    pub(super) average: Option<(f64, f64)>,
    /// Indexes of hosts whose rate is far below that of the others.
    pub(super) slow: Vec<usize>,
    /// Indexes of hosts of whose requests too many fail.
    pub(super) failing: Vec<usize>,
}

/// Judges `hosts` by what each did in the interval; `None` for one that is out already.
pub(super) fn judge(
    hosts: &[Option<Counted>],
    success_rate: &SuccessRate,
    failure_percentage: &FailurePercentage,
) -> Verdict {
    let enough = |minimum: u32| hosts.len() as u64 >= u64::from(minimum);
    let mut verdict = Verdict { rates: vec![None; hosts.len()], ..Verdict::default() };
    if !enough(success_rate.minimum_hosts) && !enough(failure_percentage.minimum_hosts) {
        return verdict;
    }
    let shown_from = success_rate.request_volume.min(failure_percentage.request_volume);
    let rate_of = |counted: &Option<Counted>| {
        let counted = (*counted)?;
        Some((counted.total, counted.success_rate()?))
    };
    let judged: Vec<(usize, u64, f64)> = hosts
        .iter()
        .enumerate()
        .filter_map(|(index, counted)| rate_of(counted).map(|(total, rate)| (index, total, rate)))
        .collect();
    for &(index, _, rate) in judged.iter().filter(|(_, total, _)| *total >= shown_from) {
        verdict.rates[index] = Some(rate);
    }

    let with = |volume: u64| judged.iter().filter(move |(_, total, _)| *total >= volume);
    let valid = with(success_rate.request_volume).count();
    if valid > 0 && valid as u64 >= u64::from(success_rate.minimum_hosts) {
        let factor = f64::from(success_rate.stdev_factor_thousandths) / 1000.0;
        let rates: Vec<f64> = with(success_rate.request_volume).map(|(_, _, rate)| *rate).collect();
        let (mean, threshold) = threshold(&rates, factor);
        verdict.average = Some((mean, threshold));
        let below = with(success_rate.request_volume).filter(|(_, _, rate)| *rate < threshold);
        verdict.slow = below.map(|(index, _, _)| *index).collect();
    }
    let valid = with(failure_percentage.request_volume).count();
    if valid > 0 && valid as u64 >= u64::from(failure_percentage.minimum_hosts) {
        let limit = f64::from(failure_percentage.threshold);
        let above = with(failure_percentage.request_volume).filter(|(_, _, rate)| 100.0 - rate >= limit);
        verdict.failing = above.map(|(index, _, _)| *index).collect();
    }
    verdict
}

/// The mean of the rates, and the mean less `factor` times their standard deviation.
fn threshold(rates: &[f64], factor: f64) -> (f64, f64) {
    let count = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    (mean, mean - factor * variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: SuccessRate = SuccessRate {
        minimum_hosts: 5,
        request_volume: 100,
        stdev_factor_thousandths: 1_900,
        enforcing_percent: 100,
        enforcing_local_origin_percent: 100,
    };
    const FAILURES: FailurePercentage = FailurePercentage {
        threshold: 85,
        minimum_hosts: 5,
        request_volume: 50,
        enforcing_percent: 100,
        enforcing_local_origin_percent: 100,
    };

    fn counted(total: u64, failed: u64) -> Option<Counted> {
        Some(Counted { total, failed })
    }

    #[test]
    fn the_example_of_envoys_documentation() {
        assert_eq!(threshold(&[50.0, 100.0, 100.0, 100.0, 100.0], 1.9), (90.0, 52.0));
        let hosts = [counted(100, 50), counted(100, 0), counted(200, 0), counted(100, 0), counted(150, 0)];
        let verdict = judge(&hosts, &RATE, &FAILURES);
        assert_eq!(verdict.average, Some((90.0, 52.0)));
        assert_eq!((verdict.slow, verdict.failing), (vec![0], vec![]));
    }

    #[test]
    fn too_few_hosts_or_requests_say_nothing() {
        let good = [counted(100, 0); 3];
        let four: Vec<_> = good.into_iter().chain([counted(100, 100)]).collect();
        assert_eq!(judge(&four, &RATE, &FAILURES), Verdict { rates: vec![None; 4], ..Verdict::default() });
        // Five are there, but one had too little to do: no mean. Its failures are enough for the other detector.
        let quiet: Vec<_> = four.iter().copied().chain([counted(99, 99)]).collect();
        let verdict = judge(&quiet, &RATE, &FAILURES);
        assert_eq!((verdict.average, verdict.slow, verdict.failing), (None, vec![], vec![3, 4]));
        assert_eq!(verdict.rates, [Some(100.0), Some(100.0), Some(100.0), Some(0.0), Some(0.0)]);
        // Fewer than 50: not even shown.
        let idle: Vec<_> = four.iter().copied().chain([counted(49, 49), counted(0, 0)]).collect();
        let verdict = judge(&idle, &RATE, &FAILURES);
        assert_eq!((verdict.failing, &verdict.rates[4..]), (vec![], [None, None].as_slice()));
    }

    #[test]
    fn those_that_are_out_are_not_judged_but_count_as_hosts() {
        let hosts = [counted(100, 90), counted(100, 0), counted(100, 0), None, None];
        let verdict = judge(&hosts, &RATE, &FailurePercentage { minimum_hosts: 3, ..FAILURES });
        assert_eq!((verdict.average, verdict.failing), (None, vec![0]));
    }

    #[test]
    fn a_percentage_is_reached_not_passed() {
        let hosts = |failed| {
            let others = [counted(100, 0); 4];
            others.into_iter().chain([counted(100, failed)]).collect::<Vec<_>>()
        };
        assert!(judge(&hosts(84), &RATE, &FAILURES).failing.is_empty());
        assert_eq!(judge(&hosts(85), &RATE, &FAILURES).failing, [4]);
    }

    #[test]
    fn hosts_that_are_all_alike_have_no_outlier() {
        let verdict = judge(&[counted(1_000, 700); 8], &RATE, &FAILURES);
        assert_eq!((verdict.average, verdict.slow), (Some((30.0, 30.0)), vec![]));
    }
}
