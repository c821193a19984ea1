//! Mesh metrics: Istio's standard ones, with all of their labels.
//!
//! The worker asks for a series when a connection first needs it and keeps it for the life of the connection, so a look-up is
//! rare. There is a hard cap on series per metric: labels beyond it are counted in one overflow series.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustc_hash::FxBuildHasher;

use super::scope::{Scope, scope};
use super::{Counter, Histogram, Reporter};
use crate::stream_info::ResponseFlags;

/// Default cap on series per metric.
pub const DEFAULT_SERIES_LIMIT: usize = 10_000;

/// One end of a hop. Every value that is not known is `unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerLabels {
    /// Name of the workload (of the Deployment, in Kubernetes).
    pub workload: Arc<str>,
    /// Its namespace.
    pub workload_namespace: Arc<str>,
    /// Its identity as the TLS handshake proved it, `spiffe://...`.
    pub principal: Arc<str>,
    /// Label `app`.
    pub app: Arc<str>,
    /// Label `version`.
    pub version: Arc<str>,
    /// The Kubernetes cluster that it runs in.
    pub cluster: Arc<str>,
    /// `service.istio.io/canonical-name`.
    pub canonical_service: Arc<str>,
    /// `service.istio.io/canonical-revision`.
    pub canonical_revision: Arc<str>,
}

/// What stands for a label value that is not known.
pub const UNKNOWN: &str = "unknown";

fn unknown() -> Arc<str> {
    static CELL: OnceLock<Arc<str>> = OnceLock::new();
    CELL.get_or_init(|| UNKNOWN.into()).clone()
}

impl Default for PeerLabels {
    fn default() -> Self {
        Self {
            workload: unknown(),
            workload_namespace: unknown(),
            principal: unknown(),
            app: unknown(),
            version: unknown(),
            cluster: unknown(),
            canonical_service: unknown(),
            canonical_revision: unknown(),
        }
    }
}

impl PeerLabels {
    /// From an endpoint's `istio.workload` metadata: `name;namespace;canonical-name;canonical-revision;cluster`. What is empty or
    /// missing is unknown. `app` and `version` are the canonical name and revision, as Istio derives them.
    pub fn from_workload_metadata(workload: &str) -> Self {
        let mut parts = workload
            .split(';')
            .map(|part| if part.is_empty() { unknown() } else { Arc::from(part) })
            .chain(std::iter::repeat(unknown()));
        let mut next = || parts.next().unwrap_or_else(unknown);
        let (workload, workload_namespace, canonical_service, canonical_revision, cluster) =
            (next(), next(), next(), next(), next());
        Self {
            workload,
            workload_namespace,
            principal: unknown(),
            app: canonical_service.clone(),
            version: canonical_revision.clone(),
            cluster,
            canonical_service,
            canonical_revision,
        }
    }

    /// The same with the identity that a handshake proved; `None` is unknown.
    pub fn with_principal(&self, principal: Option<Arc<str>>) -> Self {
        Self { principal: principal.unwrap_or_else(unknown), ..self.clone() }
    }
}

/// `request_protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestProtocol {
    /// Plain HTTP.
    Http,
    /// `content-type: application/grpc`.
    Grpc,
}

/// `connection_security_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecurityPolicy {
    /// The connection was mutual TLS.
    MutualTls,
    /// It was not.
    None,
    /// Always what the source reports, as in Istio.
    Unknown,
}

impl SecurityPolicy {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            SecurityPolicy::MutualTls => "mutual_tls",
            SecurityPolicy::None => "none",
            SecurityPolicy::Unknown => UNKNOWN,
        }
    }
}

/// The labels of one hop, whatever goes over it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HopLabels {
    /// `reporter`.
    pub reporter: Reporter,
    /// `source_*`.
    pub source: Arc<PeerLabels>,
    /// `destination_*`.
    pub destination: Arc<PeerLabels>,
    /// `destination_service`: host name.
    pub destination_service: Arc<str>,
    /// `destination_service_name`.
    pub destination_service_name: Arc<str>,
    /// `destination_service_namespace`.
    pub destination_service_namespace: Arc<str>,
    /// `connection_security_policy`.
    pub connection_security_policy: SecurityPolicy,
}

/// Labels of `istio_requests_total` and `istio_request_duration_milliseconds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestLabels {
    /// Between whom.
    pub hop: HopLabels,
    /// `request_protocol`.
    pub request_protocol: RequestProtocol,
    /// `response_code`; 0 when no response was sent.
    pub response_code: u16,
    /// `grpc_response_status`; empty for plain HTTP.
    pub grpc_response_status: Option<u8>,
    /// `response_flags`.
    pub response_flags: ResponseFlags,
}

/// Labels of `istio_tcp_*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpLabels {
    /// Between whom.
    pub hop: HopLabels,
    /// `response_flags`.
    pub response_flags: ResponseFlags,
}

/// The series of one set of request labels.
#[derive(Debug, Default)]
pub struct MeshHandles {
    /// `istio_requests_total`.
    pub requests: Counter,
    /// `istio_request_duration_milliseconds`.
    pub duration: Histogram,
}

/// The series of one set of TCP labels.
#[derive(Debug, Default)]
pub struct TcpHandles {
    /// `istio_tcp_sent_bytes_total`: to the client.
    pub sent_bytes: Counter,
    /// `istio_tcp_received_bytes_total`: from the client.
    pub received_bytes: Counter,
    /// `istio_tcp_connections_opened_total`.
    pub connections_opened: Counter,
    /// `istio_tcp_connections_closed_total`.
    pub connections_closed: Counter,
}

/// The series of one metric family by their labels, up to a cap.
#[derive(Debug)]
pub(super) struct SeriesMap<L, H> {
    map: Mutex<HashMap<Arc<L>, Arc<H>, FxBuildHasher>>,
    overflow: OnceLock<Arc<H>>,
}

impl<L: Eq + Hash + Clone, H: Default> SeriesMap<L, H> {
    fn new() -> Self {
        Self { map: Mutex::default(), overflow: OnceLock::new() }
    }

    /// The series with these labels; `None` when the cap leaves only the overflow series.
    fn get(&self, labels: &L, limit: usize) -> Option<Arc<H>> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = map.get(labels) {
            return Some(handles.clone());
        }
        if map.len() >= limit {
            return None;
        }
        let handles = Arc::new(H::default());
        map.insert(Arc::new(labels.clone()), handles.clone());
        Some(handles)
    }

    fn overflow(&self) -> Arc<H> {
        self.overflow.get_or_init(Arc::default).clone()
    }

    /// All series; the overflow series, if it was ever used, comes last and has no labels.
    pub(super) fn all(&self) -> Vec<(Option<Arc<L>>, Arc<H>)> {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = map.iter().map(|(l, h)| (Some(l.clone()), h.clone())).collect();
        all.extend(self.overflow.get().map(|h| (None, h.clone())));
        all
    }
}

scope! {
    /// What mesh metrics say about themselves.
    MeshOwnStats in "" [] {
        Counter series_overflow_total as "outrigger.series_overflow_total"
            "Times that mesh labels were counted in the overflow series.";
    }
    with {}
    nested {}
}

/// All mesh metrics of the process.
#[derive(Debug)]
pub struct MeshStats {
    local: OnceLock<Arc<PeerLabels>>,
    limit: AtomicUsize,
    pub(super) own: MeshOwnStats,
    pub(super) requests: SeriesMap<RequestLabels, MeshHandles>,
    pub(super) tcp: SeriesMap<TcpLabels, TcpHandles>,
}

impl MeshStats {
    pub(super) fn new() -> Self {
        Self {
            local: OnceLock::new(),
            limit: AtomicUsize::new(DEFAULT_SERIES_LIMIT),
            own: MeshOwnStats::new(Box::default()),
            requests: SeriesMap::new(),
            tcp: SeriesMap::new(),
        }
    }

    /// Sets the labels of the workload beside this proxy, once, at start-up; a second call changes nothing.
    pub fn set_local(&self, local: PeerLabels) {
        let _ = self.local.set(Arc::new(local));
    }

    /// Labels of the workload beside this proxy; unknown until they are set.
    pub fn local(&self) -> Arc<PeerLabels> {
        self.local.get().cloned().unwrap_or_default()
    }

    /// Changes the cap on series per metric. Series that exist stay.
    pub fn set_series_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The series of these labels, or the overflow series when the cap is reached. Keep it: a look-up hashes every label.
    pub fn request(&self, labels: &RequestLabels) -> Arc<MeshHandles> {
        self.requests.get(labels, self.limit.load(Ordering::Relaxed)).unwrap_or_else(|| {
            self.own.series_overflow_total.inc();
            self.requests.overflow()
        })
    }

    /// The series of these labels, or the overflow series when the cap is reached. Keep it: a look-up hashes every label.
    pub fn tcp(&self, labels: &TcpLabels) -> Arc<TcpHandles> {
        self.tcp.get(labels, self.limit.load(Ordering::Relaxed)).unwrap_or_else(|| {
            self.own.series_overflow_total.inc();
            self.tcp.overflow()
        })
    }
}
