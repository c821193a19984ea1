//! Re-admission that is earned: our own, and off unless it is asked for. When the time of an ejection has passed, the host is not back;
//! one request is let to it, and what comes of that decides. Other requests go elsewhere as before.
//!
//! States of a host that is out: *waits* for its time, *due*: a probe may be taken, *asked*: a request is on its way. Main says that one
//! is due; workers take it and tell main what came of it. A probe that tells nothing (its client went away) is due again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::settings::Detection;
use super::watch::{Event, Subject};
use super::{Outcome, OutlierDetection};
use crate::cluster::lb::{self, Criteria};
use crate::cluster::{Cluster, HealthFlag, Host};

/// How a host comes back when the time of its ejection has passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Readmission {
    /// As in Envoy: by itself.
    #[default]
    Timed,
    /// `readmission: "probe"` of our metadata: when one request to it has succeeded.
    Probe,
    /// `readmission: "check"` of our metadata: when its active health check passes, which runs only for hosts that are out.
    Check,
}

const WAITS: u8 = 0;
const DUE: u8 = 1;
const ASKED: u8 = 2;

/// Of one host.
#[derive(Debug, Default)]
pub(super) struct ProbeState(AtomicU8);

impl ProbeState {
    fn turn(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The time of its ejection has passed.
    pub(super) fn offer(&self, state: &Detection) {
        if self.turn(WAITS, DUE) {
            state.probes_due.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It is back, out anew, or has left.
    pub(super) fn end(&self, state: &Detection) {
        if self.0.swap(WAITS, Ordering::Relaxed) == DUE {
            state.probes_due.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn take(&self, state: &Detection) -> bool {
        let taken = self.turn(DUE, ASKED);
        if taken {
            state.probes_due.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    fn give_back(&self, state: &Detection) {
        if self.turn(ASKED, DUE) {
            state.probes_due.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A request that decides whether a host comes back. Dropped without an outcome, another one will.
#[derive(Debug)]
pub(crate) struct Probe {
    subject: Subject,
    host: Arc<Host>,
    has_ended: bool,
}

/// The probe that is due, if there is one among the hosts that a request which asks for `criteria` may go to. To be asked for a first
/// attempt only: a retry is to succeed.
pub(crate) fn probe(cluster: &Cluster, criteria: Option<&Criteria>) -> Option<Box<Probe>> {
    let detection: &Arc<OutlierDetection> = cluster.outlier.as_ref()?;
    if detection.state.probes_due.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let is_due = |host: &Arc<Host>| {
        let is_well = host.eds_health().takes_traffic() && !host.has(HealthFlag::Failed);
        is_well && host.seen_outlier().is_some_and(|monitor| monitor.probe.take(&detection.state))
    };
    let host = lb::find(cluster, criteria, is_due)?;
    Some(Box::new(Probe { subject: Subject::new(cluster, detection), host, has_ended: false }))
}

impl Probe {
    /// Where the request is to go.
    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// What came of it.
    pub(crate) fn ended(mut self, outcome: Outcome) {
        self.has_ended = true;
        let passed = matches!(outcome, Outcome::Answered(status) if status < 500);
        self.subject.detection.events.send(Event::Probed(self.subject.clone(), self.host.clone(), passed));
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.has_ended {
            self.host.outlier().probe.give_back(&self.subject.detection.state);
        }
    }
}
