//! What the admin interface sees of the process and does to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::Event;
use crate::admin::{AdminView, CertificateEntry, ClusterEntry, Drain, ListenerEntry, ServerState};
use crate::config::compile::Secret;
use crate::config::dump;
use crate::config::handle::ConfigurationHandle;
use crate::identity::IdentityHandle;
use crate::worker::Shared;

/// See the module.
#[derive(Debug)]
pub(super) struct View {
    configuration: Arc<ConfigurationHandle>,
    shared: Arc<Shared>,
    events: UnboundedSender<Event>,
    state: AtomicU8,
    facts: Facts,
}

/// What is known from the start.
#[derive(Debug)]
pub(super) struct Facts {
    /// What `/server_info` shows as the command line.
    pub(super) command_line: Value,
    /// The node as JSON.
    pub(super) node: Value,
    /// The workload's identity, for a sidecar.
    pub(super) identity: Option<Arc<IdentityHandle>>,
}

impl View {
    pub(super) fn new(
        configuration: Arc<ConfigurationHandle>,
        shared: Arc<Shared>,
        events: UnboundedSender<Event>,
        facts: Facts,
    ) -> Self {
        let state = AtomicU8::new(ServerState::PreInitializing as u8);
        Self { configuration, shared, events, state, facts }
    }

    pub(super) fn configuration(&self) -> &Arc<ConfigurationHandle> {
        &self.configuration
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn send(&self, event: Event) {
        // The server that does not listen any more is ending already.
        let _ = self.events.send(event);
    }

    pub(super) fn set_state(&self, state: ServerState) {
        self.state.store(state as u8, Ordering::Relaxed);
        self.count();
    }

    /// Everything that the start waits for is there. A process that drains already stays so.
    pub(super) fn initialized(&self) {
        let (from, to) = (ServerState::Initializing as u8, ServerState::Live as u8);
        let _ = self.state.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        self.count();
    }

    fn count(&self) {
        let state = self.state();
        let server = self.shared.stats.server();
        server.state.set(state.number());
        server.live.set(i64::from(state == ServerState::Live));
    }

    /// Names of active listeners.
    pub(super) fn listener_names(&self, inbound_only: bool) -> Vec<Arc<str>> {
        self.configuration.read(|c| {
            let active = c.listeners().iter().filter_map(|(name, slot)| Some((name, slot.active()?)));
            active
                .filter(|(_, v)| !inbound_only || v.compiled.is_inbound)
                .map(|(name, _)| name.clone())
                .collect()
        })
    }

    /// Names of active listeners that have sockets.
    pub(super) fn open_listener_names(&self, inbound_only: bool) -> Vec<Arc<str>> {
        self.configuration.read(|c| {
            let active = c.listeners().iter().filter_map(|(name, slot)| Some((name, slot.active()?)));
            active
                .filter(|(_, v)| (!inbound_only || v.compiled.is_inbound) && !v.bound().is_empty())
                .map(|(name, _)| name.clone())
                .collect()
        })
    }

    /// Ids of the filter chains of active listeners.
    pub(super) fn chain_ids(&self, inbound_only: bool) -> Vec<u64> {
        self.configuration.read(|c| {
            let active = c.listeners().iter().filter_map(|(_, slot)| slot.active());
            active
                .filter(|v| !inbound_only || v.compiled.is_inbound)
                .flat_map(|v| v.compiled.chains.iter().map(|compiled| compiled.chain.id))
                .collect()
        })
    }
}

impl AdminView for View {
    fn state(&self) -> ServerState {
        if self.shared.health_check_failed.load(Ordering::Relaxed) {
            return ServerState::Draining;
        }
        match self.state.load(Ordering::Relaxed) {
            n if n == ServerState::Live as u8 => ServerState::Live,
            n if n == ServerState::Draining as u8 => ServerState::Draining,
            n if n == ServerState::Initializing as u8 => ServerState::Initializing,
            _ => ServerState::PreInitializing,
        }
    }

    fn unready_reason(&self) -> Option<String> {
        self.facts.identity.as_ref()?.nears_its_end()
    }

    fn shedding(&self) -> Vec<(&'static str, u32)> {
        self.shared.overload.on()
    }

    fn clusters(&self) -> Vec<ClusterEntry> {
        let mut entries: Vec<ClusterEntry> = self.configuration.read(|c| {
            let active = c.clusters().iter().filter_map(|(_, slot)| Some((slot, slot.active()?)));
            active
                .map(|(slot, version)| ClusterEntry {
                    cluster: version.compiled.cluster.clone(),
                    added_via_api: !slot.is_static(),
                })
                .collect()
        });
        entries.sort_by(|a, b| a.cluster.name.cmp(&b.cluster.name));
        entries
    }

    fn listeners(&self) -> Vec<ListenerEntry> {
        let mut entries: Vec<ListenerEntry> = self.configuration.read(|c| {
            let active = c.listeners().iter().filter_map(|(name, slot)| Some((name, slot.active()?)));
            active
                .map(|(name, version)| ListenerEntry {
                    name: name.clone(),
                    addresses: version.local_addresses(),
                })
                .collect()
        });
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }

    fn config_dump(&self, include_eds: bool) -> Value {
        self.configuration.read(|c| dump::config_dump(c, include_eds))
    }

    fn certs(&self) -> Vec<CertificateEntry> {
        self.configuration.read(|c| {
            let mut entries = Vec::new();
            let registry = &c.inputs().registry;
            let (certificate, roots) =
                (registry.identity_certificate.get(), registry.identity_validation.get());
            if certificate.is_some() || roots.is_some() {
                entries.push(CertificateEntry {
                    ca_path: registry.identity_validation.name().to_string(),
                    ca: roots.iter().flat_map(|r| r.roots().cloned()).collect(),
                    chain_path: registry.identity_certificate.name().to_string(),
                    chain: certificate.iter().flat_map(|c| c.chain().iter().cloned()).collect(),
                });
            }
            let mut secrets: Vec<_> = c.secrets().collect();
            secrets.sort_by_key(|(name, _)| (*name).clone());
            entries.extend(secrets.into_iter().map(|(name, leaf)| match &leaf.value {
                Secret::Certificate(certificate) => CertificateEntry {
                    ca_path: String::new(),
                    ca: Vec::new(),
                    chain_path: name.to_string(),
                    chain: certificate.chain().to_vec(),
                },
                Secret::Validation(context) => CertificateEntry {
                    ca_path: name.to_string(),
                    ca: context.roots().cloned().collect(),
                    chain_path: String::new(),
                    chain: Vec::new(),
                },
            }));
            let chains =
                c.inputs().inline_certificates.iter().map(|(source, certificate)| CertificateEntry {
                    ca_path: String::new(),
                    ca: Vec::new(),
                    chain_path: source.to_string(),
                    chain: certificate.chain().to_vec(),
                });
            let roots = c.inputs().inline_validations.iter().map(|(source, context)| CertificateEntry {
                ca_path: source.to_string(),
                ca: context.roots().cloned().collect(),
                chain_path: String::new(),
                chain: Vec::new(),
            });
            let roots = roots.filter(|entry| !entry.ca.is_empty());
            let mut inline: Vec<_> = chains.chain(roots).collect();
            inline.sort_by(|a, b| (&a.chain_path, &a.ca_path).cmp(&(&b.chain_path, &b.ca_path)));
            entries.extend(inline);
            entries
        })
    }

    fn command_line_options(&self) -> Value {
        self.facts.command_line.clone()
    }

    fn node(&self) -> Value {
        self.facts.node.clone()
    }

    fn set_healthy(&self, healthy: bool) {
        self.shared.health_check_failed.store(!healthy, Ordering::Relaxed);
        self.count();
    }

    fn drain(&self, drain: Drain) {
        self.send(Event::DrainListeners(drain));
    }

    fn quit(&self) {
        self.send(Event::Quit);
    }
}
