//! Active health checks beside Envoy: a host that is well, not well, and well again, in many ways. Each step is the same in
//! `/clusters`, in the log of events and in statistics, and requests go where the checks say.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use outrigger_tests::addr::{RefusingAddr, free_addr};
use outrigger_tests::bootstrap::{
    Bootstrap, any_host, cluster, http_connection_manager, http2_upstream, listener, overlay, socket_address,
    to, type_url,
};
use outrigger_tests::differential::{View, compare, render_request};
use outrigger_tests::message::{Headers, Request, Response};
use outrigger_tests::proxy::{Engine, Launch, Proxy};
use outrigger_tests::upstream::{Http2Upstream, Reply};
use outrigger_tests::wait::until;
use outrigger_tests::{RawClient, Upstream};
use serde_json::{Value, json};

const OUT: &str = "/failed_active_hc";
const TIMED_OUT: &str = "/failed_active_hc/active_hc_timeout";
const WELL: &str = "healthy";

/// A host that does to its checks what each step says, beside one that is always well.
struct Checks {
    /// `http_health_check` and its like, laid over the rest.
    check: Value,
    /// Laid over the cluster.
    cluster: Value,
    /// What the host answers to a check, and what it is then.
    steps: Vec<(Reply, &'static str)>,
    http2: bool,
    /// Different lines of the log that are waited for, and compared.
    lines: usize,
    /// A statistic that is waited for.
    counts: &'static str,
}

impl Checks {
    fn of(check: Value, steps: Vec<(Reply, &'static str)>) -> Self {
        let lines = steps.len();
        Self { check, cluster: json!({}), steps, http2: false, lines, counts: "attempt" }
    }

    fn http(check: Value, steps: Vec<(Reply, &'static str)>) -> Self {
        let mut all = json!({"path": "/check"});
        overlay(&mut all, check);
        Self::of(json!({"http_health_check": all}), steps)
    }

    fn grpc(check: Value, steps: Vec<(Reply, &'static str)>) -> Self {
        let check = json!({"grpc_health_check": check});
        Self { cluster: http2_upstream(), http2: true, ..Self::of(check, steps) }
    }

    /// Over a server that speaks HTTP, for want of another one.
    fn tcp(steps: Vec<(Reply, &'static str)>) -> Self {
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let check = json!({"tcp_health_check": {
            "send": {"text": hex("GET /check HTTP/1.1\r\nhost: h\r\n\r\n")},
            "receive": [{"text": hex("HTTP/1.1 ")}, {"text": hex("200")}, {"text": hex("well")}],
        }});
        Self::of(check, steps)
    }

    /// With these settings beside.
    fn with(mut self, more: Value) -> Self {
        overlay(&mut self.check, more);
        self
    }

    #[track_caller]
    fn compare(self) {
        let hosts = [Host::start(self.http2), Host::start(self.http2)];
        let bootstrap = Bootstrap::new();
        let (addr, log, sink) = (free_addr(), bootstrap.path("events"), bootstrap.path("sink"));
        let mut check = json!({
            "timeout": "0.3s", "interval": "0.02s", "no_traffic_interval": "0.02s", "unhealthy_threshold": 2,
            "healthy_threshold": 2, "event_log_path": log, "event_logger": [{
                "name": "envoy.health_check.event_sinks.file",
                "typed_config": {
                    "@type": type_url("extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink"),
                    "event_log_path": sink,
                },
            }],
        });
        overlay(&mut check, self.check.clone());
        let mut more = json!({"health_checks": [check], "common_lb_config": balancing()});
        overlay(&mut more, self.cluster.clone());
        let addrs = [hosts[0].addr(), hosts[1].addr()];
        let filter = http_connection_manager(any_host(to("c")), json!({}));
        bootstrap.write(&[listener("in", addr, filter)], &[cluster("c", &addrs, more)]);
        compare(|engine| {
            let _ = (fs::remove_file(&log), fs::remove_file(&sink));
            hosts[1].answer_checks(well(self.http2));
            hosts[0].answer_checks(self.steps[0].0.clone());
            let proxy = launch(engine).start(&bootstrap)?;
            let mut view = View::default();
            for (index, (reply, flags)) in self.steps.iter().enumerate() {
                hosts[0].answer_checks(reply.clone());
                until(&format!("step {index}, {flags}, of {engine:?}"), || {
                    health(&proxy, addrs[0]) == *flags
                });
                until("the other host", || health(&proxy, addrs[1]) == WELL);
                // What comes of a check in this state is logged too.
                let attempts = stat(&proxy, "health_check.attempt");
                until("more checks", || stat(&proxy, "health_check.attempt") > attempts + 4);
                view.add(format!("step {index}: healthy"), stat(&proxy, "health_check.healthy").to_string());
                // What is made of a degraded host is another matter.
                if !flags.contains("degraded") {
                    let takes_traffic = *flags == WELL;
                    let hosts = 1 + u64::from(takes_traffic);
                    until("the statistics", || stat(&proxy, "membership_healthy") == hosts);
                    until("the traffic", || served(addr, &addrs).contains("host 0") == takes_traffic);
                }
            }
            until(self.counts, || stat(&proxy, &format!("health_check.{}", self.counts)) > 0);
            let counted = |name: &&&str| stat(&proxy, &format!("health_check.{name}")) > 0;
            let names =
                ["attempt", "success", "failure", "passive_failure", "network_failure", "verify_cluster"];
            view.add(
                "counted",
                format!("{:?}", names.iter().filter(|name| counted(name)).collect::<Vec<_>>()),
            );
            for (name, path) in [("events", &log), ("sink", &sink)] {
                until(name, || events(path, addrs[0]).len() >= self.lines);
                view.add(name, events(path, addrs[0])[..self.lines].join("\n"));
            }
            let seen = hosts[1].a_check();
            view.add("a check", seen.replace(&addrs[1].to_string(), "host"));
            proxy.stop();
            Some(view)
        });
    }
}

/// A host of either HTTP version, which answers other requests than checks with 200.
enum Host {
    Http1(Upstream),
    Http2(Http2Upstream),
}

impl Host {
    fn start(http2: bool) -> Self {
        if http2 { Self::Http2(Http2Upstream::start()) } else { Self::Http1(Upstream::start()) }
    }

    fn addr(&self) -> SocketAddr {
        match self {
            Self::Http1(upstream) => upstream.addr(),
            Self::Http2(upstream) => upstream.addr(),
        }
    }

    fn answer_checks(&self, reply: Reply) {
        let addr = self.addr();
        let script = move |request: &Request| match request.target == "/" {
            true => Reply::status(200, &addr.to_string()),
            false => reply.clone(),
        };
        match self {
            Self::Http1(upstream) => upstream.answer_with(script),
            Self::Http2(upstream) => upstream.answer_with(script),
        }
    }

    fn a_check(&self) -> String {
        let requests = match self {
            Self::Http1(upstream) => upstream.take_requests(),
            Self::Http2(upstream) => upstream.take_requests(),
        };
        requests.iter().rfind(|request| request.target != "/").map(render_request).unwrap_or_default()
    }
}

fn well(http2: bool) -> Reply {
    match http2 {
        true => serving(),
        false => named("us-0"),
    }
}

/// A good answer of this cluster.
fn named(cluster: &str) -> Reply {
    let response = Response::new(200, "all is well");
    Reply::Respond(response.header("x-envoy-upstream-healthchecked-cluster", cluster))
}

/// With a log that is written soon.
fn launch(engine: Engine) -> Launch {
    let launch = Launch::new(engine).arg("-l").arg("error");
    match engine {
        Engine::Envoy => launch.arg("--file-flush-interval-msec").arg("20"),
        Engine::Outrigger => launch,
    }
}

/// No host is asked that is out, and Envoy's workers hear of each change at once.
fn balancing() -> Value {
    json!({"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"})
}

fn status(status: u16) -> Reply {
    Reply::status(status, "")
}

/// An answer of `grpc.health.v1.Health/Check`: the message, and the status of the call.
fn grpc(message: &[u8], status: &str) -> Reply {
    let mut body = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
    body.extend_from_slice(message);
    let mut response = Response::new(200, body).header("content-type", "application/grpc");
    response.trailers = Headers(vec![("grpc-status".into(), status.into())]);
    Reply::Respond(response)
}

fn serving() -> Reply {
    grpc(&[8, 1], "0")
}

fn stat(proxy: &Proxy, name: &str) -> u64 {
    proxy.stat(&format!("cluster.c.{name}")).unwrap_or_default()
}

fn health(proxy: &Proxy, host: SocketAddr) -> String {
    let text = proxy.admin("/clusters").text();
    let prefix = format!("c::{host}::health_flags::");
    text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
}

/// Which hosts answer ten requests, by their place.
fn served(addr: SocketAddr, hosts: &[SocketAddr; 2]) -> BTreeSet<String> {
    let ask = |_| {
        let mut client = RawClient::connect(addr).unwrap();
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let body = client.response().unwrap().text();
        hosts.iter().position(|host| host.to_string() == body).map_or(body, |at| format!("host {at}"))
    };
    (0..10).map(ask).collect()
}

/// What a log says of the host, without times; fields in the order of their names.
fn events(log: &Path, host: SocketAddr) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let lines = whole.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_host = lines.filter(|event| event["host"]["socket_address"]["address"] == host.ip().to_string());
    let masked = of_host.map(|mut event| {
        let time = event["timestamp"].take();
        assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
        event["host"]["socket_address"]["address"].take();
        event["host"]["socket_address"]["port_value"].take();
        sorted(event).to_string()
    });
    let mut lines: Vec<String> = masked.collect();
    // How many checks there were depends on the time.
    lines.dedup();
    lines
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        other => other,
    }
}

#[test]
fn statuses() {
    Checks::http(json!({}), vec![(status(200), WELL), (status(503), OUT), (status(200), WELL)]).compare();
    Checks::http(json!({}), vec![(status(503), OUT), (status(200), WELL), (status(301), OUT)]).compare();
    let retriable = json!({"expected_statuses": [{"start": 200, "end": 202}, {"start": 204, "end": 205}],
        "retriable_statuses": [{"start": 500, "end": 504}]});
    Checks::http(
        retriable,
        vec![(status(204), WELL), (status(503), OUT), (status(201), WELL), (status(202), OUT)],
    )
    .compare();
}

#[test]
fn http_without_an_answer() {
    let steps = |reply, flags| vec![(status(200), WELL), (reply, flags), (status(200), WELL)];
    Checks::http(json!({}), steps(Reply::Close, OUT)).compare();
    Checks::http(json!({}), steps(Reply::Reset, OUT)).compare();
    Checks::http(json!({}), steps(Reply::ResetAfterHead(Response::new(200, "half of it")), OUT)).compare();
    Checks::http(json!({}), steps(Reply::Stall, TIMED_OUT)).compare();
    Checks::http(json!({}), steps(Reply::Raw(b"what?\r\n\r\n".to_vec()), OUT)).compare();
}

#[test]
fn http_requests_and_bodies() {
    let hex =
        |text: &str| json!({"text": text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>()});
    let body = |text| Reply::status(200, text);
    let check = json!({"host": "asked", "method": "POST", "send": hex("ping"), "receive": [hex("all"), hex("well")],
        "request_headers_to_add": [{"header": {"key": "x-of", "value": "%UPSTREAM_REMOTE_ADDRESS%"}}],
        "request_headers_to_remove": ["user-agent"]});
    let steps = vec![(body("all is well"), WELL), (body("well, all"), OUT), (body("all well"), WELL)];
    Checks::http(check, steps).compare();
    let matcher = json!({"service_name_matcher": {"prefix": "us"}});
    let steps = vec![(named("us-1"), WELL), (named("eu"), OUT), (named("us"), WELL)];
    Checks::http(matcher, steps).compare();
}

#[test]
fn http2() {
    let check = json!({"codec_client_type": "HTTP2", "host": "asked"});
    let steps = vec![(status(200), WELL), (status(500), OUT), (status(200), WELL), (Reply::Reset, OUT)];
    let checks = Checks { http2: true, cluster: http2_upstream(), ..Checks::http(check, steps) };
    checks.compare();
}

#[test]
fn connections_that_are_not_reused() {
    let steps = || vec![(status(200), WELL), (status(503), OUT), (status(200), WELL), (Reply::Close, OUT)];
    Checks::http(json!({}), steps()).with(json!({"reuse_connection": false})).compare();
    let steps = vec![(Reply::status(200, "well"), WELL), (status(503), TIMED_OUT)];
    Checks::tcp(steps).with(json!({"reuse_connection": false})).compare();
}

#[test]
fn degraded() {
    let says = || Reply::Respond(Response::new(200, "").header("x-envoy-degraded", ""));
    let steps = vec![
        (status(200), WELL),
        (says(), "/degraded_active_hc"),
        (status(503), "/failed_active_hc/degraded_active_hc"),
    ];
    Checks::http(json!({}), steps).compare();
}

#[test]
fn every_check_in_the_log() {
    let every = json!({"always_log_health_check_failures": true, "always_log_health_check_success": true});
    let steps = || vec![(status(200), WELL), (status(503), OUT)];
    let checks = Checks::http(json!({}), steps()).with(every);
    // Healthy, and each success; out, and each failure.
    Checks { lines: 4, ..checks }.compare();
}

#[test]
fn grpc_statuses() {
    let steps = |reply| vec![(serving(), WELL), (reply, OUT), (serving(), WELL)];
    Checks::grpc(json!({}), steps(grpc(&[8, 2], "0"))).compare();
    Checks::grpc(json!({"service_name": "s", "authority": "asked"}), steps(grpc(&[8, 1], "14"))).compare();
    Checks::grpc(json!({}), steps(grpc(&[], "0"))).compare();
    Checks::grpc(json!({}), steps(status(503))).compare();
    Checks::grpc(json!({}), steps(status(200))).compare();
}

#[test]
fn grpc_without_an_answer() {
    let metadata = json!({"initial_metadata": [{"header": {"key": "x-of", "value": "us"}}]});
    let steps = |reply, flags| vec![(serving(), WELL), (reply, flags), (serving(), WELL)];
    Checks::grpc(metadata, steps(Reply::Reset, OUT)).compare();
    Checks::grpc(json!({}), steps(Reply::Stall, TIMED_OUT)).compare();
}

#[test]
fn tcp() {
    let good = || Reply::status(200, "well");
    let steps = |reply, flags| vec![(good(), WELL), (reply, flags), (good(), WELL)];
    Checks::tcp(steps(status(503), TIMED_OUT)).compare();
    Checks::tcp(steps(Reply::Close, OUT)).compare();
    Checks::tcp(steps(Reply::Reset, OUT)).compare();
    Checks::tcp(steps(Reply::Stall, TIMED_OUT)).compare();
    // A server that ends the connection after its answer fails between two checks.
    let once = Checks::tcp(vec![(Reply::RespondThenClose(Response::new(200, "well")), WELL)])
        .with(json!({"unhealthy_threshold": 1_000_000}));
    Checks { counts: "network_failure", ..once }.compare();
}

/// Where nobody listens, and where someone only accepts.
#[test]
fn connect_only() {
    let (accepting, refusing) = (Upstream::start(), RefusingAddr::reserve());
    let bootstrap = Bootstrap::new();
    let check = json!({"timeout": "1s", "interval": "0.02s", "no_traffic_interval": "0.02s", "unhealthy_threshold": 1,
        "healthy_threshold": 1, "tcp_health_check": {}});
    let hosts = [accepting.addr(), refusing.addr()];
    bootstrap.write(&[], &[cluster("c", &hosts, json!({"health_checks": [check]}))]);
    compare(|engine| {
        let proxy = Launch::new(engine).start(&bootstrap)?;
        until("the checks", || stat(&proxy, "health_check.attempt") > 6);
        let mut view = View::default();
        view.add("health", hosts.map(|host| health(&proxy, host)).join("\n"));
        view.add("failures", (stat(&proxy, "health_check.network_failure") > 2).to_string());
        proxy.stop();
        Some(view)
    });
}

/// A host says in an answer to a request that it wants no more of them.
#[test]
fn out_at_its_own_wish() {
    let hosts = [Upstream::start(), Upstream::start()];
    let addrs = [hosts[0].addr(), hosts[1].addr()];
    let bootstrap = Bootstrap::new();
    let (addr, log) = (free_addr(), bootstrap.path("events"));
    let check = json!({"timeout": "1s", "interval": "0.5s", "no_traffic_interval": "0.5s", "unhealthy_threshold": 1,
        "healthy_threshold": 1, "event_log_path": log, "http_health_check": {"path": "/check"}});
    let filter = http_connection_manager(any_host(to("c")), json!({}));
    let more = json!({"health_checks": [check], "common_lb_config": balancing()});
    bootstrap.write(&[listener("in", addr, filter)], &[cluster("c", &addrs, more)]);
    compare(|engine| {
        let _ = fs::remove_file(&log);
        for host in &hosts {
            let own = host.addr().to_string();
            host.answer_with(move |request| match request.target == "/check" {
                true => status(200),
                false => Reply::status(200, &own),
            });
        }
        let proxy = launch(engine).start(&bootstrap)?;
        until("both hosts", || addrs.iter().all(|host| health(&proxy, *host) == WELL));
        let own = addrs[0].to_string();
        hosts[0].answer_with(move |request| match request.target == "/check" {
            true => Reply::Stall,
            false => Reply::Respond(
                Response::new(200, own.as_str()).header("x-envoy-immediate-health-check-fail", "true"),
            ),
        });
        let mut view = View::default();
        let out = "/failed_active_hc/excluded_via_immediate_hc_fail";
        until("its wish", || {
            served(addr, &addrs);
            health(&proxy, addrs[0]).starts_with(out)
        });
        until("the traffic", || !served(addr, &addrs).contains("host 0"));
        view.add("passive failures", (stat(&proxy, "health_check.passive_failure") > 0).to_string());
        until("the log", || events(&log, addrs[0]).len() > 1);
        view.add("events", events(&log, addrs[0])[..2].join("\n"));
        proxy.stop();
        Some(view)
    });
}

/// An endpoint may be asked at another port, by another name, or not at all.
#[test]
fn endpoints_of_their_own() {
    let (first, second, elsewhere) = (Upstream::start(), Upstream::start(), Upstream::start());
    elsewhere.answer(status(503));
    let bootstrap = Bootstrap::new();
    let check = json!({"timeout": "1s", "interval": "0.05s", "no_traffic_interval": "0.05s", "unhealthy_threshold": 1,
        "healthy_threshold": 1, "http_health_check": {"path": "/check"}});
    let endpoint =
        |addr, config| json!({"endpoint": {"address": socket_address(addr), "health_check_config": config}});
    let other = json!({"address": socket_address(elsewhere.addr()), "port_value": elsewhere.addr().port(), "hostname": "asked"});
    let endpoints = json!([
        endpoint(first.addr(), json!({"disable_active_health_check": true})),
        endpoint(second.addr(), other)
    ]);
    let assignment = json!({"cluster_name": "c", "endpoints": [{"lb_endpoints": endpoints}]});
    let more = json!({"health_checks": [check], "load_assignment": assignment});
    bootstrap.write(&[], &[cluster("c", &[], more)]);
    compare(|engine| {
        let _ = elsewhere.take_requests();
        let proxy = Launch::new(engine).start(&bootstrap)?;
        until("the checks", || stat(&proxy, "health_check.failure") > 2);
        let mut view = View::default();
        view.add("health", [&first, &second].map(|host| health(&proxy, host.addr())).join("\n"));
        view.add("asked", elsewhere.take_requests().iter().take(1).map(render_request).collect::<String>());
        view.add("not asked", format!("{} {}", first.connections(), second.connections()));
        proxy.stop();
        Some(view)
    });
}
