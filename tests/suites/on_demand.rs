//! What is asked for when a request needs it, from a control plane that is not ours: clusters (ODCDS) and virtual hosts (VHDS). A real Envoy
//! and ours are asked the same and give the same answers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use outrigger_tests::bootstrap::{
    any_host, cluster, file_access_log, http_connection_manager, http2_upstream, listener, load_assignment,
    overlay, type_url,
};
use outrigger_tests::foreign_xds::{Cache, ForeignXds};
use outrigger_tests::proxy::{Engine, Launch};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Bootstrap, Proxy, RawClient, Upstream, addr, wait};
use serde_json::{Value, json};

/// How long the route `/short` waits for its cluster.
const SHORT: Duration = Duration::from_millis(300);

struct World {
    upstreams: [Upstream; 2],
    address: SocketAddr,
    server: ForeignXds,
    proxy: Proxy,
    bootstrap: Bootstrap,
    /// Lines of the access log that were looked at.
    logged: usize,
}

/// What the server has, beside the listener and its routes.
#[derive(Clone, Default)]
struct Has {
    /// Name of a cluster → the number of its upstream.
    clusters: Vec<(&'static str, usize)>,
    /// What is after the slash of a virtual host's name, its domains, and the cluster that its requests go to.
    hosts: Vec<(&'static str, Vec<&'static str>, &'static str)>,
    /// Name of a virtual host → what else it is called.
    aliases: Value,
    /// What is asked for on demand comes on streams of its own.
    separate: bool,
}

fn ads() -> Value {
    json!({"ads": {}, "resource_api_version": "V3"})
}

/// Where what is asked for on demand comes from.
fn source(has: &Has) -> Value {
    match has.separate {
        true => json!({"api_config_source": api(), "resource_api_version": "V3"}),
        false => ads(),
    }
}

fn api() -> Value {
    json!({
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    })
}

fn on_demand(has: &Has, message: &str, timeout: Duration) -> Value {
    json!({
        "@type": type_url(&format!("extensions.filters.http.on_demand.v3.{message}")),
        "odcds": {"source": source(has), "timeout": format!("{}s", timeout.as_secs_f64())},
    })
}

fn resources(has: &Has, upstreams: &[Upstream], address: SocketAddr, log: &std::path::Path) -> Value {
    let mut manager = http_connection_manager(
        json!([]),
        json!({
            "access_log": [file_access_log(log, Some("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"))],
            "http_filters": [
                {"name": "on_demand", "typed_config": on_demand(has, "OnDemand", Duration::from_secs(60))},
                {"name": "router", "typed_config": {"@type": type_url("extensions.filters.http.router.v3.Router")}},
            ],
        }),
    );
    let settings = manager["typed_config"].as_object_mut().unwrap();
    settings.remove("route_config");
    settings.insert("rds".into(), json!({"route_config_name": "routes", "config_source": ads()}));
    let by_header = |prefix: &str, more: Value| {
        let mut route = json!({"match": {"prefix": prefix}, "route": {"cluster_header": "x-cluster"}});
        overlay(&mut route, more);
        route
    };
    let own = json!({"name": "own", "domains": ["own"], "routes": [
        by_header("/short", json!({"typed_per_filter_config": {"on_demand": on_demand(has, "PerRouteConfig", SHORT)}})),
        by_header("/never", json!({"typed_per_filter_config": {"on_demand": {
            "@type": type_url("extensions.filters.http.on_demand.v3.PerRouteConfig")}}})),
        {"match": {"prefix": "/fixed"}, "route": {"cluster": "fixed"}},
        by_header("/", json!({})),
    ]});
    let clusters = has.clusters.iter().map(|(name, _)| {
        json!({"name": name, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": ads()}})
    });
    let endpoints =
        has.clusters.iter().map(|(name, number)| load_assignment(name, &[upstreams[*number].addr()]));
    let hosts = has.hosts.iter().map(|(name, domains, to)| {
        let mut host = any_host(json!([{"match": {"prefix": "/"}, "route": {"cluster": to}}]))[0].take();
        overlay(&mut host, json!({"name": format!("routes/{name}"), "domains": domains}));
        host
    });
    json!({
        "clusters": clusters.collect::<Vec<_>>(),
        "endpoints": endpoints.collect::<Vec<_>>(),
        "listeners": [listener("l", address, manager)],
        "routes": [{"name": "routes", "virtual_hosts": [own], "vhds": {"config_source": source(has)}}],
        "virtual_hosts": hosts.collect::<Vec<_>>(),
        "aliases": has.aliases,
        "silent": ["silent", "routes/silent"],
    })
}

impl World {
    #[track_caller]
    fn start(engine: Engine, has: &Has) -> Option<Self> {
        let upstreams = ["0", "1"].map(|name| {
            let upstream = Upstream::start();
            upstream.answer(Reply::status(200, name));
            upstream
        });
        let (address, bootstrap) = (addr::free_addr(), Bootstrap::new());
        let resources = resources(has, &upstreams, address, &bootstrap.path("log"));
        let server = ForeignXds::start(Cache::Linear, &resources)?;
        bootstrap.write_value(&json!({
            "node": {"id": "on-demand", "cluster": "foreign"},
            "dynamic_resources": {
                "ads_config": api(),
                "lds_config": ads(),
            },
            "static_resources": {"clusters": [cluster("xds", &[server.addr()], http2_upstream())]},
        }));
        let launch = match engine {
            Engine::Outrigger => Launch::new(engine),
            Engine::Envoy => Launch::new(engine).arg("--file-flush-interval-msec").arg("100"),
        };
        let proxy = launch.start(&bootstrap)?;
        let world = World { upstreams, address, server, proxy, bootstrap, logged: 0 };
        wait::until("the listener", || RawClient::connect(world.address).is_ok());
        Some(world)
    }

    #[track_caller]
    fn set(&mut self, has: &Has) {
        let resources = resources(has, &self.upstreams, self.address, &self.bootstrap.path("log"));
        self.server.set(&resources);
    }

    fn connect(&self, request: &str) -> RawClient {
        let mut client = RawClient::connect(self.address).unwrap();
        client.send(request.as_bytes());
        client
    }

    /// Status and body.
    #[track_caller]
    fn answer(&self, client: &mut RawClient) -> (u16, String) {
        let response = client.response().unwrap_or_else(|e| panic!("{e}\n{}", self.proxy.stderr()));
        (response.status, response.text().to_owned())
    }

    #[track_caller]
    fn get(&self, host: &str, path: &str, header: &str) -> (u16, String) {
        self.answer(&mut self.connect(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{header}\r\n")))
    }

    /// To a cluster that the request names.
    #[track_caller]
    fn to(&self, cluster: &str) -> (u16, String) {
        self.get("own", "/", &format!("x-cluster: {cluster}\r\n"))
    }

    /// How often the server was asked for a cluster or virtual host.
    fn asked(&self, name: &str) -> usize {
        let requests = self.server.events("request").into_iter();
        let requests = requests.filter(|r| r["type"] == "clusters" || r["type"] == "virtual_hosts");
        let names = requests.flat_map(|request| request["subscribe"].as_array().cloned().unwrap_or_default());
        names.filter(|subscribed| subscribed == name).count()
    }

    #[track_caller]
    fn wait_asked(&self, name: &str) {
        wait::until(name, || self.asked(name) > 0);
    }

    /// The next lines of the access log, once there are so many.
    #[track_caller]
    fn logged(&mut self, lines: usize) -> Vec<String> {
        let log = self.bootstrap.path("log");
        let next = wait::eventually("the access log", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let next: Vec<String> = text.lines().skip(self.logged).map(str::to_owned).collect();
            (next.len() >= lines).then_some(next)
        });
        self.logged += next.len();
        next
    }
}

fn ok(upstream: usize) -> (u16, String) {
    (200, upstream.to_string())
}

fn clusters(engine: Engine) {
    let mut has = Has { clusters: vec![("a", 0), ("fixed", 1)], ..Has::default() };
    let Some(mut world) = World::start(engine, &has) else { return };
    assert_eq!(world.asked("a"), 0, "it is not asked for before somebody needs it");
    assert_eq!((world.to("a"), world.get("own", "/fixed", "")), (ok(0), ok(1)));
    assert_eq!((world.to("a"), world.asked("a"), world.asked("fixed")), (ok(0), 1, 1));
    world.logged(3);

    // What is not there, not said, not wanted.
    assert_eq!(world.to("missing").0, 503);
    let before = Instant::now();
    assert_eq!(world.get("own", "/short", "x-cluster: silent\r\n").0, 503);
    // An Envoy counts from the time that its loop woke, a little before it read the request.
    let waited = before.elapsed();
    assert!(waited + Duration::from_millis(20) >= SHORT, "it gave up early: {waited:?}");
    assert_eq!(world.get("own", "/", "").0, 503);
    assert_eq!(world.get("own", "/never", "x-cluster: b\r\n").0, 503);
    assert_eq!(world.logged(4), vec!["503 NC cluster_not_found"; 4]);
    assert_eq!(world.asked("b"), 0);

    // Requests that wait for one name share its subscription, bodies and all.
    let post = "POST / HTTP/1.1\r\nhost: own\r\nx-cluster: silent\r\ncontent-length: 5\r\n\r\nhello";
    let mut waiting: Vec<RawClient> = (0..3).map(|_| world.connect(post)).collect();
    assert!(waiting.iter_mut().all(|client| !client.closes_within(Duration::from_millis(50))));
    has.clusters.push(("silent", 1));
    world.set(&has);
    for client in &mut waiting {
        assert_eq!(world.answer(client), ok(1));
    }
    assert_eq!(world.asked("silent"), 1);
    let bodies: Vec<Vec<u8>> = world.upstreams[1].take_requests().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies[bodies.len() - 3..], [b"hello", b"hello", b"hello"]);

    // It is updated, survives the server, goes, and comes again.
    has.clusters[0].1 = 1;
    world.set(&has);
    wait::until("other endpoints", || world.to("a") == ok(1));
    let resources = resources(&has, &world.upstreams, world.address, &world.bootstrap.path("log"));
    world.server.restart(&resources);
    wait::until("it is held", || {
        let requests = world.server.events("request");
        let mut clusters = requests.iter().filter(|request| request["type"] == "clusters");
        clusters.any(|request| request["initial"].as_array().is_some_and(|names| names.contains(&"a".into())))
    });
    assert_eq!(world.to("a"), ok(1));
    has.clusters.remove(0);
    world.set(&has);
    wait::until("it is gone", || world.get("own", "/short", "x-cluster: a\r\n").0 == 503);
    has.clusters.push(("a", 0));
    world.set(&has);
    wait::until("it is back", || world.to("a") == ok(0));
    let dump = world.proxy.admin("/config_dump").text();
    assert!(dump.contains("\"fixed\"") && world.proxy.admin("/clusters").text().contains("a::"), "{dump}");
}

#[test]
fn clusters_are_found() {
    clusters(Engine::Outrigger);
}

#[test]
fn clusters_are_found_as_by_envoy() {
    clusters(Engine::Envoy);
}

fn hosts(engine: Engine) {
    let mut has = Has {
        clusters: vec![("a", 0), ("b", 1)],
        hosts: vec![("a.example", vec!["a.example"], "a"), ("b", vec!["b.example", "also.example:81"], "b")],
        aliases: json!({"routes/b": ["routes/b.example", "routes/also.example:81"]}),
        separate: false,
    };
    let Some(mut world) = World::start(engine, &has) else { return };
    assert_eq!((world.get("A.example", "/", ""), world.asked("routes/a.example")), (ok(0), 1));
    assert_eq!(world.get("a.example", "/x", ""), ok(0));
    assert_eq!((world.get("b.example", "/", ""), world.get("also.example:81", "/", "")), (ok(1), ok(1)));
    assert_eq!((world.to("a"), world.asked("routes/own")), (ok(0), 0), "its own virtual hosts are there");
    world.logged(5);
    assert_eq!(world.get("missing.example", "/", "").0, 404);
    assert_eq!(world.logged(1), ["404 NR route_not_found"]);

    let mut waiting: Vec<RawClient> =
        (0..3).map(|_| world.connect("GET / HTTP/1.1\r\nhost: silent\r\n\r\n")).collect();
    world.wait_asked("routes/silent");
    assert!(waiting.iter_mut().all(|client| !client.closes_within(Duration::from_millis(50))));
    has.hosts.push(("silent", vec!["silent"], "b"));
    world.set(&has);
    for client in &mut waiting {
        assert_eq!(world.answer(client), ok(1));
    }

    // It is updated, and goes.
    has.hosts[0].2 = "b";
    world.set(&has);
    wait::until("another cluster", || world.get("a.example", "/", "") == ok(1));
    let dump = world.proxy.admin("/config_dump").text();
    assert!(dump.contains("routes/a.example") && dump.contains("also.example:81"), "{dump}");
}

/// Where Envoy waits until the stream's idle timeout, or answers 404 to a request with a body, ours does what it is to do.
#[test]
fn virtual_hosts_are_found() {
    hosts(Engine::Outrigger);
    let mut has = Has {
        clusters: vec![("a", 0)],
        hosts: vec![("a.example", vec!["a.example"], "a")],
        ..Has::default()
    };
    let Some(mut world) = World::start(Engine::Outrigger, &has) else { return };
    let post = "POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(world.answer(&mut world.connect(post)), ok(0));
    let resources = resources(&has, &world.upstreams, world.address, &world.bootstrap.path("log"));
    world.server.restart(&resources);
    wait::until("it is held", || {
        let requests = world.server.events("request");
        requests.iter().any(|r| r["type"] == "virtual_hosts" && r["initial"] == json!(["routes/a.example"]))
    });
    assert_eq!(world.get("a.example", "/", ""), ok(0));
    let host = has.hosts.remove(0);
    world.set(&has);
    wait::until("it is gone", || world.get("a.example", "/", "").0 == 404);
    has.hosts.push(host);
    world.set(&has);
    wait::until("it is back", || world.get("a.example", "/", "") == ok(0));
}

#[test]
fn virtual_hosts_are_found_as_by_envoy() {
    hosts(Engine::Envoy);
}

#[test]
fn each_kind_may_come_on_a_stream_of_its_own() {
    let has = Has {
        clusters: vec![("a", 0)],
        hosts: vec![("a.example", vec!["a.example"], "a")],
        separate: true,
        ..Has::default()
    };
    let Some(world) = World::start(Engine::Outrigger, &has) else { return };
    assert_eq!((world.get("a.example", "/", ""), world.to("a")), (ok(0), ok(0)));
    assert_eq!((world.to("missing").0, world.get("missing.example", "/", "").0), (503, 404));
    assert_eq!((world.asked("a"), world.asked("routes/a.example")), (1, 1));
}
