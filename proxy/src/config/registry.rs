//! Names → cells: the one place where a resource name becomes a pointer.
//!
//! A cell exists from the first reference to its name or its first definition on, whichever comes first, and goes when nothing
//! holds it any more. Owned by main.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::live::Live;
use crate::cluster::{Cluster, EndpointSet};
use crate::listener::Listener;
use crate::route::RouteConfiguration;
use crate::transport_socket::{TlsCertificate, ValidationContext};

/// All cells of the process.
#[derive(Debug)]
pub struct Registry {
    /// By cluster name.
    pub clusters: Names<Cluster>,
    /// By cluster name: each cluster has its own hosts, also when two share a load assignment.
    pub endpoints: Names<EndpointSet>,
    /// By route configuration name (RDS).
    pub routes: Names<RouteConfiguration>,
    /// By listener name.
    pub listeners: Names<Listener>,
    /// By secret name (SDS or static): secrets that are certificates.
    pub certificates: Names<TlsCertificate>,
    /// By secret name (SDS or static): secrets that are validation contexts.
    pub validations: Names<ValidationContext>,
    /// The workload's own certificate, `default` on the cluster `sds-grpc`.
    pub identity_certificate: Arc<Live<TlsCertificate>>,
    /// The roots that the workload trusts, `ROOTCA` on the cluster `sds-grpc`.
    pub identity_validation: Arc<Live<ValidationContext>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            clusters: Names::default(),
            endpoints: Names::default(),
            routes: Names::default(),
            listeners: Names::default(),
            certificates: Names::default(),
            validations: Names::default(),
            identity_certificate: Live::empty("default"),
            identity_validation: Live::empty("ROOTCA"),
        }
    }
}

impl Registry {
    /// Forgets the names that nothing refers to and that hold nothing.
    pub fn forget_unused(&mut self) {
        self.clusters.forget_unused();
        self.endpoints.forget_unused();
        self.routes.forget_unused();
        self.listeners.forget_unused();
        self.certificates.forget_unused();
        self.validations.forget_unused();
    }
}

/// The cells of one type.
#[derive(Debug)]
pub struct Names<T>(FxHashMap<Arc<str>, Arc<Live<T>>>);

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self(FxHashMap::default())
    }
}

impl<T> Names<T> {
    /// The cell of a name, made on the first call.
    pub fn cell(&mut self, name: &str) -> Arc<Live<T>> {
        if let Some(cell) = self.0.get(name) {
            return cell.clone();
        }
        let cell = Live::empty(name);
        self.0.insert(cell.name().clone(), cell.clone());
        cell
    }

    /// The name gets another cell when it comes up again; who holds the present one keeps it as it is.
    pub fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The published value of a name.
    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.0.get(name)?.get()
    }

    /// All names with a published value, in no order.
    pub fn published(&self) -> impl Iterator<Item = (&Arc<str>, Arc<T>)> {
        self.0.iter().filter_map(|(name, cell)| Some((name, cell.get()?)))
    }

    fn forget_unused(&mut self) {
        self.0.retain(|_, cell| Arc::strong_count(cell) > 1 || cell.peek().is_some());
    }
}
