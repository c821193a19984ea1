//! The order in which those with weights take turns.

use std::cmp::Ordering::Equal;
use std::collections::BinaryHeap;

/// Longest order, unless there are very many to take turns; larger sums of weights are scaled down to it.
const MAX_TURNS: u64 = 4096;
/// At least so many turns each, on average: shares of a tenth are still told apart.
const TURNS_EACH: u64 = 8;

/// An interleaved order by weight (earliest deadline first) as indexes; empty when all weights are equal. A weight of 0 has no turn.
pub(super) fn schedule(weights: &[u64]) -> Vec<u32> {
    let Some(first) = weights.first() else { return Vec::new() };
    if weights.iter().all(|w| w == first) {
        return Vec::new();
    }
    let max_turns = MAX_TURNS.max(TURNS_EACH * weights.len() as u64);
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    let sum: u64 = weights.iter().map(|w| w / divisor).sum();
    let scale = |weight: u64| match weight / divisor {
        0 => 0,
        // Hosts have weights of 32 bits, and what is added to tell parts of them apart is less than that.
        weight if sum > max_turns => {
            (u128::from(weight) * u128::from(max_turns) / u128::from(sum)).max(1) as u64
        }
        weight => weight,
    };
    let scaled: Vec<u64> = weights.iter().map(|&w| scale(w)).collect();
    let slots: u64 = scaled.iter().sum();
    let turn = |(index, &weight): (usize, &u64)| Turn { deadline: 0.5 / weight as f64, index: index as u32 };
    let mut turns: BinaryHeap<Turn> = scaled.iter().enumerate().filter(|(_, w)| **w > 0).map(turn).collect();
    let mut order = Vec::with_capacity(slots as usize);
    for _ in 0..slots {
        if let Some(mut turn) = turns.pop() {
            order.push(turn.index);
            turn.deadline += 1.0 / scaled[turn.index as usize] as f64;
            turns.push(turn);
        }
    }
    order
}

struct Turn {
    deadline: f64,
    index: u32,
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Equal
    }
}

impl Eq for Turn {}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.index.cmp(&self.index))
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_is_exact_and_interleaved() {
        assert!(schedule(&[2, 2]).is_empty());
        assert_eq!(schedule(&[2, 1]), [0, 1, 0]);
        assert_eq!(schedule(&[2, 0, 1]), [0, 2, 0]);
        let long = schedule(&[90_000, 10_000]);
        assert_eq!(long.iter().filter(|&&i| i == 0).count() * 10, long.len() * 9);
        assert!(schedule(&[1_000_003, 1]).len() as u64 <= MAX_TURNS + 1);
    }

    #[test]
    fn any_weights_get_their_share() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let weights: Vec<u64> = (0..random.usize(2..40)).map(|_| random.u64(1..1_000)).collect();
            let (order, sum) = (schedule(&weights), weights.iter().sum::<u64>() as f64);
            for (index, weight) in weights.iter().enumerate().filter(|_| !order.is_empty()) {
                let turns = order.iter().filter(|&&turn| turn as usize == index).count() as f64;
                let due = *weight as f64 / sum * order.len() as f64;
                // Each weight is rounded to whole turns, by at most one.
                assert!(
                    (turns - due).abs() <= 1.0 + due * 0.02,
                    "{weights:?}: {index} has {turns}, not {due}"
                );
            }
        }
    }

    #[test]
    fn a_tenth_shows_among_many() {
        let mut weights = vec![1_000; 10_000];
        weights[5] = 100;
        let order = schedule(&weights);
        let turns = |index| order.iter().filter(|&&turn| turn == index).count();
        assert!(turns(5) * 4 <= turns(6), "{} of {}", turns(5), turns(6));
    }
}
