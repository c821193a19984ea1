//! Ejection across updates: outlier detection belongs to the host, so no update of its cluster or of the endpoints lets a host back
//! in or throws another one out. The monitor runs as on main; time is paused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outrigger_xds_api::ResourceType;
use tokio::time::{Instant, sleep};

use super::configuration::Configuration;
use super::testing::{apply, inputs};
use crate::cluster::outlier::{self, Outcome};
use crate::cluster::{Cluster, Host, lb};
use crate::net::Address;
use crate::stats::ClusterStats;

const CLUSTER: &str = "{name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}, outlier_detection: {consecutive_5xx: 2, \
     interval: 1s, base_ejection_time: 10s, max_ejection_percent: 50}}";

/// A configuration with the cluster `c`, and the monitor.
struct Main(Configuration);

impl Main {
    fn start(hosts: &[(u16, u32)]) -> Self {
        let (ejections, received) = outlier::channel();
        tokio::spawn(outlier::monitor(received, None));
        let mut main = Self(Configuration::new(outlier_inputs(ejections), 0));
        main.cds(CLUSTER);
        main.eds(hosts);
        main
    }

    fn cds(&mut self, cluster: &str) {
        assert_eq!(apply(&mut self.0, ResourceType::Cluster, "c", cluster, Instant::now()), []);
    }

    /// The cluster has these hosts (port, weight) now.
    fn eds(&mut self, hosts: &[(u16, u32)]) {
        let hosts = hosts.iter().map(|(port, weight)| {
            format!(
                "{{load_balancing_weight: {weight}, endpoint: {{address: {{socket_address: {{address: 127.0.0.1, \
                 port_value: {port}}}}}}}}}"
            )
        });
        let hosts: Vec<String> = hosts.collect();
        let yaml = format!("{{cluster_name: c, endpoints: [{{lb_endpoints: [{}]}}]}}", hosts.join(", "));
        assert_eq!(apply(&mut self.0, ResourceType::ClusterLoadAssignment, "c", &yaml, Instant::now()), []);
    }

    fn cluster(&self) -> Arc<Cluster> {
        self.0.inputs().registry.clusters.get("c").unwrap()
    }

    fn stats(&self) -> Arc<ClusterStats> {
        self.cluster().stats.clone()
    }

    fn host(&self, port: u16) -> Arc<Host> {
        let address = Address::Ip(([127, 0, 0, 1], port).into());
        let endpoints = self.cluster().endpoints.get().unwrap();
        endpoints.hosts().find(|host| host.address == address).unwrap().clone()
    }

    /// A request to it fails; main has heard of what came of it.
    async fn fail(&self, host: &Arc<Host>) {
        outlier::record(&self.cluster(), host, Outcome::Answered(503));
        sleep(Duration::from_millis(1)).await;
    }

    /// Whether requests go there.
    fn picks(&self, host: &Arc<Host>) -> bool {
        let cluster = self.cluster();
        (0..100).any(|_| Arc::ptr_eq(&lb::pick(&cluster, lb::Context::default()).unwrap(), host))
    }
}

fn outlier_inputs(ejections: outlier::Ejections) -> super::compile::Inputs {
    super::compile::Inputs { ejections, ..inputs() }
}

fn is_out(host: &Host) -> bool {
    host.ejected.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn an_ejected_host_stays_out_until_its_time_has_come() {
    let mut main = Main::start(&[(1, 1), (2, 1), (3, 1)]);
    let begin = Instant::now();
    let (first, stats) = (main.host(1), main.stats());
    main.fail(&first).await;
    main.fail(&first).await;
    assert!(is_out(&first) && !main.picks(&first));
    let longer = CLUSTER.replace("base_ejection_time: 10s", "base_ejection_time: 100s");
    let updates: [&dyn Fn(&mut Main); 4] = [
        &|main| main.eds(&[(4, 1), (3, 1), (2, 1), (1, 5)]),
        &|main| main.cds(&CLUSTER.replace("type: EDS,", "type: EDS, lb_policy: LEAST_REQUEST,")),
        &|main| main.cds(&longer),
        &|main| main.cds(&longer.replace("type: EDS,", "type: EDS, connect_timeout: 1s,")),
    ];
    for update in updates {
        sleep(Duration::from_secs(1)).await;
        update(&mut main);
        assert!(Arc::ptr_eq(&first, &main.host(1)) && is_out(&first) && !main.picks(&first));
        assert_eq!(stats.outlier_detection.ejections_active.get(), 1);
        assert_eq!((stats.membership_total.get(), stats.membership_healthy.get()), (4, 3));
    }

    // Half of them may be out: one more, and it is known that one is out already.
    let (second, third) = (main.host(2), main.host(3));
    for host in [&second, &second, &third, &third] {
        main.fail(host).await;
    }
    assert!(is_out(&second) && !is_out(&third));
    assert_eq!(stats.outlier_detection.ejections_overflow.get(), 1);

    tokio::time::sleep_until(begin + Duration::from_millis(9_900)).await;
    assert!(is_out(&first));
    tokio::time::sleep_until(begin + Duration::from_millis(11_100)).await;
    assert!(
        !is_out(&first) && main.picks(&first),
        "ten seconds, as when it was ejected, and the interval's rest"
    );
    assert!(is_out(&second), "ejected for a hundred seconds");
    let counted = (
        stats.outlier_detection.ejections_active.get(),
        stats.outlier_detection.ejections_enforced_total.get(),
        stats.membership_healthy.get(),
    );
    assert_eq!(counted, (1, 2, 3));
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_are_counted_on_across_updates() {
    let mut main = Main::start(&[(1, 1), (2, 1)]);
    main.fail(&main.host(1)).await;
    main.eds(&[(1, 1), (2, 1), (3, 1)]);
    main.cds(&CLUSTER.replace("interval: 1s", "interval: 2s"));
    assert!(!is_out(&main.host(1)));
    main.fail(&main.host(1)).await;
    assert!(is_out(&main.host(1)));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_went_and_came_back_is_a_new_one() {
    let mut main = Main::start(&[(1, 1), (2, 1), (3, 1)]);
    let (old, other, gone, stats) = (main.host(1), main.host(2), main.host(3), main.stats());
    let active = || stats.outlier_detection.ejections_active.get();
    main.fail(&old).await;
    main.fail(&old).await;
    assert!(is_out(&old) && active() == 1);
    main.eds(&[(2, 1)]);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(active(), 0, "at once, not at the end of an interval");
    main.eds(&[(1, 1), (2, 1)]);
    let new = main.host(1);
    assert!(!Arc::ptr_eq(&old, &new) && !is_out(&new) && main.picks(&new));
    assert!(new.outlier().ejection().is_none());

    // Requests that are still in flight to those that went say nothing about anybody.
    for host in [&old, &old, &gone, &gone] {
        main.fail(host).await;
    }
    assert_eq!((active(), stats.outlier_detection.ejections_enforced_total.get()), (0, 1));
    // And the place among those that may be out is free.
    main.fail(&other).await;
    main.fail(&other).await;
    assert!(is_out(&other) && !main.picks(&other));
    // The old one's time passes, and means nothing to the new one.
    main.fail(&new).await;
    sleep(Duration::from_secs(12)).await;
    assert!(!is_out(&other) && active() == 0);
    main.fail(&new).await;
    assert!(is_out(&new));
}
