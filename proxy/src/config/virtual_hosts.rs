//! VHDS: virtual hosts that come one by one, beside those that their route configuration has itself.
//!
//! Each is called `route configuration/anything`, waits for its clusters like any other resource, and is then published as part of its
//! route configuration. What several places have of a domain goes to the route configuration's own virtual host. A virtual host costs
//! its own compilation and one look at its siblings; it is compiled again when what it inherits changes. Owned by main.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::route::v3 as wire;
use outrigger_xds_api::{ResourceType, resource};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use super::apply::{Update, kind, validate};
use super::compile::{CompileCx, Invalid, References, VirtualHostCx, compile_virtual_host_of};
use super::configuration::{Configuration, RouteVersion};
use super::sources::{BySource, SourceId};
use super::warming::{AtDeadline, Offer, Slot, Slots};
use super::watch::WatchKey;
use crate::route::{DomainIndex, RouteConfiguration, VirtualHost};

/// What one source has of virtual hosts.
#[derive(Debug, Default)]
pub struct VirtualHosts {
    /// By resource name.
    pub(super) slots: Slots<VirtualHostVersion>,
    /// Route configuration → its resources.
    by_routes: FxHashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// What came, unasked for, of route configurations that nobody has yet, with its version: it is not sent again when they come.
    early: FxHashMap<Arc<str>, (Box<str>, Any)>,
    /// The source has said what it has without being asked, or had the time for it.
    pub(super) has_answered: bool,
}

/// A virtual host and what it names.
#[derive(Debug)]
pub struct VirtualHostVersion {
    virtual_host: Arc<VirtualHost>,
    /// What it was compiled with.
    cx: Arc<VirtualHostCx>,
    references: References,
}

impl VirtualHosts {
    /// The published ones of a route configuration, encoded, by name.
    pub fn active_wires<'v>(&'v self, routes: &str) -> impl Iterator<Item = &'v [u8]> {
        let names = self.by_routes.get(routes).into_iter().flatten();
        names.filter_map(|name| self.slots.get(name)?.active_wire())
    }

    /// Forgets a resource; whether it was published.
    fn remove(&mut self, name: &str) -> bool {
        self.early.remove(name);
        if let Some((routes, _)) = name.rsplit_once('/')
            && let Some(names) = self.by_routes.get_mut(routes)
        {
            names.remove(name);
            if names.is_empty() {
                self.by_routes.remove(routes);
            }
        }
        self.slots.withdraw(name).is_some()
    }
}

impl Configuration {
    /// Takes in a virtual host. One of a route configuration that nobody has is put by.
    pub(super) fn update_virtual_host(
        &mut self,
        source: SourceId,
        update: &Update<'_>,
        mut offer: Offer,
        now: Instant,
    ) -> Result<(), Invalid> {
        let refused = |reason: String| Invalid::one(kind(ResourceType::VirtualHost), update.name, "", reason);
        let Some((routes, _)) = update.name.rsplit_once('/') else {
            let reason = "the name must be that of the route configuration, a slash, and the host";
            return Err(refused(reason.to_owned()));
        };
        let Some(cx) = self.virtual_host_cx(source, routes) else {
            let early = (update.version.into(), update.resource.clone());
            self.virtual_hosts.of_mut(source).early.insert(update.name.into(), early);
            return Ok(());
        };
        let hosts = self.virtual_hosts.of_mut(source);
        if hosts.slots.is_unchanged(update.name, offer.hash) {
            return Ok(());
        }
        self.refused.check(ResourceType::VirtualHost, update.name, offer.hash)?;
        let message: wire::VirtualHost =
            resource::unpack(update.resource).map_err(|e| refused(e.to_string()))?;
        let mut compile = CompileCx::new(&mut self.inputs, false);
        validate(&mut compile, update.resource);
        let compiled = compile_virtual_host_of(&message, &cx, &mut compile).and_then(|host| {
            match DomainIndex::build([host.domains.iter().map(|domain| &**domain)]) {
                Ok(_) => Ok(host),
                Err(reason) => Err(compile.refuse("domains", reason)),
            }
        });
        let outcome = compile.finish(kind(ResourceType::VirtualHost), update.name, compiled);
        let outcome = self.refused.keep(ResourceType::VirtualHost, update.name, offer.hash, outcome);
        let (virtual_host, references) = outcome?;
        let name: Arc<str> = update.name.into();
        hosts.by_routes.entry(routes.into()).or_default().insert(name.clone());
        offer.wait_for(&references, now);
        let version = VirtualHostVersion { virtual_host: Arc::new(virtual_host), cx, references };
        hosts.slots.offer(&name, version, offer);
        Ok(())
    }

    /// A route configuration that takes virtual hosts from `source` has come: some of them may have come before it.
    pub(super) fn take_early_hosts(&mut self, source: SourceId, routes: &str, now: Instant) {
        let is_of = |name: &Arc<str>| name.rsplit_once('/').is_some_and(|(of, _)| of == routes);
        let early = &mut self.virtual_hosts.of_mut(source).early;
        let early: Vec<_> = early.extract_if(|name, _| is_of(name)).collect();
        for (name, (version, resource)) in early {
            let update = Update { name: &name, version: &version, resource: &resource, aliases: &[] };
            if let Err(invalid) = self.update(source, ResourceType::VirtualHost, &update, now) {
                tracing::warn!(target: "config", "rejected: {invalid}");
            }
        }
    }

    /// Nobody has this route configuration any more: what requests have asked for of it goes too.
    pub(super) fn forget_virtual_hosts_of(&mut self, routes: &str) {
        let is_of = |key: &WatchKey| {
            let of = key.name.rsplit_once('/').map(|(of, _)| of);
            key.resource_type == ResourceType::VirtualHost && of == Some(routes)
        };
        for key in self.forget_on_demand(is_of) {
            self.virtual_hosts.of_mut(key.source).remove(&key.name);
        }
    }

    /// The source has these no longer. Gives the route configurations that are to be published without them, once what came with the
    /// removal is there: a domain may have moved from one to another.
    pub(super) fn remove_virtual_hosts<'n>(
        &mut self,
        source: SourceId,
        names: &[&'n str],
    ) -> BTreeSet<&'n str> {
        let mut changed = BTreeSet::new();
        for name in names {
            self.refused.forget(ResourceType::VirtualHost, name);
            if self.virtual_hosts.of_mut(source).remove(name)
                && let Some((routes, _)) = name.rsplit_once('/')
            {
                changed.insert(routes);
            }
        }
        changed
    }

    /// Publishes these route configurations, whose virtual hosts come from `source`.
    pub(super) fn publish_routes_of(&mut self, source: SourceId, names: &BTreeSet<&str>) {
        for routes in names {
            self.users_of(source, routes).iter().for_each(|user| self.publish_routes(user, routes));
        }
    }

    /// Activates virtual hosts that miss nothing; gives the route configurations, with their sources, that are others now.
    pub(super) fn activate_virtual_hosts(
        &mut self,
        now: Instant,
        misses: impl Fn(&Configuration, &[SourceId], &str, &References) -> bool,
    ) -> BTreeSet<(SourceId, Arc<str>)> {
        let mut changed = BTreeSet::new();
        let sources: Vec<SourceId> = self.virtual_hosts.iter().map(|(source, _)| source).collect();
        for source in sources {
            // Taken out meanwhile, so that all else can be looked at.
            let mut slots = std::mem::take(&mut self.virtual_hosts.of_mut(source).slots);
            let mut users = FxHashMap::default();
            let activated = slots.activate(now, AtDeadline::ActivateFirst, |version| {
                let routes = &version.cx.routes;
                let users = users.entry(routes.clone()).or_insert_with(|| self.users_of(source, routes));
                misses(self, users, routes, &version.references)
            });
            let all = activated.iter().filter_map(|one| Some((source, one.name.rsplit_once('/')?.0)));
            for (_, routes) in all {
                let of = users.entry(routes.into()).or_insert_with(|| self.users_of(source, routes));
                changed.extend(of.iter().map(|user| (*user, Arc::from(routes))));
            }
            self.virtual_hosts.of_mut(source).slots = slots;
        }
        changed
    }

    /// Publishes a route configuration with the virtual hosts that it has by now.
    pub(super) fn publish_routes(&mut self, source: &SourceId, name: &str) {
        let Self { routes, virtual_hosts, inputs, .. } = self;
        let Some(version) = routes.of(*source).and_then(|routes| routes.active(name)) else { return };
        let mut routes = version.routes.clone();
        if let Some(cx) = &version.hosts
            && let Some(asker) = &version.routes.vhds
        {
            let mut hosts = virtual_hosts.of_mut(asker.source()).compiled(cx, inputs);
            let mut seen: FxHashSet<String> = FxHashSet::default();
            let mut is_new = |host: &Arc<VirtualHost>| {
                let domains = host.domains.iter().map(|domain| domain.to_ascii_lowercase());
                let domains: Vec<String> = domains.collect();
                let is_new = domains.iter().all(|domain| !seen.contains(domain));
                if !is_new {
                    tracing::warn!(target: "config", "virtual host '{}': its domains are taken", host.name);
                }
                seen.extend(domains);
                is_new
            };
            for host in &version.routes.virtual_hosts {
                is_new(host);
            }
            hosts.retain(is_new);
            match version.routes.with(hosts) {
                Ok(all) => routes = Arc::new(all),
                Err(reason) => tracing::warn!(target: "config", "route configuration '{name}': {reason}"),
            }
        }
        inputs.registry.routes.of_mut(*source).cell(name).publish(routes);
    }

    /// Whether a route configuration has a virtual host for this authority.
    pub(super) fn has_virtual_host(&self, source: SourceId, name: &str) -> bool {
        let Some((routes, authority)) = name.rsplit_once('/') else { return false };
        let registry = &self.inputs.registry;
        let published = |user: &SourceId| registry.routes.of(*user)?.get(routes);
        let users = self.users_of(source, routes);
        users.iter().filter_map(published).any(|routes| routes.virtual_host(authority).is_some())
    }

    /// Whether a virtual host of this name is published.
    pub(super) fn is_published_host(&self, source: SourceId, name: &str) -> bool {
        self.virtual_hosts.of(source).is_some_and(|hosts| hosts.slots.active(name).is_some())
    }

    /// The sources of the route configurations of this name that take virtual hosts from `source`.
    fn users_of(&self, source: SourceId, routes: &str) -> Vec<SourceId> {
        let takes = |version: &RouteVersion| {
            version.routes.vhds.as_ref().is_some_and(|asker| asker.source() == source)
        };
        let users = self.routes.iter();
        let users = users.filter(|(_, all)| all.get(routes).is_some_and(|slot| slot.versions().any(takes)));
        users.map(|(user, _)| user).collect()
    }

    /// What a virtual host of this route configuration inherits.
    fn virtual_host_cx(&self, source: SourceId, routes: &str) -> Option<Arc<VirtualHostCx>> {
        let user = *self.users_of(source, routes).first()?;
        let version = self.routes.of(user)?.get(routes).and_then(Slot::newest)?;
        version.hosts.clone()
    }
}

impl VirtualHosts {
    /// The published ones of a route configuration, as they are with what they inherit of this version of it.
    fn compiled(
        &mut self,
        cx: &Arc<VirtualHostCx>,
        inputs: &mut super::compile::Inputs,
    ) -> Vec<Arc<VirtualHost>> {
        let mut all = Vec::new();
        for name in self.by_routes.get(&cx.routes).into_iter().flatten() {
            let Some(version) = self.slots.active(name) else { continue };
            if version.cx.inherited != cx.inherited {
                let message = self.slots.get(name).and_then(Slot::active_wire);
                let message = message.map(<wire::VirtualHost as prost::Message>::decode);
                let (Some(Ok(message)), Some(version)) = (message, self.slots.active_mut(name)) else {
                    continue;
                };
                let mut compile = CompileCx::new(inputs, false);
                let compiled = compile_virtual_host_of(&message, cx, &mut compile);
                match compile.finish(kind(ResourceType::VirtualHost), name, compiled) {
                    Ok((host, references)) => {
                        *version =
                            VirtualHostVersion { virtual_host: Arc::new(host), cx: cx.clone(), references };
                    }
                    Err(invalid) => {
                        tracing::warn!(target: "config", "{invalid}");
                        continue;
                    }
                }
            }
            all.extend(self.slots.active(name).map(|version| version.virtual_host.clone()));
        }
        all
    }
}

/// Whether all that these sources have of virtual hosts without being asked is there.
pub(super) fn misses_virtual_hosts(references: &References, hosts: &BySource<VirtualHosts>) -> bool {
    let mut watched = references.watched(ResourceType::VirtualHost);
    watched.any(|(source, _)| !hosts.of(source).is_some_and(|hosts| hosts.has_answered))
}

impl RouteConfiguration {
    /// The same with more virtual hosts.
    ///
    /// # Errors
    /// Two have one domain.
    fn with(&self, more: Vec<Arc<VirtualHost>>) -> Result<Self, String> {
        let virtual_hosts: Vec<Arc<VirtualHost>> = self.virtual_hosts.iter().cloned().chain(more).collect();
        Ok(Self {
            name: self.name.clone(),
            domains: DomainIndex::build(virtual_hosts.iter().map(|v| v.domains.iter().map(|d| &**d)))?,
            virtual_hosts,
            ignore_port: self.ignore_port,
            ignore_path_parameters: self.ignore_path_parameters,
            vhost_header: self.vhost_header.clone(),
            internal_only_headers: self.internal_only_headers.clone(),
            vhds: self.vhds.clone(),
            version: self.version.clone(),
        })
    }
}
