//! A fake control plane: an ADS server of both variants whose resources, answers and misbehaviour the test sets.
//!
//! It is written apart from the real session code, so that a mistake there cannot hide itself here.

mod delta;
mod sotw;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::Stream;
use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use outrigger_xds_api::wire::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_xds_api::wire::protobuf::Any;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use self::delta::Delta;
use self::sotw::Sotw;
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

    /// Sets many resources at once.
    pub fn set_all(&self, resources: &[(String, Any)]) {
        {
            let mut state = self.lock();
            state.next_version += 1;
            let version = state.next_version.to_string();
            for (name, resource) in resources {
                let of_type = state.resources.entry(resource.type_url.clone()).or_default();
                of_type.insert(name.clone(), (version.clone(), resource.clone()));
            }
        }
        self.tell();
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
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(self.answer::<Sotw>(request.into_inner()))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(self.answer::<Delta>(request.into_inner()))
    }
}

impl Service {
    fn answer<V: Variant>(&self, requests: Streaming<V::Request>) -> Response<Answers<V::Response>> {
        let (answers, receiver) = mpsc::channel(64);
        let generation = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.streams += 1;
            state.generation
        };
        let session = Session { state: self.state.clone(), answers, generation, variant: V::default() };
        tokio::spawn(session.run(requests, self.watcher.clone()));
        Response::new(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// What one stream of one variant of the protocol knows.
trait Variant: Default + Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// Takes in a request.
    fn take(&mut self, request: Self::Request, state: &mut State);

    /// The next response that is due, if any.
    fn next_answer(&mut self, state: &State) -> Option<Self::Response>;
}

/// One stream.
struct Session<V: Variant> {
    state: Arc<Mutex<State>>,
    answers: mpsc::Sender<Result<V::Response, Status>>,
    generation: u64,
    variant: V,
}

impl<V: Variant> Session<V> {
    async fn run(mut self, mut requests: Streaming<V::Request>, mut changed: watch::Receiver<u64>) {
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

    fn take(&mut self, request: V::Request) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.variant.take(request, &mut state);
    }

    fn next_answer(&mut self) -> Option<V::Response> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.conduct != Conduct::Stall).then(|| self.variant.next_answer(&state)).flatten()
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
}
