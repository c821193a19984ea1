//! How clients treat a Service's endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Name, ServiceRef};
use crate::source::Origin;

/// Policy for all clients of one Service, and parts of it by name (a DestinationRule).
#[derive(Debug)]
pub struct DestinationPolicy {
    /// Its name.
    pub name: Name,
    /// The Service.
    pub service: ServiceRef,
    /// What holds for all of it.
    pub settings: DestinationSettings,
    /// Parts of it.
    pub subsets: Vec<Subset>,
    /// `metadata.creationTimestamp`, or empty. The older of two policies for a Service wins.
    pub created: String,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

impl DestinationPolicy {
    /// What it is found by: see [`Service::policy_key`](crate::model::Service::policy_key).
    pub(super) fn key(&self) -> Name {
        match &self.service {
            ServiceRef::Name(name) => name.clone(),
            ServiceRef::Host(host) | ServiceRef::OtherKind(host) => Name::new("", host),
        }
    }
}

/// Part of the endpoints of a Service.
#[derive(Debug, Clone)]
pub struct Subset {
    /// Its name, which rules call it by.
    pub name: String,
    /// Labels of its endpoints.
    pub labels: BTreeMap<String, String>,
    /// What holds for it: its own settings, else those of the Service.
    pub settings: DestinationSettings,
    /// Path of the field, for findings.
    pub field: String,
}

impl Subset {
    /// Whether an endpoint with these labels belongs to it.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// How endpoints are treated.
#[derive(Debug, Clone, Default)]
pub struct DestinationSettings {
    /// How an endpoint is chosen.
    pub load_balancing: LoadBalancing,
    /// When an endpoint that fails is left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// Limits.
    pub connection_pool: ConnectionPool,
    /// Never plaintext (`tls.mode: ISTIO_MUTUAL`).
    pub requires_mutual_tls: bool,
}

/// All policies for a Service together: those of the one in force, and every part that any of its namespace names.
#[derive(Debug, Clone, Default)]
pub struct DestinationPolicies {
    /// What holds for all of it.
    pub settings: DestinationSettings,
    /// Who says so.
    pub made_by: Option<Arc<Origin>>,
    /// Its parts, each with who says so; names are unique.
    pub subsets: Vec<(Subset, Arc<Origin>)>,
}

impl DestinationPolicies {
    /// What holds for all of it, or for a part. `None`: there is no such part.
    pub fn settings_of(&self, subset: Option<&str>) -> Option<&DestinationSettings> {
        match subset {
            None => Some(&self.settings),
            Some(name) => {
                let found = self.subsets.iter().find(|(subset, _)| subset.name == name);
                found.map(|(subset, _)| &subset.settings)
            }
        }
    }
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LoadBalancing {
    /// The one of two at random with fewer active requests (Istio's default).
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The same for what has the same hash, as long as endpoints stay the same.
    ConsistentHash(ConsistentHash),
}

/// Choice by a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What is hashed.
    pub of: HashOf,
    /// How endpoints are found by it.
    pub table: HashTable,
}

/// What is hashed of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOf {
    /// A header, by lower-case name.
    Header(String),
    /// A cookie.
    Cookie {
        /// Its name.
        name: String,
        /// Its path.
        path: String,
        /// How long one lasts that the proxy makes for clients that have none; zero: for the browser's session. None is made
        /// where nothing is said.
        ttl: Option<Duration>,
    },
    /// The caller's address.
    SourceIp,
    /// A parameter of the query.
    QueryParameter(String),
}

/// How endpoints are found by a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashTable {
    /// Ketama ring of at least so many points.
    Ring(u32),
    /// Maglev table of this size, a prime.
    Maglev(u32),
}

impl LoadBalancing {
    /// What is hashed, if something is.
    pub fn hash_of(&self) -> Option<&HashOf> {
        match self {
            Self::ConsistentHash(hash) => Some(&hash.of),
            _ => None,
        }
    }
}

/// When an endpoint that fails is left out for a while. Defaults are Istio's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// So many 5xx answers in a row eject the endpoint; 0: never.
    pub consecutive_5xx: u32,
    /// How often ejected endpoints are looked at.
    pub interval: Duration,
    /// How long the first ejection lasts; the n-th lasts n times as long.
    pub base_ejection_time: Duration,
    /// At most this share of the endpoints is ejected, in percent.
    pub max_ejection_percent: u32,
    /// With less than this share of healthy endpoints, all are used, in percent; 0: never.
    pub min_health_percent: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
        }
    }
}

/// Limits of one client towards one Service port. What is not set has no limit but Istio's (2^32-1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// `tcp.maxConnections`
    pub max_connections: Option<u32>,
    /// `tcp.connectTimeout`
    pub connect_timeout: Option<Duration>,
    /// `http.http1MaxPendingRequests`
    pub max_pending_requests: Option<u32>,
    /// `http.http2MaxRequests`
    pub max_requests: Option<u32>,
}
