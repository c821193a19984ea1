//! The tasks that look names up, for as long as their cluster has them.

use std::sync::{Arc, Weak};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::DnsDiscovery;
use super::pace::Pace;
use crate::config::compile::Discovery;
use crate::config::configuration::Configuration;
use crate::config::handle::ConfigurationHandle;
use crate::config::warming::Slot;

/// Tells of names that are to be followed from now on.
#[derive(Debug, Clone)]
pub struct Started(UnboundedSender<(Arc<str>, Weak<DnsDiscovery>)>);

/// The end where those come out, each with its cluster's name.
pub type Wanted = UnboundedReceiver<(Arc<str>, Weak<DnsDiscovery>)>;

/// The channel from the configuration to `follow`.
pub fn channel() -> (Started, Wanted) {
    let (sender, receiver) = unbounded_channel();
    (Started(sender), receiver)
}

impl Started {
    /// Follows the names of a cluster, unless they are followed already.
    pub(in crate::config) fn follow(&self, cluster: &Arc<str>, dns: &Arc<DnsDiscovery>) {
        if !std::mem::replace(&mut dns.state().is_followed, true) {
            // Nobody listens any more when the process drains, or when a configuration is only checked.
            let _ = self.0.send((cluster.clone(), Arc::downgrade(dns)));
        }
    }
}

/// Runs on main for the life of the process.
pub async fn follow(configuration: Arc<ConfigurationHandle>, mut wanted: Wanted) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some((cluster, dns)) = wanted.recv() => {
                let Some(strong) = dns.upgrade() else { continue };
                for endpoint in 0..strong.settings.endpoints.len() {
                    let task = look_up(configuration.clone(), cluster.clone(), dns.clone(), endpoint);
                    let handle = tasks.spawn(task);
                    strong.state().tasks.push(handle);
                }
            }
            // One whose cluster has gone.
            Some(_) = tasks.join_next() => {}
            else => return,
        }
    }
}

/// Looks one name up again and again.
async fn look_up(
    configuration: Arc<ConfigurationHandle>,
    cluster: Arc<str>,
    dns: Weak<DnsDiscovery>,
    endpoint: usize,
) {
    let Some((settings, stats)) = dns.upgrade().map(|dns| (dns.settings.clone(), dns.stats.clone())) else {
        return;
    };
    let name = &settings.endpoints[endpoint].name;
    let mut pace = Pace::new(settings.refresh.clone());
    let mut failed_before = false;
    loop {
        stats.update_attempt.inc();
        let answer = settings.resolver.look_up(name, settings.family).await;
        match &answer {
            Err(reason) if !failed_before => {
                tracing::warn!(target: "upstream", "cluster '{cluster}': cannot resolve '{name}': {reason}");
            }
            Ok(_) if failed_before => {
                tracing::info!(target: "upstream", "cluster '{cluster}': '{name}' can be resolved again");
            }
            _ => {}
        }
        failed_before = answer.is_err();
        let answer = answer.ok();
        let Some(dns) = dns.upgrade() else { return };
        if dns.take(endpoint, answer.as_ref().map(|answer| &*answer.addresses)) {
            configuration.update(|c| c.publish_names(&cluster, &dns, Instant::now()));
        }
        drop(dns);
        let has_answer =
            answer.as_ref().filter(|answer| !settings.is_logical || !answer.addresses.is_empty());
        sleep(pace.after(has_answer)).await;
    }
}

impl Configuration {
    /// Publishes what these names of a cluster stand for now, and the cluster itself if it waited for that.
    pub(super) fn publish_names(&mut self, cluster: &str, dns: &Arc<DnsDiscovery>, now: Instant) {
        let has = |discovery: &Discovery| matches!(discovery, Discovery::Dns(own) if Arc::ptr_eq(own, dns));
        let Some(slot) = self.clusters.get(cluster) else { return };
        if slot.active().is_some_and(|version| has(&version.compiled.discovery)) {
            self.publish_endpoints(cluster);
        }
        if self
            .clusters
            .get(cluster)
            .and_then(Slot::waiting)
            .is_some_and(|version| has(&version.compiled.discovery))
        {
            self.settle(now);
        }
    }
}
