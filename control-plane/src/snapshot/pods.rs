//! Who may ask for a snapshot's configuration.

use super::Snapshot;
use crate::scope::ScopeKey;

impl Snapshot {
    /// Every pod that a proxy may run in, with its service account.
    pub fn pods(&self) -> impl Iterator<Item = (&ScopeKey, &str)> {
        self.workloads.iter().map(|(pod, scope)| (pod, scope.service_account.as_str()))
    }

    /// A snapshot made by hand.
    #[cfg(test)]
    pub(crate) fn of(
        generation: u64,
        workloads: impl IntoIterator<Item = (ScopeKey, std::sync::Arc<super::ProxyScope>)>,
    ) -> Self {
        Self { generation, workloads: workloads.into_iter().collect() }
    }
}
