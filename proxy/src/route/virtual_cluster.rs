//! `virtual_clusters` of a virtual host: requests that are counted together, whatever route they take.

use std::sync::Arc;

use super::{HeaderMatcher, RequestView};
use crate::stats::VirtualClusterStats;

/// All of a virtual host.
#[derive(Debug)]
pub struct VirtualClusters {
    /// In their order: the first one that takes a request counts it.
    pub list: Vec<VirtualCluster>,
    /// Counts what none of them takes.
    pub other: VirtualCluster,
}

/// One of them.
#[derive(Debug)]
pub struct VirtualCluster {
    /// `name`, for logs; none for what no other one takes.
    pub name: Option<Arc<str>>,
    /// `headers`: all must match.
    pub headers: Vec<HeaderMatcher>,
    /// `vhost.HOST.vcluster.NAME.*`.
    pub stats: Arc<VirtualClusterStats>,
}

impl VirtualClusters {
    /// The one that counts this request.
    pub fn find(&self, request: &RequestView<'_>) -> &VirtualCluster {
        let takes = |cluster: &&VirtualCluster| cluster.headers.iter().all(|header| header.matches(request));
        self.list.iter().find(takes).unwrap_or(&self.other)
    }
}
