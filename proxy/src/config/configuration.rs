//! All resources of the process, and what can be asked about them.

use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use super::compile::{Assignment, CompiledCluster, Inputs, References, Secret};
use super::listeners::{Change, ListenerVersion};
use super::publish::release;
use super::refused::RefusedContent;
use super::warming::Slots;
use crate::route::RouteConfiguration;
use crate::stats::RdsStats;

/// A cluster and what goes with it.
#[derive(Debug)]
pub struct ClusterVersion {
    /// The compiled cluster.
    pub compiled: CompiledCluster,
    pub(super) references: References,
    /// What its present hosts were made of.
    pub(super) built: Option<Arc<Assignment>>,
}

/// A route configuration and what it names.
#[derive(Debug)]
pub struct RouteVersion {
    /// The compiled route configuration.
    pub routes: Arc<RouteConfiguration>,
    pub(super) references: References,
}

/// A load assignment or a secret: published as it arrives.
#[derive(Debug)]
pub struct Leaf<T> {
    /// The compiled value.
    pub value: T,
    /// Its version, as the sender calls it.
    pub version: Arc<str>,
    /// The wire form of a load assignment; empty for a secret.
    pub wire: Box<[u8]>,
    pub(super) hash: u64,
}

/// All resources of the process.
#[derive(Debug)]
pub struct Configuration {
    pub(super) inputs: Inputs,
    pub(super) clusters: Slots<ClusterVersion>,
    pub(super) routes: Slots<RouteVersion>,
    pub(super) listeners: Slots<ListenerVersion>,
    pub(super) assignments: FxHashMap<Arc<str>, Leaf<Arc<Assignment>>>,
    pub(super) secrets: FxHashMap<Arc<str>, Leaf<Secret>>,
    /// Route configuration → its statistics, until it is forgotten.
    pub(super) rds_stats: FxHashMap<Arc<str>, Arc<RdsStats>>,
    /// Load assignment → the clusters that use it.
    pub(super) endpoint_users: FxHashMap<Arc<str>, Vec<Arc<str>>>,
    /// Cluster → how many published route configurations and listeners name it.
    pub(super) cluster_users: FxHashMap<Arc<str>, usize>,
    /// Sockets for each listener; 0 binds nothing (a configuration is only looked at).
    pub(super) workers: usize,
    pub(super) changes: Vec<Change>,
    /// Listeners that the present delta removes: another listener in it may take over their addresses.
    pub(super) leaving: FxHashSet<Arc<str>>,
    /// Clusters or listeners changed since `take_subscriptions`.
    pub(super) references_changed: bool,
    pub(super) refused: RefusedContent,
    /// Types of which the process waits for the first answer, and until when.
    pub(super) awaited: Vec<ResourceType>,
    pub(super) awaited_until: Option<Instant>,
}

/// What a start waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// CDS.
    Clusters,
    /// LDS.
    Listeners,
}

/// The names that are wanted of the types that are asked for by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscriptions {
    /// Load assignments.
    pub endpoints: Vec<Arc<str>>,
    /// Route configurations.
    pub routes: Vec<Arc<str>>,
    /// Secrets.
    pub secrets: Vec<Arc<str>>,
}

impl Configuration {
    /// Nothing is configured yet. Each listener gets a socket for each of `workers`; with 0 nothing is bound.
    pub fn new(inputs: Inputs, workers: usize) -> Self {
        Self {
            inputs,
            clusters: Slots::default(),
            routes: Slots::default(),
            listeners: Slots::default(),
            assignments: FxHashMap::default(),
            secrets: FxHashMap::default(),
            rds_stats: FxHashMap::default(),
            endpoint_users: FxHashMap::default(),
            cluster_users: FxHashMap::default(),
            workers,
            changes: Vec::new(),
            leaving: FxHashSet::default(),
            references_changed: true,
            refused: RefusedContent::default(),
            awaited: Vec::new(),
            awaited_until: None,
        }
    }

    /// The process is not initialized before the first answer about each of these has come, or `until`.
    pub fn await_first(&mut self, subjects: impl IntoIterator<Item = Subject>, until: Option<Instant>) {
        self.awaited = subjects
            .into_iter()
            .map(|subject| match subject {
                Subject::Clusters => ResourceType::Cluster,
                Subject::Listeners => ResourceType::Listener,
            })
            .collect();
        self.awaited_until = until.filter(|_| !self.awaited.is_empty());
    }

    /// Whether everything is there that the process waits for at its start.
    pub fn is_initialized(&self) -> bool {
        self.awaited.is_empty() && self.next_deadline().is_none()
    }

    /// What compiling needs; the cells among it.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The same, to be completed by the bootstrap.
    pub fn inputs_mut(&mut self) -> &mut Inputs {
        &mut self.inputs
    }

    /// All clusters.
    pub fn clusters(&self) -> &Slots<ClusterVersion> {
        &self.clusters
    }

    /// All route configurations of RDS.
    pub fn routes(&self) -> &Slots<RouteVersion> {
        &self.routes
    }

    /// All listeners.
    pub fn listeners(&self) -> &Slots<ListenerVersion> {
        &self.listeners
    }

    /// All load assignments of EDS.
    pub fn assignments(&self) -> &FxHashMap<Arc<str>, Leaf<Arc<Assignment>>> {
        &self.assignments
    }

    /// All secrets, static ones too.
    pub fn secrets(&self) -> &FxHashMap<Arc<str>, Leaf<Secret>> {
        &self.secrets
    }

    /// What the workers have to be told, oldest first.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Which names are wanted, when that may have changed.
    pub fn take_subscriptions(&mut self) -> Option<Subscriptions> {
        if !std::mem::take(&mut self.references_changed) {
            return None;
        }
        let mut all = References::default();
        for (_, slot) in self.clusters.iter() {
            slot.versions().for_each(|v| all.endpoints.extend(v.references.endpoints.iter().cloned()));
            slot.versions().for_each(|v| all.secrets.extend(v.references.secrets.iter().cloned()));
        }
        for (_, slot) in self.listeners.iter() {
            slot.versions().for_each(|v| all.routes.extend(v.references.routes.iter().cloned()));
            slot.versions().for_each(|v| all.secrets.extend(v.references.secrets.iter().cloned()));
        }
        let unique = |mut names: Vec<Arc<str>>| {
            names.sort();
            names.dedup();
            names
        };
        Some(Subscriptions {
            endpoints: unique(all.endpoints),
            routes: unique(all.routes),
            secrets: unique(all.secrets),
        })
    }

    /// Lets go of the sockets of these listeners: as soon as the workers do so too, connections are refused.
    pub fn close_sockets(&mut self, listeners: &[Arc<str>]) {
        for name in listeners {
            if let Some(version) = self.listeners.active_mut(name) {
                version.sockets.clear();
            }
        }
    }

    /// Drops resources that are no longer wanted.
    pub fn forget(&mut self, resource_type: ResourceType, names: &[String]) {
        for name in names {
            self.refused.forget(resource_type, name);
            match resource_type {
                ResourceType::ClusterLoadAssignment => drop(self.assignments.remove(name.as_str())),
                ResourceType::Secret => {
                    self.secrets.remove(name.as_str());
                    self.inputs.registry.certificates.cell(name).withdraw();
                    self.inputs.registry.validations.cell(name).withdraw();
                }
                ResourceType::RouteConfiguration => {
                    if let Some(old) = self.routes.withdraw(name) {
                        release(&mut self.cluster_users, &old.references);
                    }
                    self.inputs.registry.routes.cell(name).withdraw();
                    self.rds_stats.remove(name.as_str());
                }
                ResourceType::Cluster | ResourceType::Listener => {}
            }
        }
    }

    /// When `settle` has to be called again at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        [
            self.clusters.next_deadline(),
            self.routes.next_deadline(),
            self.listeners.next_deadline(),
            self.awaited_until,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
