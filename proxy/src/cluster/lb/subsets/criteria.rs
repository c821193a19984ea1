//! What a route asks of its hosts: `metadata_match`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use super::index::SubsetIndex;
use super::plan::{Plan, Step};

/// Values by their keys.
pub type Values = BTreeMap<Box<str>, Value>;

/// Plans that are kept: as many clusters as a route usually has, before and after an update.
const PLANS: usize = 8;

/// `metadata_match.filter_metadata["envoy.lb"]` of a route, a weighted cluster or a `tcp_proxy`; never empty.
#[derive(Debug)]
pub struct Criteria {
    values: Values,
    /// Those of the indexes that were asked last, the newest at the end.
    plans: ArcSwap<Vec<Arc<Plan>>>,
}

impl Criteria {
    /// These values on top of those of `parent`, as a weighted cluster has them; `None`: nothing is asked for.
    pub fn new(values: Values, parent: Option<&Self>) -> Option<Arc<Self>> {
        let mut all = parent.map(|parent| parent.values.clone()).unwrap_or_default();
        all.extend(values);
        (!all.is_empty()).then(|| Arc::new(Self { values: all, plans: ArcSwap::default() }))
    }

    /// What to try as number `at` with the hosts of this index; `None`: there is no more. The first question for an index works out the
    /// answers to all later ones.
    pub(in crate::cluster::lb) fn step(&self, index: &SubsetIndex, at: usize) -> Option<Step> {
        let plans = self.plans.load();
        if let Some(plan) = plans.iter().rev().find(|plan| plan.index == index.id) {
            return plan.steps.get(at).copied();
        }
        let plan = Arc::new(index.plan(&self.values));
        let kept = plans.iter().skip((plans.len() + 1).saturating_sub(PLANS)).cloned();
        // Of two workers that do this at the same time one will do it again.
        self.plans.store(Arc::new(kept.chain([plan.clone()]).collect()));
        plan.steps.get(at).copied()
    }
}
