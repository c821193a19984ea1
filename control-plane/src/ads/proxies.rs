//! The proxies that are connected, and how far each has got: what the admin page shows. A proxy that takes each type from
//! a stream of its own is there once for each stream.
//!
//! Written by each stream, read by the admin page; everything runs on the main runtime, so the locks are never
//! contended.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::core::v3::node::UserAgentVersionType;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::refusals::Refusal;
use crate::auth::PeerAddress;
use crate::metrics::Metrics;

/// So many resources that proxies refuse are counted by name; the names come from the mesh's objects.
const REFUSED_SERIES_MAX: usize = 1000;

/// How far a proxy is with one resource type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// The proxy did not ask for the type.
    NeverSent,
    /// Something is on its way, or waits to be sent.
    Stale,
    /// The proxy has everything, but rejected some of it.
    Nacked,
    /// The proxy has accepted everything.
    Synced,
}

/// One rejected response.
#[derive(Clone, Debug)]
pub struct LastNack {
    /// When it came.
    pub at: OffsetDateTime,
    /// The proxy's reason.
    pub message: String,
    /// The resources of the response.
    pub names: Vec<String>,
}

/// What is known about one type of one proxy.
#[derive(Clone, Debug)]
pub struct TypeStatus {
    /// How far it is.
    pub state: SyncState,
    /// The snapshot that the last response was made from.
    pub sent_generation: Option<u64>,
    /// When the last response was sent.
    pub sent: Option<OffsetDateTime>,
    /// The nonce of the last response.
    pub nonce: String,
    /// Resources that the proxy accepted.
    pub accepted: usize,
    /// The names of those that it rejected and that were not replaced since.
    pub rejected: Vec<String>,
    /// Why, as far as the proxy told it.
    pub refusals: Vec<Refusal>,
    /// When it last accepted a response.
    pub last_ack: Option<OffsetDateTime>,
    /// What it last rejected, kept after it recovered.
    pub last_nack: Option<LastNack>,
}

impl Default for TypeStatus {
    fn default() -> Self {
        Self {
            state: SyncState::NeverSent,
            sent_generation: None,
            sent: None,
            nonce: String::new(),
            accepted: 0,
            rejected: Vec::new(),
            refusals: Vec::new(),
            last_ack: None,
            last_nack: None,
        }
    }
}

impl TypeStatus {
    /// Takes in what the proxy holds after an answer. Whether it refuses something else than before.
    pub fn answered(&mut self, accepted: usize, rejected: Vec<String>, news: Vec<Refusal>) -> bool {
        let before = self.refusals.clone();
        self.refusals.retain(|old| {
            rejected.contains(&old.resource) && !news.iter().any(|new| new.resource == old.resource)
        });
        self.refusals.extend(news);
        (self.accepted, self.rejected) = (accepted, rejected);
        self.refusals != before
    }
}

/// One stream of a connected proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Its node id.
    pub node_id: String,
    /// The program that it says to be, as `NAME/VERSION`; empty when it does not say.
    pub agent: String,
    /// The SPIFFE id that it proved.
    pub identity: String,
    /// The address that it connected from.
    pub address: PeerAddress,
    /// The service that it called: `ads`, or `cds` and the like for a stream of one type.
    pub service: &'static str,
    /// The variant of the protocol: `delta` or `sotw`.
    pub variant: &'static str,
    /// When the stream began.
    pub since: OffsetDateTime,
    types: Mutex<[TypeStatus; ResourceType::ALL.len()]>,
}

impl Proxy {
    /// A proxy whose stream of `service` in `variant` begins now.
    pub fn new(
        node: &Node,
        identity: String,
        address: PeerAddress,
        service: &'static str,
        variant: &'static str,
    ) -> Self {
        Self {
            node_id: node.id.clone(),
            agent: agent(node),
            identity,
            address,
            service,
            variant,
            since: OffsetDateTime::now_utc(),
            types: Mutex::default(),
        }
    }

    /// Changes the status of one type.
    pub fn update(&self, of: ResourceType, change: impl FnOnce(&mut TypeStatus)) {
        change(&mut lock(&self.types)[of as usize]);
    }

    /// The status of every type.
    pub fn types(&self) -> Vec<(ResourceType, TypeStatus)> {
        ResourceType::ALL.into_iter().zip(lock(&self.types).clone()).collect()
    }
}

/// `NAME/VERSION` of a proxy's program.
fn agent(node: &Node) -> String {
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
            let version = build.version.unwrap_or_default();
            format!("{}.{}.{}", version.major_number, version.minor_number, version.patch)
        }
        None => return node.user_agent_name.clone(),
    };
    format!("{}/{version}", node.user_agent_name)
}

/// All connected proxies.
pub struct Proxies {
    next_key: AtomicU64,
    streams: Mutex<Streams>,
    /// Told when what some proxy refuses changes.
    refusals: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Streams {
    by_key: BTreeMap<u64, Arc<Proxy>>,
    /// How many there are of each node id.
    counts: HashMap<String, usize>,
}

impl Proxies {
    /// None yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let refusals = watch::Sender::new(());
        Self { next_key: AtomicU64::new(0), streams: Mutex::default(), refusals, metrics }
    }

    /// Brings the gauge of refused resources up to date.
    pub fn count_refusals(&self) {
        let mut counts: BTreeMap<(ResourceType, String), i64> = BTreeMap::new();
        for proxy in self.list() {
            for (of, status) in proxy.types() {
                for name in status.rejected {
                    *counts.entry((of, name)).or_default() += 1;
                }
            }
        }
        let gauge = &self.metrics.refused_resources;
        gauge.reset();
        for ((of, name), count) in counts.into_iter().take(REFUSED_SERIES_MAX) {
            gauge.with_label_values(&[of.short_name(), name.as_str()]).set(count);
        }
    }

    /// Says that a proxy refuses something else than before.
    pub fn refusals_changed(&self) {
        self.refusals.send_replace(());
    }

    /// Follows [`Proxies::refusals_changed`].
    pub fn follow_refusals(&self) -> watch::Receiver<()> {
        self.refusals.subscribe()
    }

    /// Adds a stream for as long as the returned value lives.
    pub fn connect(self: &Arc<Self>, proxy: Arc<Proxy>) -> Connected {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let mut streams = lock(&self.streams);
        *streams.counts.entry(proxy.node_id.clone()).or_default() += 1;
        streams.by_key.insert(key, proxy);
        self.count(&streams);
        Connected { proxies: Arc::clone(self), key }
    }

    /// The streams of the connected proxies, the longest connected first.
    pub fn list(&self) -> Vec<Arc<Proxy>> {
        lock(&self.streams).by_key.values().cloned().collect()
    }

    fn disconnect(&self, key: u64) {
        let mut streams = lock(&self.streams);
        let Some(proxy) = streams.by_key.remove(&key) else { return };
        if lock(&proxy.types).iter().any(|status| !status.refusals.is_empty()) {
            self.refusals_changed();
        }
        if let Some(count) = streams.counts.get_mut(&proxy.node_id) {
            *count -= 1;
            if *count == 0 {
                streams.counts.remove(&proxy.node_id);
            }
        }
        self.count(&streams);
    }

    fn count(&self, streams: &Streams) {
        self.metrics.connected_proxies.set(i64::try_from(streams.counts.len()).unwrap_or(i64::MAX));
    }
}

/// Keeps a stream in the list.
pub struct Connected {
    proxies: Arc<Proxies>,
    key: u64,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.proxies.disconnect(self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
