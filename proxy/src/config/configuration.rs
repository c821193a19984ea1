//! All resources of the process, and what can be asked about them.

use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::WILDCARD;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use super::certificate_files::SecretFiles;
use super::compile::{
    Assignment, CompiledCluster, Discovery, Fetch, Inputs, References, Secret, VirtualHostCx,
};
use super::listeners::{AddressUsers, Change, ListenerVersion};
use super::on_demand::OnDemand;
use super::refused::RefusedContent;
use super::sources::BySource;
use super::virtual_hosts::VirtualHosts;
use super::warming::{Deadline, Slots};
use super::watch::{Watch, WatchChange, WatchKey};
use crate::cluster::HostSpec;
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
    /// And those that stay because of their health.
    pub(super) staying: Vec<HostSpec>,
}

/// A route configuration and what it names.
#[derive(Debug)]
pub struct RouteVersion {
    /// The compiled route configuration.
    pub routes: Arc<RouteConfiguration>,
    /// With `vhds`: what its other virtual hosts inherit.
    pub(super) hosts: Option<Arc<VirtualHostCx>>,
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

/// Load assignments by their name.
pub(super) type Assignments = BySource<FxHashMap<Arc<str>, Leaf<Arc<Assignment>>>>;

/// Secrets by their name.
pub(super) type Secrets = BySource<FxHashMap<Arc<str>, Leaf<Secret>>>;

/// All resources of the process.
#[derive(Debug)]
pub struct Configuration {
    pub(super) inputs: Inputs,
    /// LDS and CDS.
    roots: Vec<Watch>,
    pub(super) clusters: Slots<ClusterVersion>,
    pub(super) routes: BySource<Slots<RouteVersion>>,
    pub(super) virtual_hosts: BySource<VirtualHosts>,
    pub(super) listeners: Slots<ListenerVersion>,
    pub(super) assignments: Assignments,
    pub(super) secrets: Secrets,
    pub(super) secret_files: SecretFiles,
    /// Route configuration → its statistics, until it is forgotten.
    pub(super) rds_stats: FxHashMap<Arc<str>, Arc<RdsStats>>,
    /// Load assignment → the clusters that use it.
    pub(super) endpoint_users: BySource<FxHashMap<Arc<str>, Vec<Arc<str>>>>,
    /// When it is looked again whether something still names a cluster that was removed.
    pub(super) next_look: Option<Instant>,
    /// Sockets for each listener; 0 binds nothing (a configuration is only looked at).
    pub(super) workers: usize,
    pub(super) changes: Vec<Change>,
    /// Listeners that the present delta removes: another listener in it may take over their addresses.
    pub(super) leaving: FxHashSet<Arc<str>>,
    /// Which listeners have an address.
    pub(super) address_users: AddressUsers,
    pub(super) refused: RefusedContent,
    pub(super) on_demand: OnDemand,
    /// Types of which the process waits for the first answer, and how long.
    pub(super) awaited: Vec<(ResourceType, Deadline)>,
}

impl Configuration {
    /// Nothing is configured yet. Each listener gets a socket for each of `workers`; with 0 nothing is bound.
    pub fn new(inputs: Inputs, workers: usize) -> Self {
        Self {
            inputs,
            roots: Vec::new(),
            clusters: Slots::default(),
            routes: BySource::default(),
            virtual_hosts: BySource::default(),
            listeners: Slots::default(),
            assignments: BySource::default(),
            secrets: BySource::default(),
            secret_files: SecretFiles::default(),
            rds_stats: FxHashMap::default(),
            endpoint_users: BySource::default(),
            next_look: None,
            workers,
            changes: Vec::new(),
            leaving: FxHashSet::default(),
            address_users: AddressUsers::default(),
            refused: RefusedContent::default(),
            on_demand: OnDemand::default(),
            awaited: Vec::new(),
        }
    }

    /// Takes all resources of this type from a source (LDS, CDS). The process is not initialized before the first answer, or before
    /// the time for it is over.
    pub(crate) fn take_all(&mut self, resource_type: ResourceType, fetch: Fetch, now: Instant) {
        self.roots.push(self.inputs.watches.watch(fetch.source, resource_type, WILDCARD));
        self.awaited.push((resource_type, Deadline::after(now, fetch.timeout)));
    }

    /// Whether everything is there that the process waits for at its start.
    pub fn is_initialized(&self) -> bool {
        let routes = || self.routes.iter().any(|(_, routes)| routes.is_warming());
        self.awaited.is_empty() && !self.clusters.is_warming() && !self.listeners.is_warming() && !routes()
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
    pub fn routes(&self) -> &BySource<Slots<RouteVersion>> {
        &self.routes
    }

    /// All virtual hosts of VHDS.
    pub fn virtual_hosts(&self) -> &BySource<VirtualHosts> {
        &self.virtual_hosts
    }

    /// All listeners.
    pub fn listeners(&self) -> &Slots<ListenerVersion> {
        &self.listeners
    }

    /// All load assignments of EDS.
    pub fn assignments(&self) -> impl Iterator<Item = (&Arc<str>, &Leaf<Arc<Assignment>>)> {
        self.assignments.iter().flat_map(|(_, assignments)| assignments)
    }

    /// All secrets, static ones too.
    pub fn secrets(&self) -> impl Iterator<Item = (&Arc<str>, &Leaf<Secret>)> {
        self.secrets.iter().flat_map(|(_, secrets)| secrets)
    }

    /// What the workers have to be told, oldest first.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Which names are wanted of the sources from now on, and which no longer. Those are forgotten.
    pub fn take_watch_changes(&mut self) -> Vec<WatchChange> {
        let mut changes = Vec::new();
        loop {
            let more = self.inputs.watches.take_changes();
            if more.is_empty() {
                return changes;
            }
            // What is forgotten may have wanted something itself.
            for change in more.iter().filter(|change| !change.is_wanted) {
                self.forget(&change.key);
            }
            changes.extend(more);
        }
    }

    /// Lets go of the sockets of these listeners: as soon as the workers do so too, connections are refused.
    pub fn close_sockets(&mut self, listeners: &[Arc<str>]) {
        for name in listeners {
            if let Some(version) = self.listeners.active_mut(name) {
                version.sockets.clear();
            }
        }
    }

    /// Nothing refers to it any more, but for filter chains that drain: these keep what they have.
    fn forget(&mut self, key: &WatchKey) {
        let WatchKey { source, resource_type, name } = key;
        self.refused.forget(*resource_type, name);
        let registry = &mut self.inputs.registry;
        match resource_type {
            ResourceType::ClusterLoadAssignment => drop(self.assignments.of_mut(*source).remove(name)),
            ResourceType::Secret => {
                self.secrets.of_mut(*source).remove(name);
                self.secret_files.forget(*source, name);
                registry.certificates.of_mut(*source).forget(name);
                registry.validations.of_mut(*source).forget(name);
            }
            ResourceType::RouteConfiguration => {
                self.routes.of_mut(*source).withdraw(name);
                registry.routes.of_mut(*source).forget(name);
                self.rds_stats.remove(name);
                self.forget_virtual_hosts_of(name);
            }
            ResourceType::ExtensionConfig => registry.extensions.of_mut(*source).forget(name),
            ResourceType::VirtualHost if **name == *WILDCARD => {
                *self.virtual_hosts.of_mut(*source) = VirtualHosts::default();
                let source = *source;
                self.forget_on_demand(|key| {
                    key.resource_type == ResourceType::VirtualHost && key.source == source
                });
            }
            ResourceType::Cluster | ResourceType::Listener | ResourceType::VirtualHost => {}
        }
    }

    /// A version of a cluster is gone: what only it used has one user less.
    pub(super) fn drop_cluster(&mut self, name: &str, version: &ClusterVersion) {
        if let Discovery::Eds { source, name: endpoints } = &version.compiled.discovery {
            let uses = |version: &ClusterVersion| matches!(&version.compiled.discovery, Discovery::Eds { source: s, name: n } if s == source && n == endpoints);
            let is_used = self.clusters.get(name).is_some_and(|slot| slot.versions().any(uses));
            let users = self.endpoint_users.of_mut(*source);
            if !is_used && let Some(clusters) = users.get_mut(endpoints) {
                clusters.retain(|cluster| **cluster != *name);
                if clusters.is_empty() {
                    users.remove(endpoints);
                }
            }
        }
        if self.clusters.get(name).is_none() {
            self.inputs.known_clusters.remove(name);
        }
    }

    /// When `settle` has to be called again at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let routes = self.routes.iter().filter_map(|(_, routes)| routes.next_deadline());
        let awaited = self.awaited.iter().filter_map(|(_, deadline)| match deadline {
            Deadline::At(deadline) => Some(*deadline),
            Deadline::Never | Deadline::Passed => None,
        });
        let others = [self.clusters.next_deadline(), self.listeners.next_deadline(), self.next_look];
        let others = others.into_iter().flatten();
        routes.chain(awaited).chain(others).min()
    }
}
