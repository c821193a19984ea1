//! The proxies that are connected, and how far each has got: what the admin page shows. A proxy that takes each type from
//! a stream of its own is there once for each stream.
//!
//! Written by each stream, read by the admin page; everything runs on the main runtime, so the locks are never
//! contended.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outrigger_xds_api::ResourceType;
use serde::Serialize;
use time::OffsetDateTime;

use crate::auth::PeerAddress;
use crate::metrics::Metrics;

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
    /// The nonce of the last response.
    pub nonce: String,
    /// Resources that the proxy accepted.
    pub accepted: usize,
    /// The names of those that it rejected and that were not replaced since.
    pub rejected: Vec<String>,
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
            nonce: String::new(),
            accepted: 0,
            rejected: Vec::new(),
            last_ack: None,
            last_nack: None,
        }
    }
}

/// One stream of a connected proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Its node id.
    pub node_id: String,
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
    pub(super) types: Mutex<[TypeStatus; ResourceType::ALL.len()]>,
}

impl Proxy {
    /// Changes the status of one type.
    pub fn update(&self, of: ResourceType, change: impl FnOnce(&mut TypeStatus)) {
        change(&mut lock(&self.types)[of as usize]);
    }

    /// The status of every type.
    pub fn types(&self) -> Vec<(ResourceType, TypeStatus)> {
        ResourceType::ALL.into_iter().zip(lock(&self.types).clone()).collect()
    }
}

/// All connected proxies.
pub struct Proxies {
    next_key: AtomicU64,
    streams: Mutex<Streams>,
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
        Self { next_key: AtomicU64::new(0), streams: Mutex::default(), metrics }
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
