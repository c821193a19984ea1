//! Whose turn it is, among some with weights.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::schedule::schedule;

/// An order that goes round. Workers share the position in it, so that their sum is even.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// How many take turns.
    count: usize,
    /// Indexes by weight, interleaved; empty when all weights are equal.
    order: Vec<u32>,
    cursor: AtomicUsize,
}

impl Turns {
    /// An order in which each has turns by its weight, begun anywhere.
    pub(super) fn new(weights: &[u64]) -> Self {
        let cursor = AtomicUsize::new(fastrand::usize(..1 << 20));
        Self { count: weights.len(), order: schedule(weights), cursor }
    }

    /// Whether some have more turns than others.
    pub(super) fn are_weighted(&self) -> bool {
        !self.order.is_empty()
    }

    /// The next one. There must be one.
    pub(super) fn next(&self) -> usize {
        self.at(self.cursor.fetch_add(1, Ordering::Relaxed) % self.slots())
    }

    /// One by chance, by weight. There must be one.
    pub(super) fn random(&self) -> usize {
        self.at(fastrand::usize(..self.slots()))
    }

    /// Goes on where `previous` is.
    pub(super) fn go_on(&self, previous: &Self) {
        self.cursor.store(previous.cursor.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn slots(&self) -> usize {
        if self.order.is_empty() { self.count } else { self.order.len() }
    }

    fn at(&self, slot: usize) -> usize {
        self.order.get(slot).map_or(slot, |&index| index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_and_weighted() {
        for (weights, expected) in [(&[1, 1][..], [15, 15]), (&[2, 1], [20, 10]), (&[0, 3], [0, 30])] {
            let turns = Turns::new(weights);
            let mut counts = [0; 2];
            (0..30).for_each(|_| counts[turns.next()] += 1);
            assert_eq!(counts, expected, "{weights:?}");
        }
    }

    #[test]
    fn chance_follows_the_weights() {
        let turns = Turns::new(&[2, 1]);
        let mut counts = [0; 2];
        (0..30_000).for_each(|_| counts[turns.random()] += 1);
        // Twelve standard deviations.
        assert!((19_000..21_000).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn a_new_order_goes_on() {
        let (old, new) = (Turns::new(&[1; 5]), Turns::new(&[1; 5]));
        let last = old.next();
        new.go_on(&old);
        assert_eq!(new.next(), (last + 1) % 5);
    }
}
