//! Upstreams: clusters, their endpoint sets and hosts, picking a host, circuit breaking, ejection, connection pools.

mod circuit_breaker;
#[allow(clippy::module_inception)]
mod cluster;
mod endpoint_set;
mod host;
pub mod lb;
pub mod outlier;
pub mod pool;

pub use circuit_breaker::{CircuitBreakers, Permit, Thresholds};
pub use cluster::{Cluster, ConnectionSettings, MeshDestination, UpstreamProtocol};
pub use endpoint_set::{EndpointSet, HostSpec, Priority};
pub use host::Host;
