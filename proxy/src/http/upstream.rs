//! What a stream holds of its upstream, from the pick of a host until the attempt is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::Version;

use super::pool::Lease;
use crate::cluster::outlier::{self, Outcome};
use crate::cluster::{Cluster, Host, Permit, Resource, lb};

/// What the stream holds of its upstream. Dropped, the attempt is no longer in flight.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) cluster: Arc<Cluster>,
    pub(super) host: Arc<Host>,
    pub(super) lease: Option<Lease>,
    /// Its response was read to the end.
    pub(super) complete: bool,
    /// Its outcome decides whether the host comes back.
    pub(super) probe: Option<Box<outlier::Probe>>,
    /// It has a connection, and is in flight.
    pub(super) permit: Option<Permit>,
    /// When it began, where hosts are picked by how fast they are.
    began: Option<Instant>,
}

impl Upstream {
    /// An attempt that has no connection yet.
    pub(super) fn new(cluster: &Arc<Cluster>, host: &Arc<Host>, began: Option<Instant>) -> Self {
        Self {
            cluster: cluster.clone(),
            host: host.clone(),
            lease: None,
            complete: false,
            probe: None,
            permit: None,
            began,
        }
    }

    /// It has a connection: from here on it is in flight. False when the circuit breaker has no place for it.
    pub(super) fn send(&mut self, high_priority: bool) -> bool {
        self.permit = self.cluster.circuit_breakers.acquire(Resource::Request, high_priority);
        if self.permit.is_none() {
            return false;
        }
        self.cluster.stats.upstream_rq_active.inc();
        self.host.active_requests.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// We reset its stream, unless its response was read to the end. A connection of HTTP/1 ends with its stream.
    pub(super) fn count_reset(&self, version: Option<Version>) {
        if !self.complete && version == Some(Version::HTTP_2) {
            self.cluster.stats.upstream_rq_tx_reset.inc();
        }
    }

    /// What outlier detection, and balancing by the time of answers, are told of the attempt.
    pub(super) fn record(&mut self, outcome: Outcome) {
        if let Some(probe) = self.probe.take() {
            probe.ended(outcome);
        }
        if let Some(began) = self.began {
            let has_failed = match outcome {
                Outcome::Failed(_) => true,
                Outcome::Answered(status) => status >= 500 || status == 429,
            };
            lb::answered(&self.cluster, &self.host, began.elapsed(), has_failed);
        }
        outlier::record(&self.cluster, &self.host, outcome);
    }

    /// The host has reset the response that it had begun.
    pub(super) fn broke_off(&self) {
        if let Some(began) = self.began {
            lb::answered(&self.cluster, &self.host, began.elapsed(), true);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if self.permit.is_none() {
            return;
        }
        self.cluster.stats.upstream_rq_active.dec();
        self.host.active_requests.fetch_sub(1, Ordering::Relaxed);
    }
}
