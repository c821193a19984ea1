//! Outlier detection of one cluster in virtual time: what is counted, who goes, and when who comes back.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::*;
use crate::cluster::EdsHealth;
use crate::stats::Stats;

const SECOND: Duration = Duration::from_secs(1);

/// A cluster of some hosts, and main's monitor.
struct Subject {
    cluster: Arc<Cluster>,
    hosts: Vec<Arc<Host>>,
}

/// Nothing is enforced, ejection lasts ten seconds at first, everybody may go.
fn settings(events: Ejections) -> OutlierDetection {
    let never = InARow { threshold: 5, enforcing_percent: 0 };
    OutlierDetection {
        id: OutlierDetection::next_id(),
        server_errors: never,
        gateway_failures: never,
        splits_local_origin: false,
        local_origin_failures: never,
        success_rate: SuccessRate {
            minimum_hosts: 5,
            request_volume: 10,
            stdev_factor_thousandths: 1_900,
            enforcing_percent: 0,
            enforcing_local_origin_percent: 0,
        },
        failure_percentage: FailurePercentage {
            threshold: 50,
            minimum_hosts: 3,
            request_volume: 10,
            enforcing_percent: 0,
            enforcing_local_origin_percent: 0,
        },
        interval: SECOND,
        base_ejection_time: 10 * SECOND,
        max_ejection_time: 25 * SECOND,
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 100,
        always_eject_one_host: false,
        passed_checks_return: true,
        readmission: Readmission::Timed,
        warms_up: false,
        state: Arc::default(),
        events,
    }
}

const ALWAYS: InARow = InARow { threshold: 5, enforcing_percent: 100 };

impl Subject {
    fn start(hosts: u16, change: impl FnOnce(&mut OutlierDetection)) -> Self {
        let (events, received) = channel();
        tokio::spawn(monitor(received, None));
        let addresses: Vec<_> = (1..=hosts).map(|port| ([127, 0, 0, 1], port).into()).collect();
        let plaintext = crate::transport_socket::UpstreamTransport::Plaintext;
        let mut cluster = crate::tcp::tests::cluster(&Stats::new(), &addresses, plaintext);
        let mut settings = settings(events);
        change(&mut settings);
        Arc::get_mut(&mut cluster).unwrap().outlier = Some(Arc::new(settings));
        let hosts = cluster.endpoints.get().unwrap().hosts().cloned().collect();
        Self { cluster, hosts }
    }

    fn hear(&self, host: usize, outcomes: impl IntoIterator<Item = Outcome>) {
        for outcome in outcomes {
            record(&self.cluster, &self.hosts[host], outcome);
        }
    }

    fn out(&self) -> Vec<usize> {
        let out = |host: &Arc<Host>| host.ejected.load(Ordering::Relaxed);
        (0..self.hosts.len()).filter(|index| out(&self.hosts[*index])).collect()
    }

    fn is_watched(&self) -> bool {
        self.cluster.outlier.as_ref().unwrap().state.watched_by.load(Ordering::Relaxed) != 0
    }

    fn why(&self, host: usize) -> String {
        self.hosts[host].outlier().ejection().unwrap().why.to_string()
    }

    /// How long the host stays out, in seconds.
    async fn time_out(&self, host: usize) -> u64 {
        let begin = tokio::time::Instant::now();
        while self.out().contains(&host) {
            sleep(SECOND / 10).await;
        }
        begin.elapsed().as_secs()
    }
}

fn answers(status: u16, times: usize) -> Vec<Outcome> {
    vec![Outcome::Answered(status); times]
}

fn failures(status: u16, times: usize) -> Vec<Outcome> {
    vec![Outcome::Failed(status); times]
}

#[tokio::test(start_paused = true)]
async fn only_gateway_failures_count_as_such() {
    let subject = Subject::start(2, |settings| settings.gateway_failures = ALWAYS);
    subject.hear(0, [answers(503, 4), answers(500, 1), answers(502, 4), answers(200, 1)].concat());
    subject.hear(0, [answers(504, 4), answers(501, 20)].concat());
    assert!(subject.out().is_empty());
    subject.hear(0, [answers(502, 1), answers(503, 3), failures(504, 1)].concat());
    assert_eq!(subject.out(), [0]);
    let stats = &subject.cluster.stats.outlier_detection;
    assert_eq!(stats.ejections_enforced_consecutive_gateway_failure.get(), 1);
    assert_eq!(stats.ejections_detected_consecutive_gateway_failure.get(), 1);
    // Found all the same, and not enforced.
    assert!(stats.ejections_detected_consecutive_5xx.get() > 0);
    assert_eq!(stats.ejections_enforced_consecutive_5xx.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lowered_threshold_holds_at_once_and_none_never() {
    let mut subject = Subject::start(2, |settings| settings.server_errors = ALWAYS);
    subject.hear(0, [answers(500, 4), answers(200, 1), answers(500, 4)].concat());
    assert!(subject.out().is_empty());
    let change = |subject: &mut Subject, threshold| {
        let events = subject.cluster.outlier.as_ref().unwrap().events.clone();
        let state = subject.cluster.outlier.as_ref().unwrap().state.clone();
        let server_errors = InARow { threshold, ..ALWAYS };
        let settings = OutlierDetection { server_errors, state, ..settings(events) };
        Arc::get_mut(&mut subject.cluster).unwrap().outlier = Some(Arc::new(settings));
    };
    change(&mut subject, 0);
    subject.hear(0, answers(500, 9));
    assert!(subject.out().is_empty());
    change(&mut subject, 3);
    subject.hear(0, answers(500, 1));
    assert_eq!(subject.out(), [0]);
}

#[tokio::test(start_paused = true)]
async fn local_origin_is_counted_apart_when_asked_for() {
    let split = |settings: &mut OutlierDetection| {
        settings.splits_local_origin = true;
        settings.local_origin_failures = ALWAYS;
        settings.server_errors = ALWAYS;
    };
    let subject = Subject::start(2, split);
    // Each request has a connection first.
    for _ in 0..9 {
        connected(&subject.cluster, &subject.hosts[0]);
        subject.hear(0, failures(504, 1));
    }
    subject.hear(0, [answers(500, 4), failures(503, 4), answers(500, 1)].concat());
    assert_eq!(subject.out(), [0], "of its answers, which failures in between do not touch");
    subject.hear(1, failures(503, 5));
    sleep(SECOND / 100).await;
    assert_eq!((subject.out(), subject.why(1).as_str()), (vec![0, 1], "5 consecutive local origin failures"));

    let joined = Subject::start(2, |settings| settings.server_errors = ALWAYS);
    joined.hear(0, [failures(503, 2), answers(500, 2), failures(504, 1)].concat());
    assert_eq!(joined.out(), [0]);
    connected_for_good(&joined.cluster, &joined.hosts[1]);
    joined.hear(1, failures(503, 4));
    connected_for_good(&joined.cluster, &joined.hosts[1]);
    joined.hear(1, failures(503, 4));
    assert_eq!(joined.out(), [0]);
}

#[tokio::test(start_paused = true)]
async fn outliers_go_at_the_end_of_the_interval() {
    let subject = Subject::start(5, |settings| settings.success_rate.enforcing_percent = 100);
    let a_second = async |bad: usize| {
        subject.hear(0, [answers(500, bad), answers(200, 10 - bad)].concat());
        (1..5).for_each(|host| subject.hear(host, answers(200, 10)));
        sleep(SECOND * 11 / 10).await;
    };
    subject.hear(0, answers(500, 9));
    sleep(SECOND * 11 / 10).await;
    assert!(subject.out().is_empty(), "nine requests are too few");
    a_second(5).await;
    assert_eq!(subject.out(), [0]);
    assert_eq!(subject.why(0), "50.0 % of 10 requests succeeded, less than 52.0 % (all hosts: 90.0 %)");
    let state = &subject.cluster.outlier.as_ref().unwrap().state;
    assert_eq!((state.external.mean.get(), state.external.threshold.get()), (Some(90.0), Some(52.0)));
    assert_eq!(subject.hosts[0].outlier().success_rate(), Some(50.0));
    let stats = &subject.cluster.stats.outlier_detection;
    assert_eq!(stats.ejections_enforced_success_rate.get(), 1);
    sleep(SECOND).await;
    assert_eq!((state.external.mean.get(), subject.hosts[0].outlier().success_rate()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn connections_have_rates_of_their_own() {
    let subject = Subject::start(3, |settings| {
        settings.splits_local_origin = true;
        settings.failure_percentage.enforcing_local_origin_percent = 100;
    });
    for host in &subject.hosts {
        (0..10).for_each(|_| connected(&subject.cluster, host));
    }
    subject.hear(0, answers(200, 10));
    subject.hear(1, [failures(503, 10), answers(200, 100)].concat());
    // Its answers fail, which is not enforced.
    subject.hear(2, answers(500, 50));
    sleep(SECOND * 11 / 10).await;
    assert_eq!(subject.out(), [1]);
    assert_eq!(subject.why(1), "50.0 % of 20 connections failed, 50 % is the limit");
    assert_eq!(subject.hosts[1].outlier().local_origin_success_rate(), Some(50.0));
    let stats = &subject.cluster.stats.outlier_detection;
    assert_eq!(stats.ejections_enforced_local_origin_failure_percentage.get(), 1);
    assert_eq!(stats.ejections_detected_failure_percentage.get(), 1);
    assert_eq!(stats.ejections_enforced_total.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_fails_again_stays_out_longer_until_that_is_forgotten() {
    let subject = Subject::start(2, |settings| settings.server_errors = ALWAYS);
    let mut times = Vec::new();
    for _ in 0..5 {
        subject.hear(0, answers(500, 5));
        times.push(subject.time_out(0).await);
    }
    // The longest is 25 s, and the interval's rest comes on top.
    assert_eq!(times, [10, 21, 26, 26, 26]);
    // It was ejected five times, of which four are remembered: 4 × 10 s is as long as the longest and one more.
    sleep(SECOND * 3 / 2).await;
    subject.hear(0, answers(500, 5));
    assert_eq!(subject.time_out(0).await, 25);
    sleep(SECOND * 7 / 2).await;
    subject.hear(0, answers(500, 5));
    assert_eq!(subject.time_out(0).await, 20);
    sleep(10 * SECOND).await;
    subject.hear(0, answers(500, 5));
    assert_eq!(subject.time_out(0).await, 10);
}

#[tokio::test(start_paused = true)]
async fn jitter_makes_it_longer() {
    let jittered = |settings: &mut OutlierDetection| {
        settings.server_errors = ALWAYS;
        settings.max_ejection_time_jitter = 100 * SECOND;
    };
    let subject = Subject::start(64, jittered);
    (0..64).for_each(|host| subject.hear(host, answers(500, 5)));
    sleep(SECOND / 100).await;
    let time = |host: &Arc<Host>| host.outlier().ejection().unwrap().time;
    let times: Vec<_> = subject.hosts.iter().map(time).collect();
    assert!(times.iter().all(|time| (10 * SECOND..=110 * SECOND).contains(time)));
    assert!(times.iter().any(|time| *time < 60 * SECOND) && times.iter().any(|time| *time > 60 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn counting_begins_anew_with_the_return() {
    let subject = Subject::start(2, |settings| settings.server_errors = ALWAYS);
    subject.hear(0, answers(500, 5));
    // Requests that were in flight.
    subject.hear(0, answers(500, 4));
    subject.time_out(0).await;
    subject.hear(0, answers(500, 4));
    assert!(subject.out().is_empty());
    subject.hear(0, answers(500, 1));
    assert_eq!(subject.out(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_watched_while_something_happens() {
    let subject = Subject::start(2, |settings| settings.server_errors = ALWAYS);
    assert!(!subject.is_watched());
    subject.hear(0, answers(200, 1));
    assert!(subject.is_watched());
    sleep(SECOND * 21 / 10).await;
    assert!(!subject.is_watched(), "an interval without a sample");
    subject.hear(0, answers(500, 5));
    sleep(5 * SECOND).await;
    assert!(subject.is_watched(), "a host is out");
    subject.time_out(0).await;
    assert!(subject.is_watched(), "it was lately");
    sleep(3 * SECOND).await;
    assert!(!subject.is_watched());
}

#[tokio::test(start_paused = true)]
async fn a_request_from_before_an_update_does_not_bring_old_settings_back() {
    let mut subject = Subject::start(2, |settings| settings.server_errors = ALWAYS);
    let old = subject.cluster.outlier.clone().unwrap();
    let new = OutlierDetection { state: old.state.clone(), ..settings(old.events.clone()) };
    let id = new.id;
    for settings in [Arc::new(new), old] {
        Arc::get_mut(&mut subject.cluster).unwrap().outlier = Some(settings.clone());
        subject.hear(0, answers(200, 1));
        assert_eq!(settings.state.watched_by.load(Ordering::Relaxed), id);
    }
}

/// Two hosts, the first of them out, and a request decides whether it comes back.
async fn probed() -> Subject {
    let subject = Subject::start(2, |settings| {
        settings.server_errors = InARow { threshold: 2, enforcing_percent: 100 };
        settings.readmission = Readmission::Probe;
    });
    subject.hear(0, answers(500, 2));
    assert_eq!(subject.out(), [0]);
    subject
}

#[tokio::test(start_paused = true)]
async fn one_request_decides_whether_a_host_comes_back() {
    let subject = probed().await;
    sleep(9 * SECOND).await;
    assert!(probe(&subject.cluster, None).is_none(), "its time has not passed");
    sleep(20 * SECOND).await;
    assert_eq!(subject.out(), [0], "time alone is not enough");
    let asked = probe(&subject.cluster, None).unwrap();
    assert!(Arc::ptr_eq(asked.host(), &subject.hosts[0]));
    assert!(probe(&subject.cluster, None).is_none(), "one at a time");
    sleep(5 * SECOND).await;
    assert!(probe(&subject.cluster, None).is_none(), "however long it takes");
    // Requests from before say nothing.
    subject.hear(0, answers(200, 1));
    sleep(SECOND).await;
    assert_eq!(subject.out(), [0]);
    asked.ended(Outcome::Answered(404));
    sleep(SECOND / 100).await;
    assert!(subject.out().is_empty());
    assert_eq!(subject.cluster.stats.outlier_detection.ejections_active.get(), 0);
    assert!(probe(&subject.cluster, None).is_none());
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_is_out_for_longer() {
    let subject = probed().await;
    for (seconds, outcome) in
        [(10, Outcome::Answered(503)), (20, Outcome::Failed(504)), (25, Outcome::Answered(200))]
    {
        sleep((seconds - 1) * SECOND).await;
        assert!(probe(&subject.cluster, None).is_none(), "{seconds}");
        sleep(2 * SECOND).await;
        probe(&subject.cluster, None).unwrap().ended(outcome);
        sleep(SECOND / 100).await;
    }
    assert!(subject.out().is_empty());
    let stats = &subject.cluster.stats.outlier_detection;
    assert_eq!((stats.ejections_enforced_total.get(), stats.ejections_active.get()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_tells_nothing_is_due_again() {
    let subject = probed().await;
    sleep(11 * SECOND).await;
    drop(probe(&subject.cluster, None).unwrap());
    let again = probe(&subject.cluster, None).unwrap();
    // One that is not well by its checks, or by what discovery says, is not asked.
    drop(again);
    subject.hosts[0].set_eds_health(EdsHealth::Unhealthy);
    assert!(probe(&subject.cluster, None).is_none());
    subject.hosts[0].set_eds_health(EdsHealth::Healthy);
    // One that leaves is asked no more, and its request says nothing.
    let last = probe(&subject.cluster, None).unwrap();
    subject.hosts[0].remove();
    drop(last);
    assert!(probe(&subject.cluster, None).is_none());
    let state = &subject.cluster.outlier.as_ref().unwrap().state;
    assert_eq!(state.probes_due.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_back_may_warm_up() {
    for warms_up in [false, true] {
        let subject = Subject::start(2, |settings| {
            settings.server_errors = ALWAYS;
            settings.warms_up = warms_up;
        });
        subject.hear(0, answers(500, 5));
        assert_eq!(subject.out(), [0]);
        sleep(12 * SECOND).await;
        assert!(subject.out().is_empty());
        assert_eq!(subject.hosts[0].warms_since().is_some(), warms_up);
        assert!(subject.hosts[1].warms_since().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_passes_needs_no_probe() {
    let subject = probed().await;
    sleep(11 * SECOND).await;
    passed_check(&subject.cluster, &subject.hosts[0]);
    sleep(SECOND / 100).await;
    assert!(subject.out().is_empty() && probe(&subject.cluster, None).is_none());
}
