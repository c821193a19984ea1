//! Outlier detection beside Envoy: hosts that answer badly, or not at all, are found by the same detector, and the same is said of it
//! in statistics and in the log of events.

use std::fs;
use std::net::SocketAddr;

use outrigger_tests::addr::{RefusingAddr, free_addr};
use outrigger_tests::bootstrap::{
    Bootstrap, any_host, cluster, http_connection_manager, listener, overlay, tcp_proxy,
};
use outrigger_tests::differential::{View, compare};
use outrigger_tests::message::Response;
use outrigger_tests::proxy::{Launch, Proxy};
use outrigger_tests::upstream::Reply;
use outrigger_tests::wait::until;
use outrigger_tests::{RawClient, Upstream};
use serde_json::{Value, json};

const COUNTERS: [&str; 17] = [
    "active",
    "overflow",
    "enforced_total",
    "enforced_consecutive_5xx",
    "enforced_consecutive_gateway_failure",
    "enforced_consecutive_local_origin_failure",
    "enforced_success_rate",
    "enforced_local_origin_success_rate",
    "enforced_failure_percentage",
    "enforced_local_origin_failure_percentage",
    "detected_consecutive_5xx",
    "detected_consecutive_gateway_failure",
    "detected_consecutive_local_origin_failure",
    "detected_success_rate",
    "detected_local_origin_success_rate",
    "detected_failure_percentage",
    "detected_local_origin_failure_percentage",
];

/// Five hosts in turn, and requests until something is found.
struct Detection {
    /// Laid over `outlier_detection`.
    settings: Value,
    /// What bad hosts answer; `None`: nobody listens there.
    bad: Option<Reply>,
    /// How many of the five are bad.
    bad_hosts: usize,
    /// Laid over the route.
    route: Value,
    /// What the statistics show when it is found: `(name, value)`.
    found: (&'static str, u64),
    /// Statistics that depend on how many requests were needed.
    except: &'static [&'static str],
    /// Lines of the log that are compared.
    events: usize,
    /// Requests of a gRPC client.
    grpc: bool,
    /// Without HTTP.
    tcp: bool,
}

impl Detection {
    fn of(bad: Reply, settings: Value) -> Self {
        Self {
            settings,
            bad: Some(bad),
            bad_hosts: 1,
            route: json!({}),
            found: ("active", 1),
            except: &[],
            events: 1,
            grpc: false,
            tcp: false,
        }
    }

    fn refused(settings: Value) -> Self {
        Self { bad: None, ..Self::of(Reply::Close, settings) }
    }

    #[track_caller]
    fn compare(self) {
        let good: Vec<Upstream> = (0..5).map(|_| Upstream::start()).collect();
        let refusing: Vec<RefusingAddr> = (0..5).map(|_| RefusingAddr::reserve()).collect();
        let hosts: Vec<SocketAddr> = (0..5)
            .map(|index| {
                if index >= self.bad_hosts {
                    return good[index].addr();
                }
                match &self.bad {
                    Some(reply) => {
                        good[index].answer(reply.clone());
                        good[index].addr()
                    }
                    None => refusing[index].addr(),
                }
            })
            .collect();
        let bootstrap = Bootstrap::new();
        let (addr, log) = (free_addr(), bootstrap.path("events"));
        let mut settings =
            json!({"base_ejection_time": "60s", "interval": "0.5s", "max_ejection_percent": 100});
        overlay(&mut settings, self.settings.clone());
        let mut route = json!({"cluster": "c"});
        overlay(&mut route, self.route.clone());
        let filter = match self.tcp {
            true => tcp_proxy("c", json!({})),
            false => http_connection_manager(
                any_host(json!([{"match": {"prefix": "/"}, "route": route}])),
                json!({}),
            ),
        };
        bootstrap.write_value(&json!({
            "cluster_manager": {"outlier_detection": {"event_log_path": log}},
            "static_resources": {
                "listeners": [listener("in", addr, filter)],
                "clusters": [cluster("c", &hosts, json!({"outlier_detection": settings}))],
            },
        }));
        compare(|engine| {
            let _ = fs::remove_file(&log);
            let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
            until(&format!("{:?} from {engine:?}", self.found), || {
                for _ in 0..10 {
                    let Ok(mut client) = RawClient::connect(addr) else { continue };
                    let about = if self.grpc { "content-type: application/grpc\r\n" } else { "" };
                    client.send(
                        format!("GET / HTTP/1.1\r\nhost: h\r\n{about}connection: close\r\n\r\n").as_bytes(),
                    );
                    let _ = client.response();
                }
                counter(&proxy, self.found.0) >= self.found.1
            });
            let mut view = View::default();
            let shown = COUNTERS.iter().filter(|name| !self.except.contains(name));
            view.add(
                "statistics",
                shown.map(|name| format!("{name}: {}\n", counter(&proxy, name))).collect::<String>(),
            );
            if self.found.0 != "enforced_total" {
                let is_out = |host: &&SocketAddr| health(&proxy, **host) != "healthy";
                view.add("hosts that are out", hosts.iter().filter(is_out).count().to_string());
            }
            // Which one of several it is depends on whose turn it was.
            if self.bad_hosts == 1 && self.events > 0 {
                until("the log of events", || events(&log, &hosts).len() >= self.events);
                view.add("events", events(&log, &hosts)[..self.events].join("\n"));
            }
            proxy.stop();
            Some(view)
        });
    }
}

fn counter(proxy: &Proxy, name: &str) -> u64 {
    proxy.stat(&format!("cluster.c.outlier_detection.ejections_{name}")).unwrap_or_default()
}

fn health(proxy: &Proxy, host: SocketAddr) -> String {
    let text = proxy.admin("/clusters").text();
    let prefix = format!("c::{host}::health_flags::");
    text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
}

/// The lines of the log, each with its fields in the order of their names, without times.
fn events(log: &std::path::Path, hosts: &[SocketAddr]) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let line = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        let time = event["timestamp"].take();
        assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
        if event.get("secs_since_last_action").is_some_and(|seconds| !seconds.is_null()) {
            event["secs_since_last_action"] = "some".into();
        }
        let host = hosts.iter().position(|host| event["upstream_url"] == host.to_string());
        event["upstream_url"] = host.into();
        event.to_string()
    };
    text.lines().map(line).collect()
}

fn status(status: u16) -> Reply {
    Reply::status(status, "")
}

const ONLY_GATEWAY: fn() -> Value = || {
    json!({"consecutive_gateway_failure": 3, "enforcing_consecutive_gateway_failure": 100,
        "enforcing_consecutive_5xx": 0, "enforcing_success_rate": 0})
};

#[test]
fn in_a_row() {
    Detection::of(status(500), json!({"consecutive_5xx": 3})).compare();
    let except: &[&str] = &["detected_consecutive_5xx"];
    Detection { except, ..Detection::of(status(503), ONLY_GATEWAY()) }.compare();
    // 500 is no gateway failure.
    let found = ("detected_consecutive_5xx", 2);
    Detection { found, except, ..Detection::of(status(500), ONLY_GATEWAY()) }.compare();
    let grpc = Response::new(200, "").header("content-type", "application/grpc").header("grpc-status", "14");
    Detection { grpc: true, except, ..Detection::of(Reply::Respond(grpc), ONLY_GATEWAY()) }.compare();
}

#[test]
fn what_is_no_answer() {
    let three = || json!({"consecutive_5xx": 3});
    Detection::of(Reply::Close, three()).compare();
    Detection::refused(three()).compare();
    let route = json!({"timeout": "0.05s"});
    Detection { route, ..Detection::of(Reply::Stall, three()) }.compare();
    Detection { tcp: true, ..Detection::refused(three()) }.compare();
}

#[test]
fn local_origin_apart() {
    let split = |more: Value| {
        let mut settings = json!({"split_external_local_origin_errors": true, "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0, "consecutive_5xx": 3, "consecutive_local_origin_failure": 3});
        overlay(&mut settings, more);
        settings
    };
    let except: &[&str] = &["detected_local_origin_success_rate", "detected_local_origin_failure_percentage"];
    Detection { except, ..Detection::refused(split(json!({}))) }.compare();
    Detection { tcp: true, except, ..Detection::refused(split(json!({}))) }.compare();
    Detection { except, ..Detection::of(status(500), split(json!({}))) }.compare();
    // A timeout is one, but its connection was none: they are never in a row. Half of them fail.
    let half = || {
        split(json!({"failure_percentage_threshold": 50, "failure_percentage_request_volume": 4,
            "enforcing_failure_percentage_local_origin": 100}))
    };
    let route = json!({"timeout": "0.1s"});
    Detection { route, except, ..Detection::of(Reply::Stall, half()) }.compare();
}

#[test]
fn rates() {
    let rate = |more: Value| {
        let mut settings = json!({"success_rate_request_volume": 3, "failure_percentage_request_volume": 3,
            "consecutive_5xx": 1_000, "enforcing_success_rate": 0});
        overlay(&mut settings, more);
        settings
    };
    let except: &[&str] = &["detected_success_rate", "detected_failure_percentage"];
    Detection { except, ..Detection::of(status(500), rate(json!({"enforcing_success_rate": 100}))) }
        .compare();
    let failures = json!({"enforcing_failure_percentage": 100});
    Detection { except, ..Detection::of(status(500), rate(failures)) }.compare();
    // Two of five are far below the others, and no outliers: the deviation is too large.
    let found = ("detected_failure_percentage", 2);
    let settings = rate(json!({"enforcing_success_rate": 100, "success_rate_stdev_factor": 1_500}));
    let except: &[&str] = &["detected_failure_percentage"];
    Detection { found, except, bad_hosts: 2, ..Detection::of(status(500), settings) }.compare();
    let split = json!({"split_external_local_origin_errors": true, "enforcing_local_origin_success_rate": 100,
        "consecutive_local_origin_failure": 1_000});
    let except: &[&str] = &["detected_local_origin_success_rate", "detected_local_origin_failure_percentage"];
    Detection { except, ..Detection::refused(rate(split)) }.compare();
}

#[test]
fn limits() {
    let three = |more: Value| {
        let mut settings = json!({"consecutive_5xx": 3, "enforcing_success_rate": 0});
        overlay(&mut settings, more);
        settings
    };
    let except: &[&str] = &["overflow", "detected_consecutive_5xx"];
    let limited = |bad_hosts, more| {
        let found = ("overflow", 1);
        Detection { bad_hosts, found, except, events: 0, ..Detection::of(status(500), three(more)) }
            .compare();
    };
    limited(3, json!({"max_ejection_percent": 40}));
    limited(1, json!({"max_ejection_percent": 10}));
    limited(3, json!({"max_ejection_percent": 10, "always_eject_one_host": true}));
    let found = ("detected_consecutive_5xx", 1);
    let never = three(json!({"enforcing_consecutive_5xx": 0}));
    Detection { found, ..Detection::of(status(500), never) }.compare();
}

/// Out, back, out again: three lines.
#[test]
fn there_and_back() {
    let settings = json!({"consecutive_5xx": 3, "base_ejection_time": "0.1s", "interval": "0.1s"});
    let found = ("enforced_total", 2);
    Detection { found, except: &COUNTERS, events: 3, ..Detection::of(status(500), settings) }.compare();
}
