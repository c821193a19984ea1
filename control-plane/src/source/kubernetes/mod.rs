//! `--source kubernetes`: an API server, watched.
//!
//! ```text
//! connect ─► follow (one a kind: list, then watch, for ever) ─► mirror (what was said) ─► Event
//!               └─ kinds: what is watched, and which fields of it are kept (prune)
//! crds: which kinds are installed; their watches come and go
//! ```
//!
//! One task polls all watches. Invariants: nothing is [`Event::Synced`] before every kind was listed once; a list that
//! ended says what is gone, so nothing is lost while a watch was away; an API server that cannot be reached changes
//! nothing. Objects are cut down to what the front ends read before anything keeps them.

mod backoff;
mod connect;
mod crds;
mod follow;
mod kinds;
mod mirror;
mod prune;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::BoxStream;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_stream::{StreamExt as _, StreamMap};
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::source::Event;
pub use connect::{ConnectError, connect};
use crds::Installed;
use follow::{Follow, News};
use kinds::Kind;
pub(crate) use kinds::rule_kind;
use mirror::Mirror;

/// News that are taken together at most; what is more becomes the next batch.
const NEWS_MAX: usize = 1024;

/// Watches the API server until the receiver of `events` is gone. `progress` says what the first sync waits for.
pub async fn run(
    client: Client,
    events: mpsc::Sender<Vec<Event>>,
    progress: watch::Sender<String>,
    metrics: Arc<Metrics>,
) {
    let mut source = Kubernetes::new(client, progress, metrics);
    loop {
        let news = tokio::select! {
            news = source.news.next() => news,
            () = events.closed() => return,
        };
        let Some((kind, news)) = news else { return };
        let mut batch = source.take(kind, news);
        // What is here already is one change with it.
        for _ in 1..NEWS_MAX {
            let Some(Some((kind, news))) = source.news.next().now_or_never() else { break };
            batch.extend(source.take(kind, news));
        }
        batch.extend(source.sync());
        if !batch.is_empty() && events.send(batch).await.is_err() {
            return;
        }
    }
}

/// What the API server holds now, ended by [`Event::Synced`].
///
/// # Errors
/// What was not read within `limit`, and why.
pub async fn read_once(client: Client, limit: Duration, metrics: Arc<Metrics>) -> Result<Vec<Event>, String> {
    let (sender, mut batches) = mpsc::channel(1);
    let (tell, progress) = watch::channel("the API server does not answer".to_owned());
    let read = async {
        let mut events = Vec::new();
        while !matches!(events.last(), Some(Event::Synced)) {
            let Some(batch) = batches.recv().await else { break };
            events.extend(batch);
        }
        events
    };
    let following = run(client, sender, tell, metrics);
    let read = async {
        tokio::select! {
            events = read => Some(events),
            () = following => None,
        }
    };
    match tokio::time::timeout(limit, read).await {
        Ok(Some(events)) => Ok(events),
        _ => Err(progress.borrow().clone()),
    }
}

/// All watches and what they said.
struct Kubernetes {
    client: Client,
    /// By the name of the kind.
    watched: BTreeMap<&'static str, Watched>,
    news: StreamMap<&'static str, BoxStream<'static, News>>,
    installed: Installed,
    synced: bool,
    progress: watch::Sender<String>,
    metrics: Arc<Metrics>,
}

/// One kind.
struct Watched {
    kind: &'static Kind,
    version: &'static str,
    mirror: Mirror,
    /// Whether it was listed once.
    listed: bool,
    /// Why its watch does not run, when it does not.
    failure: Option<String>,
}

impl Kubernetes {
    fn new(client: Client, progress: watch::Sender<String>, metrics: Arc<Metrics>) -> Self {
        let mut source = Self {
            client,
            watched: BTreeMap::new(),
            news: StreamMap::new(),
            installed: Installed::default(),
            synced: false,
            progress,
            metrics,
        };
        for kind in kinds::BUILT_IN.iter().chain([&kinds::CRD]) {
            source.start(kind, kind.versions[0]);
        }
        source
    }

    /// Begins to watch a kind, or watches it in another version from now on.
    fn start(&mut self, kind: &'static Kind, version: &'static str) {
        let follow = Follow::new(self.client.clone(), kind, version);
        self.news.insert(kind.kind, follow.into_stream());
        match self.watched.get_mut(kind.kind) {
            // What is in force stays until the list in the new version says otherwise.
            Some(watched) => watched.version = version,
            None => {
                let watched =
                    Watched { kind, version, mirror: Mirror::new(kind), listed: false, failure: None };
                self.watched.insert(kind.kind, watched);
            }
        }
    }

    /// Ends the watch of a kind that is not installed any more; all its objects are gone with it.
    fn stop(&mut self, kind: &'static Kind) -> Vec<Event> {
        self.news.remove(kind.kind);
        self.watched.remove(kind.kind).map(|watched| watched.mirror.clear()).unwrap_or_default()
    }

    /// Takes in what one watch says.
    fn take(&mut self, kind: &'static str, news: News) -> Vec<Event> {
        let Some(watched) = self.watched.get_mut(kind) else { return Vec::new() };
        if let News::Failed(reason) = news {
            warn!(kind, error = reason, "cannot watch; trying again");
            self.metrics.watch_failures.with_label_values(&[kind]).inc();
            watched.failure = Some(reason);
            return Vec::new();
        }
        if watched.failure.take().is_some() {
            info!(kind, "watching again");
        }
        watched.listed |= matches!(news, News::Listed(_));
        if watched.kind.kind == kinds::CRD.kind {
            self.installed.take(&news);
            return self.follow_installed();
        }
        match news {
            News::Listed(objects) => watched.mirror.list(objects),
            News::Changed(object) => watched.mirror.change(object).into_iter().collect(),
            News::Gone(key) => watched.mirror.remove(key).into_iter().collect(),
            News::Failed(_) => Vec::new(),
        }
    }

    /// Starts and stops the watches of custom resources as they are installed.
    fn follow_installed(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for kind in kinds::CUSTOM {
            let served = self.installed.version_of(kind);
            let watched = self.watched.get(kind.kind).map(|watched| watched.version);
            match (served, watched) {
                (Some(version), before) if before != Some(version) => {
                    info!(kind = kind.kind, version, "the kind is installed");
                    self.start(kind, version);
                }
                (None, Some(_)) => {
                    info!(kind = kind.kind, "the kind is not installed any more");
                    events.extend(self.stop(kind));
                }
                _ => {}
            }
        }
        events
    }

    /// [`Event::Synced`] once every kind was listed; until then the progress says which were not.
    fn sync(&mut self) -> Option<Event> {
        if self.synced {
            return None;
        }
        let waiting: Vec<String> = self
            .watched
            .iter()
            .filter(|(_, watched)| !watched.listed)
            .map(|(kind, watched)| match &watched.failure {
                Some(failure) => format!("{kind} ({failure})"),
                None => (*kind).to_owned(),
            })
            .collect();
        self.synced = waiting.is_empty();
        if !self.synced {
            self.progress.send_replace(format!("not read yet from the API server: {}", waiting.join(", ")));
            return None;
        }
        for (kind, watched) in &self.watched {
            info!(kind, version = watched.version, objects = watched.mirror.len(), "read");
        }
        Some(Event::Synced)
    }
}
