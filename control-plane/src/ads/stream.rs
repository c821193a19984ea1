//! One proxy's stream, from its first request to its end.
//!
//! A task of the main runtime: it waits for a request, a new snapshot or the end of the process, and after each
//! sends what the push queue gives. Responses go into a channel that has room for one of each type, which is
//! all that can be unanswered, so a proxy that reads slowly holds up nobody but itself.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{ClientFeatures, Verdict};
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::protobuf::value::Kind;
use outrigger_xds_api::wire::rpc;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

use super::proxies::{LastNack, Proxy, SyncState};
use super::push::{PushQueue, Resources};
use super::refusals::{self, Refusal};
use super::services::Service;
use super::variant::{Summary, Variant};
use super::{Refused, Shared};
use crate::auth::{NodeId, Peer, Proof};
use crate::scope::{ProxyId, ScopeError};
use crate::server::shutting_down;
use crate::snapshot::Snapshot;

/// How many requests are taken in at most before something is sent.
const BURST_MAX: usize = 2 * ResourceType::ALL.len();

/// Where responses go.
pub(super) type Responses<V> = mpsc::Sender<Result<<V as Variant>::Response, Status>>;

/// How many responses can be unanswered, and the status that ends the stream.
pub(super) const RESPONSES_MAX: usize = ResourceType::ALL.len() + 1;

/// Serves one stream to its end. An error is the reason that the proxy is told.
pub(super) async fn serve<V: Variant>(
    shared: Arc<Shared>,
    service: Service,
    peer: Peer,
    proof: Proof,
    mut requests: Streaming<V::Request>,
    responses: Responses<V>,
) {
    let result = async {
        let first = tokio::select! {
            first = requests.message() => first?,
            () = shared.lifecycle.stopping() => return Err(shutting_down()),
        };
        let Some(first) = first else { return Ok(()) };
        let mut stream = Stream::<V>::open(&shared, service, &peer, &proof, &first, responses.clone())?;
        let _connected = shared.proxies.connect(Arc::clone(&stream.proxy));
        tracing::info!(
            node = ?stream.proxy.node_id, identity = stream.proxy.identity, address = %peer.address,
            service = stream.proxy.service, variant = V::NAME, "proxy connected"
        );
        let result = stream.run(first, requests).await;
        let reason = result.as_ref().err().map(|status: &Status| status.message());
        let (node, service) = (&stream.proxy.node_id, stream.proxy.service);
        tracing::info!(?node, service, reason, "proxy disconnected");
        result
    }
    .await;
    if let Err(status) = result {
        // The proxy may be gone already.
        let _ = responses.try_send(Err(status));
    }
}

struct Stream<'a, V: Variant> {
    shared: &'a Shared,
    service: Service,
    proxy: Arc<Proxy>,
    id: ProxyId,
    queue: PushQueue<V>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    generation: u64,
    resources: Resources,
    changed: Option<Change>,
    /// Whether a type was requested something about since the last push.
    heard: [bool; ResourceType::ALL.len()],
    responses: Responses<V>,
}

/// A change that the proxy does not have yet.
struct Change {
    at: Instant,
    was_sent: bool,
}

impl<'a, V: Variant> Stream<'a, V> {
    fn open(
        shared: &'a Shared,
        service: Service,
        peer: &Peer,
        proof: &Proof,
        first: &V::Request,
        responses: Responses<V>,
    ) -> Result<Self, Status> {
        let refuse = |refused: Refused| {
            let (reason, status) = refused.into_parts();
            shared.metrics.refused_proxies.with_label_values(&[reason]).inc();
            let claimed = V::node(first).map_or("", |node| node.id.as_str());
            let proven = proof.describe();
            tracing::warn!(node = ?claimed, proven, address = %peer.address, error = status.message(), "proxy refused");
            status
        };
        let open = || {
            let node = V::node(first).ok_or(Refused::NoNode)?;
            let claimed = NodeId::parse(&node.id)?;
            let identity = proof.check(&claimed, &shared.trust_domain)?;
            let id = ProxyId {
                namespace: claimed.namespace,
                pod: claimed.pod,
                service_account: identity.service_account().to_owned(),
                ip: Some(claimed.address),
            };
            let mut snapshots = shared.snapshots.clone();
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let scope = snapshot.scope_of(&id)?;
            match (is_grpc(node), snapshot.is_proxyless(&scope)) {
                (true, false) => return Err(Refused::NotProxyless(scope)),
                (false, true) => return Err(Refused::NotGrpc(scope)),
                (true, true) | (false, false) => {}
            }
            Ok(Self {
                shared,
                service,
                proxy: Arc::new(Proxy::new(
                    node,
                    identity.to_string(),
                    peer.address,
                    service.short_name(),
                    V::NAME,
                )),
                id,
                queue: PushQueue::new(ClientFeatures::of(node)),
                generation: snapshot.generation(),
                resources: Resources::of(&snapshot, &scope),
                snapshots,
                changed: None,
                heard: Default::default(),
                responses,
            })
        };
        open().map_err(refuse)
    }

    async fn run(&mut self, first: V::Request, mut requests: Streaming<V::Request>) -> Result<(), Status> {
        let mut next = Some(first);
        // One future for the whole loop: it is polled anew for every event.
        let shared = self.shared;
        let mut stopping = pin!(shared.lifecycle.stopping());
        loop {
            // A proxy sends the requests of all types in one burst. What is here is taken in before anything is
            // sent, so that the order of types holds across them.
            for _ in 0..BURST_MAX {
                let Some(request) = next.take() else { break };
                self.on_request(request)?;
                if let Some(request) = requests.message().now_or_never() {
                    let Some(request) = request? else { return Ok(()) };
                    next = Some(request);
                }
            }
            self.push()?;
            if next.is_some() {
                continue;
            }
            tokio::select! {
                request = requests.message() => match request? {
                    Some(request) => next = Some(request),
                    None => return Ok(()),
                },
                changed = self.snapshots.changed() => {
                    changed.map_err(|_| shutting_down())?;
                    self.on_snapshot()?;
                }
                () = &mut stopping => return Err(shutting_down()),
            }
        }
    }

    fn on_snapshot(&mut self) -> Result<(), Status> {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        // The pod may have left or have got another service account: then this proxy has no configuration.
        let scope = snapshot.scope_of(&self.id).map_err(|error| {
            let (reason, status) = Refused::Scope(error).into_parts();
            self.shared.metrics.refused_proxies.with_label_values(&[reason]).inc();
            status
        })?;
        self.generation = snapshot.generation();
        self.resources = Resources::of(&snapshot, &scope);
        // Several changes that the proxy does not have yet count from the first.
        self.changed.get_or_insert_with(|| Change { at: Instant::now(), was_sent: false });
        Ok(())
    }

    fn on_request(&mut self, mut request: V::Request) -> Result<(), Status> {
        if let Some(node) = V::node(&request)
            && !node.id.is_empty()
            && node.id != self.proxy.node_id
        {
            return Err(Status::invalid_argument("node.id: must not change during a stream"));
        }
        let of = self.type_of(&mut request)?;
        let outcome = self
            .queue
            .on_request(of, &request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.heard[of as usize] = true;
        match outcome.verdict {
            Verdict::None => {}
            Verdict::Ack => {
                self.answered(of, Vec::new());
                self.proxy.update(of, |status| status.last_ack = Some(OffsetDateTime::now_utc()));
            }
            Verdict::Nack { message, names, .. } => {
                let refusals = self.refusals(of, V::error(&request), &names);
                self.on_nack(of, message, names, &refusals);
                self.answered(of, refusals);
            }
            Verdict::Stale { nonce } => {
                tracing::debug!(node = ?self.proxy.node_id, %of, nonce, "stale answer");
            }
        }
        Ok(())
    }

    /// The type that a request is about. A service of one type may leave it out.
    fn type_of(&self, request: &mut V::Request) -> Result<ResourceType, Status> {
        let type_url = V::type_url(request);
        if let Service::Of(of) = self.service
            && type_url.is_empty()
        {
            of.type_url().clone_into(type_url);
        }
        let of = ResourceType::ALL.into_iter().find(|of| of.type_url() == type_url);
        match (of, self.service) {
            (Some(of), Service::Aggregated) => Ok(of),
            (Some(of), Service::Of(own)) if of == own => Ok(of),
            _ => Err(Status::invalid_argument(format!("type_url: `{type_url}` is not served"))),
        }
    }

    /// Notes what the proxy holds now, and what it refuses anew.
    fn answered(&self, of: ResourceType, news: Vec<Refusal>) {
        let (accepted, rejected) = self.queue.counts(of);
        let mut is_changed = false;
        self.proxy.update(of, |status| is_changed = status.answered(accepted, rejected, news));
        if is_changed {
            self.shared.proxies.refusals_changed();
        }
    }

    /// What a NACK says, and which objects the refused resources were made of.
    fn refusals(&self, of: ResourceType, status: Option<&rpc::Status>, names: &[String]) -> Vec<Refusal> {
        let Some(status) = status else { return Vec::new() };
        // What has changed in the meantime is not what was refused.
        let find = |name: &str| {
            self.resources.get(of).get(name).filter(|resource| self.queue.has_rejected(of, resource))
        };
        refusals::read(of, status, names, find)
    }

    fn on_nack(&self, of: ResourceType, mut message: String, names: Vec<String>, refusals: &[Refusal]) {
        refusals::cut(&mut message);
        self.shared.metrics.nacks.with_label_values(&[of.short_name()]).inc();
        for Refusal { resource, field, reason, objects, .. } in refusals {
            let objects = objects.iter().map(|(object, _)| object.to_string()).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                node = ?self.proxy.node_id, r#type = %of, ?resource, ?field, objects, error = ?reason, "NACK"
            );
        }
        let nack = LastNack { at: OffsetDateTime::now_utc(), message, names };
        self.proxy.update(of, |status| status.last_nack = Some(nack));
    }

    fn push(&mut self) -> Result<(), Status> {
        let responses = self.queue.next(&self.resources);
        if let Some(change) = &mut self.changed
            && !change.was_sent
            && !responses.is_empty()
        {
            change.was_sent = true;
            self.shared.metrics.queue_time.observe(change.at.elapsed().as_secs_f64());
        }
        for (of, mut response) in responses {
            V::set_generation(&mut response, self.generation);
            self.shared.metrics.pushes.with_label_values(&[of.short_name()]).inc();
            let Summary { nonce, updated, removed } = V::summary(&response);
            tracing::debug!(node = ?self.proxy.node_id, r#type = %of, nonce, updated, removed, "push");
            self.proxy.update(of, |status| {
                nonce.clone_into(&mut status.nonce);
                status.sent_generation = Some(self.generation);
                status.sent = Some(OffsetDateTime::now_utc());
            });
            // There is room for every response that can be unanswered; a failure means that the proxy is gone.
            self.responses.try_send(Ok(response)).map_err(|_| Status::cancelled("the proxy is gone"))?;
        }
        for of in ResourceType::ALL {
            let is_requested = self.queue.is_requested(of);
            let is_settled = self.queue.is_settled(of, &self.resources);
            // A request may have said what the proxy holds from before.
            if std::mem::take(&mut self.heard[of as usize]) {
                self.answered(of, Vec::new());
            }
            self.proxy.update(of, |status| {
                status.state = match (is_requested, is_settled, status.rejected.is_empty()) {
                    (false, ..) => SyncState::NeverSent,
                    (_, false, _) => SyncState::Stale,
                    (_, true, false) => SyncState::Nacked,
                    (_, true, true) => SyncState::Synced,
                };
            });
        }
        if self.queue.is_all_settled(&self.resources)
            && let Some(Change { at, was_sent: true }) = self.changed.take()
        {
            self.shared.metrics.convergence.observe(at.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// Whether the client is gRPC itself: it says so, or its bootstrap does in Istio's way.
fn is_grpc(node: &Node) -> bool {
    let generator = node.metadata.as_ref().and_then(|metadata| metadata.fields.get("GENERATOR"));
    let generator = generator.and_then(|value| value.kind.as_ref());
    node.user_agent_name.starts_with("gRPC")
        || matches!(generator, Some(Kind::StringValue(generator)) if generator == "grpc")
}

impl From<ScopeError> for Refused {
    fn from(error: ScopeError) -> Self {
        Self::Scope(error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use outrigger_xds_api::wire::protobuf::{Struct, Value};

    use super::*;

    #[test]
    fn grpc_is_known_by_itself_and_by_its_bootstrap() {
        let of_agent = |name: &str| Node { user_agent_name: name.to_owned(), ..Node::default() };
        assert!(is_grpc(&of_agent("gRPC C-core")) && is_grpc(&of_agent("gRPC Go")));
        assert!(!is_grpc(&of_agent("envoy")) && !is_grpc(&Node::default()));
        let generated_by = |generator: &str| {
            let value = Value { kind: Some(Kind::StringValue(generator.to_owned())) };
            let fields = HashMap::from([("GENERATOR".to_owned(), value)]);
            Node { metadata: Some(Struct { fields }), ..of_agent("mine") }
        };
        assert!(is_grpc(&generated_by("grpc")) && !is_grpc(&generated_by("event")));
    }
}
