//! What happens on main: workers tell of ejections, rates are looked at when an interval ends, hosts come back.
//!
//! Invariant: a cluster with a sample since the end of its last interval, with a host that is out, or with one whose ejections are
//! remembered, is watched. Any other is not: the worker that counts the next sample asks for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rustc_hash::FxHashMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

use super::eject::{Why, eject};
use super::event_log::EventLog;
use super::monitor::{Average, Counted, Ejection, Samples};
use super::readmission::Readmission;
use super::settings::OutlierDetection;
use super::statistics::judge;
use crate::cluster::{Cluster, EndpointSet, Host};
use crate::config::live::Live;
use crate::stats::ClusterStats;

/// Sends events to main.
#[derive(Debug, Clone)]
pub struct Ejections(UnboundedSender<Event>);

impl Ejections {
    pub(super) fn send(&self, event: Event) {
        // Main is gone only when the process ends.
        let _ = self.0.send(event);
    }
}

/// What main is told.
#[derive(Debug)]
pub enum Event {
    /// Something happens in this cluster.
    Watch(Subject),
    /// A host was found to be an outlier.
    Ejected(Ejected),
    /// A request was let to a host that is out, and succeeded, or did not.
    Probed(Subject, Arc<Host>, bool),
    /// An active health check of a host that is out has passed.
    PassedCheck(Subject, Arc<Host>),
}

/// A cluster as outlier detection sees it.
#[derive(Debug, Clone)]
pub struct Subject {
    pub(super) cluster: Arc<str>,
    pub(super) endpoints: Arc<Live<EndpointSet>>,
    pub(super) stats: Arc<ClusterStats>,
    pub(super) detection: Arc<OutlierDetection>,
}

/// A host that was found, and taken out if the detector is enforced.
#[derive(Debug)]
pub struct Ejected {
    pub(super) subject: Subject,
    pub(super) host: Arc<Host>,
    pub(super) why: Why,
    pub(super) is_enforced: bool,
    pub(super) at: Instant,
}

impl Subject {
    pub(super) fn new(cluster: &Cluster, detection: &Arc<OutlierDetection>) -> Self {
        Self {
            cluster: cluster.name.clone(),
            endpoints: cluster.endpoints.clone(),
            stats: cluster.stats.clone(),
            detection: detection.clone(),
        }
    }
}

/// The channel from the workers to `monitor`.
pub fn channel() -> (Ejections, UnboundedReceiver<Event>) {
    let (sender, receiver) = unbounded_channel();
    (Ejections(sender), receiver)
}

/// Events that are heard before the tables are rebuilt once for all of them.
const BATCH: usize = 1_024;

/// Runs on main for the life of the process. What happens is also written to `log`.
pub async fn monitor(mut events: UnboundedReceiver<Event>, log: Option<EventLog>) {
    let mut watches = Watches { watched: FxHashMap::default(), ends: BTreeSet::new(), log };
    let mut heard = Vec::new();
    loop {
        let end = watches.ends.first().map(|(end, _)| *end);
        tokio::select! {
            biased;
            count = events.recv_many(&mut heard, BATCH) => {
                if count == 0 {
                    return;
                }
                watches.hear(heard.drain(..));
            }
            () = until(end) => watches.end_intervals(Instant::now()),
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// The clusters in which something happens.
struct Watches {
    /// By name, with the end of the present interval.
    watched: FxHashMap<Arc<str>, (Subject, Instant)>,
    ends: BTreeSet<(Instant, Arc<str>)>,
    log: Option<EventLog>,
}

impl Watches {
    fn hear(&mut self, events: impl Iterator<Item = Event>) {
        let mut changed: FxHashMap<Arc<str>, Subject> = FxHashMap::default();
        for event in events {
            match event {
                Event::Watch(subject) => self.watch(subject),
                Event::Ejected(ejected) => {
                    if self.ejected(&ejected) {
                        changed.insert(ejected.subject.cluster.clone(), ejected.subject);
                    }
                }
                Event::Probed(subject, host, false) => self.stays_out(&subject, &host, Instant::now()),
                Event::PassedCheck(subject, host) | Event::Probed(subject, host, true) => {
                    let now = Instant::now();
                    // A check that is to decide does so when the time has passed, so that the next ejection can last longer.
                    let waits = subject.detection.readmission == Readmission::Check;
                    let may = |ejection: &Ejection, at| !waits || ejection.is_over(at, now);
                    if self.returns(&subject, &host, now, may) {
                        changed.insert(subject.cluster.clone(), subject);
                    }
                }
            }
        }
        changed.values().for_each(refresh);
    }

    /// The present interval goes on when the settings are new, unless the new one ends earlier.
    fn watch(&mut self, subject: Subject) {
        let mut end = Instant::now() + subject.detection.interval;
        let name = subject.cluster.clone();
        if let Some((_, old)) = self.watched.remove(&name) {
            self.ends.remove(&(old, name.clone()));
            end = end.min(old);
        }
        self.ends.insert((end, name.clone()));
        self.watched.insert(name, (subject, end));
    }

    /// Whether the tables must be built anew.
    fn ejected(&self, ejected: &Ejected) -> bool {
        let Ejected { subject, host, why, is_enforced, at } = ejected;
        let detection = &subject.detection;
        let mut history = host.outlier().history();
        if *is_enforced {
            history.ejections += 1;
            if detection.grows_beyond(history.recent) {
                history.recent += 1;
            }
            history.last_ejection = Some(*at);
            let time = detection.ejection_time(history.recent) + jitter(detection.max_ejection_time_jitter);
            let ejection = Ejection {
                why: *why,
                at: SystemTime::now(),
                time,
                state: detection.state.clone(),
                stats: subject.stats.clone(),
            };
            if host.removed.load(Ordering::Relaxed) {
                // It left between the two.
                ejection.release();
                return false;
            }
            history.ejection = Some(ejection);
            tracing::warn!(
                target: "outlier",
                "cluster {}: host {} ejected for {time:?}: {why}", subject.cluster, host.address,
            );
        }
        if let Some(log) = &self.log {
            log.ejected(&subject.cluster, host, why, *is_enforced, &history);
        }
        *is_enforced
    }

    /// Ends the intervals whose time has come.
    fn end_intervals(&mut self, now: Instant) {
        while let Some((end, name)) = self.ends.first().cloned()
            && end <= now
        {
            self.ends.pop_first();
            let Some((subject, _)) = self.watched.remove(&name) else { continue };
            if self.end_interval(&subject, now) {
                let next = now + subject.detection.interval;
                self.ends.insert((next, name.clone()));
                self.watched.insert(name, (subject, next));
            } else {
                let (id, watched_by) = (subject.detection.id, &subject.detection.state.watched_by);
                // Not when newer settings have asked for it meanwhile.
                let _ = watched_by.compare_exchange(id, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// Looks at what each host did, and who may come back. Whether there is a reason to look again.
    fn end_interval(&self, subject: &Subject, now: Instant) -> bool {
        let Some(set) = subject.endpoints.get() else { return false };
        let hosts: Vec<&Arc<Host>> = set.hosts().collect();
        let is_over = |ejection: &Ejection, at| ejection.is_over(at, now);
        let returned = match subject.detection.readmission {
            Readmission::Timed => {
                hosts.iter().filter(|host| self.returns(subject, host, now, is_over)).count()
            }
            Readmission::Probe => {
                hosts.iter().for_each(|host| offer_probe(host, is_over));
                0
            }
            Readmission::Check => 0,
        };
        let external = end_samples(&hosts, |host| &host.outlier().external);
        let local_origin = end_samples(&hosts, |host| &host.outlier().local_origin);
        eject_outliers(subject, &hosts, &external, false);
        eject_outliers(subject, &hosts, &local_origin, true);
        if returned > 0 {
            refresh(subject);
        }
        let busy = external.iter().chain(&local_origin).flatten().any(|counted| counted.total > 0);
        let mut remembered = false;
        for host in hosts {
            remembered |= is_remembered(host, subject.detection.interval, now);
        }
        busy || remembered
    }

    /// Lets the host back in when `may` says so of its ejection and of when that was.
    fn returns(
        &self,
        subject: &Subject,
        host: &Host,
        now: Instant,
        may: impl Fn(&Ejection, Instant) -> bool,
    ) -> bool {
        let mut history = host.outlier().history();
        let (Some(ejection), Some(at)) = (&history.ejection, history.last_ejection) else { return false };
        if !may(ejection, at) {
            return false;
        }
        host.outlier().probe.end(&ejection.state);
        ejection.release();
        tracing::info!(
            target: "outlier",
            "cluster {}: host {} is back after {:?}",
            subject.cluster,
            host.address,
            now.saturating_duration_since(at),
        );
        history.ejection = None;
        history.last_return = Some(now);
        host.outlier().begin_anew();
        if subject.detection.warms_up {
            host.warm_up(now);
        }
        host.ejected.store(false, Ordering::Relaxed);
        if let Some(log) = &self.log {
            log.returned(&subject.cluster, host, &history);
        }
        true
    }
}

impl Watches {
    /// The request that was let to the host has failed: it is out anew, for longer.
    fn stays_out(&self, subject: &Subject, host: &Host, now: Instant) {
        let detection = &subject.detection;
        let mut history = host.outlier().history();
        let Some(mut ejection) = history.ejection.clone() else { return };
        history.ejections += 1;
        if detection.grows_beyond(history.recent) {
            history.recent += 1;
        }
        history.last_ejection = Some(now);
        ejection.time = detection.ejection_time(history.recent) + jitter(detection.max_ejection_time_jitter);
        ejection.at = SystemTime::now();
        host.outlier().probe.end(&ejection.state);
        tracing::warn!(
            target: "outlier",
            "cluster {}: host {} stays out for {:?}: the request that was let to it has failed",
            subject.cluster, host.address, ejection.time,
        );
        subject.stats.outlier_detection.counted().ejections_enforced_total.inc();
        if let Some(log) = &self.log {
            log.ejected(&subject.cluster, host, &ejection.why, true, &history);
        }
        history.ejection = Some(ejection);
    }
}

/// A request may be let to the host when the time of its ejection is over.
fn offer_probe(host: &Host, is_over: impl Fn(&Ejection, Instant) -> bool) {
    let history = host.outlier().history();
    if let (Some(ejection), Some(at)) = (&history.ejection, history.last_ejection)
        && is_over(ejection, at)
    {
        host.outlier().probe.offer(&ejection.state);
    }
}

/// Takes what was counted; `None` for a host that is out.
fn end_samples(hosts: &[&Arc<Host>], samples: fn(&Host) -> &Samples) -> Vec<Option<Counted>> {
    let take = |host: &&Arc<Host>| {
        let samples = samples(host);
        samples.set_rate(None);
        let counted = samples.take();
        (!host.ejected.load(Ordering::Relaxed)).then_some(counted)
    };
    hosts.iter().map(take).collect()
}

fn eject_outliers(subject: &Subject, hosts: &[&Arc<Host>], counted: &[Option<Counted>], local_origin: bool) {
    let detection = &subject.detection;
    let verdict = judge(counted, &detection.success_rate, &detection.failure_percentage);
    let average: &Average =
        if local_origin { &detection.state.local_origin } else { &detection.state.external };
    average.mean.set(verdict.average.map(|(mean, _)| mean));
    average.threshold.set(verdict.average.map(|(_, threshold)| threshold));
    for (host, rate) in hosts.iter().zip(&verdict.rates) {
        let monitor = host.outlier();
        if local_origin { &monitor.local_origin } else { &monitor.external }.set_rate(*rate);
    }
    let requests = |index: usize| counted[index].unwrap_or_default().total;
    let rate = |index: usize| counted[index].and_then(Counted::success_rate).unwrap_or_default();
    let (average, threshold) = verdict.average.unwrap_or_default();
    for index in verdict.slow {
        let (rate, requests) = (rate(index), requests(index));
        eject(subject, hosts[index], Why::SuccessRate { local_origin, rate, requests, average, threshold });
    }
    let threshold = detection.failure_percentage.threshold;
    for index in verdict.failing {
        let (rate, requests) = (rate(index), requests(index));
        eject(subject, hosts[index], Why::FailurePercentage { local_origin, rate, requests, threshold });
    }
}

/// Whether the host is out, or was lately. Each whole interval in which it behaves forgets one ejection.
fn is_remembered(host: &Host, interval: Duration, now: Instant) -> bool {
    if host.ejected.load(Ordering::Relaxed) {
        return true;
    }
    let mut history = host.outlier().history();
    if history.last_return.is_some_and(|at| now.saturating_duration_since(at) >= interval) {
        history.recent = history.recent.saturating_sub(1);
    }
    history.recent > 0
}

fn jitter(longest: Duration) -> Duration {
    Duration::from_millis(fastrand::u64(..=longest.as_millis() as u64))
}

fn refresh(subject: &Subject) {
    if let Some(set) = subject.endpoints.get() {
        set.refresh();
        set.count(&subject.stats);
    }
}
