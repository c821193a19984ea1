//! What requests ask for: each name is subscribed to once, however many wait for it, and they are answered when it is published or
//! known to be missing.
//!
//! What was found stays subscribed to, as in Envoy. What the source does not have is dropped, so that the next request asks again.
//! Names come from strangers (an authority, a header), so there is a limit; at the limit, names that nobody waits for and that never came
//! go first. Owned by main.

use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::ResourceType;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::configuration::Configuration;
use super::handle::ConfigurationHandle;
use super::sources::SourceId;
use super::watch::{Watch, WatchKey};
use crate::on_demand::{Answer, Ask, Kind};

/// So many names may be subscribed to because requests ask for them.
const MAX_NAMES: usize = 4096;

/// How often it is looked which names are of no use, when there are too many.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// All names that requests have asked for.
#[derive(Debug)]
pub(super) struct OnDemand {
    names: FxHashMap<WatchKey, Name>,
    /// Those that somebody waits for.
    waited_for: FxHashSet<WatchKey>,
    /// When it may be looked again which names are of no use.
    look_again: Option<Instant>,
    pub(super) limit: usize,
}

#[derive(Debug)]
struct Name {
    _watch: Watch,
    waiting: Vec<oneshot::Sender<Answer>>,
    /// What the source has under it is no good.
    is_refused: bool,
}

impl Default for OnDemand {
    fn default() -> Self {
        Self {
            names: FxHashMap::default(),
            waited_for: FxHashSet::default(),
            look_again: None,
            limit: MAX_NAMES,
        }
    }
}

/// Hands what requests ask for to the configuration; never ends.
pub(crate) async fn answer(configuration: Arc<ConfigurationHandle>, mut asks: UnboundedReceiver<Ask>) {
    while let Some(ask) = asks.recv().await {
        configuration.update(|c| {
            let now = Instant::now();
            c.ask(ask, now);
            while let Ok(ask) = asks.try_recv() {
                c.ask(ask, now);
            }
        });
    }
}

impl Configuration {
    /// Takes in what a request asks for.
    pub(crate) fn ask(&mut self, ask: Ask, now: Instant) {
        let Ask { kind, source, name, answer } = ask;
        let resource_type = match kind {
            Kind::Cluster => ResourceType::Cluster,
            Kind::VirtualHost => ResourceType::VirtualHost,
        };
        let key = WatchKey { source, resource_type, name: name.into() };
        if self.is_there(&key) {
            return say(answer, Answer::Ready);
        }
        if !self.on_demand.names.contains_key(&key) {
            if self.on_demand.names.len() >= self.on_demand.limit {
                self.drop_useless_names(now);
            }
            if self.on_demand.names.len() >= self.on_demand.limit {
                self.inputs.stats.server().on_demand_refused_total.inc();
                return say(answer, Answer::TooMany);
            }
            let watch = self.inputs.watches.watch(source, resource_type, &key.name);
            let name = Name { _watch: watch, waiting: Vec::new(), is_refused: false };
            self.on_demand.names.insert(key.clone(), name);
            self.count_on_demand();
        }
        let Some(name) = self.on_demand.names.get_mut(&key) else { return };
        if name.is_refused {
            return say(answer, Answer::Missing);
        }
        // Those that have given up make room before more is made.
        if name.waiting.len() == name.waiting.capacity() {
            name.waiting.retain(|waiting| !waiting.is_closed());
        }
        name.waiting.push(answer);
        self.on_demand.waited_for.insert(key);
    }

    /// Answers those whose name is published by now.
    pub(super) fn settle_on_demand(&mut self) {
        let ready: Vec<WatchKey> =
            self.on_demand.waited_for.iter().filter(|key| self.is_there(key)).cloned().collect();
        for key in ready {
            self.on_demand.say(&key, Answer::Ready);
        }
    }

    /// The source does not have these names. They are dropped, but for what is still in use.
    pub(super) fn missing_on_demand(
        &mut self,
        source: SourceId,
        resource_type: ResourceType,
        names: &[impl AsRef<str>],
    ) {
        if self.on_demand.names.is_empty() {
            return;
        }
        for name in names {
            let key = WatchKey { source, resource_type, name: name.as_ref().into() };
            if !self.is_there(&key) {
                self.on_demand.say(&key, Answer::Missing);
                self.on_demand.names.remove(&key);
            }
        }
        self.count_on_demand();
    }

    /// What the source has under a name is no good, or is good again.
    pub(super) fn judge_on_demand(
        &mut self,
        source: SourceId,
        resource_type: ResourceType,
        name: &str,
        is_refused: bool,
    ) {
        if self.on_demand.names.is_empty() {
            return;
        }
        let key = WatchKey { source, resource_type, name: name.into() };
        if let Some(name) = self.on_demand.names.get_mut(&key) {
            name.is_refused = is_refused;
            if is_refused {
                self.on_demand.say(&key, Answer::Missing);
            }
        }
    }

    /// What these belong to is no longer wanted. Gives their names.
    pub(super) fn forget_on_demand(&mut self, belongs: impl Fn(&WatchKey) -> bool) -> Vec<WatchKey> {
        let gone: Vec<WatchKey> = self.on_demand.names.keys().filter(|key| belongs(key)).cloned().collect();
        for key in &gone {
            self.on_demand.say(key, Answer::Missing);
            self.on_demand.names.remove(key);
        }
        self.count_on_demand();
        gone
    }

    /// A cluster that nothing uses any more is gone.
    pub(super) fn cluster_is_gone(&mut self, name: &Arc<str>) {
        if self.on_demand.names.is_empty() {
            return;
        }
        let sources = self.inputs.sources.ids();
        for source in sources {
            self.missing_on_demand(source, ResourceType::Cluster, &[name]);
        }
    }

    /// Whether it is published.
    fn is_there(&self, key: &WatchKey) -> bool {
        match key.resource_type {
            ResourceType::Cluster => self.clusters.active(&key.name).is_some(),
            ResourceType::VirtualHost => self.has_virtual_host(key.source, &key.name),
            _ => false,
        }
    }

    fn drop_useless_names(&mut self, now: Instant) {
        if self.on_demand.look_again.is_some_and(|at| now < at) {
            return;
        }
        self.on_demand.look_again = Some(now + LOOK_AGAIN);
        let is_useless = |(key, name): &(&WatchKey, &Name)| {
            let has_come = match key.resource_type {
                ResourceType::Cluster => self.clusters.get(&key.name).is_some(),
                _ => self.is_there(key),
            };
            !has_come && name.waiting.iter().all(oneshot::Sender::is_closed)
        };
        let useless: Vec<WatchKey> =
            self.on_demand.names.iter().filter(is_useless).map(|(key, _)| key.clone()).collect();
        for key in useless {
            self.on_demand.names.remove(&key);
            self.on_demand.waited_for.remove(&key);
        }
        self.count_on_demand();
    }

    fn count_on_demand(&self) {
        let names = i64::try_from(self.on_demand.names.len()).unwrap_or(i64::MAX);
        self.inputs.stats.server().on_demand_names.set(names);
    }
}

/// A request that has given up hears nothing.
fn say(waiting: oneshot::Sender<Answer>, answer: Answer) {
    let _ = waiting.send(answer);
}

impl OnDemand {
    /// Answers all who wait for a name.
    fn say(&mut self, key: &WatchKey, answer: Answer) {
        self.waited_for.remove(key);
        let waiting = self.names.get_mut(key).map(|name| std::mem::take(&mut name.waiting));
        waiting.into_iter().flatten().for_each(|waiting| say(waiting, answer));
    }
}

#[cfg(test)]
#[path = "on_demand_tests.rs"]
mod tests;
