//! What a test can do to the server: fail requests, hold them, cut watches; and what it can count.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{broadcast, watch};

use crate::cluster::lock;
use crate::status::Status;

/// How a watch is broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The body ends as it does at its time limit.
    Clean,
    /// The connection (HTTP/1) or stream (HTTP/2) is reset in the middle of the body.
    Reset,
}

/// Tells running watches to do something.
#[derive(Clone, Debug)]
pub(crate) enum WatchOrder {
    /// End, those of one resource (by its plural) or all.
    End { plural: Option<String>, how: Cut },
    /// Send a bookmark, if the client asked for bookmarks.
    Bookmark,
}

/// A failure that waits for requests.
#[derive(Debug)]
struct Scripted {
    left: usize,
    method: Option<String>,
    path_prefix: String,
    status: Status,
}

/// One request, as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Who asked.
    pub user: String,
    /// The header `user-agent`.
    pub user_agent: String,
}

#[derive(Debug)]
pub(crate) struct Switches {
    scripted: Mutex<VecDeque<Scripted>>,
    paused: watch::Sender<bool>,
    pub(crate) orders: broadcast::Sender<WatchOrder>,
    seen: Mutex<Vec<Seen>>,
    requests: AtomicU64,
    watches_started: AtomicU64,
    watches: AtomicUsize,
}

/// A watch is counted as long as this lives.
#[derive(Debug)]
pub(crate) struct RunningWatch<'a>(&'a Switches);

impl Drop for RunningWatch<'_> {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Switches {
    pub(crate) fn new() -> Self {
        Switches {
            scripted: Mutex::default(),
            paused: watch::Sender::new(false),
            orders: broadcast::Sender::new(64),
            seen: Mutex::default(),
            requests: AtomicU64::new(0),
            watches_started: AtomicU64::new(0),
            watches: AtomicUsize::new(0),
        }
    }

    pub(crate) fn script(&self, count: usize, method: Option<&str>, path_prefix: &str, status: Status) {
        lock(&self.scripted).push_back(Scripted {
            left: count,
            method: method.map(str::to_owned),
            path_prefix: path_prefix.to_owned(),
            status,
        });
    }

    /// The failure that is scripted for a request, if any.
    pub(crate) fn scripted_failure(&self, method: &str, path: &str) -> Option<Status> {
        let mut scripted = lock(&self.scripted);
        let matching = scripted.iter_mut().position(|one| {
            one.left > 0
                && one.method.as_deref().is_none_or(|wanted| wanted == method)
                && path.starts_with(&one.path_prefix)
        })?;
        scripted[matching].left -= 1;
        let status = scripted[matching].status.clone();
        scripted.retain(|one| one.left > 0);
        Some(status)
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Returns at once unless the server is paused.
    pub(crate) async fn wait_while_paused(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.paused.subscribe().wait_for(|paused| !paused).await;
    }

    pub(crate) fn order(&self, order: WatchOrder) {
        // No watch runs: nobody has to be told.
        let _ = self.orders.send(order);
    }

    pub(crate) fn note(&self, seen: Seen) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        lock(&self.seen).push(seen);
    }

    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *lock(&self.seen))
    }

    pub(crate) fn request_count(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn start_watch(&self) -> RunningWatch<'_> {
        self.watches_started.fetch_add(1, Ordering::SeqCst);
        self.watches.fetch_add(1, Ordering::SeqCst);
        RunningWatch(self)
    }

    pub(crate) fn watch_count(&self) -> usize {
        self.watches.load(Ordering::SeqCst)
    }

    pub(crate) fn watches_started(&self) -> u64 {
        self.watches_started.load(Ordering::SeqCst)
    }
}
