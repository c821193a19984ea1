//! One stream, from opening it to its end.

use http::uri::PathAndQuery;
use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{Received, nack};
use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
use prost::Message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::backoff::Backoff;
use super::grpc::{Asked, drop_expired};
use super::service::Service;
use super::session::{Request, Response};
use super::sessions::Sessions;
use super::update::{self, Outcome, count};
use super::{XdsOptions, channel};
use crate::config::apply::Update;
use crate::config::compile::{Invalid, Problem};
use crate::config::handle::ConfigurationHandle;
use crate::config::sources::{SourceId, Variant};
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
    let token = if is_ads { bearer_token(options)? } else { None };
    let (requests, outgoing) = unbounded_channel();
    // The first requests go out with the stream: a server may wait for them before it answers anything.
    let mut stream = Exchange { asked, options, configuration, sessions, requests };
    stream.subscribe();
    let mut responses = Responses::open(channel, asked, token, outgoing).await?;
    let stats = configuration.read(|c| c.inputs().stats.clone());
    if is_ads {
        stats.server().control_plane_connected_state.set(1);
    }
    tracing::info!(target: "config", "connected to the control plane '{name}'");
    loop {
        let expiry = stream.sessions.next_expiry();
        tokio::select! {
            response = responses.next() => match response? {
                Some(response) => {
                    backoff.reset();
                    stream.take(response, &stats);
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
            () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {
                drop_expired(asked, configuration, stream.sessions);
            }
        }
    }
}

/// The answers on an open stream.
enum Responses {
    Delta(Streaming<DeltaDiscoveryResponse>),
    Sotw(Streaming<DiscoveryResponse>),
}

impl Responses {
    async fn open(
        channel: Channel,
        asked: &Asked,
        token: Option<Token>,
        outgoing: UnboundedReceiver<Request>,
    ) -> Result<Self, String> {
        let path = asked.service.path(asked.grpc.variant);
        let outgoing = UnboundedReceiverStream::new(outgoing);
        match asked.grpc.variant {
            Variant::Delta => {
                let delta = outgoing.filter_map(|request| match request {
                    Request::Delta(request) => Some(request),
                    Request::Sotw(_) => None,
                });
                open(channel, path, token, delta).await.map(Responses::Delta)
            }
            Variant::StateOfTheWorld => {
                let sotw = outgoing.filter_map(|request| match request {
                    Request::Sotw(request) => Some(request),
                    Request::Delta(_) => None,
                });
                open(channel, path, token, sotw).await.map(Responses::Sotw)
            }
        }
    }

    /// `None`: the server has closed the stream.
    async fn next(&mut self) -> Result<Option<Response>, String> {
        let response = match self {
            Responses::Delta(stream) => stream.message().await.map(|response| response.map(Response::Delta)),
            Responses::Sotw(stream) => stream.message().await.map(|response| response.map(Response::Sotw)),
        };
        response.map_err(|status| status_text(&status))
    }
}

/// Opens a stream of a discovery service.
async fn open<Q, R>(
    channel: Channel,
    path: &'static str,
    token: Option<Token>,
    outgoing: impl Stream<Item = Q> + Send + 'static,
) -> Result<Streaming<R>, String>
where
    Q: Message + 'static,
    R: Message + Default + 'static,
{
    let mut request = tonic::Request::new(outgoing);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", token);
    }
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
    client.ready().await.map_err(|error| channel::text_of(&error))?;
    let codec = tonic_prost::ProstCodec::default();
    let response = client.streaming(request, PathAndQuery::from_static(path), codec).await;
    response.map(tonic::Response::into_inner).map_err(|status| status_text(&status))
}

/// The value of an `authorization` header.
type Token = MetadataValue<tonic::metadata::Ascii>;

/// `Bearer TOKEN` from the token file. Never part of an error.
fn bearer_token(options: &XdsOptions) -> Result<Option<Token>, String> {
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
struct Exchange<'a> {
    asked: &'a Asked,
    options: &'a XdsOptions,
    configuration: &'a ConfigurationHandle,
    sessions: &'a mut Sessions,
    requests: UnboundedSender<Request>,
}

impl Exchange<'_> {
    /// Tells the server what is wanted now.
    fn subscribe(&mut self) {
        for session in self.sessions.iter_mut() {
            while let Some(request) = session.next_request(&self.options.node) {
                send(&self.requests, self.asked, self.options, Some(request));
            }
        }
    }

    /// Applies one response and answers it.
    fn take(&mut self, response: Response, stats: &Stats) {
        let resource_type = ResourceType::CLIENT.into_iter().find(|of| of.type_url() == response.type_url());
        let Some((resource_type, session)) =
            resource_type.and_then(|resource_type| Some((resource_type, self.sessions.of(resource_type)?)))
        else {
            tracing::warn!(target: "config", "a response about a type that was not asked for: '{}'", response.type_url());
            return;
        };
        count(stats, resource_type, Outcome::Attempt);
        let nonce = response.nonce().to_owned();
        let received = match session.on_response(response) {
            Ok(received) => received,
            Err(malformed) => {
                let message = malformed.to_string();
                tracing::warn!(target: "config", "{resource_type}: {message}");
                count(stats, resource_type, Outcome::Rejected);
                let answer = session.nack_all(&nonce, &message);
                self.answer(resource_type, answer);
                return;
            }
        };
        let updates = received.updated.iter();
        let updates: Vec<Update<'_>> = updates
            .map(|u| Update { name: &u.name, version: &u.version, resource: &u.content, aliases: &u.aliases })
            .collect();
        let removed: Vec<&str> = received.removed.iter().map(String::as_str).collect();
        let rejected =
            update::apply(self.configuration, self.asked.source, resource_type, &updates, &removed);
        self.record(resource_type, &received, &rejected);
        self.sessions.note_lifetimes(resource_type, &received, Instant::now());
        let Some(session) = self.sessions.of(resource_type) else { return };
        let answer = if rejected.is_empty() {
            session.ack(&nonce)
        } else {
            let names: Vec<&str> = rejected.iter().map(|invalid| invalid.name.as_str()).collect();
            let message = nack_message(&rejected);
            let details = nack::details(resource_type, rejected.iter().map(refused));
            session.nack(&nonce, &names, &message, details)
        };
        self.answer(resource_type, answer);
    }

    /// Sends an answer, and then what it may have had to leave out: that something was dropped and is wanted again.
    fn answer(&mut self, resource_type: ResourceType, answer: Option<Request>) {
        send(&self.requests, self.asked, self.options, answer);
        let Some(session) = self.sessions.of(resource_type) else { return };
        while let Some(request) = session.next_request(&self.options.node) {
            send(&self.requests, self.asked, self.options, Some(request));
        }
    }

    /// Writes down what was accepted for good, and what is gone.
    fn record(&self, resource_type: ResourceType, received: &Received, rejected: &[Invalid]) {
        let Some(recorder) = &self.options.recorder else { return };
        // Virtual hosts are asked for again.
        if self.asked.source != SourceId::ADS || resource_type == ResourceType::VirtualHost {
            return;
        }
        let is_good = |name: &str| !rejected.iter().any(|invalid| invalid.name == name);
        for update in received.updated.iter().filter(|update| is_good(&update.name) && update.ttl.is_none()) {
            let resource = Resource {
                name: update.name.clone(),
                version: update.version.clone(),
                resource: Some(update.content.clone()),
                ..Resource::default()
            };
            recorder.record(Record::Accepted(resource_type, Box::new(resource)));
        }
        for name in &received.removed {
            recorder.record(Record::Gone(resource_type, name.clone()));
        }
    }
}

/// Every resource with everything that is wrong with it.
fn nack_message(rejected: &[Invalid]) -> String {
    rejected.iter().map(Invalid::to_string).collect::<Vec<_>>().join("\n")
}

/// The same for machines.
fn refused(invalid: &Invalid) -> nack::Refused {
    let problem =
        |problem: &Problem| nack::Problem { field: problem.path.clone(), reason: problem.reason.clone() };
    nack::Refused { name: invalid.name.clone(), problems: invalid.problems.iter().map(problem).collect() }
}

fn send(requests: &UnboundedSender<Request>, asked: &Asked, options: &XdsOptions, request: Option<Request>) {
    let Some(mut request) = request else { return };
    if let Request::Sotw(request) = &mut request
        && !asked.grpc.node_once
    {
        request.node.get_or_insert_with(|| options.node.clone());
    }
    // A stream that has ended is noticed where responses are read.
    let _ = requests.send(request);
}
