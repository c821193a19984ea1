//! Which hosts of a cluster are checked.
//!
//! Invariant: every host of the set that was followed last has a session, but for those whose endpoint does not want checks. A
//! session ends when its host has left, when it is to be checked elsewhere, and with the checker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::HealthCheck;
use crate::cluster::{CheckTarget, Cluster, EndpointSet, HealthFlag, Host};

/// Tells of sessions that are to begin.
#[derive(Debug, Clone)]
pub struct Starts(UnboundedSender<Start>);

/// A host that is to be checked from now on.
#[derive(Debug)]
pub struct Start {
    pub(super) subject: Arc<Subject>,
    pub(super) host: Arc<Host>,
    pub(super) target: Option<Arc<CheckTarget>>,
    /// Ends when it is to be checked no more.
    pub(super) stop: oneshot::Receiver<()>,
}

/// The channel from checkers to who runs their sessions.
pub fn channel() -> (Starts, UnboundedReceiver<Start>) {
    let (sender, receiver) = unbounded_channel();
    (Starts(sender), receiver)
}

/// What all sessions of a cluster share.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) check: HealthCheck,
    /// The newest version.
    pub(super) cluster: ArcSwap<Cluster>,
    /// Hosts without a first check.
    pending: AtomicUsize,
}

impl Subject {
    /// A host has had its first check, or will never have one. Whether it was the last one.
    pub(super) fn first_check_is_done(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// Checks the hosts of one cluster.
#[derive(Debug)]
pub struct Checker {
    subject: Arc<Subject>,
    sessions: Mutex<FxHashMap<u64, Session>>,
    starts: Starts,
}

#[derive(Debug)]
struct Session {
    target: Option<Arc<CheckTarget>>,
    /// Dropped, the session ends.
    _stop: oneshot::Sender<()>,
}

impl Checker {
    /// Checks no host yet.
    pub fn new(check: HealthCheck, cluster: Arc<Cluster>, starts: Starts) -> Arc<Self> {
        let subject = Subject { check, cluster: ArcSwap::new(cluster), pending: AtomicUsize::new(0) };
        Arc::new(Self { subject: Arc::new(subject), sessions: Mutex::default(), starts })
    }

    /// Whether a host that discovery has no more stays, because its checks pass.
    pub fn keeps(&self, host: &Host) -> bool {
        self.subject.check.keeps_healthy_hosts
            && host.has(HealthFlag::Checked)
            && !host.has(HealthFlag::Failed)
    }

    /// Whether every host has had its first check.
    pub fn is_warm(&self) -> bool {
        self.subject.pending.load(Ordering::Relaxed) == 0
    }

    /// Checks these hosts of the cluster and no others. One for which `is_new` holds is unhealthy until its first check has passed; any
    /// other keeps the health that it has. The set's tables must be built anew.
    pub fn follow(&self, cluster: &Arc<Cluster>, set: &EndpointSet, is_new: impl Fn(&Host) -> bool) {
        self.subject.cluster.store(cluster.clone());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *sessions);
        for host in set.hosts() {
            let (health, target) = (host.active_health(), host.check.load_full());
            if target.as_ref().is_some_and(|target| target.disabled) {
                health.clear();
                continue;
            }
            if let Some(session) = before.remove(&host.id).filter(|session| session.target == target) {
                sessions.insert(host.id, session);
                continue;
            }
            if self.subject.check.only_ejected {
                self.begin(host, target, &mut sessions);
                continue;
            }
            if is_new(host) {
                health.set(HealthFlag::Failed, true);
                health.set(HealthFlag::PendingFirstCheck, self.subject.check.ignores_new_hosts);
            }
            health.set(HealthFlag::Checked, true);
            self.subject.pending.fetch_add(1, Ordering::Relaxed);
            self.begin(host, target, &mut sessions);
        }
    }

    fn begin(
        &self,
        host: &Arc<Host>,
        target: Option<Arc<CheckTarget>>,
        sessions: &mut FxHashMap<u64, Session>,
    ) {
        let (stop, stopped) = oneshot::channel();
        sessions.insert(host.id, Session { target: target.clone(), _stop: stop });
        let start = Start { subject: self.subject.clone(), host: host.clone(), target, stop: stopped };
        // Nobody listens when a configuration is only looked at.
        let _ = self.starts.0.send(start);
    }
}
