//! The ADS client: connects, subscribes, feeds what comes to `config::apply`, and answers with the verdict.
//!
//! One stream for all types, in the delta variant. Runs on main. A control plane that is gone, stalls or sends garbage changes
//! nothing of what runs: the stream is closed and another one opened after a pause, which tells what is held already.

mod backoff;
mod channel;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::WILDCARD;
use outrigger_xds_api::session::delta::Client;
use outrigger_xds_api::wire::core::v3::Node;

use crate::config::configuration::Configuration;
use crate::config::handle::ConfigurationHandle;
use crate::net::Target;
use backoff::Backoff;

/// What the client needs to know.
#[derive(Debug)]
pub struct AdsOptions {
    /// Name of the static cluster that is asked.
    pub cluster: String,
    /// Its server, when it is known by a name, which is looked up before each attempt to connect.
    pub named: Option<Target>,
    /// Who asks.
    pub node: Node,
    /// Subscribe to all listeners.
    pub wants_listeners: bool,
    /// Subscribe to all clusters.
    pub wants_clusters: bool,
    /// A bearer token, read again for each stream.
    pub token_file: Option<PathBuf>,
}

/// Keeps a stream to the control plane; never ends.
pub async fn run(options: AdsOptions, configuration: Arc<ConfigurationHandle>) {
    let mut sessions = sessions(&options);
    let mut backoff = Backoff::new();
    let stats = configuration.read(|c| c.inputs().stats.clone());
    loop {
        let outcome = stream::run(&options, &configuration, &mut sessions, &mut backoff).await;
        stats.server().control_plane_connected_state.set(0);
        sessions.iter_mut().for_each(Client::on_stream_closed);
        let pause = backoff.next();
        match outcome {
            Ok(()) => {
                tracing::info!(target: "config", "the control plane closed the stream; again in {pause:?}")
            }
            Err(error) => {
                configuration.read(Configuration::count_lost_control_plane);
                tracing::warn!(target: "config", "control plane '{}': {error}; again in {pause:?}", options.cluster);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// One session a type, in the order in which they are asked for.
fn sessions(options: &AdsOptions) -> Vec<Client> {
    ResourceType::ALL
        .into_iter()
        .map(|resource_type| {
            let mut session = Client::new(resource_type);
            let wants_all = match resource_type {
                ResourceType::Cluster => options.wants_clusters,
                ResourceType::Listener => options.wants_listeners,
                _ => false,
            };
            if wants_all {
                session.subscribe(WILDCARD);
            }
            session
        })
        .collect()
}
