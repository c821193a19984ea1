//! The sources of dynamic configuration: what is wanted of each goes there, and what comes goes to `config::apply`.
//!
//! [`run`] hands every [`WatchChange`] to the task of its source: one for the aggregated stream, one for each resource type of any other
//! control plane, one for each watched file. Runs on main.

mod backoff;
mod channel;
mod file;
mod grpc;
mod service;
mod session;
mod sessions;
mod stream;
mod update;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3::Node;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::config::handle::ConfigurationHandle;
use crate::config::restore::Versions;
use crate::config::sources::{GrpcSource, SourceId, SourceSpec};
use crate::config::watch::WatchChange;
use crate::net::Target;
use crate::state::{Record, Recorder};
use grpc::Asked;
use service::Service;

/// What the sources need to know.
#[derive(Debug)]
pub struct XdsOptions {
    /// `dynamic_resources.ads_config`.
    pub ads: Option<GrpcSource>,
    /// The server of the ADS cluster, when it is known by a name, which is looked up before each attempt to connect.
    pub named: Option<Target>,
    /// Who asks.
    pub node: Node,
    /// A bearer token for the control plane of ADS, read again for each stream.
    pub token_file: Option<PathBuf>,
    /// Writes down what comes over ADS.
    pub recorder: Option<Recorder>,
    /// What the configuration has already of ADS, with the versions: from before the process started.
    pub restored: Versions,
}

/// Keeps all sources; never ends. They end with it.
pub async fn run(
    options: XdsOptions,
    configuration: Arc<ConfigurationHandle>,
    mut changes: UnboundedReceiver<WatchChange>,
) {
    let options = Arc::new(options);
    let mut sources = Sources { options, configuration, tasks: JoinSet::new(), running: BTreeMap::new() };
    while let Some(change) = changes.recv().await {
        sources.tell(change);
    }
}

struct Sources {
    options: Arc<XdsOptions>,
    configuration: Arc<ConfigurationHandle>,
    tasks: JoinSet<()>,
    running: BTreeMap<(SourceId, Option<ResourceType>), UnboundedSender<WatchChange>>,
}

impl Sources {
    /// Tells a source what is wanted of it, or no longer. It starts with the first that is wanted.
    fn tell(&mut self, change: WatchChange) {
        let (source, resource_type) = (change.key.source, change.key.resource_type);
        if let Some(recorder) = &self.options.recorder
            && source == SourceId::ADS
            && resource_type != ResourceType::VirtualHost
            && !change.is_wanted
        {
            recorder.record(Record::Gone(resource_type, change.key.name.to_string()));
        }
        let spec = self.configuration.read(|c| c.inputs().sources.spec(source).clone());
        let one = (spec != SourceSpec::Ads).then_some(resource_type);
        let running = self.running.entry((source, one)).or_insert_with(|| {
            let (sender, changes) = unbounded_channel();
            let (options, configuration) = (self.options.clone(), self.configuration.clone());
            let asked = |grpc, service| Asked { source, grpc, service };
            match (spec, &self.options.ads) {
                (SourceSpec::Ads, Some(ads)) => {
                    let asked = asked(ads.clone(), Service::Aggregated);
                    self.tasks.spawn(grpc::keep(asked, options, configuration, changes));
                }
                (SourceSpec::Grpc(other), _) => {
                    let asked = asked(other, Service::Of(resource_type));
                    self.tasks.spawn(grpc::keep(asked, options, configuration, changes));
                }
                (SourceSpec::File(file), _) => {
                    self.tasks.spawn(file::keep(source, file, resource_type, configuration, changes));
                }
                // What the bootstrap has is there already.
                (SourceSpec::Static, _) | (SourceSpec::Ads, None) => {}
            }
            sender
        });
        // The task ends only with this.
        let _ = running.send(change);
    }
}
