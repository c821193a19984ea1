//! Active health checks across updates: whom they let in, keep and leave alone. Real hosts on the loopback interface, and the
//! sessions run as on main.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use outrigger_xds_api::ResourceType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep, timeout};

use super::compile::Inputs;
use super::configuration::Configuration;
use super::handle::ConfigurationHandle;
use super::health_checks;
use super::testing::{apply, inputs};
use crate::cluster::outlier::{self, Outcome};
use crate::cluster::{Cluster, HealthFlag, Host};
use crate::health_check;
use crate::net::Address;

/// A host that answers 200 while it is well, 503 while it is not, and nothing while it is stuck.
struct Server {
    addr: SocketAddr,
    is_well: Arc<AtomicBool>,
    is_stuck: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (is_well, is_stuck) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let connections = Arc::new(AtomicUsize::new(0));
        let server = Self { addr, is_well, is_stuck, connections };
        let (is_well, is_stuck) = (server.is_well.clone(), server.is_stuck.clone());
        let connections = server.connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, is_well.clone(), is_stuck.clone()));
            }
        });
        server
    }

    fn be_well(&self, well: bool) {
        self.is_well.store(well, Ordering::Relaxed);
    }

    fn be_stuck(&self, stuck: bool) {
        self.is_stuck.store(stuck, Ordering::Relaxed);
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, is_well: Arc<AtomicBool>, is_stuck: Arc<AtomicBool>) {
    let mut request = Vec::new();
    while stream.read_buf(&mut request).await.is_ok_and(|bytes| bytes > 0) {
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        request.clear();
        while is_stuck.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1)).await;
        }
        let status = if is_well.load(Ordering::Relaxed) { "200 OK" } else { "503 Service Unavailable" };
        let response = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A configuration whose cluster `c` has hosts of EDS, and what runs on main for it.
struct Main(Arc<ConfigurationHandle>);

impl Main {
    fn start() -> Self {
        let (checks, starts) = health_check::channel();
        let (ejections, received) = outlier::channel();
        tokio::spawn(outlier::monitor(received, None));
        let configuration = Configuration::new(Inputs { checks, ejections, ..inputs() }, 0);
        let (watches, _) = unbounded_channel();
        let handle = Arc::new(ConfigurationHandle::new(configuration, Box::new(|_| ()), watches));
        tokio::spawn(health_checks::run(handle.clone(), starts));
        Self(handle)
    }

    /// The cluster is like this now; `more` is laid over it.
    fn cds(&self, more: &str) {
        let yaml = format!("{{name: c, type: EDS, eds_cluster_config: {{eds_config: {{ads: {{}}}}}}{more}}}");
        self.0.update(|c| {
            assert_eq!(apply(c, ResourceType::Cluster, "c", &yaml, Instant::now()), []);
        });
    }

    /// It has these hosts now, each with what is said of its endpoint.
    fn eds(&self, hosts: &[(&Server, &str)]) {
        let hosts = hosts.iter().map(|(server, more)| {
            let port = server.addr.port();
            format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}{more}}}}}")
        });
        let hosts: Vec<String> = hosts.collect();
        let yaml = format!("{{cluster_name: c, endpoints: [{{lb_endpoints: [{}]}}]}}", hosts.join(", "));
        self.0.update(|c| {
            assert_eq!(apply(c, ResourceType::ClusterLoadAssignment, "c", &yaml, Instant::now()), []);
        });
    }

    /// As soon as it is published.
    fn cluster(&self) -> Option<Arc<Cluster>> {
        self.0.read(|c| c.inputs().registry.clusters.get("c"))
    }

    async fn published(&self) -> Arc<Cluster> {
        until(|| self.cluster().is_some()).await;
        self.cluster().unwrap()
    }

    fn host(&self, server: &Server) -> Option<Arc<Host>> {
        let set = self.cluster()?.endpoints.get()?;
        set.hosts().find(|host| host.address == Address::Ip(server.addr)).cloned()
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), wait).await.expect("waited for a condition");
}

/// `health_checks` that ask often.
fn checks(more: &str) -> String {
    format!(
        ", health_checks: [{{timeout: 5s, interval: 0.005s, no_traffic_interval: 0.005s, unhealthy_threshold: 1, \
         healthy_threshold: 1, http_health_check: {{path: /}}{more}}}]"
    )
}

#[tokio::test]
async fn a_new_cluster_waits_for_the_first_check_of_each_host() {
    let (well, stuck) = (Server::start().await, Server::start().await);
    stuck.be_stuck(true);
    let main = Main::start();
    main.cds(&checks(""));
    main.eds(&[(&well, ""), (&stuck, "")]);
    let stats = main.0.read(|c| c.inputs().stats.cluster("c"));
    until(|| stats.health_check.success.get() > 2 && stuck.connections() == 1).await;
    assert!(main.cluster().is_none());
    assert!(!main.0.read(Configuration::is_initialized));
    stuck.be_well(false);
    stuck.be_stuck(false);
    let cluster = main.published().await;
    assert_eq!((cluster.stats.membership_total.get(), stats.health_check.healthy.get()), (2, 1));
    assert_eq!(cluster.stats.membership_healthy.get(), 1);
    assert!(main.host(&well).unwrap().is_healthy() && !main.host(&stuck).unwrap().is_healthy());
}

#[tokio::test]
async fn a_host_that_has_left_stays_while_its_checks_pass() {
    let (first, second) = (Server::start().await, Server::start().await);
    let main = Main::start();
    main.cds(&checks(""));
    main.eds(&[(&first, ""), (&second, "")]);
    let cluster = main.published().await;
    let kept = main.host(&second).unwrap();
    main.eds(&[(&first, "")]);
    assert!(kept.has(HealthFlag::PendingRemoval) && kept.is_healthy());
    assert!(Arc::ptr_eq(&main.host(&second).unwrap(), &kept));
    // It is back.
    main.eds(&[(&first, ""), (&second, "")]);
    assert!(!kept.has(HealthFlag::PendingRemoval));
    main.eds(&[(&first, "")]);
    second.be_well(false);
    until(|| main.host(&second).is_none()).await;
    assert!(kept.removed.load(Ordering::Relaxed));
    assert_eq!(cluster.stats.membership_total.get(), 1);
    // One session for each host, and none for the one that is gone.
    assert_eq!((first.connections(), second.connections()), (1, 1));
    until(|| cluster.stats.health_check.healthy.get() == 1).await;
}

#[tokio::test]
async fn without_its_health_it_leaves_at_once() {
    let (first, second) = (Server::start().await, Server::start().await);
    let main = Main::start();
    main.cds(&format!("{}, ignore_health_on_host_removal: true", checks("")));
    main.eds(&[(&first, ""), (&second, "")]);
    main.published().await;
    main.eds(&[(&first, "")]);
    assert!(main.host(&second).is_none());
}

#[tokio::test]
async fn an_update_keeps_what_is_known() {
    let (first, second) = (Server::start().await, Server::start().await);
    first.be_well(false);
    let main = Main::start();
    main.cds(&checks(""));
    main.eds(&[(&first, "")]);
    main.published().await;
    let host = main.host(&first).unwrap();
    assert!(!host.is_healthy());
    main.cds(&format!("{}, connect_timeout: 3s", checks("")));
    main.eds(&[(&first, ""), (&second, "")]);
    assert!(Arc::ptr_eq(&main.host(&first).unwrap(), &host) && !host.is_healthy());
    assert!(!main.host(&second).unwrap().is_healthy(), "nobody has asked it yet");
    until(|| main.host(&second).unwrap().is_healthy()).await;
    // Other checks: the host keeps its health until they say something else.
    main.cds(&checks(", healthy_edge_interval: 1s"));
    assert!(main.host(&second).unwrap().is_healthy() && !host.is_healthy());
    // No checks: nobody says that it is not well.
    main.cds("");
    assert!(host.is_healthy());
    let stats = main.cluster().unwrap().stats.clone();
    until(|| stats.health_check.healthy.get() == 0).await;
}

#[tokio::test]
async fn a_host_may_be_left_alone_or_asked_elsewhere() {
    let (first, second, elsewhere) = (Server::start().await, Server::start().await, Server::start().await);
    let main = Main::start();
    main.cds(&checks(""));
    let port = format!(", health_check_config: {{port_value: {}}}", elsewhere.addr.port());
    main.eds(&[(&first, ", health_check_config: {disable_active_health_check: true}"), (&second, &port)]);
    main.published().await;
    assert!(main.host(&first).unwrap().is_healthy() && main.host(&second).unwrap().is_healthy());
    elsewhere.be_well(false);
    until(|| !main.host(&second).unwrap().is_healthy()).await;
    assert_eq!((first.connections(), second.connections()), (0, 0));
    // The endpoint says no more where it is asked.
    main.eds(&[(&first, ""), (&second, "")]);
    until(|| main.host(&second).unwrap().is_healthy() && second.connections() == 1).await;
}

#[tokio::test]
async fn a_host_that_asks_for_it_is_out_until_its_checks_pass() {
    let server = Server::start().await;
    let main = Main::start();
    main.cds(&checks(""));
    main.eds(&[(&server, "")]);
    let cluster = main.published().await;
    let host = main.host(&server).unwrap();
    server.be_stuck(true);
    let attempts = cluster.stats.health_check.attempt.get();
    until(|| cluster.stats.health_check.attempt.get() > attempts).await;
    host.active_health().fail_at_once();
    until(|| !host.is_healthy()).await;
    assert!(host.has(HealthFlag::Excluded));
    assert_eq!(cluster.stats.health_check.passive_failure.get(), 1);
    assert_eq!(cluster.stats.membership_healthy.get(), 0);
    server.be_stuck(false);
    until(|| host.is_healthy()).await;
    assert!(!host.has(HealthFlag::Excluded));
}

#[tokio::test]
async fn a_check_that_passes_ends_an_ejection() {
    let server = Server::start().await;
    let main = Main::start();
    let ejection = |more: &str| {
        format!("{}, outlier_detection: {{consecutive_5xx: 1, max_ejection_percent: 100{more}}}", checks(""))
    };
    main.cds(&ejection(""));
    main.eds(&[(&server, "")]);
    let cluster = main.published().await;
    let host = main.host(&server).unwrap();
    outlier::record(&cluster, &host, Outcome::Answered(500));
    assert!(host.ejected.load(Ordering::Relaxed));
    until(|| !host.ejected.load(Ordering::Relaxed)).await;
    assert_eq!(cluster.stats.outlier_detection.ejections_active.get(), 0);
    // Unless it is to wait for its time.
    main.cds(&ejection(", successful_active_health_check_uneject_host: false"));
    let cluster = main.cluster().unwrap();
    outlier::record(&cluster, &host, Outcome::Answered(500));
    let passed = cluster.stats.health_check.success.get();
    until(|| cluster.stats.health_check.success.get() > passed + 3).await;
    assert!(host.ejected.load(Ordering::Relaxed));
}

/// `readmission: check` of our own: nobody is checked but a host that is out, and the check decides when its time has passed.
#[tokio::test]
async fn only_who_is_out_is_checked() {
    let server = Server::start().await;
    let main = Main::start();
    main.cds(&format!(
        "{}, outlier_detection: {{consecutive_5xx: 1, max_ejection_percent: 100, base_ejection_time: 0.2s, interval: 0.05s}}, \
         metadata: {{filter_metadata: {{outrigger.dev: {{readmission: check}}}}}}",
        checks("")
    ));
    main.eds(&[(&server, "")]);
    let cluster = main.published().await;
    let host = main.host(&server).unwrap();
    let is_out = || host.ejected.load(Ordering::Relaxed);
    let attempts = || cluster.stats.health_check.attempt.get();
    // It serves at once, and traffic is all that says something of it.
    assert!(host.is_healthy());
    assert_eq!(attempts(), 0);
    server.is_well.store(false, Ordering::Relaxed);
    outlier::record(&cluster, &host, Outcome::Answered(500));
    assert!(is_out());
    let ejected = tokio::time::Instant::now();
    until(|| attempts() > 8 && ejected.elapsed() > Duration::from_millis(400)).await;
    assert!(is_out(), "its time has passed, and its checks fail");
    server.is_well.store(true, Ordering::Relaxed);
    until(|| !is_out()).await;
    assert!(host.is_healthy());
}
