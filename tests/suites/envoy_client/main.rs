//! A real Envoy as a client of our control plane: both variants of the protocol, on one stream and on a stream for each type,
//! over TCP and over a Unix socket. It accepts everything, follows changes, and after a restart is sent nothing twice.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outrigger_tests::addr::{free_addr, free_addr_on, pod_ip};
use outrigger_tests::bootstrap::{Bootstrap, http2_upstream, socket_address};
use outrigger_tests::client::RawClient;
use outrigger_tests::mesh::EVERY_RULE;
use outrigger_tests::proxy::{Engine, Launch, Proxy, binary};
use outrigger_tests::wait::{self, within};
use serde_json::{Value, json};

/// The cluster of the Service.
const REVIEWS: &str = "outbound|9080||reviews.shop.svc.cluster.local";
/// An Envoy that is not answered goes on after 15 s (`initial_fetch_timeout`). Less than that shows that it was.
const AT_ONCE: Duration = Duration::from_secs(10);

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: shop }
spec: { clusterIP: 10.96.0.7, selector: { app: reviews }, ports: [ { name: http, port: 9080, targetPort: 9080 } ] }
";

const DESTINATION_RULE: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: reviews, namespace: shop }
spec: { host: reviews, trafficPolicy: { connectionPool: { tcp: { maxConnections: 7 } } } }
";

/// How the Envoy talks to the control plane.
#[derive(Clone, Copy)]
struct Manner {
    /// `GRPC` or `DELTA_GRPC`.
    api_type: &'static str,
    is_aggregated: bool,
    is_unix: bool,
}

/// A control plane on a directory, and a pod.
struct World {
    folder: tempfile::TempDir,
    ip: Ipv4Addr,
    manner: Manner,
    xds: String,
    admin: SocketAddr,
    control_plane: Option<Child>,
}

impl World {
    fn start(manner: Manner) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("objects")).unwrap();
        let xds = match manner.is_unix {
            true => format!("unix:{}", folder.path().join("xds.sock").display()),
            false => free_addr_on(Ipv4Addr::LOCALHOST.into()).to_string(),
        };
        let (ip, admin) = (pod_ip(), free_addr());
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: web-0, namespace: shop, labels: {{ app: web }} }}\nspec: {{ \
             serviceAccountName: web, containers: [ {{ name: web }} ] }}\nstatus: {{ podIP: {ip}, podIPs: [ {{ ip: {ip} \
             }} ] }}\n"
        );
        let mut world = World { folder, ip, manner, xds, admin, control_plane: None };
        world.write("pod.yaml", &pod);
        world.write("service.yaml", SERVICE);
        world.write_endpoint("127.1.0.2");
        world.start_control_plane();
        world
    }

    /// Starts it, also again on the same data and address.
    fn start_control_plane(&mut self) {
        self.kill_control_plane();
        let folder = self.folder.path();
        let log = File::options().append(true).create(true).open(folder.join("log")).unwrap();
        let started = Command::new(binary("outrigger-control-plane"))
            .arg(format!("--source=file:{}", folder.join("objects").display()))
            .arg(format!("--data-dir={}", folder.join("data").display()))
            .arg(format!("--xds-address={}", self.xds))
            .arg(format!("--admin-address={}", self.admin))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.control_plane = Some(started.unwrap());
        wait::until("a control plane", || self.token().exists() && self.page("/ready").is_some());
    }

    fn kill_control_plane(&mut self) {
        if let Some(mut control_plane) = self.control_plane.take() {
            let _ = control_plane.kill();
            let _ = control_plane.wait();
        }
    }

    /// A file of objects, as an editor saves it.
    fn write(&self, name: &str, text: &str) {
        let objects = self.folder.path().join("objects");
        let part = objects.join(format!(".{name}.part"));
        fs::write(&part, text).unwrap();
        fs::rename(part, objects.join(name)).unwrap();
    }

    fn write_endpoint(&self, address: &str) {
        let slice = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{ name: reviews-1, namespace: shop, labels: \
             {{ kubernetes.io/service-name: reviews }} }}\naddressType: IPv4\nports: [ {{ name: http, port: 9080 }} ]\n\
             endpoints: [ {{ addresses: [ {address} ], conditions: {{ ready: true }} }} ]\n"
        );
        self.write("slice.yaml", &slice);
    }

    fn token(&self) -> PathBuf {
        self.folder.path().join("data/tokens/shop/web-0")
    }

    /// A page of the control plane, if it is there and fine.
    fn page(&self, path: &str) -> Option<String> {
        let mut client = RawClient::connect(self.admin).ok()?;
        let response = client.get("control-plane", path).ok()?;
        (response.status == 200).then(|| response.text())
    }

    /// The connected streams, once all of them are there and have accepted everything.
    #[track_caller]
    fn wait_until_synced(&self) {
        let expected = match self.manner.is_aggregated {
            true => &["ads"][..],
            false => &["ads", "cds", "eds", "lds", "rds"],
        };
        let variant = if self.manner.api_type == "GRPC" { "sotw" } else { "delta" };
        let synced = within(wait::PATIENCE, || {
            let page: Value = serde_json::from_str(&self.page("/proxies")?).ok()?;
            let rows = page["proxies"].as_array()?;
            let mut services: Vec<&str> = rows.iter().filter_map(|row| row["service"].as_str()).collect();
            services.sort_unstable();
            let types = rows.iter().filter_map(|row| row["types"].as_object()).flatten();
            let mut states = types.map(|(_, status)| status["state"].as_str().unwrap_or_default());
            let is_synced = states.all(|state| matches!(state, "synced" | "never_sent"));
            let is_variant = rows.iter().all(|row| row["variant"] == variant);
            (services == expected && is_synced && is_variant).then_some(())
        });
        assert!(synced.is_some(), "{}\n{}", self.page("/proxies").unwrap_or_default(), self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What Envoy is told: where the control plane is, and how to talk to it.
    fn bootstrap(&self) -> Bootstrap {
        let address = match self.xds.strip_prefix("unix:") {
            Some(path) => json!({"pipe": {"path": path}}),
            None => socket_address(self.xds.parse().unwrap()),
        };
        let static_cluster = |name: &str, address: &Value| {
            let mut cluster = json!({
                "name": name, "type": "STATIC", "connect_timeout": "1s",
                "load_assignment": {
                    "cluster_name": name,
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                },
            });
            cluster["typed_extension_protocol_options"] =
                http2_upstream()["typed_extension_protocol_options"].clone();
            cluster
        };
        let token = fs::read_to_string(self.token()).unwrap();
        let api = json!({
            "api_type": self.manner.api_type,
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{
                "envoy_grpc": {"cluster_name": "xds"},
                "initial_metadata": [{"key": "authorization", "value": format!("Bearer {token}")}],
            }],
        });
        let separate = json!({"api_config_source": api, "resource_api_version": "V3"});
        let source = match self.manner.is_aggregated {
            true => json!({"ads": {}, "resource_api_version": "V3"}),
            false => separate.clone(),
        };
        // The certificates of the mesh come from elsewhere; nobody is there in this test.
        let nobody = json!({"pipe": {"path": self.folder.path().join("nobody.sock")}});
        let mut clusters = vec![static_cluster("xds", &address), static_cluster("sds-grpc", &nobody)];
        let mut listeners = Vec::new();
        if !self.manner.is_aggregated {
            // What our control plane sends refers to the aggregated stream; these refer to streams of their own.
            clusters.push(json!({
                "name": "by-eds", "type": "EDS", "connect_timeout": "1s",
                "eds_cluster_config": {"service_name": REVIEWS, "eds_config": separate},
            }));
            listeners.push(json!({
                "name": "by-rds", "address": socket_address(free_addr()),
                "filter_chains": [{"filters": [{
                    "name": "http",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                                  HttpConnectionManager",
                        "stat_prefix": "by-rds",
                        "rds": {"route_config_name": "15001", "config_source": separate},
                        "http_filters": [{"name": "router", "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                    },
                }]}],
            }));
        }
        let bootstrap = Bootstrap::new();
        bootstrap.write_value(&json!({
            "node": {"id": format!("sidecar~{}~web-0.shop~shop.svc.cluster.local", self.ip), "cluster": "web"},
            "dynamic_resources": {"ads_config": api, "cds_config": source, "lds_config": source},
            "static_resources": {"clusters": clusters, "listeners": listeners},
        }));
        bootstrap
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_control_plane();
    }
}

/// Whether Envoy has a line of `/clusters` that begins so.
fn has(envoy: &Proxy, line: &str) -> bool {
    envoy
        .try_admin("GET", "/clusters")
        .is_ok_and(|page| page.text().lines().any(|found| found.starts_with(line)))
}

fn follows_the_mesh(manner: Manner) {
    let mut world = World::start(manner);
    let bootstrap = world.bootstrap();
    let Some(envoy) = Launch::new(Engine::Envoy).spawn(&bootstrap) else { return };
    let endpoint_of = |cluster: &str, address: &str| format!("{cluster}::{address}:9080::");
    let clusters = if manner.is_aggregated { &[REVIEWS][..] } else { &[REVIEWS, "by-eds"] };
    let wait_for_endpoint = |address: &str| {
        let is_there =
            || clusters.iter().all(|cluster| has(&envoy, &endpoint_of(cluster, address))).then_some(());
        assert!(within(wait::PATIENCE, is_there).is_some(), "no {address}:\n{}", envoy.stderr());
    };
    wait_for_endpoint("127.1.0.2");
    world.wait_until_synced();
    world.write_endpoint("127.1.0.3");
    wait_for_endpoint("127.1.0.3");

    // A changed cluster is another one, which takes over when it has its endpoints. In the state of the world Envoy asks for
    // them again. In the incremental variant it does not, so they follow by themselves: on the stream of the cluster, and no
    // other stream knows of it.
    world.write("rule.yaml", DESTINATION_RULE);
    let is_told = manner.is_aggregated || manner.api_type == "GRPC";
    let limit = if is_told { AT_ONCE } else { 2 * wait::PATIENCE };
    let is_changed =
        || has(&envoy, &format!("{REVIEWS}::default_priority::max_connections::7")).then_some(());
    assert!(within(limit, is_changed).is_some(), "{}\n{}", envoy.stderr(), world.log());
    wait_for_endpoint("127.1.0.3");
    world.wait_until_synced();

    // The control plane starts again. Everything is as it was.
    world.start_control_plane();
    world.wait_until_synced();
    let pushed = |of: &str| {
        let metrics = world.page("/metrics").unwrap();
        let name = format!("outrigger_xds_pushes_total{{type=\"{of}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap()
    };
    // A wildcard of the incremental variant is answered, with nothing.
    let answers = u64::from(manner.api_type == "DELTA_GRPC");
    assert_eq!([pushed("cds"), pushed("lds"), pushed("eds"), pushed("rds")], [answers, answers, 0, 0]);
    wait_for_endpoint("127.1.0.3");

    fs::remove_file(world.folder.path().join("objects/service.yaml")).unwrap();
    let is_gone = within(wait::PATIENCE, || (!has(&envoy, REVIEWS)).then_some(()));
    assert!(is_gone.is_some(), "{}\n{}", world.page("/proxies").unwrap(), world.log());
    world.wait_until_synced();
    assert!(!world.log().contains("NACK"), "{}", world.log());
}

/// Rules are told in Envoy's own words, so an Envoy takes them all.
#[test]
fn every_routing_rule_is_accepted() {
    let world = World::start(Manner { api_type: "GRPC", is_aggregated: true, is_unix: false });
    world.write("rules.yaml", EVERY_RULE);
    let bootstrap = world.bootstrap();
    let Some(envoy) = Launch::new(Engine::Envoy).spawn(&bootstrap) else { return };
    let routes = || envoy.try_admin("GET", "/config_dump?resource=dynamic_route_configs").ok();
    let stream = format!("{}_8443", world.ip);
    let has_all = || {
        let names = [
            "conditions.one",
            "rest-delegated",
            "shop.reviews.conditions",
            "shop.calls.0",
            "*.shop.example",
            "418",
            "max_tokens",
            "query_parameter_mutations",
        ];
        let page = routes()?.text();
        let listeners = envoy.try_admin("GET", "/listeners").ok()?.text();
        (names.iter().all(|name| page.contains(name)) && listeners.contains(&stream)).then_some(())
    };
    // The certificates of the mesh are waited for before any listener.
    assert!(within(2 * wait::PATIENCE, has_all).is_some(), "{}\n{}", envoy.stderr(), world.log());
    world.wait_until_synced();
    let stats = envoy.try_admin("GET", "/stats?filter=update_rejected").unwrap().text();
    let refused: Vec<&str> = stats.lines().filter(|line| !line.ends_with(": 0")).collect();
    assert!(refused.is_empty(), "{refused:?}\n{}", envoy.stderr());
    assert!(!world.log().contains("NACK"), "{}", world.log());
    // What is wrong with the objects is what they were written for.
    let page: Value = serde_json::from_str(&world.page("/rejections").unwrap()).unwrap();
    assert_eq!(page["rejections"], json!([]), "{page}");
}

#[test]
fn state_of_the_world_on_one_stream() {
    follows_the_mesh(Manner { api_type: "GRPC", is_aggregated: true, is_unix: false });
}

#[test]
fn state_of_the_world_on_separate_streams_over_a_unix_socket() {
    follows_the_mesh(Manner { api_type: "GRPC", is_aggregated: false, is_unix: true });
}

#[test]
fn incremental_on_one_stream_over_a_unix_socket() {
    follows_the_mesh(Manner { api_type: "DELTA_GRPC", is_aggregated: true, is_unix: true });
}

#[test]
fn incremental_on_separate_streams() {
    follows_the_mesh(Manner { api_type: "DELTA_GRPC", is_aggregated: false, is_unix: false });
}
