//! How statistics are shown: Prometheus text ([`Stats::prometheus`]), Envoy's dotted names as text and JSON ([`Stats::text`],
//! [`Stats::json`]). Runs on main.

mod dotted;
mod labels;
mod prometheus;

use std::sync::Arc;

use super::mesh::MeshOwnStats;
use super::scope::{Family, Scope};
use super::{
    ClusterStats, GrpcStats, HttpStats, ListenerStats, LocalRateLimitStats, OverloadStats, RdsStats,
    RouteStats, ServerStats, Stats, TcpStats, VirtualClusterStats,
};

/// Which statistics are shown: `?usedonly` and `?filter=`.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only what was ever touched.
    pub used_only: bool,
    /// Only what has a dotted name (for mesh metrics: a name) in which this is found.
    pub filter: Option<regex::Regex>,
}

impl Selection {
    /// Whether something is shown; its name is only made when a filter asks for it.
    fn shows(&self, used: bool, name: impl FnOnce() -> String) -> bool {
        (used || !self.used_only) && self.filter.as_ref().is_none_or(|filter| filter.is_match(&name()))
    }
}

/// `GROUP.LABEL.LABEL.NAME`, as a rule.
fn dotted_name<S: Scope>(scope: &S, name: &str) -> String {
    let mut dotted = String::with_capacity(64);
    scope.push_prefix(&mut dotted);
    dotted.push_str(name);
    dotted
}

/// All kinds of scopes, for something that is done to each in the same way.
trait Visitor {
    fn visit<S: Scope>(&mut self, scopes: &[&S], families: &'static [Family<S>]);
}

fn refs<S>(scopes: &[Arc<S>]) -> Vec<&S> {
    scopes.iter().map(AsRef::as_ref).collect()
}

impl Stats {
    fn visit_scopes(&self, visitor: &mut impl Visitor) {
        self.server().refresh();
        let clusters = self.clusters.alive();
        visitor.visit(&refs(&clusters), ClusterStats::FAMILIES);
        let grpc: Vec<_> = clusters.iter().flat_map(|cluster| cluster.grpc.alive()).collect();
        visitor.visit(&refs(&grpc), GrpcStats::<false>::FAMILIES);
        let grpc_web: Vec<_> = clusters.iter().flat_map(|cluster| cluster.grpc_web.alive()).collect();
        visitor.visit(&refs(&grpc_web), GrpcStats::<true>::FAMILIES);
        visitor.visit(&refs(&self.http.alive()), HttpStats::FAMILIES);
        visitor.visit(&refs(&self.local_rate_limits.alive()), LocalRateLimitStats::FAMILIES);
        visitor.visit(&refs(&self.rds.alive()), RdsStats::FAMILIES);
        visitor.visit(&refs(&self.listeners.alive()), ListenerStats::FAMILIES);
        visitor.visit(&refs(&self.tcp.alive()), TcpStats::FAMILIES);
        visitor.visit(&refs(&self.virtual_clusters.alive()), VirtualClusterStats::FAMILIES);
        visitor.visit(&refs(&self.routes.alive()), RouteStats::FAMILIES);
        visitor.visit(&[self.server()], ServerStats::FAMILIES);
        visitor.visit(&[self.overload()], OverloadStats::FAMILIES);
        visitor.visit(&[&self.mesh().own], MeshOwnStats::FAMILIES);
    }
}
