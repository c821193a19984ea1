//! How clients treat a Service's endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::locality_balancing::NEAREST;
use crate::model::{
    Client, HealthCheck, LocalityBalancing, Name, Service, ServiceRef, StatusRange, Visibility,
};
use crate::source::Origin;

/// Policy for all clients of one Service, and parts of it by name (a DestinationRule).
#[derive(Debug)]
pub struct DestinationPolicy {
    /// Its name.
    pub name: Name,
    /// The Service.
    pub service: ServiceRef,
    /// The namespaces whose clients may follow it (`exportTo`). Those of its own always may.
    pub visibility: Visibility,
    /// Labels of the clients that follow it, all of its own namespace; empty: all clients.
    pub selector: BTreeMap<String, String>,
    /// What holds for all of it.
    pub settings: PortSettings,
    /// Parts of it.
    pub subsets: Vec<Subset>,
    /// `metadata.creationTimestamp`, or empty. The older of two policies for a Service wins.
    pub created: String,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

impl DestinationPolicy {
    /// Whether a client may follow it. `None` stands for those that nothing is said of: neither their namespace nor their labels.
    pub(super) fn is_for(&self, client: Option<&Client>) -> bool {
        let Some(client) = client else {
            return self.selector.is_empty() && self.visibility == Visibility::Mesh;
        };
        let is_own = client.namespace == self.name.namespace;
        if self.selector.is_empty() {
            return is_own || self.visibility.includes(&client.namespace);
        }
        is_own && self.selector.iter().all(|(key, value)| client.labels.get(key) == Some(value))
    }

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
    pub settings: PortSettings,
    /// Path of the field, for findings.
    pub field: String,
}

impl Subset {
    /// Whether an endpoint with these labels belongs to it.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// How endpoints are treated, by port.
#[derive(Debug, Clone, Default)]
pub struct PortSettings {
    /// At all ports that nothing else is said of.
    pub all: DestinationSettings,
    /// At these ports of the Service (`portLevelSettings`).
    pub ports: BTreeMap<u16, DestinationSettings>,
}

impl PortSettings {
    /// Those of all ports, and of each that has its own.
    pub fn each(&self) -> impl Iterator<Item = &DestinationSettings> {
        std::iter::once(&self.all).chain(self.ports.values())
    }

    /// How endpoints are treated at a port of the Service.
    pub fn at(&self, port: u16) -> &DestinationSettings {
        self.ports.get(&port).unwrap_or(&self.all)
    }

    /// Changes how endpoints are treated at one port.
    pub(super) fn change(&mut self, port: u16, change: impl Fn(&mut DestinationSettings)) {
        let of_port = self.ports.entry(port).or_insert_with(|| self.all.clone());
        change(of_port);
    }
}

/// How endpoints are treated.
#[derive(Debug, Clone, Default)]
pub struct DestinationSettings {
    /// How an endpoint is chosen; none: see [`DestinationSettings::load_balancing`].
    pub load_balancing: Option<LoadBalancing>,
    /// How the caller's place counts; none: see [`DestinationSettings::locality_balancing`].
    pub locality: Option<LocalityBalancing>,
    /// How an endpoint that is new gets its share.
    pub slow_start: Option<SlowStart>,
    /// When an endpoint that fails is left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// With less than this share of healthy endpoints all are used, in percent; 0: never. None: as the rest comes to.
    pub panic_percent: Option<u32>,
    /// How endpoints are asked whether they are well.
    pub health_check: Option<HealthCheck>,
    /// Limits.
    pub connection_pool: ConnectionPool,
    /// TLS of clients.
    pub tls: ClientTls,
}

impl DestinationSettings {
    /// How an endpoint of `service` is chosen: by the policy's word, else by the Service's own (`sessionAffinity: ClientIP`).
    pub fn load_balancing(&self, service: &Service) -> &LoadBalancing {
        let unsaid = if service.session_affinity { &BY_ADDRESS } else { &LoadBalancing::LeastRequest };
        self.load_balancing.as_ref().unwrap_or(unsaid)
    }

    /// How the place of a caller of `service` counts: by the policy's word, else by the Service's own, else by Istio's default, which
    /// wants endpoints to be ejected. `None`: it does not.
    pub fn locality_balancing<'a>(&'a self, service: &'a Service) -> Option<&'a LocalityBalancing> {
        let nearest = || self.outlier_detection.as_ref().map(|_| &NEAREST);
        let said = self.locality.as_ref().or(service.traffic_distribution.as_ref()).or_else(nearest);
        said.filter(|said| **said != LocalityBalancing::Off)
    }

    /// Whether endpoints that are not ready are told too, as unhealthy ones: by their share a proxy sees when to turn to others. Not
    /// where the policy wants unhealthy endpoints to be used.
    pub fn tells_unready(&self, service: &Service) -> bool {
        let wants_unhealthy = self.said_panic_percent().is_some_and(|percent| percent > 0);
        self.locality_balancing(service).is_some() && !wants_unhealthy
    }

    /// With less than this share of healthy endpoints all are used, in percent; none: nobody says so.
    pub fn said_panic_percent(&self) -> Option<u32> {
        self.panic_percent
            .or_else(|| self.outlier_detection.as_ref().map(|outlier| outlier.min_health_percent))
    }
}

/// How an endpoint that is new gets its share of requests (`warmup`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// How long until it has the whole.
    pub window: Duration,
    /// What it has at first, in percent.
    pub least_percent: f64,
    /// 1 or more. With 1 the share grows evenly; with more, slowly at first.
    pub aggression: f64,
}

/// TLS of clients (`tls.mode`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientTls {
    /// Mutual TLS wherever the mesh can.
    #[default]
    Mesh,
    /// Mutual TLS, never plaintext (`ISTIO_MUTUAL`).
    Mutual,
    /// Never TLS (`DISABLE`).
    Plaintext,
    /// TLS with a server that is not the mesh's (`SIMPLE`, `MUTUAL`).
    Origination(Arc<TlsOrigination>),
}

/// TLS with a server that is not the mesh's. Files are the sidecar's.
#[derive(Debug, PartialEq, Eq)]
pub struct TlsOrigination {
    /// Files with the certificate chain and the key by which the client proves itself.
    pub certificate: Option<(String, String)>,
    /// File with the roots; none: the server may be anybody.
    pub roots: Option<String>,
    /// Names of which the server's certificate must have one; none: the server name.
    pub server_names: Vec<String>,
    /// The server name that is asked for (SNI); none: that of the host.
    pub sni: Option<String>,
}

/// All policies for a Service together: those of the one in force, and every part that any of its namespace names.
#[derive(Debug, Clone, Default)]
pub struct DestinationPolicies {
    /// What holds for all of it.
    pub settings: PortSettings,
    /// Who says so.
    pub made_by: Option<Arc<Origin>>,
    /// Its parts, each with who says so; names are unique.
    pub subsets: Vec<(Subset, Arc<Origin>)>,
}

impl DestinationPolicies {
    /// All settings, of the whole and of each part.
    pub fn all(&self) -> impl Iterator<Item = &DestinationSettings> {
        let parts = self.subsets.iter().map(|(subset, _)| &subset.settings);
        std::iter::once(&self.settings).chain(parts).flat_map(PortSettings::each)
    }

    /// What holds for all of it, or for a part. `None`: there is no such part.
    pub fn settings_of(&self, subset: Option<&str>) -> Option<&PortSettings> {
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
    /// The one of two at random that answers faster.
    PeakEwma(PeakEwma),
}

/// Choice by how long answers take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeakEwma {
    /// After so long an answer counts for a third.
    pub decay: Duration,
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

/// Kubernetes' `sessionAffinity: ClientIP`, with Istio's ring.
static BY_ADDRESS: LoadBalancing =
    LoadBalancing::ConsistentHash(ConsistentHash { of: HashOf::SourceIp, table: HashTable::Ring(1024) });

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
    /// So many 502, 503 or 504 answers in a row eject the endpoint; 0: never.
    pub consecutive_gateway_errors: u32,
    /// So many failures in a row that did not come from the endpoint (no connection, resets, timeouts) eject it; `None`: they
    /// count like 5xx answers.
    pub local_origin_failures: Option<u32>,
    /// How often ejected endpoints are looked at.
    pub interval: Duration,
    /// How long the first ejection lasts; the n-th lasts n times as long.
    pub base_ejection_time: Duration,
    /// At most this share of the endpoints is ejected, in percent.
    pub max_ejection_percent: u32,
    /// With less than this share of healthy endpoints, all are used, in percent; 0: never.
    pub min_health_percent: u32,
    /// The answers that are failures, instead of 5xx; empty: 5xx.
    pub failures: Vec<StatusRange>,
    /// Those whose rate is far below that of the others are ejected.
    pub success_rate: Option<SuccessRate>,
    /// Those of whose requests too many fail are ejected.
    pub failure_percentage: Option<FailurePercentage>,
}

/// Which success rates are too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRate {
    /// So many thousandths of a standard deviation below the mean.
    pub deviation_thousandths: u32,
    /// An endpoint with fewer requests in an interval is not judged.
    pub requests: u32,
    /// With fewer endpoints that have so many none is judged.
    pub endpoints: u32,
}

/// Which share of failures is too high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailurePercentage {
    /// In percent.
    pub threshold: u32,
    /// An endpoint with fewer requests in an interval is not judged.
    pub requests: u32,
    /// With fewer endpoints that have so many none is judged.
    pub endpoints: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway_errors: 0,
            local_origin_failures: None,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
            failures: Vec::new(),
            success_rate: None,
            failure_percentage: None,
        }
    }
}

/// Limits of one client towards one Service port, and how long its connections last. What is not set has no limit but Istio's (2^32-1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// `tcp.maxConnections`
    pub max_connections: Option<u32>,
    /// `endpointLimits.connections` of a TrafficPolicy: towards each endpoint.
    pub max_connections_per_endpoint: Option<u32>,
    /// `tcp.connectTimeout`
    pub connect_timeout: Option<Duration>,
    /// `tcp.maxConnectionDuration`
    pub max_connection_duration: Option<Duration>,
    /// `tcp.idleTimeout`, for connections that are not HTTP. Zero: never; none: an hour.
    pub tcp_idle_timeout: Option<Duration>,
    /// `tcp.tcpKeepalive`
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `http.http1MaxPendingRequests`
    pub max_pending_requests: Option<u32>,
    /// `http.http2MaxRequests`
    pub max_requests: Option<u32>,
    /// `http.maxRequestsPerConnection`
    pub max_requests_per_connection: Option<u32>,
    /// `http.maxRetries`: at the same time
    pub max_retries: Option<u32>,
    /// `http.idleTimeout`: without a request. Zero: never; none: an hour.
    pub idle_timeout: Option<Duration>,
    /// `http.h2UpgradePolicy`
    pub upgrade: HttpUpgrade,
    /// `http.maxConcurrentStreams` of an HTTP/2 connection
    pub max_concurrent_streams: Option<u32>,
}

/// Whether an HTTP/1 port is spoken to in HTTP/2 (`http.h2UpgradePolicy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpUpgrade {
    /// Between sidecars, and nowhere else.
    #[default]
    Default,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
    /// Where the client speaks it (`http.useClientProtocol`). Of HTTP/2 ports too.
    AsClient,
}

/// `tcp.tcpKeepalive`; what is not set is the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes without an answer that end the connection.
    pub probes: Option<u32>,
    /// Silence before the first one, in seconds.
    pub time: Option<u32>,
    /// From one to the next, in seconds.
    pub interval: Option<u32>,
}
