//! Outlier detection: a host that fails too often is taken out for a while.
//!
//! `settings`: what a cluster asks for. `monitor`: what a host has done. `statistics`: who is an outlier among its peers; pure.
//! `eject`: who goes out, and why. `readmission`: our own way back, by a request that succeeds. `watch`: what happens on main: events, intervals, who comes back. `event_log`: the file of events.
//!
//! Workers count in the host's atomics and take a host out themselves when it has failed often enough in a row, so that no further
//! request goes there (docs/adr/0003); main looks at the rates at each interval's end, rebuilds the tables, tells the log and lets
//! hosts back in. A cluster is only watched while something happens: an idle one costs nothing.

mod eject;
mod event_log;
mod monitor;
mod readmission;
mod settings;
mod statistics;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub use self::eject::{Detector, Why};
pub use self::event_log::EventLog;
pub use self::monitor::{Average, Ejection, HostMonitor, Rate};
pub use self::readmission::Readmission;
pub(crate) use self::readmission::{Probe, probe};
pub use self::settings::{Detection, FailurePercentage, InARow, OutlierDetection, SuccessRate};
pub use self::watch::{Ejections, Event, channel, monitor};

use self::eject::eject;
use self::watch::Subject;
use super::{Cluster, Host};

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The host answered with this HTTP status, or with a gRPC status that stands for it.
    Answered(u16),
    /// It did not answer: no connection, a reset, a timeout. That stands for this status.
    Failed(u16),
}

/// Takes the outcome of an attempt into account.
pub(crate) fn record(cluster: &Cluster, host: &Arc<Host>, outcome: Outcome) {
    let Some(detection) = &cluster.outlier else { return };
    watched(cluster, detection);
    match outcome {
        Outcome::Failed(_) if detection.splits_local_origin => local_origin_failed(cluster, detection, host),
        Outcome::Answered(status) | Outcome::Failed(status) => answered(cluster, detection, host, status),
    }
}

/// There is a connection for a request: what became of it is not known yet.
pub(crate) fn connected(cluster: &Cluster, host: &Host) {
    if let Some(detection) = cluster.outlier.as_ref().filter(|detection| detection.splits_local_origin) {
        watched(cluster, detection);
        host.outlier().local_origin.count(true);
        reset(&host.outlier().local_origin_failures);
    }
}

/// There is a connection, and that is all that will be known of it: that of a TCP proxy.
pub(crate) fn connected_for_good(cluster: &Cluster, host: &Arc<Host>) {
    let Some(detection) = &cluster.outlier else { return };
    match detection.splits_local_origin {
        true => connected(cluster, host),
        false => record(cluster, host, Outcome::Answered(200)),
    }
}

/// An active health check of the host has passed: it comes back at once, unless the settings say that it is to wait.
pub(crate) fn passed_check(cluster: &Cluster, host: &Arc<Host>) {
    let Some(detection) = &cluster.outlier else { return };
    let decides = detection.passed_checks_return || detection.readmission == Readmission::Check;
    if decides && host.ejected.load(Ordering::Relaxed) {
        detection.events.send(Event::PassedCheck(Subject::new(cluster, detection), host.clone()));
    }
}

fn answered(cluster: &Cluster, detection: &Arc<OutlierDetection>, host: &Arc<Host>, status: u16) {
    let monitor = host.outlier();
    monitor.external.count(status < 500);
    if status < 500 {
        reset(&monitor.server_errors);
        reset(&monitor.gateway_errors);
        return;
    }
    if matches!(status, 502..=504) {
        if let Some(failures) = detection.gateway_failures.reached(&monitor.gateway_errors) {
            eject(&Subject::new(cluster, detection), host, Why::ConsecutiveGatewayFailure { failures });
        }
    } else {
        reset(&monitor.gateway_errors);
    }
    if let Some(failures) = detection.server_errors.reached(&monitor.server_errors) {
        eject(&Subject::new(cluster, detection), host, Why::Consecutive5xx { failures });
    }
}

fn local_origin_failed(cluster: &Cluster, detection: &Arc<OutlierDetection>, host: &Arc<Host>) {
    let monitor = host.outlier();
    monitor.local_origin.count(false);
    if let Some(failures) = detection.local_origin_failures.reached(&monitor.local_origin_failures) {
        eject(&Subject::new(cluster, detection), host, Why::ConsecutiveLocalOriginFailure { failures });
    }
}

/// Sees to it that main watches the cluster by these settings, or by newer ones: a request may be older than an update.
fn watched(cluster: &Cluster, detection: &Arc<OutlierDetection>) {
    let watched_by = &detection.state.watched_by;
    if watched_by.load(Ordering::Relaxed) < detection.id
        && watched_by.fetch_max(detection.id, Ordering::Relaxed) < detection.id
    {
        detection.events.send(Event::Watch(Subject::new(cluster, detection)));
    }
}

/// Most of the time it is zero already, and nobody else's cache line is touched.
fn reset(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
