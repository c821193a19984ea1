//! Least request: of a few random hosts (drawn by weight) the one with the fewest requests in flight.

use super::{active, slot, slots};
use crate::cluster::endpoint_set::Table;

pub(super) fn pick(table: &Table, choices: u32) -> usize {
    let slots = slots(table);
    let draw = || slot(table, fastrand::usize(..slots));
    let mut best = draw();
    for _ in 1..choices {
        let other = draw();
        if active(&table.hosts[other]) < active(&table.hosts[best]) {
            best = other;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::cluster::Host;
    use crate::net::Address;

    #[test]
    fn the_idle_host_wins() {
        let host = |p| Arc::new(Host::new(Address::Ip(([127, 0, 0, 1], p).into()), "".into(), 1, true, None));
        let table = Table { hosts: vec![host(1), host(2)], ..Table::default() };
        table.hosts[0].active_requests.store(9, Ordering::Relaxed);
        let busy = (0..1000).filter(|_| pick(&table, 2) == 0).count();
        // Only when both draws hit the busy one: 1/4.
        assert!((150..350).contains(&busy), "{busy}");
    }
}
