//! One stream to a control plane, opened again whenever it ends, as long as something is wanted of it.
//!
//! A control plane that is gone, stalls or sends garbage changes nothing of what runs: the stream is closed and another one opened after
//! a pause, which tells what is held already. What has a time to live goes when that is over, with a stream or without.

use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::service::Service;
use super::session::Session;
use super::sessions::Sessions;
use super::{XdsOptions, stream, update};
use crate::config::configuration::Configuration;
use crate::config::handle::ConfigurationHandle;
use crate::config::restore::Versions;
use crate::config::sources::{GrpcSource, SourceId};
use crate::config::watch::WatchChange;

/// Who is asked for what.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) source: SourceId,
    pub(super) grpc: GrpcSource,
    pub(super) service: Service,
}

impl Asked {
    fn sessions(&self, options: &XdsOptions) -> Sessions {
        let variant = self.grpc.variant;
        match self.service {
            Service::Aggregated => Sessions::new(variant, ResourceType::CLIENT, options.restored.clone()),
            Service::Of(resource_type) => Sessions::new(variant, [resource_type], Versions::new()),
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
    let mut sessions = asked.sessions(&options);
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
        sessions.iter_mut().for_each(Session::on_stream_closed);
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
        let again = Instant::now() + pause;
        while let Some(at) = sessions.next_expiry().filter(|at| *at < again) {
            sleep_until(at).await;
            drop_expired(&asked, &configuration, &mut sessions);
        }
        sleep_until(again).await;
    }
}

/// Drops what has lived long enough, as if the control plane had removed it.
pub(super) fn drop_expired(asked: &Asked, configuration: &ConfigurationHandle, sessions: &mut Sessions) {
    for (resource_type, name) in sessions.expire(Instant::now()) {
        tracing::warn!(target: "config", "{resource_type}: '{name}' has outlived its ttl");
        update::apply(configuration, asked.source, resource_type, &[], &[&name]);
    }
}
