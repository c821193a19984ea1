//! One ADS stream, from opening it to its end.

use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::delta::Client;
use outrigger_xds_api::session::{WILDCARD, nack};
use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::backoff::Backoff;
use super::{AdsOptions, channel};
use crate::config::apply::Update;
use crate::config::compile::{Invalid, Problem};
use crate::config::configuration::{Configuration, Subscriptions};
use crate::config::handle::ConfigurationHandle;
use crate::stats::Stats;

/// A response may be this large, in bytes.
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;

/// Runs one stream until it ends.
pub(super) async fn run(
    options: &AdsOptions,
    configuration: &ConfigurationHandle,
    sessions: &mut [Client],
    backoff: &mut Backoff,
) -> Result<(), String> {
    let cluster = configuration
        .read(|c| c.inputs().registry.clusters.get(&options.cluster))
        .ok_or("the cluster is not there yet")?;
    if let Some(target) = &options.named {
        let addresses = target.addresses().await?;
        let name = target.at().certificate_name().unwrap_or_default();
        configuration.update(|c| c.relocate(&options.cluster, name, &addresses));
    }
    let channel = channel::connect(cluster, options.named.as_ref()).await?;
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
    let (requests, outgoing) = unbounded_channel();
    let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
    if let Some(token) = bearer_token(options)? {
        request.metadata_mut().insert("authorization", token);
    }
    // The first requests go out with the stream: a server may wait for them before it answers anything.
    let mut stream = Stream { options, configuration, sessions, requests };
    stream.subscribe();
    let mut responses =
        client.delta_aggregated_resources(request).await.map_err(|s| status_text(&s))?.into_inner();
    let stats = configuration.read(|c| c.inputs().stats.clone());
    stats.server().control_plane_connected_state.set(1);
    tracing::info!(target: "config", "connected to the control plane '{}'", options.cluster);
    while let Some(response) = responses.message().await.map_err(|s| status_text(&s))? {
        backoff.reset();
        stream.take(&response, &stats);
    }
    Ok(())
}

/// `Bearer TOKEN` from the token file. Never part of an error.
fn bearer_token(options: &AdsOptions) -> Result<Option<MetadataValue<tonic::metadata::Ascii>>, String> {
    let Some(path) = &options.token_file else { return Ok(None) };
    let token = std::fs::read_to_string(path)
        .map_err(|e| format!("cannot read the token '{}': {e}", path.display()))?;
    let mut value: MetadataValue<_> = format!("Bearer {}", token.trim())
        .parse()
        .map_err(|_| format!("the token in '{}' has characters that a token cannot have", path.display()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn status_text(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// An open stream.
struct Stream<'a> {
    options: &'a AdsOptions,
    configuration: &'a ConfigurationHandle,
    sessions: &'a mut [Client],
    requests: UnboundedSender<DeltaDiscoveryRequest>,
}

impl Stream<'_> {
    /// Tells the server what is wanted now.
    fn subscribe(&mut self) {
        if let Some(wanted) = self.configuration.update(Configuration::take_subscriptions) {
            self.want(ResourceType::ClusterLoadAssignment, wanted_names(&wanted, |w| &w.endpoints));
            self.want(ResourceType::RouteConfiguration, wanted_names(&wanted, |w| &w.routes));
            self.want(ResourceType::Secret, wanted_names(&wanted, |w| &w.secrets));
        }
        for session in self.sessions.iter_mut() {
            while let Some(request) = session.next_request(&self.options.node) {
                send(&self.requests, Some(request));
            }
        }
    }

    fn want(&mut self, resource_type: ResourceType, names: Vec<String>) {
        let Some(session) = self.sessions.iter_mut().find(|s| s.resource_type() == resource_type) else {
            return;
        };
        let dropped = session.set_subscription(names);
        if !dropped.is_empty() {
            self.configuration.update(|c| c.forget(resource_type, &dropped));
        }
    }

    /// Applies one response and answers it.
    fn take(&mut self, response: &DeltaDiscoveryResponse, stats: &Stats) {
        let Some(session) =
            self.sessions.iter_mut().find(|s| s.resource_type().type_url() == response.type_url)
        else {
            tracing::warn!(target: "config", "a response about a type that was not asked for: '{}'", response.type_url);
            return;
        };
        let resource_type = session.resource_type();
        count(stats, resource_type, Outcome::Attempt);
        let received = match session.on_response(response) {
            Ok(received) => received,
            Err(malformed) => {
                let message = malformed.to_string();
                tracing::warn!(target: "config", "{resource_type}: {message}");
                count(stats, resource_type, Outcome::Rejected);
                send(&self.requests, session.nack_all(&response.nonce, &message));
                return;
            }
        };
        let updates: Vec<Update<'_>> = received
            .updated
            .iter()
            .filter_map(|r| {
                Some(Update { name: &r.name, version: &r.version, resource: r.resource.as_ref()? })
            })
            .collect();
        let rejected = self
            .configuration
            .update(|c| c.apply(resource_type, &updates, &received.removed, Instant::now()));
        tracing::info!(
            target: "config",
            "{resource_type}: {} updated, {} removed, {} rejected",
            updates.len() - rejected.len(), received.removed.len(), rejected.len(),
        );
        let answer = if rejected.is_empty() {
            count(stats, resource_type, Outcome::Success);
            session.ack(&response.nonce)
        } else {
            count(stats, resource_type, Outcome::Rejected);
            let names: Vec<&str> = rejected.iter().map(|invalid| invalid.name.as_str()).collect();
            let mut answer = session.nack(&response.nonce, &names, &nack_message(&rejected));
            if let Some(status) = answer.as_mut().and_then(|request| request.error_detail.as_mut()) {
                status.details = nack::details(resource_type, rejected.into_iter().map(refused));
            }
            answer
        };
        send(&self.requests, answer);
        self.subscribe();
    }
}

fn wanted_names(wanted: &Subscriptions, list: impl Fn(&Subscriptions) -> &Vec<Arc<str>>) -> Vec<String> {
    list(wanted).iter().map(|name| name.to_string()).filter(|name| name != WILDCARD).collect()
}

/// Every resource with everything that is wrong with it, also in the log.
fn nack_message(rejected: &[Invalid]) -> String {
    let mut message = String::new();
    for invalid in rejected {
        let text = invalid.to_string();
        tracing::warn!(target: "config", "rejected: {text}");
        if !message.is_empty() {
            message.push('\n');
        }
        message.push_str(&text);
    }
    message
}

/// The same for machines.
fn refused(Invalid { kind: _, name, problems }: Invalid) -> nack::Refused {
    let problems = problems.into_iter().map(|Problem { path, reason }| nack::Problem { field: path, reason });
    nack::Refused { name, problems: problems.collect() }
}

fn send(requests: &UnboundedSender<DeltaDiscoveryRequest>, request: Option<DeltaDiscoveryRequest>) {
    if let Some(request) = request {
        // A stream that has ended is noticed where responses are read.
        let _ = requests.send(request);
    }
}

#[derive(Clone, Copy)]
enum Outcome {
    Attempt,
    Success,
    Rejected,
}

/// `listener_manager.lds.*` and `cluster_manager.cds.*`.
fn count(stats: &Stats, resource_type: ResourceType, outcome: Outcome) {
    let server = stats.server();
    let counter = match (resource_type, outcome) {
        (ResourceType::Listener, Outcome::Attempt) => &server.lds_update_attempt,
        (ResourceType::Listener, Outcome::Success) => &server.lds_update_success,
        (ResourceType::Listener, Outcome::Rejected) => &server.lds_update_rejected,
        (ResourceType::Cluster, Outcome::Attempt) => &server.cds_update_attempt,
        (ResourceType::Cluster, Outcome::Success) => &server.cds_update_success,
        (ResourceType::Cluster, Outcome::Rejected) => &server.cds_update_rejected,
        _ => return,
    };
    counter.inc();
}
