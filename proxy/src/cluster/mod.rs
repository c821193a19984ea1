//! Upstreams: clusters, their endpoint sets and hosts, picking a host, connecting to it, circuit breaking, ejection.
//!
//! Knows nothing of HTTP: HTTP connection pools are in `http::pool`, on top of `connect`.

mod active_health;
mod circuit_breaker;
#[allow(clippy::module_inception)]
mod cluster;
mod connect;
mod endpoint_set;
mod happy_eyeballs;
mod host;
mod idle_limit;
mod kept_hosts;
pub mod lb;
mod locality;
mod names;
pub mod original_dst;
pub mod outlier;

pub use active_health::{ActiveHealth, CheckTarget, HealthFlag};
pub(crate) use circuit_breaker::Resource;
pub use circuit_breaker::{CircuitBreakers, Permit, RetryBudget, Thresholds};
pub use cluster::{
    Cluster, ConnectionSettings, HeaderCase, Http2KeepAlive, MeshDestination, UpstreamProtocol,
};
pub use connect::{ConnectError, ConnectTimes, Connected, ConnectionGuard, connect};
pub use endpoint_set::{Balancing, EndpointSet, HostSpec, Priority};
pub use happy_eyeballs::HappyEyeballs;
pub use host::{EdsHealth, Health, Host};
pub use idle_limit::{IdleLimit, SHORT_PAUSE};
pub use locality::Locality;
pub use names::ClusterNames;
pub use original_dst::OriginalDestinations;
