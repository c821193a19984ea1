//! What active health checks mean for what is published: a new cluster serves after its hosts' first checks, and a host that discovery
//! has no more stays while its checks pass. Main only.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::compile::{Assignment, Discovery};
use super::configuration::{ClusterVersion, Configuration};
use super::handle::ConfigurationHandle;
use crate::cluster::{EndpointSet, HealthFlag, Host, HostSpec};
use crate::health_check::{self, Start};
use crate::net::Address;

/// Runs the checks of all hosts, for the life of the process.
pub(crate) async fn run(configuration: Arc<ConfigurationHandle>, mut starts: UnboundedReceiver<Start>) {
    let (tell, mut told) = unbounded_channel::<Arc<str>>();
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            Some(start) = starts.recv() => {
                sessions.spawn(health_check::run(start, tell.clone()));
            }
            Some(cluster) = told.recv() => configuration.update(|c| {
                c.publish_endpoints(&cluster);
                c.settle(Instant::now());
            }),
            // One whose host has left.
            Some(_) = sessions.join_next() => {}
            else => return,
        }
    }
}

impl Configuration {
    /// Begins to check the hosts of new clusters, which wait for that.
    pub(super) fn warm_hosts(&mut self) {
        for name in self.clusters.waiting_first() {
            let Some(version) = self.clusters.waiting_mut(&name) else { continue };
            if version.compiled.checker.is_some()
                && !version.misses(&self.assignments, &self.secrets, &self.inputs)
            {
                version.publish_hosts(&self.assignments);
            }
        }
    }
}

/// The hosts that `built` had, or that stayed before, and `wanted` has not, but that stay because their checks pass.
pub(super) fn staying(
    version: &ClusterVersion,
    wanted: &Assignment,
    present: Option<&EndpointSet>,
) -> Vec<HostSpec> {
    let (Some(checker), Some(present)) = (&version.compiled.checker, present) else { return Vec::new() };
    if !matches!(version.compiled.discovery, Discovery::Eds { .. } | Discovery::Dns(_)) {
        return Vec::new();
    }
    let wanted: FxHashSet<&Address> = wanted.hosts.iter().map(|spec| &spec.address).collect();
    let passing = present.hosts().filter(|host| checker.keeps(host));
    let passing: FxHashSet<&Address> = passing.map(|host| &host.address).collect();
    let built = version.built.iter().flat_map(|built| &built.hosts);
    let before = built.chain(&version.staying);
    let stays = |spec: &&HostSpec| passing.contains(&spec.address) && !wanted.contains(&spec.address);
    before.filter(stays).cloned().collect()
}

/// Hosts that are to be checked are, and those that only stay are marked.
pub(super) fn follow(version: &ClusterVersion, present: Option<&EndpointSet>, set: &EndpointSet) {
    let cluster = &version.compiled.cluster;
    let Some(checker) = &version.compiled.checker else {
        // Nobody says any more that one of them is not well.
        let checked: Vec<&Arc<Host>> = set.hosts().filter(|host| host.has(HealthFlag::Checked)).collect();
        checked.iter().for_each(|host| host.active_health().clear());
        if !checked.is_empty() {
            set.refresh();
        }
        return;
    };
    let staying: FxHashSet<&Address> = version.staying.iter().map(|spec| &spec.address).collect();
    for host in set.hosts() {
        host.active_health().set(HealthFlag::PendingRemoval, staying.contains(&host.address));
    }
    let before: FxHashSet<u64> =
        present.into_iter().flat_map(EndpointSet::hosts).map(|host| host.id).collect();
    checker.follow(cluster, set, |host| !before.contains(&host.id));
    set.refresh();
}
