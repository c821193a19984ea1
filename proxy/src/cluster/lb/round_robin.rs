//! Round robin, weighted by an interleaved order.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{slot, slots};
use crate::cluster::endpoint_set::Table;

pub(super) fn pick(table: &Table, cursor: &AtomicUsize) -> usize {
    slot(table, cursor.fetch_add(1, Ordering::Relaxed) % slots(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_and_weighted() {
        let cursor = AtomicUsize::new(5);
        let host = |p| {
            std::sync::Arc::new(crate::cluster::Host::new(
                crate::net::Address::Ip(([127, 0, 0, 1], p).into()),
                "".into(),
                1,
                true,
                None,
            ))
        };
        let mut table = Table { hosts: vec![host(1), host(2)], ..Table::default() };
        let mut counts = [0; 2];
        (0..10).for_each(|_| counts[pick(&table, &cursor)] += 1);
        assert_eq!(counts, [5, 5]);
        table.schedule = vec![0, 1, 0];
        counts = [0; 2];
        (0..30).for_each(|_| counts[pick(&table, &cursor)] += 1);
        assert_eq!(counts, [20, 10]);
    }
}
