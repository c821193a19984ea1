//! Which hosts an update of a cluster keeps: those that are at the same address, by the same name, with the same workload.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{EndpointSet, Host, HostSpec};
use crate::net::Address;

/// The hosts for some specifications.
#[derive(Debug, Default)]
pub(super) struct KeptHosts {
    /// For each specification the host that there is already. Several may look alike: each keeps one of its own.
    pub(super) hosts: Vec<Option<Arc<Host>>>,
    /// Those that nobody wants any more.
    pub(super) gone: Vec<Arc<Host>>,
}

impl KeptHosts {
    /// Most updates leave most hosts where they are: the two lists are gone through side by side, and only what has no neighbour is looked up.
    pub(super) fn find(previous: Option<&EndpointSet>, specs: &[HostSpec]) -> Self {
        let old: Vec<&Arc<Host>> = previous.into_iter().flat_map(EndpointSet::hosts).collect();
        let is_at = |at: usize, spec: Option<&HostSpec>| match (old.get(at), spec) {
            (Some(host), Some(spec)) => is_of(host, spec),
            _ => false,
        };
        let mut hosts: Vec<Option<Arc<Host>>> = Vec::with_capacity(specs.len());
        let mut left: Vec<&Arc<Host>> = Vec::new();
        let mut at = 0;
        for (index, spec) in specs.iter().enumerate() {
            if !is_at(at, Some(spec)) && is_at(at + 1, Some(spec)) {
                left.push(old[at]);
                at += 1;
            }
            if is_at(at, Some(spec)) {
                hosts.push(Some(old[at].clone()));
                at += 1;
                continue;
            }
            hosts.push(None);
            // A new one before one that stays moves nothing; one that stands for another does.
            if at < old.len() && !is_at(at, specs.get(index + 1)) {
                left.push(old[at]);
                at += 1;
            }
        }
        left.extend(old.iter().skip(at));
        let gone = moved(left, specs, &mut hosts);
        Self { hosts, gone }
    }
}

/// Gives what is `left` to the specifications that have no host yet; what remains.
fn moved(left: Vec<&Arc<Host>>, specs: &[HostSpec], hosts: &mut [Option<Arc<Host>>]) -> Vec<Arc<Host>> {
    type Key<'a> = (&'a Address, &'a str, Option<&'a str>);
    let mut by_key: FxHashMap<Key<'_>, Vec<&Arc<Host>>> = FxHashMap::default();
    for host in left {
        by_key.entry((&host.address, &host.hostname, host.workload.as_deref())).or_default().push(host);
    }
    for (spec, host) in specs.iter().zip(hosts).filter(|(_, host)| host.is_none()) {
        let key = (&spec.address, &*spec.hostname, spec.workload.as_deref());
        *host = by_key.get_mut(&key).and_then(Vec::pop).cloned();
    }
    by_key.into_values().flatten().cloned().collect()
}

fn is_of(host: &Host, spec: &HostSpec) -> bool {
    host.address == spec.address && host.hostname == spec.hostname && host.workload == spec.workload
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::cluster::Balancing;

    fn specs(ports: &[u16]) -> Vec<HostSpec> {
        ports.iter().map(|port| HostSpec::at(Address::Ip(([127, 0, 0, 1], *port).into()))).collect()
    }

    #[test]
    fn each_host_is_kept_once_wherever_it_is() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..2_000 {
            let ports = |random: &mut fastrand::Rng| -> Vec<u16> {
                let count = random.usize(0..12);
                (0..count).map(|_| random.u16(1..9)).collect()
            };
            let (before, mut after) = (ports(&mut random), ports(&mut random));
            // Mostly alike, as updates are.
            if random.bool() {
                after.clone_from(&before);
                (0..random.usize(0..3))
                    .for_each(|_| after.insert(random.usize(0..=after.len()), random.u16(1..9)));
            }
            let old = EndpointSet::build(None, specs(&before), 140, Balancing::default());
            let KeptHosts { hosts, gone } = KeptHosts::find(Some(&old), &specs(&after));
            let counts = |ports: &[u16]| {
                let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
                ports.iter().for_each(|port| *counts.entry(*port).or_default() += 1);
                counts
            };
            let (had, wanted) = (counts(&before), counts(&after));
            let mut seen = std::collections::BTreeSet::new();
            for (port, host) in after.iter().zip(&hosts) {
                let Some(host) = host else { continue };
                assert_eq!(host.address.port(), Some(*port));
                assert!(seen.insert(host.id), "twice");
            }
            for (port, wanted) in wanted {
                let kept =
                    after.iter().zip(&hosts).filter(|(at, host)| **at == port && host.is_some()).count();
                assert_eq!(kept, wanted.min(had.get(&port).copied().unwrap_or(0)), "{before:?} {after:?}");
            }
            assert_eq!(gone.len(), before.len() - seen.len());
            assert!(gone.iter().all(|host| !seen.contains(&host.id)));
        }
    }
}
