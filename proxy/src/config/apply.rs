//! Resources as they come: validate, compile, offer to warming. The verdict says what was refused.
//!
//! Owned by main. A change costs what changed: an unchanged resource is recognised by its hash before it is decoded; endpoints of
//! one cluster touch that cluster's hosts only; what refers to a name holds its cell and is never touched.

use std::collections::BTreeSet;
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
use tokio::time::Instant;

use super::compile::{
    Assignment, ChangedEndpoints, CompileCx, Discovery, Invalid, compile_cluster, compile_endpoints,
    compile_listener, compile_route_configuration, compile_secret,
};
use super::configuration::{ClusterVersion, Configuration, Leaf, RouteVersion};
use super::counts::EndpointUpdate;
use super::listeners::{Change, ListenerVersion, bind, bound_elsewhere};
use super::sources::SourceId;
use super::warming::{Deadline, Offer, Slot, WARMING_TIMEOUT};
use crate::on_demand::Asker;

/// One resource as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// The resource's name.
    pub name: &'a str,
    /// Its version, as the sender calls it.
    pub version: &'a str,
    /// Its content.
    pub resource: &'a Any,
    /// Other names that it answers to (`Resource.aliases`); only virtual hosts have some.
    pub aliases: &'a [String],
}

impl<'a> Update<'a> {
    /// All its names.
    fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        std::iter::once(self.name).chain(self.aliases.iter().map(String::as_str))
    }
}

impl Configuration {
    /// Takes in what a source says of one type and tells what was refused; those keep their last good version.
    pub fn apply(
        &mut self,
        source: SourceId,
        resource_type: ResourceType,
        updates: &[Update<'_>],
        removed: &[&str],
        now: Instant,
    ) -> Vec<Invalid> {
        let mut without_hosts = BTreeSet::new();
        if resource_type == ResourceType::Listener {
            let listeners = &self.listeners;
            let leaving = removed.iter().filter(|name| !updates.iter().any(|update| update.name == **name));
            let leaving = leaving.filter(|name| !listeners.get(name).is_some_and(Slot::is_static));
            self.leaving = leaving.map(|name| Arc::from(*name)).collect();
        } else if resource_type == ResourceType::VirtualHost {
            self.virtual_hosts.of_mut(source).has_answered = true;
            without_hosts = self.remove_virtual_hosts(source, removed);
        } else {
            removed.iter().for_each(|name| self.remove(source, resource_type, name));
        }
        let mut rejected = Vec::new();
        for update in updates {
            let outcome = self.update(source, resource_type, update, now);
            for name in update.names() {
                self.judge_on_demand(source, resource_type, name, outcome.is_err());
            }
            rejected.extend(outcome.err());
        }
        self.awaited.retain(|(awaited, _)| *awaited != resource_type);
        self.settle(now);
        self.publish_routes_of(source, &without_hosts);
        // Whoever takes over the address of a listener is there before that one goes: no connection falls between them.
        let leaving = std::mem::take(&mut self.leaving);
        if !leaving.is_empty() {
            leaving.iter().for_each(|name| self.remove(source, resource_type, name));
            self.settle(now);
        }
        self.missing_on_demand(source, resource_type, removed);
        if resource_type == ResourceType::VirtualHost {
            // One that has come may still not be for the host that it was asked for.
            let published = updates.iter().filter(|update| self.is_published_host(source, update.name));
            let names: Vec<&str> = published.flat_map(Update::names).collect();
            self.missing_on_demand(source, resource_type, &names);
        }
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
            ResourceType::Secret => self.secrets.of_mut(SourceId::STATIC).contains_key(name.as_str()),
            ResourceType::ClusterLoadAssignment
            | ResourceType::RouteConfiguration
            | ResourceType::VirtualHost
            | ResourceType::ExtensionConfig => false,
        };
        if exists {
            let kind = kind(resource_type);
            return Err(Invalid::one(kind, &name, "name", format!("there is another {kind} of this name")));
        }
        if resource_type == ResourceType::Cluster {
            // Also when it is refused: that routes name it is then no second mistake.
            self.inputs.known_clusters.insert(name.as_str().into());
        }
        let update = Update { name: &name, version: "", resource: any, aliases: &[] };
        self.update(SourceId::STATIC, resource_type, &update, now)
    }

    pub(super) fn update(
        &mut self,
        source: SourceId,
        resource_type: ResourceType,
        update: &Update<'_>,
        now: Instant,
    ) -> Result<(), Invalid> {
        let is_static = source == SourceId::STATIC;
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
            deadline: Deadline::after(now, WARMING_TIMEOUT),
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
            ResourceType::Cluster => self.update_cluster(update, offer, now),
            ResourceType::Listener => self.update_listener(update, offer, now),
            ResourceType::VirtualHost => self.update_virtual_host(source, update, offer, now),
            // Nobody wants it any more; the source has not heard of it yet.
            _ if !is_static && !self.inputs.watches.is_wanted(source, resource_type, update.name) => Ok(()),
            ResourceType::ClusterLoadAssignment => self.update_endpoints(source, update, offer),
            ResourceType::RouteConfiguration => self.update_routes(source, update, offer, now),
            ResourceType::Secret => self.update_secret(source, update, offer),
            ResourceType::ExtensionConfig => self.update_extension(source, update, offer),
        }
    }

    fn is_static(&self, resource_type: ResourceType, name: &str) -> bool {
        match resource_type {
            ResourceType::Cluster => self.clusters.get(name).is_some_and(Slot::is_static),
            ResourceType::Listener => self.listeners.get(name).is_some_and(Slot::is_static),
            _ => false,
        }
    }

    fn update_cluster(&mut self, update: &Update<'_>, mut offer: Offer, now: Instant) -> Result<(), Invalid> {
        if self.clusters.is_unchanged(update.name, offer.hash) {
            return Ok(());
        }
        self.refused.check(ResourceType::Cluster, update.name, offer.hash)?;
        let message = decode(ResourceType::Cluster, update, |m: &cluster_wire::Cluster| &m.name)?;
        let previous = self.clusters.get(update.name).and_then(Slot::newest).map(|v| &v.compiled);
        let mut cx = CompileCx::new(&mut self.inputs, offer.is_static);
        validate(&mut cx, update.resource);
        let compiled = compile_cluster(&message, previous, &mut cx);
        let outcome = cx.finish(kind(ResourceType::Cluster), update.name, compiled);
        let outcome = self.refused.keep(ResourceType::Cluster, update.name, offer.hash, outcome);
        let (compiled, references) = outcome?;
        let stats = self.inputs.stats.server();
        let is_new = self.clusters.get(update.name).is_none();
        if is_new {
            stats.cluster_added.inc()
        } else {
            stats.cluster_modified.inc()
        }
        let name = compiled.cluster.name.clone();
        if let Discovery::Eds { source, name: endpoints } = &compiled.discovery {
            let users = self.endpoint_users.of_mut(*source).entry(endpoints.clone()).or_default();
            if !users.contains(&name) {
                users.push(name.clone());
            }
        }
        if let Discovery::Dns(dns) = &compiled.discovery {
            self.inputs.names.follow(&name, dns);
        }
        self.inputs.known_clusters.insert(name.clone());
        offer.wait_for(&references, now);
        let version = ClusterVersion { compiled, references, built: None, staying: Vec::new() };
        if let Some(dropped) = self.clusters.offer(&name, version, offer) {
            self.drop_cluster(&name, &dropped);
        }
        Ok(())
    }

    fn update_endpoints(
        &mut self,
        source: SourceId,
        update: &Update<'_>,
        offer: Offer,
    ) -> Result<(), Invalid> {
        let outcome = self.take_endpoints(source, update, offer);
        let counted = outcome.as_ref().copied().unwrap_or(EndpointUpdate::Rejected);
        self.count_endpoint_update(source, update.name, counted);
        outcome.map(drop)
    }

    fn take_endpoints(
        &mut self,
        source: SourceId,
        update: &Update<'_>,
        offer: Offer,
    ) -> Result<EndpointUpdate, Invalid> {
        let previous = self.assignments.of_mut(source).get(update.name);
        if previous.is_some_and(|a| a.hash == offer.hash) {
            return Ok(EndpointUpdate::Unchanged);
        }
        self.refused.check(ResourceType::ClusterLoadAssignment, update.name, offer.hash)?;
        let large = previous.filter(|previous| previous.value.hosts.len() >= ChangedEndpoints::WORTH_IT);
        let changes = large.and_then(|previous| {
            let hosts = previous.value.hosts.len();
            ChangedEndpoints::find(&previous.wire, &update.resource.value, hosts)
        });
        let previous = previous.map(|a| a.value.clone());
        let updated = changes.zip(previous.as_deref()).and_then(|(changes, previous)| {
            let changed =
                self.compile_assignment(update, &offer, &changes.changed, &resource::pack(&changes.changed));
            // Whatever is wrong is told by the field's place in the whole.
            Some(changes.complete(previous, changed.ok()?))
        });
        let outcome = match updated {
            Some(assignment) => Ok(assignment),
            None => {
                let message = decode(
                    ResourceType::ClusterLoadAssignment,
                    update,
                    |m: &endpoint_wire::ClusterLoadAssignment| &m.cluster_name,
                )?;
                self.compile_assignment(update, &offer, &message, update.resource)
            }
        };
        let assignment =
            self.refused.keep(ResourceType::ClusterLoadAssignment, update.name, offer.hash, outcome)?;
        let unchanged = previous.is_some_and(|previous| *previous == assignment);
        let name = assignment.name.clone();
        let leaf =
            Leaf { value: Arc::new(assignment), version: offer.version, wire: offer.wire, hash: offer.hash };
        self.assignments.of_mut(source).insert(name.clone(), leaf);
        for user in self.endpoint_users.of_mut(source).get(&name).cloned().unwrap_or_default() {
            self.publish_endpoints(&user);
        }
        Ok(if unchanged { EndpointUpdate::Unchanged } else { EndpointUpdate::Changed })
    }

    /// Checks and compiles a load assignment, which is encoded in `resource`.
    fn compile_assignment(
        &mut self,
        update: &Update<'_>,
        offer: &Offer,
        message: &endpoint_wire::ClusterLoadAssignment,
        resource: &Any,
    ) -> Result<Assignment, Invalid> {
        let mut cx = CompileCx::new(&mut self.inputs, offer.is_static);
        validate(&mut cx, resource);
        let compiled = compile_endpoints(message, &mut cx);
        let (assignment, _) = cx.finish(kind(ResourceType::ClusterLoadAssignment), update.name, compiled)?;
        Ok(assignment)
    }

    fn update_routes(
        &mut self,
        source: SourceId,
        update: &Update<'_>,
        offer: Offer,
        now: Instant,
    ) -> Result<(), Invalid> {
        let stats = self.rds_stats(update.name);
        stats.update_attempt.inc();
        let outcome = self.take_routes(source, update, offer, now);
        match outcome {
            Ok(()) => stats.update_success.inc(),
            Err(_) => stats.update_rejected.inc(),
        }
        outcome
    }

    fn take_routes(
        &mut self,
        source: SourceId,
        update: &Update<'_>,
        mut offer: Offer,
        now: Instant,
    ) -> Result<(), Invalid> {
        let all = self.routes.of_mut(source);
        if all.is_unchanged(update.name, offer.hash) {
            return Ok(());
        }
        self.refused.check(ResourceType::RouteConfiguration, update.name, offer.hash)?;
        let message =
            decode(ResourceType::RouteConfiguration, update, |m: &route_wire::RouteConfiguration| &m.name)?;
        let previous = all.get(update.name).and_then(Slot::newest).map(|v| &*v.routes);
        let mut cx = CompileCx::new(&mut self.inputs, offer.is_static);
        validate(&mut cx, update.resource);
        let compiled = compile_route_configuration(&message, update.version, previous, false, &mut cx);
        let outcome = cx.finish(kind(ResourceType::RouteConfiguration), update.name, compiled);
        let outcome = self.refused.keep(ResourceType::RouteConfiguration, update.name, offer.hash, outcome);
        let ((routes, hosts), references) = outcome?;
        let name = routes.name.clone();
        let vhds = routes.vhds.as_ref().map(Asker::source);
        offer.wait_for(&references, now);
        all.offer(&name, RouteVersion { routes: Arc::new(routes), hosts, references }, offer);
        if let Some(source) = vhds {
            self.take_early_hosts(source, &name, now);
        }
        Ok(())
    }

    fn update_listener(
        &mut self,
        update: &Update<'_>,
        mut offer: Offer,
        now: Instant,
    ) -> Result<(), Invalid> {
        if self.listeners.is_unchanged(update.name, offer.hash) {
            return Ok(());
        }
        self.refused.check(ResourceType::Listener, update.name, offer.hash)?;
        let message = decode(ResourceType::Listener, update, |m: &listener_wire::Listener| &m.name)?;
        let previous = self.listeners.get(update.name).and_then(Slot::newest);
        let mut cx = CompileCx::new(&mut self.inputs, offer.is_static);
        validate(&mut cx, update.resource);
        let compiled = compile_listener(&message, previous.map(|p| &p.compiled), &mut cx);
        let outcome = cx.finish(kind(ResourceType::Listener), update.name, compiled);
        let outcome = self.refused.keep(ResourceType::Listener, update.name, offer.hash, outcome);
        let (compiled, references) = outcome?;
        let name = compiled.listener.name.clone();
        let refused = |reason| Invalid::one(kind(ResourceType::Listener), &name, "address", reason);
        bound_elsewhere(&self.address_users, &self.leaving, &compiled).map_err(refused)?;
        let sockets = bind(&self.listeners, &self.leaving, &compiled, self.workers).map_err(refused)?;
        let stats = self.inputs.stats.server();
        if self.listeners.get(&name).is_none() {
            stats.listener_added.inc()
        } else {
            stats.listener_modified.inc()
        }
        self.address_users.add(&compiled);
        offer.wait_for(&references, now);
        if let Some(dropped) =
            self.listeners.offer(&name, ListenerVersion { compiled, references, sockets }, offer)
        {
            self.address_users.remove(&dropped.compiled, self.listeners.get(&name));
        }
        Ok(())
    }

    fn update_secret(&mut self, source: SourceId, update: &Update<'_>, offer: Offer) -> Result<(), Invalid> {
        if self.secrets.of_mut(source).get(update.name).is_some_and(|s| s.hash == offer.hash) {
            return Ok(());
        }
        self.refused.check(ResourceType::Secret, update.name, offer.hash)?;
        let message = decode(ResourceType::Secret, update, |m: &tls_wire::Secret| &m.name)?;
        let mut cx = CompileCx::new(&mut self.inputs, offer.is_static);
        validate(&mut cx, update.resource);
        let (compiled, files) = cx.reading(|cx| compile_secret(&message, cx));
        let outcome = cx.finish(kind(ResourceType::Secret), update.name, compiled);
        let (secret, _) = self.refused.keep(ResourceType::Secret, update.name, offer.hash, outcome)?;
        self.inputs.registry.publish_secret(source, update.name, &secret);
        self.inputs.folders.follow(&files);
        self.secret_files.keep(source, update.name, message, files);
        let leaf = Leaf { value: secret, version: offer.version, wire: offer.wire, hash: offer.hash };
        self.secrets.of_mut(source).insert(update.name.into(), leaf);
        Ok(())
    }

    fn remove(&mut self, source: SourceId, resource_type: ResourceType, name: &str) {
        if self.is_static(resource_type, name) {
            return;
        }
        self.refused.forget(resource_type, name);
        match resource_type {
            ResourceType::Cluster => {
                if let Some(dropped) = self.clusters.remove(name) {
                    self.drop_cluster(name, &dropped);
                }
            }
            ResourceType::Listener => {
                if let Some(dropped) = self.listeners.remove(name) {
                    self.address_users.remove(&dropped.compiled, self.listeners.get(name));
                }
                if let Some(old) = self.listeners.withdraw(name) {
                    self.address_users.remove(&old.compiled, None);
                    self.inputs.stats.server().listener_removed.inc();
                    self.changes.push(Change::Stop {
                        name: old.compiled.listener.name.clone(),
                        gone: old.compiled.chains.iter().map(|compiled| compiled.chain.id).collect(),
                    });
                }
                // Not emptied: workers have it until they have heard of the change.
                self.inputs.registry.listeners.forget(name);
            }
            ResourceType::ExtensionConfig => self.inputs.registry.extensions.of_mut(source).withdraw(name),
            // `remove_virtual_hosts` has done it.
            ResourceType::VirtualHost => {}
            // As in Envoy: what is wanted by name goes when it is no longer wanted.
            ResourceType::ClusterLoadAssignment | ResourceType::RouteConfiguration | ResourceType::Secret => {
                tracing::warn!(target: "config", "the server removed {} '{name}', which is in use: ignored", kind(resource_type));
            }
        }
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
        ResourceType::ExtensionConfig => "extension configuration",
        ResourceType::VirtualHost => "virtual host",
    }
}

/// Decodes a resource, which must have the name that it came under.
pub(super) fn decode<M: Message + Name + Default>(
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
pub(crate) fn validate(cx: &mut CompileCx<'_>, resource: &Any) {
    let report = validate::validate(resource::message_name(&resource.type_url), &resource.value);
    for violation in report.violations.iter().chain(&report.unknown) {
        cx.problem(&violation.path, &violation.reason);
    }
}
