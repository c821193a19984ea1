//! The checks of one host, one after the other, until it is checked no more.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::checker::{Start, Subject};
use super::decide::{Event, Failure, Transition, Verdicts};
use super::event_log;
use super::probe::{Context, Outcome, Probe};
use crate::cluster::{CheckTarget, Cluster, ConnectionSettings, HealthFlag, Host, outlier};

/// Checks a host until it is not wanted any more. Tells the cluster's name when all its hosts have had their first check, and
/// when a host has become unhealthy that only its health kept in the cluster.
pub async fn run(start: Start, tell: UnboundedSender<Arc<str>>) {
    let Start { subject, host, target, mut stop } = start;
    let counted = Counted::new(&subject.cluster.load_full(), &host);
    let verdicts = Verdicts::new(subject.check.thresholds);
    // Nobody waits for the first check of a host that is not out.
    let is_first = !subject.check.only_ejected;
    let mut session = Session { subject, host, target, verdicts, counted, is_first, passes: 0, tell };
    tokio::select! {
        biased;
        _ = &mut stop => {}
        () = session.check_for_ever() => {}
    }
    session.first_check_is_done();
}

struct Session {
    subject: Arc<Subject>,
    host: Arc<Host>,
    target: Option<Arc<CheckTarget>>,
    verdicts: Verdicts,
    counted: Counted,
    is_first: bool,
    /// Checks that passed in a row.
    passes: u32,
    tell: UnboundedSender<Arc<str>>,
}

impl Session {
    async fn check_for_ever(&mut self) {
        let mut probe = Probe::new(&self.subject.check.kind);
        let mut connected_by: Option<Arc<ConnectionSettings>> = None;
        if let Some(pause) = self.subject.check.intervals.first(random) {
            self.wait(&mut probe, pause).await;
        }
        loop {
            self.until_wanted(&mut probe).await;
            let context = self.context();
            let settings = &context.cluster.connection;
            if connected_by.as_ref().is_some_and(|before| !Arc::ptr_eq(before, settings)) {
                probe.close();
            }
            connected_by = Some(settings.clone());
            let pause = self.check(&mut probe, &context).await;
            drop(context);
            self.wait(&mut probe, pause).await;
        }
    }

    /// Where only hosts are checked that are out, waits until this one is; it is looked at as often as it would be checked.
    async fn until_wanted(&mut self, probe: &mut Probe) {
        let check = &self.subject.check;
        if !check.only_ejected || self.host.ejected.load(Ordering::Relaxed) {
            return;
        }
        let pause = check.intervals.healthy;
        probe.close();
        self.passes = 0;
        self.verdicts = Verdicts::new(check.thresholds);
        self.host.active_health().clear();
        while !self.host.ejected.load(Ordering::Relaxed) {
            sleep(pause).await;
        }
    }

    fn context(&self) -> Context {
        let target = self.target.as_deref().cloned().unwrap_or_default();
        Context {
            subject: self.subject.clone(),
            cluster: self.subject.cluster.load_full(),
            host: self.host.clone(),
            address: target.address_of(&self.host.address),
            hostname: target.hostname,
        }
    }

    /// One check: how long it is to the next one.
    async fn check(&mut self, probe: &mut Probe, context: &Context) -> Duration {
        context.cluster.stats.health_check.counted().attempt.inc();
        let host = self.host.clone();
        let outcome = {
            let mut check = pin!(timeout(context.check().timeout, probe.check(context)));
            loop {
                tokio::select! {
                    biased;
                    () = host.active_health().has_failed_by_itself() => drop(self.failed(Failure::Passive)),
                    outcome = &mut check => break outcome,
                }
            }
        };
        match outcome {
            Ok(Outcome::Passed { degraded }) => {
                let transition = self.passed(degraded);
                self.pause(true, transition)
            }
            Ok(Outcome::Failed(failure)) => {
                let transition = self.failed(failure);
                self.pause(false, transition)
            }
            Err(_) => {
                probe.give_up();
                let transition = self.failed(Failure::NetworkTimeout);
                self.pause(false, transition)
            }
        }
    }

    /// Waits for the next check, and hears of what happens meanwhile.
    async fn wait(&mut self, probe: &mut Probe, pause: Duration) {
        let host = self.host.clone();
        let mut until = Instant::now() + pause;
        loop {
            tokio::select! {
                biased;
                () = host.active_health().has_failed_by_itself() => drop(self.failed(Failure::Passive)),
                () = probe.breaks() => {
                    let transition = self.failed(Failure::Network);
                    until = Instant::now() + self.pause(false, transition);
                }
                () = sleep_until(until) => return,
            }
        }
    }

    fn pause(&self, passed: bool, transition: Transition) -> Duration {
        let stats = &self.subject.cluster.load().stats;
        let had_traffic = stats.upstream_cx_total.get() > 0;
        self.subject.check.intervals.after(passed, transition, had_traffic, random)
    }

    fn passed(&mut self, degraded: bool) -> Transition {
        let cluster = self.subject.cluster.load_full();
        let (host, subject) = (&self.host, &self.subject);
        let transition =
            self.verdicts.passed(host.active_health(), degraded, |event| log(subject, &cluster, host, event));
        cluster.stats.health_check.counted().success.inc();
        self.passes += 1;
        let is_enough = !subject.check.only_ejected || self.passes >= subject.check.thresholds.healthy;
        if is_enough && !host.has(HealthFlag::Failed) {
            outlier::passed_check(&cluster, host);
        }
        self.settle(&cluster, transition);
        transition
    }

    fn failed(&mut self, failure: Failure) -> Transition {
        let cluster = self.subject.cluster.load_full();
        let (host, subject) = (&self.host, &self.subject);
        let transition =
            self.verdicts.failed(host.active_health(), failure, |event| log(subject, &cluster, host, event));
        self.passes = 0;
        let stats = cluster.stats.health_check.counted();
        stats.failure.inc();
        if failure.is_network() {
            stats.network_failure.inc();
        } else if failure == Failure::Passive {
            stats.passive_failure.inc();
        }
        self.settle(&cluster, transition);
        transition
    }

    /// What a check's outcome means for others than the host.
    fn settle(&mut self, cluster: &Cluster, transition: Transition) {
        self.counted.update(&self.host);
        if transition == Transition::Changed
            && let Some(set) = cluster.endpoints.get()
        {
            set.refresh();
            set.count(&cluster.stats);
        }
        if self.host.has(HealthFlag::PendingRemoval) && self.host.has(HealthFlag::Failed) {
            let _ = self.tell.send(cluster.name.clone());
        }
        self.first_check_is_done();
    }

    fn first_check_is_done(&mut self) {
        if std::mem::take(&mut self.is_first) && self.subject.first_check_is_done() {
            // Nobody listens any more when the process ends.
            let _ = self.tell.send(self.subject.cluster.load().name.clone());
        }
    }
}

fn log(subject: &Subject, cluster: &Cluster, host: &Host, event: Event) {
    let check = &subject.check;
    match event {
        Event::AddHealthy { first_check: false } => tracing::info!(
            target: "health_check", "cluster {}: host {} passes its checks again", cluster.name, host.address,
        ),
        Event::EjectUnhealthy { failure } => tracing::warn!(
            target: "health_check", "cluster {}: host {} fails its checks: {failure:?}", cluster.name, host.address,
        ),
        _ => {}
    }
    let is_told = match event {
        Event::Successful => check.logs_each_success,
        Event::Failed { first_check, .. } => first_check || check.logs_each_failure,
        _ => true,
    };
    if is_told && !check.logs.is_empty() {
        let line = event_log::line(check.kind.name(), &cluster.name, host, event);
        check.logs.iter().for_each(|log| log.write(&line));
    }
}

fn random(limit: u64) -> u64 {
    fastrand::u64(..limit)
}

/// Whether the host is among those that the gauges `healthy` and `degraded` count.
struct Counted {
    stats: Arc<crate::stats::ClusterStats>,
    healthy: bool,
    degraded: bool,
}

impl Counted {
    fn new(cluster: &Cluster, host: &Host) -> Self {
        let mut counted = Self { stats: cluster.stats.clone(), healthy: false, degraded: false };
        counted.set(!host.has(HealthFlag::Failed), host.has(HealthFlag::Degraded));
        counted
    }

    fn update(&mut self, host: &Host) {
        self.set(!host.has(HealthFlag::Failed), host.has(HealthFlag::Degraded));
    }

    fn set(&mut self, healthy: bool, degraded: bool) {
        let stats = self.stats.health_check.counted();
        stats.healthy.add(i64::from(healthy) - i64::from(self.healthy));
        stats.degraded.add(i64::from(degraded) - i64::from(self.degraded));
        (self.healthy, self.degraded) = (healthy, degraded);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(false, false);
    }
}
