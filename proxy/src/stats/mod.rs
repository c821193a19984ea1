//! Statistics: scopes of resolved metrics. A request touches metrics only; names and labels are resolved when configuration is
//! compiled (or, for mesh labels, once per connection).
//!
//! Metrics are relaxed atomics that any thread may change; they are read and printed on the main runtime (`render`), never on a
//! worker. One [`Stats`] per process; tests may have several.

mod cluster;
mod codes;
mod grpc;
mod http;
mod listener;
pub mod mesh;
mod metric;
mod overload;
mod render;
mod requests;
mod scope;
mod server;
mod tcp;

use std::sync::Arc;

pub use cluster::{BreakerGauges, ClusterStats, HealthCheckStats, OutlierStats, SubsetStats};
pub use codes::{ResponseClasses, ResponseCodes};
pub use grpc::{GrpcMethod, GrpcSeries, GrpcStats};
pub use http::{HttpStats, LocalRateLimitStats, RdsStats};
pub use listener::{ListenerStats, SslStats};
pub use mesh::{
    HopLabels, MeshHandles, MeshStats, PeerLabels, RequestLabels, RequestProtocol, SecurityPolicy,
    TcpHandles, TcpLabels,
};
pub use metric::{Counter, Gauge, Histogram, OptionalGauge};
pub use overload::{LoadShedPoint, OverloadAction, OverloadStats, Resource};
pub use render::Selection;
pub use requests::{RequestStats, RouteStats, VirtualClusterStats};
pub use server::{Memory, ServerStats, Started};
pub use tcp::TcpStats;

use scope::{Scope, Scopes};

/// Which side of a hop reports mesh metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The caller's sidecar.
    Source,
    /// The callee's sidecar.
    Destination,
}

/// All statistics of a process.
#[derive(Debug)]
pub struct Stats {
    clusters: Scopes<ClusterStats>,
    http: Scopes<HttpStats>,
    rds: Scopes<RdsStats>,
    local_rate_limits: Scopes<LocalRateLimitStats>,
    listeners: Scopes<ListenerStats>,
    tcp: Scopes<TcpStats>,
    virtual_clusters: Scopes<VirtualClusterStats>,
    routes: Scopes<RouteStats>,
    server: ServerStats,
    overload: OverloadStats,
    mesh: MeshStats,
}

impl Stats {
    /// Statistics with nothing counted yet.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            clusters: Scopes::new(),
            http: Scopes::new(),
            rds: Scopes::new(),
            local_rate_limits: Scopes::new(),
            listeners: Scopes::new(),
            tcp: Scopes::new(),
            virtual_clusters: Scopes::new(),
            routes: Scopes::new(),
            server: ServerStats::new(Box::default()),
            overload: OverloadStats::default(),
            mesh: MeshStats::new(),
        })
    }

    /// The statistics of the cluster `name`. All calls with one name share their metrics while somebody holds them; when the last
    /// holder lets go, the series are gone. The same holds for the other scopes.
    pub fn cluster(&self, name: &str) -> Arc<ClusterStats> {
        self.clusters.get([sanitize(name)].into())
    }

    /// The statistics of the HTTP connection managers with this `stat_prefix`.
    pub fn http(&self, stat_prefix: &str) -> Arc<HttpStats> {
        self.http.get([sanitize(stat_prefix)].into())
    }

    /// The statistics of the local rate limits with this `stat_prefix`.
    pub fn local_rate_limit(&self, stat_prefix: &str) -> Arc<LocalRateLimitStats> {
        self.local_rate_limits.get([sanitize(stat_prefix)].into())
    }

    /// The statistics of the updates of a route configuration.
    pub fn rds(&self, route_config: &str) -> Arc<RdsStats> {
        self.rds.get([sanitize(route_config)].into())
    }

    /// The statistics of a listening address, `127.0.0.1:10001`, or the listener's `stat_prefix`.
    pub fn listener(&self, address: &str) -> Arc<ListenerStats> {
        self.listeners.get([sanitize(address)].into())
    }

    /// The statistics of the TCP proxies with this `stat_prefix`.
    pub fn tcp(&self, stat_prefix: &str) -> Arc<TcpStats> {
        self.tcp.get([sanitize(stat_prefix)].into())
    }

    /// The statistics of a virtual cluster of a virtual host.
    pub fn virtual_cluster(&self, virtual_host: &str, name: &str) -> Arc<VirtualClusterStats> {
        self.virtual_clusters.get([sanitize(virtual_host), sanitize(name)].into())
    }

    /// The statistics of the routes of a virtual host with this `stat_prefix`.
    pub fn route(&self, virtual_host: &str, stat_prefix: &str) -> Arc<RouteStats> {
        self.routes.get([sanitize(virtual_host), sanitize(stat_prefix)].into())
    }

    /// The statistics of the process.
    pub fn server(&self) -> &ServerStats {
        &self.server
    }

    /// The statistics of the overload manager.
    pub fn overload(&self) -> &OverloadStats {
        &self.overload
    }

    /// Mesh metrics.
    pub fn mesh(&self) -> &MeshStats {
        &self.mesh
    }
}

/// Envoy's names have no colon: `127.0.0.1_10001`.
fn sanitize(name: &str) -> Arc<str> {
    if name.contains(':') {
        name.replace("://", "_").replace(":/", "_").replace(':', "_").into()
    } else {
        name.into()
    }
}
