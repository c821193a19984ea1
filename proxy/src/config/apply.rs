//! Resources as they come → what is published: compile, warm, publish, withdraw. The verdict says what was refused.
//!
//! Owned by main. A change costs what changed: an unchanged resource is recognised by its hash before it is decoded; endpoints of
//! one cluster touch that cluster's hosts only; what refers to a name holds its cell and is never touched.

use std::sync::Arc;

use outrigger_xds_api::resource;
use outrigger_xds_api::wire::cluster::v3 as cluster_wire;
use outrigger_xds_api::wire::endpoint::v3 as endpoint_wire;
use outrigger_xds_api::wire::listener::v3 as listener_wire;
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::route::v3 as route_wire;
use outrigger_xds_api::wire::tls::v3 as tls_wire;
use outrigger_xds_api::{ResourceType, validate};
use prost::{Message, Name};
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::compile::{
    Assignment, CompileCx, CompiledCluster, Discovery, Inputs, Invalid, References, Secret, compile_cluster,
    compile_endpoints, compile_listener, compile_route_configuration, compile_secret,
};
use super::listeners::{Change, ListenerVersion, bind, bound_elsewhere};
use super::warming::{AtDeadline, Offer, Slot, Slots, WARMING_TIMEOUT};
use crate::cluster::EndpointSet;
use crate::route::RouteConfiguration;

/// One resource as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// The resource's name.
    pub name: &'a str,
    /// Its version, as the sender calls it.
    pub version: &'a str,
    /// Its content.
    pub resource: &'a Any,
}

/// A cluster and what goes with it.
#[derive(Debug)]
pub struct ClusterVersion {
    /// The compiled cluster.
    pub compiled: CompiledCluster,
    references: References,
    /// What its present hosts were made of.
    built: Option<Arc<Assignment>>,
}

/// A route configuration and what it names.
#[derive(Debug)]
pub struct RouteVersion {
    /// The compiled route configuration.
    pub routes: Arc<RouteConfiguration>,
    references: References,
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
    hash: u64,
}

/// All resources of the process.
#[derive(Debug)]
pub struct Configuration {
    inputs: Inputs,
    clusters: Slots<ClusterVersion>,
    routes: Slots<RouteVersion>,
    listeners: Slots<ListenerVersion>,
    assignments: FxHashMap<Arc<str>, Leaf<Arc<Assignment>>>,
    secrets: FxHashMap<Arc<str>, Leaf<Secret>>,
    /// Load assignment → the clusters that use it.
    endpoint_users: FxHashMap<Arc<str>, Vec<Arc<str>>>,
    /// Cluster → how many published route configurations and listeners name it.
    cluster_users: FxHashMap<Arc<str>, usize>,
    /// Sockets for each listener; 0 binds nothing (a configuration is only looked at).
    workers: usize,
    changes: Vec<Change>,
    /// Clusters or listeners changed since `take_subscriptions`.
    references_changed: bool,
    /// Types of which the process waits for the first answer, and until when.
    awaited: Vec<ResourceType>,
    awaited_until: Option<Instant>,
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
            endpoint_users: FxHashMap::default(),
            cluster_users: FxHashMap::default(),
            workers,
            changes: Vec::new(),
            references_changed: true,
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

    /// Drops resources that are no longer wanted.
    pub fn forget(&mut self, resource_type: ResourceType, names: &[String]) {
        for name in names {
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

    /// Takes in one delta and says what was refused; those keep their last good version.
    pub fn apply(
        &mut self,
        resource_type: ResourceType,
        updates: &[Update<'_>],
        removed: &[&str],
        now: Instant,
    ) -> Vec<Invalid> {
        for name in removed {
            self.remove(resource_type, name);
        }
        let rejected: Vec<Invalid> = updates
            .iter()
            .filter_map(|update| self.update(resource_type, update, false, now).err())
            .collect();
        self.awaited.retain(|awaited| *awaited != resource_type);
        self.settle(now);
        rejected
    }

    /// Takes in a resource of the bootstrap. `settle` publishes it.
    ///
    /// # Errors
    /// It is invalid, or its name or address is taken.
    pub fn apply_static(
        &mut self,
        resource_type: ResourceType,
        any: &Any,
        now: Instant,
    ) -> Result<(), Invalid> {
        let name =
            resource::name_of(any).map_err(|e| Invalid::one(kind(resource_type), "", "", e.to_string()))?;
        let exists = match resource_type {
            ResourceType::Cluster => self.clusters.get(&name).is_some(),
            ResourceType::Listener => self.listeners.get(&name).is_some(),
            ResourceType::Secret => self.secrets.contains_key(name.as_str()),
            ResourceType::ClusterLoadAssignment | ResourceType::RouteConfiguration => false,
        };
        if exists {
            let kind = kind(resource_type);
            return Err(Invalid::one(kind, &name, "name", format!("there is another {kind} of this name")));
        }
        self.update(resource_type, &Update { name: &name, version: "", resource: any }, true, now)
    }

    fn update(
        &mut self,
        resource_type: ResourceType,
        update: &Update<'_>,
        is_static: bool,
        now: Instant,
    ) -> Result<(), Invalid> {
        let hash = super::compile::values::content_hash(&[&update.resource.value]);
        let offer = Offer {
            // Key material is not kept twice.
            wire: match resource_type {
                ResourceType::Secret => Box::default(),
                _ => update.resource.value.as_slice().into(),
            },
            hash,
            version: update.version.into(),
            is_static,
            deadline: now + WARMING_TIMEOUT,
        };
        if !is_static && self.is_static(resource_type, update.name) {
            // As in Envoy: what the bootstrap says stands.
            tracing::warn!(
                target: "config",
                "{} '{}' is static: the update is not applied", kind(resource_type), update.name
            );
            return Ok(());
        }
        match resource_type {
            ResourceType::Cluster => self.update_cluster(update, offer),
            ResourceType::ClusterLoadAssignment => self.update_endpoints(update, offer),
            ResourceType::Listener => self.update_listener(update, offer),
            ResourceType::RouteConfiguration => self.update_routes(update, offer),
            ResourceType::Secret => self.update_secret(update, offer),
        }
    }

    fn is_static(&self, resource_type: ResourceType, name: &str) -> bool {
        match resource_type {
            ResourceType::Cluster => self.clusters.get(name).is_some_and(Slot::is_static),
            ResourceType::Listener => self.listeners.get(name).is_some_and(Slot::is_static),
            _ => false,
        }
    }

    fn update_cluster(&mut self, update: &Update<'_>, offer: Offer) -> Result<(), Invalid> {
        if self.clusters.is_unchanged(update.name, offer.hash) {
            return Ok(());
        }
        let message = decode(ResourceType::Cluster, update, |m: &cluster_wire::Cluster| &m.name)?;
        let previous = self.clusters.get(update.name).and_then(Slot::newest).map(|v| &v.compiled);
        let mut cx = CompileCx::new(&mut self.inputs, offer.is_static);
        validate(&mut cx, update.resource);
        let compiled = compile_cluster(&message, previous, &mut cx);
        let (compiled, references) = cx.finish(kind(ResourceType::Cluster), update.name, compiled)?;
        let stats = self.inputs.stats.server();
        let is_new = self.clusters.get(update.name).is_none();
        if is_new {
            stats.cluster_added.inc()
        } else {
            stats.cluster_modified.inc()
        }
        let name = compiled.cluster.name.clone();
        for endpoints in &references.endpoints {
            let users = self.endpoint_users.entry(endpoints.clone()).or_default();
            if !users.contains(&name) {
                users.push(name.clone());
            }
        }
        self.inputs.known_clusters.insert(name.clone());
        self.clusters.offer(&name, ClusterVersion { compiled, references, built: None }, offer);
        self.references_changed = true;
        Ok(())
    }

    fn update_endpoints(&mut self, update: &Update<'_>, offer: Offer) -> Result<(), Invalid> {
        if self.assignments.get(update.name).is_some_and(|a| a.hash == offer.hash) {
            return Ok(());
        }
        let message = decode(
            ResourceType::ClusterLoadAssignment,
            update,
            |m: &endpoint_wire::ClusterLoadAssignment| &m.cluster_name,
        )?;
        let mut cx = CompileCx::new(&mut self.inputs, offer.is_static);
        validate(&mut cx, update.resource);
        let compiled = compile_endpoints(&message, &mut cx);
        let (assignment, _) = cx.finish(kind(ResourceType::ClusterLoadAssignment), update.name, compiled)?;
        let name = assignment.name.clone();
        let leaf =
            Leaf { value: Arc::new(assignment), version: offer.version, wire: offer.wire, hash: offer.hash };
        self.assignments.insert(name.clone(), leaf);
        for user in self.endpoint_users.get(&name).cloned().unwrap_or_default() {
            self.publish_endpoints(&user);
        }
        Ok(())
    }

    fn update_routes(&mut self, update: &Update<'_>, offer: Offer) -> Result<(), Invalid> {
        if self.routes.is_unchanged(update.name, offer.hash) {
            return Ok(());
        }
        let message =
            decode(ResourceType::RouteConfiguration, update, |m: &route_wire::RouteConfiguration| &m.name)?;
        let previous = self.routes.get(update.name).and_then(Slot::newest).map(|v| &*v.routes);
        let mut cx = CompileCx::new(&mut self.inputs, offer.is_static);
        validate(&mut cx, update.resource);
        let compiled = compile_route_configuration(&message, update.version, previous, false, &mut cx);
        let stats = cx.inputs.stats.rds(update.name);
        match cx.finish(kind(ResourceType::RouteConfiguration), update.name, compiled) {
            Ok((routes, references)) => {
                let name = routes.name.clone();
                self.routes.offer(&name, RouteVersion { routes: Arc::new(routes), references }, offer);
                stats.update_success.inc();
                Ok(())
            }
            Err(invalid) => {
                stats.update_rejected.inc();
                Err(invalid)
            }
        }
    }

    fn update_listener(&mut self, update: &Update<'_>, offer: Offer) -> Result<(), Invalid> {
        if self.listeners.is_unchanged(update.name, offer.hash) {
            return Ok(());
        }
        let message = decode(ResourceType::Listener, update, |m: &listener_wire::Listener| &m.name)?;
        let previous = self.listeners.get(update.name).and_then(Slot::newest);
        let mut cx = CompileCx::new(&mut self.inputs, offer.is_static);
        validate(&mut cx, update.resource);
        let compiled = compile_listener(&message, previous.map(|p| &p.compiled), &mut cx);
        let (compiled, references) = cx.finish(kind(ResourceType::Listener), update.name, compiled)?;
        let name = compiled.listener.name.clone();
        let refused = |reason| Invalid::one(kind(ResourceType::Listener), &name, "address", reason);
        bound_elsewhere(&self.listeners, &compiled).map_err(refused)?;
        let sockets = bind(self.listeners.get(&name), &compiled, self.workers).map_err(refused)?;
        let stats = self.inputs.stats.server();
        if self.listeners.get(&name).is_none() {
            stats.listener_added.inc()
        } else {
            stats.listener_modified.inc()
        }
        self.listeners.offer(&name, ListenerVersion { compiled, references, sockets }, offer);
        self.references_changed = true;
        Ok(())
    }

    fn update_secret(&mut self, update: &Update<'_>, offer: Offer) -> Result<(), Invalid> {
        if self.secrets.get(update.name).is_some_and(|s| s.hash == offer.hash) {
            return Ok(());
        }
        let message = decode(ResourceType::Secret, update, |m: &tls_wire::Secret| &m.name)?;
        let mut cx = CompileCx::new(&mut self.inputs, offer.is_static);
        validate(&mut cx, update.resource);
        let compiled = compile_secret(&message, &mut cx);
        let (secret, _) = cx.finish(kind(ResourceType::Secret), update.name, compiled)?;
        let registry = &mut self.inputs.registry;
        match &secret {
            Secret::Certificate(certificate) => {
                registry.certificates.cell(update.name).publish(certificate.clone());
            }
            Secret::Validation(context) => registry.validations.cell(update.name).publish(context.clone()),
        }
        let leaf = Leaf { value: secret, version: offer.version, wire: offer.wire, hash: offer.hash };
        self.secrets.insert(update.name.into(), leaf);
        Ok(())
    }

    fn remove(&mut self, resource_type: ResourceType, name: &str) {
        if self.is_static(resource_type, name) {
            return;
        }
        match resource_type {
            ResourceType::Cluster => {
                self.clusters.remove(name);
                self.references_changed = true;
            }
            ResourceType::Listener => {
                self.listeners.remove(name);
                if let Some(old) = self.listeners.withdraw(name) {
                    release(&mut self.cluster_users, &old.references);
                    self.inputs.stats.server().listener_removed.inc();
                    self.changes.push(Change::Stop {
                        name: old.compiled.listener.name.clone(),
                        gone: old.compiled.chains.iter().map(|(chain, _)| chain.id).collect(),
                    });
                }
                self.inputs.registry.listeners.cell(name).withdraw();
                self.references_changed = true;
            }
            // As in Envoy: what is wanted by name goes when it is no longer wanted.
            ResourceType::ClusterLoadAssignment | ResourceType::RouteConfiguration | ResourceType::Secret => {
                tracing::warn!(target: "config", "the server removed {} '{name}', which is in use: ignored", kind(resource_type));
            }
        }
    }

    /// Publishes everything that is ready, in the order in which it is needed, and withdraws what nothing needs any more. To be
    /// called after anything changed, at `next_deadline`, and when an identity arrived.
    pub fn settle(&mut self, now: Instant) {
        self.activate_clusters(now);
        self.activate_routes(now);
        self.activate_listeners(now);
        self.withdraw_clusters();
        if self.awaited_until.is_some_and(|until| until <= now) {
            self.awaited.clear();
        }
        if self.awaited.is_empty() {
            self.awaited_until = None;
        }
        self.count();
    }

    fn activate_clusters(&mut self, now: Instant) {
        let (assignments, secrets, inputs) = (&self.assignments, &self.secrets, &self.inputs);
        let activated = self.clusters.activate(now, AtDeadline::Activate, |v| {
            v.references.endpoints.iter().any(|name| !assignments.contains_key(name))
                || misses_secret(&v.references, secrets, inputs)
        });
        for one in activated {
            let mut built = one.replaced.and_then(|old| old.built);
            let Some(version) = self.clusters.active_mut(&one.name) else { continue };
            version.built = built.take();
            let (default, high) = version.compiled.thresholds;
            version.compiled.cluster.circuit_breakers.set(default, high);
            let cluster = version.compiled.cluster.clone();
            self.publish_endpoints(&one.name);
            self.inputs.registry.clusters.cell(&one.name).publish(cluster);
            self.references_changed = true;
        }
    }

    /// Publishes the hosts of an active cluster, unless they are the present ones already.
    fn publish_endpoints(&mut self, cluster: &str) {
        let Some(version) = self.clusters.active_mut(cluster) else { return };
        let wanted = match &version.compiled.discovery {
            Discovery::Static(assignment) => Some(assignment),
            Discovery::Eds(name) => self.assignments.get(name).map(|leaf| &leaf.value),
        };
        let Some(wanted) = wanted else { return };
        let cell = &version.compiled.cluster.endpoints;
        let present = cell.get();
        let is_built = version.built.as_ref().is_some_and(|built| built == wanted);
        match present {
            Some(present) if is_built => present.set_panic_percent(version.compiled.panic_percent),
            present => cell.publish(EndpointSet::build(
                present.as_deref(),
                wanted.hosts.clone(),
                wanted.overprovisioning_percent,
                version.compiled.panic_percent,
            )),
        }
        version.built = Some(wanted.clone());
    }

    fn activate_routes(&mut self, now: Instant) {
        let clusters = &self.clusters;
        let activated =
            self.routes.activate(now, AtDeadline::ActivateFirst, |v| misses_cluster(&v.references, clusters));
        for one in activated {
            let Some(version) = self.routes.active(&one.name) else { continue };
            retain(&mut self.cluster_users, &version.references);
            self.inputs.registry.routes.cell(&one.name).publish(version.routes.clone());
            self.inputs.stats.rds(&one.name).config_reload.inc();
            if let Some(old) = one.replaced {
                release(&mut self.cluster_users, &old.references);
            }
        }
    }

    fn activate_listeners(&mut self, now: Instant) {
        let (clusters, routes, secrets, inputs) = (&self.clusters, &self.routes, &self.secrets, &self.inputs);
        let activated = self.listeners.activate(now, AtDeadline::ActivateFirst, |v| {
            v.references.routes.iter().any(|name| routes.active(name).is_none())
                || misses_cluster(&v.references, clusters)
                || misses_secret(&v.references, secrets, inputs)
        });
        for one in activated {
            let Some(version) = self.listeners.active(&one.name) else { continue };
            retain(&mut self.cluster_users, &version.references);
            let cell = self.inputs.registry.listeners.cell(&one.name);
            cell.publish(version.compiled.listener.clone());
            self.changes.extend(version.changes(&cell, one.replaced.as_ref()));
            if let Some(old) = one.replaced {
                release(&mut self.cluster_users, &old.references);
            }
            self.references_changed = true;
        }
    }

    fn withdraw_clusters(&mut self) {
        for name in self.clusters.removed() {
            if self.cluster_users.contains_key(&name) {
                continue;
            }
            self.inputs.registry.clusters.cell(&name).withdraw();
            if let Some(old) = self.clusters.withdraw(&name) {
                let cell = &old.compiled.cluster.endpoints;
                // Marks every host as gone, so that its idle connections are closed.
                drop(EndpointSet::build(cell.get().as_deref(), Vec::new(), 100, 0));
                cell.withdraw();
                self.inputs.stats.server().cluster_removed.inc();
            }
            self.references_changed = true;
        }
        if self.references_changed {
            let clusters = &self.clusters;
            self.endpoint_users.retain(|_, users| {
                users.retain(|user| clusters.get(user).is_some());
                !users.is_empty()
            });
            self.inputs.known_clusters.retain(|name| clusters.get(name).is_some());
            self.inputs.registry.forget_unused();
        }
    }

    fn count(&self) {
        let stats = self.inputs.stats.server();
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        stats.active_clusters.set(number(self.clusters.active_count()));
        stats.warming_clusters.set(number(self.clusters.waiting_count()));
        stats.total_listeners_active.set(number(self.listeners.active_count()));
        stats.total_listeners_warming.set(number(self.listeners.waiting_count()));
    }
}

/// What people call a resource of this type.
pub(crate) fn kind(resource_type: ResourceType) -> &'static str {
    match resource_type {
        ResourceType::Cluster => "cluster",
        ResourceType::ClusterLoadAssignment => "load assignment",
        ResourceType::Listener => "listener",
        ResourceType::RouteConfiguration => "route configuration",
        ResourceType::Secret => "secret",
    }
}

/// Decodes a resource, which must have the name that it came under.
fn decode<M: Message + Name + Default>(
    resource_type: ResourceType,
    update: &Update<'_>,
    name: impl Fn(&M) -> &String,
) -> Result<M, Invalid> {
    let refused = |reason: String| Invalid::one(kind(resource_type), update.name, "", reason);
    let message: M = resource::unpack(update.resource).map_err(|e| refused(e.to_string()))?;
    let own_name = name(&message);
    if own_name != update.name {
        return Err(refused(format!("the content has another name: '{own_name}'")));
    }
    Ok(message)
}

/// Envoy's validation rules of the message and all messages in it. What the schema does not know is refused too: nobody can
/// tell whether it matters.
fn validate(cx: &mut CompileCx<'_>, resource: &Any) {
    let report = validate::validate(resource::message_name(&resource.type_url), &resource.value);
    for violation in report.violations.iter().chain(&report.unknown) {
        cx.problem(&violation.path, &violation.reason);
    }
}

fn misses_cluster(references: &References, clusters: &Slots<ClusterVersion>) -> bool {
    references.clusters.iter().any(|name| clusters.active(name).is_none())
}

fn misses_secret(
    references: &References,
    secrets: &FxHashMap<Arc<str>, Leaf<Secret>>,
    inputs: &Inputs,
) -> bool {
    let registry = &inputs.registry;
    references.secrets.iter().any(|name| !secrets.contains_key(name))
        || references.identity_secrets.iter().any(|name| {
            (*name == *registry.identity_certificate.name() && registry.identity_certificate.peek().is_none())
                || (*name == *registry.identity_validation.name()
                    && registry.identity_validation.peek().is_none())
        })
}

fn retain(users: &mut FxHashMap<Arc<str>, usize>, references: &References) {
    for name in &references.clusters {
        *users.entry(name.clone()).or_default() += 1;
    }
}

fn release(users: &mut FxHashMap<Arc<str>, usize>, references: &References) {
    for name in &references.clusters {
        if let Some(count) = users.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                users.remove(name);
            }
        }
    }
}
