//! Clients that follow the same rules.

use std::collections::BTreeMap;
use std::fmt;

use super::{ChangeSet, Input, Registry};
use crate::model::Workload;

/// What routes and clusters depend on in the workload that calls: its namespace, and those of its labels that some rule asks for. Where no
/// rule asks for any, all workloads of a namespace are the same client.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// Its namespace.
    pub namespace: String,
    /// Labels that rules ask for, with the values that they ask for.
    pub labels: BTreeMap<String, String>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.namespace)?;
        self.labels.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}

impl Registry {
    /// Counts the labels that clients are told apart by: those that the second asks for, no longer those of the first.
    pub(super) fn count_source_labels(
        &mut self,
        old: impl IntoIterator<Item = (String, String)>,
        new: impl IntoIterator<Item = (String, String)>,
        changes: &mut ChangeSet,
    ) {
        let before: Vec<_> = self.source_labels.keys().cloned().collect();
        for label in old {
            if let Some(count) = self.source_labels.get_mut(&label) {
                *count -= 1;
                if *count == 0 {
                    self.source_labels.remove(&label);
                }
            }
        }
        for label in new {
            *self.source_labels.entry(label).or_default() += 1;
        }
        if !before.iter().eq(self.source_labels.keys()) {
            changes.inputs.insert(Input::SourceLabels);
        }
    }

    /// The client that a workload is.
    pub fn client_of(&self, workload: &Workload) -> Client {
        let is_asked = |(key, value): &(&String, &String)| {
            self.source_labels.contains_key(&((*key).clone(), (*value).clone()))
        };
        let labels = workload.labels.iter().filter(|label| !self.source_labels.is_empty() && is_asked(label));
        Client {
            namespace: workload.name.namespace.clone(),
            labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    }
}
