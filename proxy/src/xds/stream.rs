//! One stream, from opening it to its end.

use http::uri::PathAndQuery;
use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::backoff::Backoff;
use super::grpc::{Asked, Sessions};
use super::service::Service;
use super::update::{self, Outcome, count};
use super::{XdsOptions, channel};
use crate::config::apply::Update;
use crate::config::compile::Invalid;
use crate::config::handle::ConfigurationHandle;
use crate::config::sources::SourceId;
use crate::config::watch::WatchChange;
use crate::state::Record;
use crate::stats::Stats;

/// A response may be this large, in bytes.
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;

/// Runs one stream until it ends.
pub(super) async fn run(
    asked: &Asked,
    options: &XdsOptions,
    configuration: &ConfigurationHandle,
    sessions: &mut Sessions,
    changes: &mut UnboundedReceiver<WatchChange>,
    backoff: &mut Backoff,
) -> Result<(), String> {
    let name = &asked.grpc.cluster;
    let cluster = configuration
        .read(|c| c.inputs().registry.clusters.get(name))
        .ok_or("the cluster is not there yet")?;
    let is_ads = asked.service == Service::Aggregated;
    let named = options.named.as_ref().filter(|_| is_ads);
    if let Some(target) = named {
        let addresses = target.addresses().await?;
        let server = target.at().certificate_name().unwrap_or_default();
        configuration.update(|c| c.relocate(name, server, &addresses));
    }
    let channel = channel::connect(cluster, named).await?;
    let (requests, outgoing) = unbounded_channel();
    let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
    if is_ads && let Some(token) = bearer_token(options)? {
        request.metadata_mut().insert("authorization", token);
    }
    // The first requests go out with the stream: a server may wait for them before it answers anything.
    let mut stream = Stream { asked, options, configuration, sessions, requests };
    stream.subscribe();
    let mut responses = open(channel, asked.service.path(asked.grpc.variant), request).await?;
    let stats = configuration.read(|c| c.inputs().stats.clone());
    if is_ads {
        stats.server().control_plane_connected_state.set(1);
    }
    tracing::info!(target: "config", "connected to the control plane '{name}'");
    loop {
        tokio::select! {
            response = responses.message() => match response.map_err(|s| status_text(&s))? {
                Some(response) => {
                    backoff.reset();
                    stream.take(&response, &stats);
                }
                None => return Ok(()),
            },
            Some(change) = changes.recv() => {
                stream.sessions.take(&change);
                while let Ok(change) = changes.try_recv() {
                    stream.sessions.take(&change);
                }
                stream.subscribe();
            }
        }
    }
}

/// Opens a stream of a discovery service.
async fn open(
    channel: Channel,
    path: &'static str,
    request: Request<UnboundedReceiverStream<DeltaDiscoveryRequest>>,
) -> Result<Streaming<DeltaDiscoveryResponse>, String> {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
    client.ready().await.map_err(|error| channel::text_of(&error))?;
    let codec = tonic_prost::ProstCodec::default();
    let response = client.streaming(request, PathAndQuery::from_static(path), codec).await;
    response.map(tonic::Response::into_inner).map_err(|status| status_text(&status))
}

/// `Bearer TOKEN` from the token file. Never part of an error.
fn bearer_token(options: &XdsOptions) -> Result<Option<MetadataValue<tonic::metadata::Ascii>>, String> {
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
    asked: &'a Asked,
    options: &'a XdsOptions,
    configuration: &'a ConfigurationHandle,
    sessions: &'a mut Sessions,
    requests: UnboundedSender<DeltaDiscoveryRequest>,
}

impl Stream<'_> {
    /// Tells the server what is wanted now.
    fn subscribe(&mut self) {
        for session in self.sessions.iter_mut() {
            while let Some(request) = session.next_request(&self.options.node) {
                send(&self.requests, Some(request));
            }
        }
    }

    /// Applies one response and answers it.
    fn take(&mut self, response: &DeltaDiscoveryResponse, stats: &Stats) {
        let Some(session) = self.sessions.of(&response.type_url) else {
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
        let source = self.asked.source;
        let rejected = update::apply(self.configuration, source, resource_type, &updates, &received.removed);
        if let Some(recorder) = self.options.recorder.as_ref().filter(|_| source == SourceId::ADS) {
            let accepted = received.updated.iter().filter(|r| !rejected.iter().any(|i| i.name == r.name));
            accepted.for_each(|r| recorder.record(Record::Accepted(resource_type, (*r).clone())));
            let gone = received.removed.iter().map(|name| Record::Gone(resource_type, (*name).to_owned()));
            gone.for_each(|record| recorder.record(record));
        }
        let answer = if rejected.is_empty() {
            session.ack(&response.nonce)
        } else {
            let names: Vec<&str> = rejected.iter().map(|invalid| invalid.name.as_str()).collect();
            session.nack(&response.nonce, &names, &nack_message(&rejected))
        };
        send(&self.requests, answer);
    }
}

/// Every resource with everything that is wrong with it.
fn nack_message(rejected: &[Invalid]) -> String {
    rejected.iter().map(Invalid::to_string).collect::<Vec<_>>().join("\n")
}

fn send(requests: &UnboundedSender<DeltaDiscoveryRequest>, request: Option<DeltaDiscoveryRequest>) {
    if let Some(request) = request {
        // A stream that has ended is noticed where responses are read.
        let _ = requests.send(request);
    }
}
