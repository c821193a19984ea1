//! What a pick does for some criteria, step by step until there is a host. As a rule there is one step.

use std::collections::BTreeSet;

use serde_json::Value;

use super::criteria::Values;
use super::index::{SubsetIndex, key};
use super::{Fallback, SelectorFallback};

/// The key of alternatives, with `FALLBACK_LIST`.
const FALLBACK_LIST: &str = "fallback_list";

/// Of one index and some criteria.
#[derive(Debug)]
pub(super) struct Plan {
    /// `SubsetIndex::id`.
    pub(super) index: u64,
    pub(super) steps: Box<[Step]>,
}

/// Where a host may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cluster::lb) enum Step {
    /// The subset that was asked for, by its number in the index.
    Subset(usize),
    /// What the selector of these keys says of values that no host has.
    Selector(Fallback),
    /// What the cluster says.
    Cluster,
}

impl SubsetIndex {
    /// With `FALLBACK_LIST` a list of alternatives, each laid over the rest, and tried one after the other.
    pub(super) fn plan(&self, values: &Values) -> Plan {
        let list = values.get(FALLBACK_LIST).filter(|_| self.subsets.fallback_list);
        let steps = match list {
            None => [self.step(values)].into(),
            Some(list) => {
                let mut rest = values.clone();
                rest.remove(FALLBACK_LIST);
                match list.as_array().filter(|list| !list.is_empty()) {
                    None => [self.step(&rest)].into(),
                    Some(list) => list.iter().map(|one| self.step(&overlaid(&rest, one))).collect(),
                }
            }
        };
        Plan { index: self.id, steps }
    }

    fn step(&self, values: &Values) -> Step {
        let selectors = &self.subsets.selectors;
        let has_all = |keys: &BTreeSet<Box<str>>| keys.iter().all(|key| values.contains_key(key));
        if self.subsets.allow_redundant_keys
            && let Some(first) = selectors.iter().find(|selector| has_all(&selector.keys))
            && first.keys.len() < values.len()
        {
            return self.step(&only(values, &first.keys));
        }
        if let Some(subset) = self.by_values.get(&*key(values)) {
            return Step::Subset(*subset);
        }
        let is_of = |keys: &BTreeSet<Box<str>>| keys.len() == values.len() && has_all(keys);
        let selector = selectors.iter().find(|selector| is_of(&selector.keys));
        match selector.and_then(|selector| selector.fallback.as_ref()) {
            None => Step::Cluster,
            Some(SelectorFallback::To(fallback)) => Step::Selector(*fallback),
            Some(SelectorFallback::Keys(keys)) => self.step(&only(values, keys)),
        }
    }
}

fn only(values: &Values, keys: &BTreeSet<Box<str>>) -> Values {
    let kept = values.iter().filter(|(key, _)| keys.contains(*key));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn overlaid(values: &Values, one: &Value) -> Values {
    let mut all = values.clone();
    let fields = one.as_object().into_iter().flatten();
    all.extend(fields.map(|(key, value)| (key.as_str().into(), value.clone())));
    all
}
