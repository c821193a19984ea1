//! One stream to a control plane, opened again whenever it ends, as long as something is wanted of it.
//!
//! A control plane that is gone, stalls or sends garbage changes nothing of what runs: the stream is closed and another one opened after
//! a pause, which tells what is held already.

use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::WILDCARD;
use outrigger_xds_api::session::delta::Client;
use tokio::sync::mpsc::UnboundedReceiver;

use super::XdsOptions;
use super::backoff::Backoff;
use super::service::Service;
use super::stream;
use crate::config::configuration::Configuration;
use crate::config::handle::ConfigurationHandle;
use crate::config::restore::Versions;
use crate::config::sources::{GrpcSource, SourceId};
use crate::config::watch::{WatchChange, WatchKey};

/// Who is asked for what.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) source: SourceId,
    pub(super) grpc: GrpcSource,
    pub(super) service: Service,
}

impl Asked {
    fn types(&self) -> Vec<ResourceType> {
        match self.service {
            Service::Aggregated => ResourceType::ALL.to_vec(),
            Service::Of(resource_type) => vec![resource_type],
        }
    }
}

/// Keeps the stream; never ends.
pub(super) async fn keep(
    asked: Asked,
    options: Arc<XdsOptions>,
    configuration: Arc<ConfigurationHandle>,
    mut changes: UnboundedReceiver<WatchChange>,
) {
    let restored =
        if asked.service == Service::Aggregated { options.restored.clone() } else { Versions::new() };
    let sessions = asked.types().into_iter().map(Client::new).collect();
    let mut sessions = Sessions { sessions, restored };
    let mut backoff = Backoff::new();
    let stats = configuration.read(|c| c.inputs().stats.clone());
    let cluster = &asked.grpc.cluster;
    loop {
        while !sessions.want_something() {
            let Some(change) = changes.recv().await else { return };
            sessions.take(&change);
        }
        let outcome =
            stream::run(&asked, &options, &configuration, &mut sessions, &mut changes, &mut backoff).await;
        if asked.service == Service::Aggregated {
            stats.server().control_plane_connected_state.set(0);
        }
        sessions.iter_mut().for_each(Client::on_stream_closed);
        let pause = backoff.next();
        match outcome {
            Ok(()) => {
                tracing::info!(target: "config", "the control plane '{cluster}' closed the stream; again in {pause:?}");
            }
            Err(error) => {
                configuration.read(Configuration::count_lost_control_plane);
                tracing::warn!(target: "config", "control plane '{cluster}': {error}; again in {pause:?}");
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// One session a type, in the order in which they are asked for.
#[derive(Debug)]
pub(super) struct Sessions {
    sessions: Vec<Client>,
    /// Versions that the configuration has from before the start. A session hears of them with the subscription.
    restored: Versions,
}

impl Sessions {
    fn want_something(&self) -> bool {
        self.sessions.iter().any(|session| session.wants_something())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.sessions.iter_mut()
    }

    pub(super) fn of(&mut self, type_url: &str) -> Option<&mut Client> {
        self.sessions.iter_mut().find(|session| session.resource_type().type_url() == type_url)
    }

    /// Wants a name, or no longer; what the configuration does not want it has forgotten already.
    pub(super) fn take(&mut self, change: &WatchChange) {
        let WatchKey { resource_type, name, .. } = &change.key;
        let of_type = |session: &&mut Client| session.resource_type() == *resource_type;
        let Some(session) = self.sessions.iter_mut().find(of_type) else { return };
        if !change.is_wanted {
            let _ = session.unsubscribe(name);
            return;
        }
        session.subscribe(&**name);
        let is_covered = |key: &(ResourceType, String)| {
            key.0 == *resource_type && (key.1 == **name || **name == *WILDCARD)
        };
        let covered: Vec<_> = self.restored.keys().filter(|key| is_covered(key)).cloned().collect();
        for key in covered {
            if let Some(version) = self.restored.remove(&key) {
                session.restore(key.1, version);
            }
        }
    }
}
