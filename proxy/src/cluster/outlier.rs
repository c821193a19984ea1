//! Outlier detection: a host that fails several times in a row is taken out for a while.
//!
//! Workers count in the host's atomics and take the host out themselves at the threshold, so that no further request goes there;
//! only that crossing goes to main, which rebuilds the tables, tells the log, and lets the host back in at an interval's end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, Interval};

use super::{Cluster, EndpointSet, Host};
use crate::config::live::Live;
use crate::stats::ClusterStats;

/// `envoy.config.cluster.v3.OutlierDetection`, the part that is supported, with its state.
#[derive(Debug)]
pub struct OutlierDetection {
    /// `consecutive_5xx`, default 5.
    pub consecutive_5xx: u32,
    /// `enforcing_consecutive_5xx` in percent, default 100.
    pub enforcing_consecutive_5xx: u32,
    /// `interval`, default 10 s: how often hosts may come back.
    pub interval: Duration,
    /// `base_ejection_time`, default 30 s; multiplied by how often the host was ejected.
    pub base_ejection_time: Duration,
    /// `max_ejection_time`, default 300 s or the base time if that is longer.
    pub max_ejection_time: Duration,
    /// `max_ejection_percent`, default 10.
    pub max_ejection_percent: u32,
    /// `always_eject_one_host`, default false.
    pub always_eject_one_host: bool,
    /// Hosts that are out now; shared by successive versions of the cluster.
    pub ejected: Arc<AtomicU32>,
    /// Where crossings go.
    pub events: Ejections,
}

/// Sends ejections to main.
#[derive(Debug, Clone)]
pub struct Ejections(UnboundedSender<Ejection>);

/// A host was taken out by a worker.
#[derive(Debug)]
pub struct Ejection {
    host: Arc<Host>,
    detection: Arc<OutlierDetection>,
    cluster: Arc<str>,
    endpoints: Arc<Live<EndpointSet>>,
    stats: Arc<ClusterStats>,
}

/// The channel from the workers to `monitor`.
pub fn channel() -> (Ejections, UnboundedReceiver<Ejection>) {
    let (sender, receiver) = unbounded_channel();
    (Ejections(sender), receiver)
}

/// Takes one outcome into account: a status from the upstream, or the status that a failure stands for.
pub(crate) fn record(cluster: &Cluster, host: &Arc<Host>, status: u16) {
    let Some(detection) = &cluster.outlier else { return };
    if status < 500 {
        if host.consecutive_5xx.load(Ordering::Relaxed) != 0 {
            host.consecutive_5xx.store(0, Ordering::Relaxed);
        }
        return;
    }
    let failures = host.consecutive_5xx.fetch_add(1, Ordering::Relaxed) + 1;
    // More than the threshold when an update has lowered it.
    if failures >= detection.consecutive_5xx {
        host.consecutive_5xx.store(0, Ordering::Relaxed);
        cluster.stats.outlier_detection_ejections_detected_consecutive_5xx.inc();
        eject(cluster, detection, host);
    }
}

fn eject(cluster: &Cluster, detection: &Arc<OutlierDetection>, host: &Arc<Host>) {
    let is_out = host.ejected.load(Ordering::Relaxed) || host.removed.load(Ordering::Relaxed);
    if is_out || fastrand::u32(..100) >= detection.enforcing_consecutive_5xx {
        return;
    }
    let hosts = cluster.endpoints.peek().as_ref().map_or(0, |set| set.len()) as u32;
    let reserved = detection.ejected.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |out| {
        may_eject(out, hosts, detection.max_ejection_percent, detection.always_eject_one_host)
            .then_some(out + 1)
    });
    if reserved.is_err() {
        cluster.stats.outlier_detection_ejections_overflow.inc();
        return;
    }
    if host.ejected.swap(true, Ordering::Relaxed) {
        detection.ejected.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    host.ejection_count.fetch_add(1, Ordering::Relaxed);
    cluster.stats.outlier_detection_ejections_active.inc();
    cluster.stats.outlier_detection_ejections_enforced_total.inc();
    cluster.stats.outlier_detection_ejections_enforced_consecutive_5xx.inc();
    // Main is gone only when the process ends.
    let _ = detection.events.0.send(Ejection {
        host: host.clone(),
        detection: detection.clone(),
        cluster: cluster.name.clone(),
        endpoints: cluster.endpoints.clone(),
        stats: cluster.stats.clone(),
    });
}

/// Envoy's rule: one more must stay within the percentage, except for the first one when asked for.
fn may_eject(out: u32, hosts: u32, max_percent: u32, always_one: bool) -> bool {
    (out == 0 && always_one) || u64::from(out + 1) * 100 <= u64::from(hosts) * u64::from(max_percent)
}

/// How long the n-th ejection lasts.
fn ejection_time(detection: &OutlierDetection, count: u32) -> Duration {
    (detection.base_ejection_time * count).min(detection.max_ejection_time)
}

/// Runs on main for the life of the process: rebuilds tables on ejection and lets hosts come back.
pub async fn monitor(mut ejections: UnboundedReceiver<Ejection>) {
    while let Some(ejection) = ejections.recv().await {
        refresh(&ejection);
        let duration =
            ejection_time(&ejection.detection, ejection.host.ejection_count.load(Ordering::Relaxed));
        tracing::warn!(
            target: "outlier",
            "cluster {}: host {} ejected for {duration:?}: {} consecutive 5xx",
            ejection.cluster, ejection.host.address, ejection.detection.consecutive_5xx,
        );
        tokio::spawn(readmit(ejection, duration));
    }
}

/// Waits until the ejection time has passed, looking at each interval as Envoy does, and lets the host back in, unless it leaves the
/// cluster before. While the host then behaves, each further interval forgets one ejection.
async fn readmit(ejection: Ejection, duration: Duration) {
    let Ejection { host, detection, cluster, stats, .. } = &ejection;
    let until = Instant::now() + duration;
    let mut interval = tokio::time::interval(detection.interval.max(Duration::from_millis(1)));
    interval.tick().await;
    let is_back = tokio::select! {
        () = time_has_passed(&mut interval, until) => true,
        () = host.removal() => false,
    };
    detection.ejected.fetch_sub(1, Ordering::Relaxed);
    stats.outlier_detection_ejections_active.dec();
    if !is_back {
        return;
    }
    host.consecutive_5xx.store(0, Ordering::Relaxed);
    host.ejected.store(false, Ordering::Relaxed);
    refresh(&ejection);
    tracing::info!(target: "outlier", "cluster {cluster}: host {} is back after {duration:?}", host.address);
    let count = host.ejection_count.load(Ordering::Relaxed);
    for _ in 0..count {
        interval.tick().await;
        let again =
            host.ejection_count.load(Ordering::Relaxed) > count || host.ejected.load(Ordering::Relaxed);
        if again || host.removed.load(Ordering::Relaxed) {
            return;
        }
        let _ = host.ejection_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }
}

async fn time_has_passed(interval: &mut Interval, until: Instant) {
    while interval.tick().await < until {}
}

fn refresh(ejection: &Ejection) {
    if let Some(set) = ejection.endpoints.get() {
        set.refresh();
        ejection.stats.membership_healthy.set(set.healthy() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentage_holds() {
        for (out, hosts, percent, always_one, expected) in [
            (0, 10, 10, false, true),
            (1, 10, 10, false, false),
            (0, 5, 10, false, false),
            (0, 5, 10, true, true),
            (1, 5, 10, true, false),
            (1, 2, 100, false, true),
            (2, 2, 100, false, false),
        ] {
            assert_eq!(may_eject(out, hosts, percent, always_one), expected, "{out} of {hosts}, {percent} %");
        }
    }

    #[test]
    fn a_lowered_threshold_holds_at_once() {
        let stats = crate::stats::Stats::new();
        let host = ([127, 0, 0, 1], 1).into();
        let mut cluster = crate::tcp::tests::cluster(
            &stats,
            &[host],
            crate::transport_socket::UpstreamTransport::Plaintext,
        );
        let (events, _main) = channel();
        let detection = |consecutive_5xx| OutlierDetection {
            max_ejection_percent: 100,
            events: events.clone(),
            ..detection(consecutive_5xx)
        };
        let Some(cluster) = Arc::get_mut(&mut cluster) else { return };
        let Some(host) = super::super::lb::pick(cluster, Default::default()) else { return };
        cluster.outlier = Some(Arc::new(detection(5)));
        (0..4).for_each(|_| record(cluster, &host, 503));
        // A success in between begins anew.
        record(cluster, &host, 200);
        (0..4).for_each(|_| record(cluster, &host, 503));
        assert!(!host.ejected.load(Ordering::Relaxed));
        cluster.outlier = Some(Arc::new(detection(3)));
        record(cluster, &host, 503);
        assert!(host.ejected.load(Ordering::Relaxed));
    }

    fn detection(consecutive_5xx: u32) -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx,
            enforcing_consecutive_5xx: 100,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            always_eject_one_host: false,
            ejected: Arc::default(),
            events: channel().0,
        }
    }

    #[test]
    fn ejection_time_grows_to_its_cap() {
        let detection = detection(5);
        assert_eq!(ejection_time(&detection, 1), Duration::from_secs(30));
        assert_eq!(ejection_time(&detection, 3), Duration::from_secs(90));
        assert_eq!(ejection_time(&detection, 30), Duration::from_secs(300));
    }
}
