//! Random, by weight.

use super::{slot, slots};
use crate::cluster::endpoint_set::Table;

pub(super) fn pick(table: &Table) -> usize {
    slot(table, fastrand::usize(..slots(table)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::Host;
    use crate::net::Address;

    #[test]
    fn each_is_picked_by_its_weight() {
        let host = |p| Arc::new(Host::new(Address::Ip(([127, 0, 0, 1], p).into()), "".into(), 1, true, None));
        let table = Table { hosts: vec![host(1), host(2)], schedule: vec![0, 1, 0], ..Table::default() };
        let mut counts = [0; 2];
        (0..30_000).for_each(|_| counts[pick(&table)] += 1);
        // Twelve standard deviations.
        assert!((19_000..21_000).contains(&counts[0]), "{counts:?}");
    }
}
