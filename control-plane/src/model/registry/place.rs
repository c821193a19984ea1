//! Where workloads are, and what of it counts.

use std::collections::BTreeMap;

use super::{ChangeSet, Input, Registry};
use crate::model::{
    DestinationPolicy, HOSTNAME_LABEL, Locality, LocalityBalancing, Place, Service, Workload,
};

impl Registry {
    /// Where a workload is as a caller.
    pub fn place_of(&self, workload: &Workload) -> Place {
        let label = |key: &String| {
            let value = match key.as_str() {
                HOSTNAME_LABEL => workload.node.as_ref(),
                key => workload.labels.get(key),
            };
            Some((key.clone(), value?.clone()))
        };
        Place {
            locality: self.locality_of(workload, workload.node.as_deref()),
            labels: self.place_labels.keys().filter_map(label).collect(),
        }
    }

    /// Where a workload is that runs on a node: where a WorkloadEntry or its own label says, else where the Node is, else where its other labels say,
    /// which Kubernetes copies from the Node.
    pub(in crate::model) fn locality_of(&self, workload: &Workload, node: Option<&str>) -> Locality {
        let of_entry = workload.entry.as_ref().map(|entry| &entry.locality);
        let of_entry = of_entry.filter(|place| !place.is_empty()).cloned();
        of_entry.or_else(|| Locality::of_own_label(&workload.labels)).unwrap_or_else(|| {
            let of_node = self.node(node.unwrap_or_default()).map(|node| node.locality.clone());
            of_node.filter(|place| !place.is_empty()).unwrap_or_else(|| Locality::of_labels(&workload.labels))
        })
    }

    /// Counts the labels that places are told apart by: those that the second asks for, no longer those of the first.
    pub(super) fn count_place_labels<'a>(
        &mut self,
        old: impl Iterator<Item = &'a LocalityBalancing>,
        new: impl Iterator<Item = &'a LocalityBalancing>,
        changes: &mut ChangeSet,
    ) {
        let mut counts: BTreeMap<&str, isize> = BTreeMap::new();
        old.flat_map(LocalityBalancing::asked_labels).for_each(|key| *counts.entry(key).or_default() -= 1);
        new.flat_map(LocalityBalancing::asked_labels).for_each(|key| *counts.entry(key).or_default() += 1);
        for (key, more) in counts.into_iter().filter(|(_, more)| *more != 0) {
            let count = self.place_labels.get(key).copied().unwrap_or_default();
            let now = count.saturating_add_signed(more);
            if now == 0 {
                self.place_labels.remove(key);
            } else {
                self.place_labels.insert(key.to_owned(), now);
            }
            if (count == 0) != (now == 0) {
                changes.inputs.insert(Input::PlaceLabels);
            }
        }
    }
}

/// What policies say of places.
pub(super) fn of_policy(policy: &DestinationPolicy) -> impl Iterator<Item = &LocalityBalancing> {
    let subsets = policy.subsets.iter().map(|subset| &subset.settings);
    let all = std::iter::once(&policy.settings).chain(subsets).flat_map(|settings| settings.each());
    all.filter_map(|settings| settings.locality.as_ref())
}

/// What a Service says of places.
pub(super) fn of_service(service: &Service) -> impl Iterator<Item = &LocalityBalancing> {
    service.traffic_distribution.iter()
}
