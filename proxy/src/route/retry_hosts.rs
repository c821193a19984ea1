//! Where a retry goes: the hosts that it had better not go to, and the priorities that it leaves out.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::cluster::Host;
use crate::metadata::BALANCING;

/// One of `retry_host_predicate`: which hosts a retry had better not go to.
#[derive(Debug)]
pub enum HostPredicate {
    /// `PreviousHostsPredicate`: those that were tried.
    Previous,
    /// `OmitCanaryHostsPredicate`: those whose metadata `envoy.lb` has `canary: true`.
    Canary,
    /// `OmitHostMetadataConfig`: those whose metadata `envoy.lb` has all these values, each as it is or in a list; without any, none.
    Metadata(Box<[(Box<str>, Value)]>),
}

impl HostPredicate {
    /// Whether another host had better be drawn.
    pub fn rejects(&self, host: &Host, tried: &[Arc<Host>]) -> bool {
        let has = |name: &str, wanted: &Value| {
            let metadata = host.metadata.load();
            let balancing = metadata.as_ref().and_then(|metadata| metadata.find(BALANCING, &[])?.as_object());
            match balancing.and_then(|balancing| balancing.get(name)) {
                Some(Value::Array(list)) => list.contains(wanted),
                value => value == Some(wanted),
            }
        };
        match self {
            Self::Previous => tried.iter().any(|tried| tried.id == host.id),
            Self::Canary => has("canary", &Value::Bool(true)),
            Self::Metadata(values) => {
                !values.is_empty() && values.iter().all(|(name, value)| has(name, value))
            }
        }
    }
}

/// `PreviousPrioritiesConfig`: the priorities of hosts that were tried are left out, until none is left; then all are tried again.
#[derive(Debug)]
pub struct PreviousPriorities {
    /// After so many attempts each time (`update_frequency`).
    every: NonZeroU32,
    tried: Vec<u32>,
    excluded: Vec<u32>,
}

impl PreviousPriorities {
    /// Nothing was tried yet. `every` is `update_frequency`.
    pub fn new(every: NonZeroU32) -> Self {
        Self { every, tried: Vec::new(), excluded: Vec::new() }
    }

    /// An attempt has failed at this host.
    pub fn tried(&mut self, host: &Host) {
        self.tried.push(host.priority.load(Ordering::Relaxed));
    }

    /// What the next attempt leaves out. `leaves_some`: whether hosts of other priorities may take traffic.
    pub fn next(&mut self, leaves_some: impl FnOnce(&[u32]) -> bool) -> &[u32] {
        if !self.tried.is_empty() && self.tried.len().is_multiple_of(self.every.get() as usize) {
            self.excluded.clone_from(&self.tried);
            if !leaves_some(&self.excluded) {
                self.tried.clear();
                self.excluded.clear();
            }
        }
        &self.excluded
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::metadata::Metadata;
    use crate::net::Address;

    fn host(priority: u32, balancing: Value) -> Arc<Host> {
        let host = Host::new(Address::Ip(([127, 0, 0, 1], 1).into()), "".into(), 1, true, None);
        host.priority.store(priority, Ordering::Relaxed);
        let fields = balancing.as_object().unwrap().clone();
        host.metadata.store(Metadata::new([(BALANCING.to_owned(), fields)]).map(Arc::new));
        Arc::new(host)
    }

    #[test]
    fn hosts_by_what_they_are() {
        let wanted = |values: Value| {
            let values = values.as_object().unwrap().clone();
            HostPredicate::Metadata(values.into_iter().map(|(name, value)| (name.into(), value)).collect())
        };
        for (predicate, balancing, rejected) in [
            (HostPredicate::Canary, json!({"canary": true}), true),
            (HostPredicate::Canary, json!({"canary": "true"}), false),
            (HostPredicate::Canary, json!({}), false),
            (wanted(json!({"a": "1"})), json!({"a": "1", "b": "2"}), true),
            (wanted(json!({"a": "1", "b": "2"})), json!({"a": "1"}), false),
            (wanted(json!({"a": "1"})), json!({"a": ["0", "1"]}), true),
            (wanted(json!({"a": "1"})), json!({"a": ["0"]}), false),
            (wanted(json!({})), json!({"a": "1"}), false),
        ] {
            assert_eq!(
                predicate.rejects(&host(0, balancing.clone()), &[]),
                rejected,
                "{predicate:?} {balancing}"
            );
        }
        let (tried, other) = (host(0, json!({})), host(0, json!({})));
        assert!(HostPredicate::Previous.rejects(&tried, std::slice::from_ref(&tried)));
        assert!(!HostPredicate::Previous.rejects(&other, &[tried]));
    }

    /// Two priorities: what each attempt leaves out, when the first of what is left takes it.
    fn rounds(every: u32, attempts: usize) -> Vec<Vec<u32>> {
        let mut priorities = PreviousPriorities::new(NonZeroU32::new(every).unwrap());
        let leaves_some = |excluded: &[u32]| !(excluded.contains(&0) && excluded.contains(&1));
        let attempt = |_| {
            let excluded = priorities.next(leaves_some).to_vec();
            priorities.tried(&host(u32::from(excluded.contains(&0)), json!({})));
            excluded
        };
        (0..attempts).map(attempt).collect()
    }

    #[test]
    fn priorities_are_left_out_until_none_is_left() {
        let none = Vec::new;
        assert_eq!(rounds(1, 4), [none(), vec![0], none(), vec![0]]);
        let first_two = vec![0, 0];
        assert_eq!(rounds(2, 6), [none(), none(), first_two.clone(), first_two, none(), none()]);
    }
}
