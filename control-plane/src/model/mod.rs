//! The mesh as the control plane understands it, whatever kinds it was written in.
//!
//! Model nodes are immutable values behind an `Arc`, decoded by the front ends in [`crate::api`] and held by the
//! [`Registry`]. Each keeps its [`Origin`](crate::source::Origin). Nothing here knows xDS. Runs on the task that owns the
//! registry.

mod audience;
mod destination_policy;
mod finding;
mod grant;
mod health_check;
mod locality_balancing;
mod node;
mod origins;
mod peer_authn;
mod registry;
mod resolve;
mod route;
mod service;
mod service_entry;
mod settings;
mod traffic_policy;
mod workload;
mod workload_entry;

use std::fmt;

pub use audience::Audience;
pub use destination_policy::{
    ClientTls, ConnectionPool, ConsistentHash, DestinationPolicies, DestinationPolicy, DestinationSettings,
    FailurePercentage, HashOf, HashTable, HttpUpgrade, LoadBalancing, OutlierDetection, PeakEwma,
    PortSettings, SlowStart, Subset, SuccessRate, TcpKeepalive, TlsOrigination,
};
pub use finding::{Concern, Finding, Findings};
pub use grant::{Grant, GrantFrom, GrantTo};
pub use health_check::{HealthCheck, HealthCheckKind, StatusRange};
pub use locality_balancing::{
    Distribution, Failover, HOSTNAME_LABEL, LocalityBalancing, LocalityPattern, Place, PreferredLabel,
};
pub use node::{Locality, Node};
pub use origins::Origins;
pub use peer_authn::{MutualTlsMode, PeerAuthn};
pub use registry::{ChangeSet, Client, Input, Registry};
pub use resolve::{Endpoint, InboundPort};
pub use route::{
    ALL_PPM, Abort, AbortStatus, Backend, Cors, Delay, DelegateRule, Destination, DirectResponse, Fault,
    Forward, HeaderChanges, HeaderMatch, HeaderOperations, Host, HttpRoute, HttpRules, L4Backend, L4Match,
    L4Rule, Mirror, Parent, PathMatch, PathRewrite, Ppm, QueryMatch, Redirect, RedirectPort, RequestMatch,
    Retry, RouteAction, RouteKey, RouteKind, RouteRule, ServiceRef, Source, StringMatch, VirtualService,
    Visibility,
};
pub use service::{EndpointSlice, Protocol, Service, ServicePort, SliceEndpoint, SlicePort, TargetPort};
pub use service_entry::{EndpointAddress, External, NamedEndpoints, ServiceEntry, StaticEndpoint};
pub use settings::{MeshSettings, Sidecars, UnknownDestinations};
pub use traffic_policy::{
    Ejection, LimitPer, PolicyTarget, QueryParameters, RateLimit, Readmission, ReadmissionBy, RetryAfter,
    RetryBudget, TargetKey, TargetKind, TrafficPolicy, TrafficSettings,
};
pub use workload::{Interception, Workload};
pub use workload_entry::{Entry, Remark, WorkloadEntry, WorkloadGroup};

/// The name of a namespaced object whose kind is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Namespace.
    pub namespace: String,
    /// Name in the namespace.
    pub name: String,
}

impl Name {
    /// The name `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The Kubernetes Service whose whole host name this is, in the cluster of the DNS suffix `domain`.
    pub fn of_host(host: &str, domain: &str) -> Option<Self> {
        let (name, namespace) = host.strip_suffix(domain)?.strip_suffix(".svc.")?.split_once('.')?;
        (!namespace.contains('.')).then(|| Self::new(namespace, name))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
