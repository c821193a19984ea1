//! Names → cells: the one place where a resource name becomes a pointer.
//!
//! A cell exists from the first reference to its name or its first definition on, whichever comes first, and goes when nothing
//! holds it any more, soon after. Owned by main.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::compile::Secret;
use super::extensions::Extensions;
use super::live::Live;
use super::sources::{BySource, SourceId};
use crate::cluster::{Cluster, ClusterNames, EndpointSet};
use crate::listener::Listener;
use crate::route::RouteConfiguration;
use crate::transport_socket::{TlsCertificate, ValidationContext};

/// All cells of the process.
#[derive(Debug)]
pub struct Registry {
    /// By cluster name.
    pub clusters: Names<Cluster>,
    /// The published ones, where requests look for those that they name.
    pub cluster_names: Arc<ClusterNames>,
    /// By cluster name, for those who judge clusters without sending anything there: they keep no removed cluster.
    pub judged_clusters: Names<Cluster>,
    /// By cluster name: each cluster has its own hosts, also when two share a load assignment.
    pub endpoints: Names<EndpointSet>,
    /// By route configuration name (RDS).
    pub routes: BySource<Names<RouteConfiguration>>,
    /// By listener name.
    pub listeners: Names<Listener>,
    /// By secret name (SDS or static): secrets that are certificates.
    pub certificates: BySource<Names<TlsCertificate>>,
    /// By secret name (SDS or static): secrets that are validation contexts.
    pub validations: BySource<Names<ValidationContext>>,
    /// By name (ECDS): configurations of filters.
    pub extensions: BySource<Extensions>,
    /// The workload's own certificate, `default` on the cluster `sds-grpc`.
    pub identity_certificate: Arc<Live<TlsCertificate>>,
    /// The roots that the workload trusts, `ROOTCA` on the cluster `sds-grpc`.
    pub identity_validation: Arc<Live<ValidationContext>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            clusters: Names::default(),
            cluster_names: Arc::default(),
            judged_clusters: Names::default(),
            endpoints: Names::default(),
            routes: BySource::default(),
            listeners: Names::default(),
            certificates: BySource::default(),
            validations: BySource::default(),
            extensions: BySource::default(),
            identity_certificate: Live::empty("default"),
            identity_validation: Live::empty("ROOTCA"),
        }
    }
}

impl Registry {
    /// The cell of a cluster for somebody who judges it.
    pub(crate) fn judged_cluster(&mut self, name: &str) -> Arc<Live<Cluster>> {
        let cell = self.judged_clusters.cell(name);
        self.judged_clusters.follow(name, self.clusters.get(name));
        cell
    }

    /// Publishes a secret under its name.
    pub(super) fn publish_secret(&mut self, source: SourceId, name: &str, secret: &Secret) {
        match secret {
            Secret::Certificate(certificate) => {
                self.certificates.of_mut(source).cell(name).publish(certificate.clone());
            }
            Secret::Validation(context) => {
                self.validations.of_mut(source).cell(name).publish(context.clone());
            }
        }
    }
}

/// The cells of one type.
#[derive(Debug)]
pub struct Names<T> {
    cells: FxHashMap<Arc<str>, Arc<Live<T>>>,
    /// When there are so many cells, those that nothing refers to and that hold nothing are forgotten. The limit follows their
    /// number, so that looking for them costs each new cell the same.
    limit: usize,
}

/// So few cells are never looked through.
const FEW: usize = 64;

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { cells: FxHashMap::default(), limit: FEW }
    }
}

impl<T> Names<T> {
    /// The cell of a name, made on the first call.
    pub fn cell(&mut self, name: &str) -> Arc<Live<T>> {
        if let Some(cell) = self.cells.get(name) {
            return cell.clone();
        }
        if self.cells.len() >= self.limit {
            self.cells.retain(|_, cell| Arc::strong_count(cell) > 1 || cell.peek().is_some());
            self.limit = FEW.max(2 * self.cells.len());
        }
        let cell = Live::empty(name);
        self.cells.insert(cell.name().clone(), cell.clone());
        cell
    }

    /// Whether anybody but this registry has the cell of a name.
    pub fn is_held(&self, name: &str) -> bool {
        self.cells.get(name).is_some_and(|cell| Arc::strong_count(cell) > 1)
    }

    /// The name gets another cell when it comes up again; who holds the present one keeps it as it is.
    pub fn forget(&mut self, name: &str) {
        self.cells.remove(name);
    }

    /// Publishes or withdraws a value where somebody else has the cell, and forgets the cell where nobody has.
    pub fn follow(&mut self, name: &str, value: Option<Arc<T>>) {
        match (self.is_held(name), value) {
            (true, Some(value)) => self.cell(name).publish(value),
            (true, None) => self.cell(name).withdraw(),
            (false, _) => self.forget(name),
        }
    }

    /// The published value of a name.
    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.cells.get(name)?.get()
    }

    /// All names with a published value, in no order.
    pub fn published(&self) -> impl Iterator<Item = (&Arc<str>, Arc<T>)> {
        self.cells.iter().filter_map(|(name, cell)| Some((name, cell.get()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_cell_as_long_as_somebody_holds_it() {
        let mut names = Names::<u32>::default();
        let held = names.cell("held");
        names.cell("full").publish(Arc::new(1));
        for number in 0..10 * FEW {
            drop(names.cell(&number.to_string()));
        }
        assert!(names.cells.len() <= FEW + 2, "{} cells", names.cells.len());
        assert!(Arc::ptr_eq(&held, &names.cell("held")));
        assert_eq!(names.get("full").as_deref(), Some(&1));
    }
}
