//! Publishing: what is ready becomes visible to the workers, in the order in which it is needed; what nothing needs any more goes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::ResourceType;
use tokio::time::Instant;

use super::compile::{Assignment, CompiledChain, Discovery, Inputs, References};
use super::configuration::{Assignments, ClusterVersion, Configuration, Secrets};
use super::counts::count_membership;
use super::health_checks;
use super::listeners::ListenerVersion;
use super::sources::SourceId;
use super::virtual_hosts::misses_virtual_hosts;
use super::warming::{AtDeadline, Deadline, Slots};
use crate::cluster::{Balancing, Cluster, EndpointSet, HostSpec};
use crate::net::Address;
use crate::on_demand::Asker;

/// How often it is looked whether something still names a removed cluster.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Configuration {
    /// Publishes everything that is ready, in the order in which it is needed, and withdraws what nothing needs any more. To be
    /// called after anything changed, at `next_deadline`, and when an identity arrived.
    pub fn settle(&mut self, now: Instant) {
        self.activate_clusters(now);
        self.activate_routes(now);
        self.activate_listeners(now);
        self.withdraw_clusters(now);
        self.settle_on_demand();
        self.awaited.retain(|(_, deadline)| !matches!(deadline, Deadline::At(deadline) if *deadline <= now));
        self.count();
    }

    fn activate_clusters(&mut self, now: Instant) {
        self.warm_hosts();
        let (assignments, secrets, inputs) = (&self.assignments, &self.secrets, &self.inputs);
        let activated = self.clusters.activate(now, AtDeadline::Activate, |v| {
            v.misses(assignments, secrets, inputs)
                || v.compiled.checker.as_ref().is_some_and(|checker| !checker.is_warm())
        });
        let mut added = Vec::new();
        for one in activated {
            let Some(version) = self.clusters.active_mut(&one.name) else { continue };
            let is_new = one.replaced.is_none();
            let mut replaced = one.replaced;
            if let Some(old) = &mut replaced {
                release_destinations(&old.compiled.discovery, Some(&version.compiled.discovery));
                version.built = old.built.take();
                version.staying = std::mem::take(&mut old.staying);
            }
            if let Discovery::OriginalDst { destinations, cleanup_interval } = &version.compiled.discovery {
                destinations.set_cleanup_interval(*cleanup_interval);
            }
            let (default, high) = version.compiled.thresholds;
            version.compiled.cluster.circuit_breakers.set(default, high);
            let cluster = version.compiled.cluster.clone();
            if let Some(old) = replaced {
                self.drop_cluster(&one.name, &old);
            }
            self.publish_endpoints(&one.name);
            self.inputs.registry.judged_clusters.follow(&one.name, Some(cluster.clone()));
            let cell = self.inputs.registry.clusters.cell(&one.name);
            cell.publish(cluster);
            if is_new {
                added.push(cell);
            }
        }
        self.inputs.registry.cluster_names.add(&added);
    }

    /// Publishes the hosts of an active cluster, unless they are the present ones already.
    pub(super) fn publish_endpoints(&mut self, cluster: &str) {
        if let Some(version) = self.clusters.active_mut(cluster) {
            version.publish_hosts(&self.assignments);
        }
    }

    /// Gives a static cluster the addresses that its server's name stands for now. Hosts that stay are the same.
    pub fn relocate(&mut self, cluster: &str, name: &str, addresses: &[SocketAddr]) {
        let Some(version) = self.clusters.active_mut(cluster) else { return };
        let Discovery::Static(assignment) = &mut version.compiled.discovery else { return };
        let hosts = addresses
            .iter()
            .map(|address| HostSpec { hostname: name.into(), ..HostSpec::at(Address::Ip(*address)) });
        *assignment = Arc::new(Assignment { hosts: hosts.collect(), ..Assignment::clone(assignment) });
        self.publish_endpoints(cluster);
    }

    fn activate_routes(&mut self, now: Instant) {
        let mut changed = self.activate_virtual_hosts(now, |this, users, routes, references| {
            let ask = || users.iter().any(|user| asks_on_demand(&this.listeners, *user, routes));
            misses_cluster(references, &this.clusters, &this.inputs, ask)
        });
        let mut late = Vec::new();
        for (source, routes) in self.routes.iter_mut() {
            let (clusters, listeners, inputs) = (&self.clusters, &self.listeners, &self.inputs);
            let hosts = &self.virtual_hosts;
            let activated = routes.activate(now, AtDeadline::ActivateFirst, |v| {
                let ask = || asks_on_demand(listeners, source, &v.routes.name);
                misses_cluster(&v.references, clusters, inputs, ask)
                    || misses_virtual_hosts(&v.references, hosts)
            });
            for one in activated {
                if let Some(stats) = self.rds_stats.get(&one.name) {
                    stats.config_reload.inc();
                }
                let vhds = routes.active(&one.name).and_then(|version| version.routes.vhds.as_ref());
                late.extend(vhds.map(Asker::source));
                changed.insert((source, one.name));
            }
        }
        // Whoever had no answer in time is not waited for again.
        late.iter().for_each(|source| self.virtual_hosts.of_mut(*source).has_answered = true);
        changed.iter().for_each(|(source, name)| self.publish_routes(source, name));
    }

    fn activate_listeners(&mut self, now: Instant) {
        let (clusters, routes, secrets, inputs) = (&self.clusters, &self.routes, &self.secrets, &self.inputs);
        let extensions = &inputs.registry.extensions;
        let misses_extension = |source, name: &str| extensions.of(source).is_none_or(|e| e.is_missing(name));
        let is_published =
            |source, name: &str| routes.of(source).is_some_and(|routes| routes.active(name).is_some());
        let activated = self.listeners.activate(now, AtDeadline::ActivateFirst, |v| {
            let mut watched = v.references.watched(ResourceType::RouteConfiguration);
            let mut extensions = v.references.watched(ResourceType::ExtensionConfig);
            watched.any(|(source, name)| !is_published(source, name))
                || extensions.any(|(source, name)| misses_extension(source, name))
                || misses_cluster(&v.references, clusters, inputs, || false)
                || misses_secret(&v.references, secrets, inputs)
        });
        for one in activated {
            let Some(version) = self.listeners.active(&one.name) else { continue };
            version.compiled.chains.iter().for_each(CompiledChain::publish);
            let cell = self.inputs.registry.listeners.cell(&one.name);
            cell.publish(version.compiled.listener.clone());
            let (replaced, stats) = (one.replaced.as_ref(), self.inputs.stats.server());
            self.changes.extend(version.changes(&cell, replaced, self.workers, stats));
            if let Some(old) = one.replaced {
                self.address_users.remove(&old.compiled, self.listeners.get(&one.name));
            }
        }
    }

    /// Lets removed clusters go that nothing names any more: also not a filter chain that drains, nor a request under way.
    fn withdraw_clusters(&mut self, now: Instant) {
        self.next_look = None;
        for name in self.clusters.removed() {
            if self.inputs.registry.clusters.is_held(&name) {
                // Nobody tells when the last one lets go of it.
                self.next_look = Some(now + LOOK_AGAIN);
                continue;
            }
            self.inputs.registry.clusters.forget(&name);
            self.inputs.registry.cluster_names.remove(&name);
            self.inputs.registry.judged_clusters.follow(&name, None);
            if let Some(old) = self.clusters.withdraw(&name) {
                withdraw_endpoints(&old.compiled.cluster);
                release_destinations(&old.compiled.discovery, None);
                self.inputs.stats.server().cluster_removed.inc();
                self.drop_cluster(&name, &old);
                self.cluster_is_gone(&name);
            }
        }
    }
}

impl ClusterVersion {
    /// Whether something is not there yet that it needs before it has hosts.
    pub(super) fn misses(&self, assignments: &Assignments, secrets: &Secrets, inputs: &Inputs) -> bool {
        let is_there = |source, name: &str| assignments.of(source).is_some_and(|all| all.contains_key(name));
        let mut endpoints = self.references.watched(ResourceType::ClusterLoadAssignment);
        endpoints.any(|(source, name)| !is_there(source, name))
            || matches!(&self.compiled.discovery, Discovery::Dns(dns) if !dns.is_warm())
            || misses_secret(&self.references, secrets, inputs)
    }

    /// Gives it the hosts that it should have now, unless it has them already.
    pub(super) fn publish_hosts(&mut self, assignments: &Assignments) {
        let wanted = match &self.compiled.discovery {
            Discovery::Static(assignment) => Some(assignment.clone()),
            Discovery::Eds { source, name } => {
                assignments.of(*source).and_then(|all| all.get(name)).map(|leaf| leaf.value.clone())
            }
            Discovery::Dns(dns) => Some(dns.assignment()),
            Discovery::OriginalDst { .. } => {
                // The hosts that it had as a cluster of another type.
                withdraw_endpoints(&self.compiled.cluster);
                self.built = None;
                return;
            }
        };
        let Some(wanted) = wanted else { return };
        let cell = self.compiled.cluster.endpoints.clone();
        let present = cell.get();
        let staying = health_checks::staying(self, &wanted, present.as_deref());
        let is_built = self.built.as_ref().is_some_and(|built| *built == wanted) && staying == self.staying;
        self.staying = staying;
        match present {
            Some(present) if is_built => {
                present.set_balancing(self.compiled.balancing.clone());
                health_checks::follow(self, Some(&present), &present);
            }
            present => {
                let set = EndpointSet::build(
                    present.as_deref(),
                    wanted.hosts.iter().chain(&self.staying).cloned().collect(),
                    wanted.overprovisioning_percent,
                    self.compiled.balancing.clone(),
                );
                health_checks::follow(self, present.as_deref(), &set);
                count_membership(&self.compiled.cluster.stats, present.as_deref(), &set);
                cell.publish(set);
            }
        }
        self.built = Some(wanted);
        if let Some(local) = &self.compiled.balancing.local_cluster {
            local.has_changed();
        }
    }
}

/// Marks every host as gone, so that its idle connections are closed.
fn withdraw_endpoints(cluster: &Cluster) {
    drop(EndpointSet::build(cluster.endpoints.get().as_deref(), Vec::new(), 100, Balancing::default()));
    cluster.endpoints.withdraw();
}

/// The same for hosts that were made on demand, unless the next version of the cluster has them too.
fn release_destinations(old: &Discovery, new: Option<&Discovery>) {
    let Discovery::OriginalDst { destinations, .. } = old else { return };
    match new {
        Some(Discovery::OriginalDst { destinations: kept, .. }) if Arc::ptr_eq(destinations, kept) => {}
        _ => destinations.clear(),
    }
}

/// Without CDS there is no use in waiting for a cluster that the bootstrap does not have; nor is there where requests ask for it, unless it
/// has come already.
fn misses_cluster(
    references: &References,
    clusters: &Slots<ClusterVersion>,
    inputs: &Inputs,
    requests_ask: impl Fn() -> bool,
) -> bool {
    let is_missing = |name: &Arc<str>| clusters.active(name).is_none();
    let mut all = references.clusters.iter().chain(&references.on_demand_clusters);
    all.any(|name| is_missing(name) && inputs.known_clusters.contains(name))
        || (inputs.has_cds && references.clusters.iter().any(is_missing) && !requests_ask())
}

/// Whether requests that take this route configuration ask for clusters that are not there.
fn asks_on_demand(listeners: &Slots<ListenerVersion>, source: SourceId, routes: &str) -> bool {
    let asks = |version: &ListenerVersion| {
        version.references.on_demand_routes.iter().any(|(s, name)| *s == source && **name == *routes)
    };
    listeners.iter().any(|(_, slot)| slot.versions().any(asks))
}

fn misses_secret(references: &References, secrets: &Secrets, inputs: &Inputs) -> bool {
    let registry = &inputs.registry;
    let is_there = |source, name: &str| secrets.of(source).is_some_and(|all| all.contains_key(name));
    references.watched(ResourceType::Secret).any(|(source, name)| !is_there(source, name))
        || references.identity_secrets.iter().any(|name| {
            (*name == *registry.identity_certificate.name() && registry.identity_certificate.peek().is_none())
                || (*name == *registry.identity_validation.name()
                    && registry.identity_validation.peek().is_none())
        })
}
