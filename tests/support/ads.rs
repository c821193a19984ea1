//! A fake control plane: an incremental ADS server whose resources, answers and misbehaviour the test sets.
//!
//! It is written apart from the real session code, so that a mistake there cannot hide itself here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::Stream;
use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use outrigger_xds_api::wire::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use outrigger_xds_api::wire::protobuf::Any;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::addr::pod_ip;
use crate::certs::Leaf;
use crate::wait::eventually;

/// What the server does with its streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// Serves the resources.
    #[default]
    Serve,
    /// Takes requests and answers nothing.
    Stall,
    /// Answers each subscription with bytes that are no message of the type.
    Garbage,
    /// Ends each stream right after its first answer.
    CloseAfterAnswer,
}

/// What a proxy said about a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The type URL.
    pub type_url: String,
    /// The nonce that it answers.
    pub nonce: String,
    /// The error detail of a NACK; `None` is an ACK.
    pub error: Option<String>,
}

/// A running fake ADS server.
#[derive(Debug)]
pub struct FakeAds {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    runtime: Option<Runtime>,
}

#[derive(Debug, Default)]
struct State {
    conduct: Conduct,
    /// type URL → name → version and resource.
    resources: BTreeMap<String, BTreeMap<String, (String, Any)>>,
    next_version: u64,
    verdicts: Vec<Verdict>,
    first_requests: Vec<DeltaDiscoveryRequest>,
    streams: usize,
    /// Streams of an older generation end.
    generation: u64,
}

impl Default for FakeAds {
    fn default() -> Self {
        Self::start()
    }
}

impl FakeAds {
    /// Starts one on an address of its own, without resources.
    pub fn start() -> Self {
        Self::start_at((IpAddr::from(pod_ip()), 0).into())
    }

    /// Starts one at `addr`, for instance where another one was before.
    pub fn start_at(addr: SocketAddr) -> Self {
        Self::serve(addr, Server::builder())
    }

    /// Starts one at `addr` that speaks TLS with this certificate.
    pub fn start_tls_at(addr: SocketAddr, leaf: &Leaf) -> Self {
        let read = |file| std::fs::read(file).expect("a PEM file");
        let identity = Identity::from_pem(read(&leaf.chain), read(&leaf.key));
        let tls = ServerTlsConfig::new().identity(identity);
        Self::serve(addr, Server::builder().tls_config(tls).expect("a usable certificate"))
    }

    fn serve(addr: SocketAddr, mut server: Server) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        // A server that was just dropped here lets go of its socket in the background.
        let listener = eventually("a free address", || runtime.block_on(TcpListener::bind(addr)).ok());
        let addr = listener.local_addr().expect("address of a bound socket");
        let state = Arc::new(Mutex::new(State::default()));
        let (changed, watcher) = watch::channel(0);
        let service = AggregatedDiscoveryServiceServer::new(Service { state: state.clone(), watcher });
        let incoming = TcpListenerStream::new(listener);
        runtime.spawn(server.add_service(service).serve_with_incoming(incoming));
        FakeAds { addr, state, changed, runtime: Some(runtime) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sets or replaces a resource and tells the subscribers.
    pub fn set(&self, name: &str, resource: Any) {
        self.rename(name, name, resource);
    }

    /// Replaces the resource `old` by `new`, in one response.
    pub fn rename(&self, old: &str, new: &str, resource: Any) {
        {
            let mut state = self.lock();
            state.next_version += 1;
            let version = state.next_version.to_string();
            let of_type = state.resources.entry(resource.type_url.clone()).or_default();
            of_type.remove(old);
            of_type.insert(new.into(), (version, resource));
        }
        self.tell();
    }

    /// Removes a resource and tells the subscribers.
    pub fn remove(&self, type_url: &str, name: &str) {
        self.lock().resources.entry(type_url.into()).or_default().remove(name);
        self.tell();
    }

    /// Changes what it does with streams from now on.
    pub fn conduct(&self, conduct: Conduct) {
        self.lock().conduct = conduct;
        self.tell();
    }

    /// Ends all streams with an error; new ones are welcome.
    pub fn close_streams(&self) {
        self.lock().generation += 1;
        self.tell();
    }

    /// How many streams were opened so far.
    pub fn streams(&self) -> usize {
        self.lock().streams
    }

    /// All verdicts so far.
    pub fn verdicts(&self) -> Vec<Verdict> {
        self.lock().verdicts.clone()
    }

    /// The first request of each type on each stream.
    pub fn first_requests(&self) -> Vec<DeltaDiscoveryRequest> {
        self.lock().first_requests.clone()
    }

    /// Forgets the verdicts.
    pub fn clear_verdicts(&self) {
        self.lock().verdicts.clear();
    }

    /// Waits for the next verdict on a type since [`FakeAds::clear_verdicts`].
    #[track_caller]
    pub fn wait_verdict(&self, type_url: &str) -> Verdict {
        eventually(&format!("a verdict on {type_url}"), || {
            self.lock().verdicts.iter().find(|verdict| verdict.type_url == type_url).cloned()
        })
    }

    /// Waits for a NACK of a type since [`FakeAds::clear_verdicts`] and gives its error detail.
    #[track_caller]
    pub fn wait_nack(&self, type_url: &str) -> String {
        eventually(&format!("a NACK of {type_url}"), || {
            self.lock()
                .verdicts
                .iter()
                .filter(|verdict| verdict.type_url == type_url)
                .find_map(|verdict| verdict.error.clone())
        })
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeAds {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Service {
    state: Arc<Mutex<State>>,
    watcher: watch::Receiver<u64>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("only the incremental variant"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (answers, receiver) = mpsc::channel(64);
        let session = Session::new(self.state.clone(), answers);
        tokio::spawn(session.run(request.into_inner(), self.watcher.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One stream.
struct Session {
    state: Arc<Mutex<State>>,
    answers: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    generation: u64,
    next_nonce: u64,
    types: BTreeMap<String, Subscription>,
}

#[derive(Default)]
struct Subscription {
    wildcard: bool,
    names: BTreeSet<String>,
    /// Names whose state the proxy has yet to be told, even when nothing changed.
    owed: BTreeSet<String>,
    /// What the proxy has: name → version.
    known: BTreeMap<String, String>,
    answered: bool,
}

impl Session {
    fn new(state: Arc<Mutex<State>>, answers: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>) -> Self {
        let generation = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.streams += 1;
            state.generation
        };
        Session { state, answers, generation, next_nonce: 0, types: BTreeMap::new() }
    }

    async fn run(
        mut self,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        mut changed: watch::Receiver<u64>,
    ) {
        loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.take(request),
                    Ok(None) | Err(_) => return,
                },
                told = changed.changed() => if told.is_err() { return },
            }
            if self.ended() {
                let _ = self.answers.send(Err(Status::unavailable("closed as told"))).await;
                return;
            }
            while let Some(answer) = self.next_answer() {
                if self.answers.send(Ok(answer)).await.is_err() {
                    return;
                }
                if self.conduct() == Conduct::CloseAfterAnswer {
                    let _ = self.answers.send(Err(Status::unavailable("closed as told"))).await;
                    return;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> bool {
        self.lock().generation != self.generation
    }

    fn conduct(&self) -> Conduct {
        self.lock().conduct
    }

    fn take(&mut self, request: DeltaDiscoveryRequest) {
        let first = !self.types.contains_key(&request.type_url);
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if first {
                state.first_requests.push(request.clone());
            }
            if !request.response_nonce.is_empty() {
                state.verdicts.push(Verdict {
                    type_url: request.type_url.clone(),
                    nonce: request.response_nonce.clone(),
                    error: request.error_detail.as_ref().map(|detail| detail.message.clone()),
                });
            }
        }
        let subscription = self.types.entry(request.type_url).or_default();
        if first {
            subscription.wildcard = request.resource_names_subscribe.is_empty();
            subscription.known.extend(request.initial_resource_versions);
        }
        for name in request.resource_names_subscribe {
            if name == "*" {
                subscription.wildcard = true;
            } else {
                subscription.owed.insert(name.clone());
                subscription.names.insert(name);
            }
        }
        for name in request.resource_names_unsubscribe {
            if name == "*" {
                subscription.wildcard = false;
            }
            subscription.names.remove(&name);
            subscription.owed.remove(&name);
            subscription.known.remove(&name);
        }
    }

    /// The next response that is due, if any.
    fn next_answer(&mut self) -> Option<DeltaDiscoveryResponse> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.conduct == Conduct::Stall {
            return None;
        }
        let nothing = BTreeMap::new();
        let due = self.types.iter_mut().find_map(|(type_url, subscription)| {
            let resources = state.resources.get(type_url).unwrap_or(&nothing);
            subscription.due(resources).map(|(changed, removed)| (type_url.clone(), changed, removed))
        });
        let (type_url, mut changed, removed_resources) = due?;
        if state.conduct == Conduct::Garbage {
            for resource in &mut changed {
                resource.resource = Some(Any { type_url: type_url.clone(), value: vec![0xff; 64] });
            }
        }
        self.next_nonce += 1;
        Some(DeltaDiscoveryResponse {
            system_version_info: state.next_version.to_string(),
            resources: changed,
            nonce: format!("nonce-{}-{}", self.generation, self.next_nonce),
            type_url,
            removed_resources,
            ..Default::default()
        })
    }
}

impl Subscription {
    /// What the proxy has to be told, and from then on it counts as told.
    fn due(&mut self, resources: &BTreeMap<String, (String, Any)>) -> Option<(Vec<Resource>, Vec<String>)> {
        let wanted = |name: &str| self.wildcard || self.names.contains(name);
        let changed: Vec<Resource> = resources
            .iter()
            .filter(|(name, (version, _))| {
                wanted(name) && (self.owed.contains(*name) || self.known.get(*name) != Some(version))
            })
            .map(|(name, (version, resource))| Resource {
                name: name.clone(),
                version: version.clone(),
                resource: Some(resource.clone()),
                ..Default::default()
            })
            .collect();
        let mut removed: Vec<String> =
            self.known.keys().filter(|name| !resources.contains_key(*name)).cloned().collect();
        removed.extend(self.owed.iter().filter(|name| !resources.contains_key(*name)).cloned());
        removed.sort();
        removed.dedup();
        // A wildcard subscription is owed one answer even when there is nothing.
        let first_of_wildcard = self.wildcard && !self.answered;
        if changed.is_empty() && removed.is_empty() && !first_of_wildcard {
            return None;
        }
        self.answered = true;
        self.owed.clear();
        self.known.extend(changed.iter().map(|resource| (resource.name.clone(), resource.version.clone())));
        self.known.retain(|name, _| !removed.contains(name));
        Some((changed, removed))
    }
}
