//! Where a request counts beside its cluster: in its route (`stat_prefix`), and in the virtual cluster of its virtual host that takes it.

use std::sync::Arc;

use super::active_stream::ActiveStream;
use crate::route::{RequestView, Route};
use crate::stats::{RequestStats, RouteStats, VirtualClusterStats};

/// Nowhere, unless configuration says so.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    route: Option<Arc<RouteStats>>,
    virtual_cluster: Option<Arc<VirtualClusterStats>>,
}

impl Counted {
    /// Does this with what counts the request.
    pub(super) fn each(&self, count: impl Fn(&RequestStats)) {
        self.route.iter().for_each(|stats| count(&stats.requests));
        self.virtual_cluster.iter().for_each(|stats| count(&stats.requests));
    }
}

impl ActiveStream {
    /// The request goes to a cluster by this route.
    pub(super) fn count_in<'r>(&mut self, route: &Route, request: impl FnOnce() -> RequestView<'r>) {
        self.counted.route.clone_from(&route.stats);
        let Some(clusters) = &route.virtual_clusters else { return };
        let found = clusters.find(&request());
        self.counted.virtual_cluster = Some(found.stats.clone());
        if let Some(details) = &mut self.info.log_details {
            details.virtual_cluster.clone_from(&found.name);
        }
    }
}
