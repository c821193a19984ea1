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
    /// `error_matcher`; `null`: none.
    errors: Value,
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
            errors: Value::Null,
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
        let mut of_cluster = json!({"outlier_detection": settings});
        if !self.errors.is_null() {
            of_cluster["typed_extension_protocol_options"] = json!({
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http_protocol_options": {}},
                    "outlier_detection": {"error_matcher": self.errors},
                },
            });
        }
        bootstrap.write_value(&json!({
            "cluster_manager": {"outlier_detection": {"event_log_path": log}},
            "static_resources": {
                "listeners": [listener("in", addr, filter)],
                "clusters": [cluster("c", &hosts, of_cluster)],
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
        let rate = event.pointer_mut("/eject_failure_percentage_event/host_success_rate");
        // Of a request that is on its way when an interval ends, connection and timeout count in different ones.
        if let Some(rate) = rate.filter(|rate| rate.as_u64().is_some_and(|rate| (30..=70).contains(&rate))) {
            *rate = "about half".into();
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
    // Nobody there is one, and a timeout is one: they stand for 503 and 504.
    Detection { except, ..Detection::refused(ONLY_GATEWAY()) }.compare();
    let route = json!({"timeout": "0.05s"});
    Detection { route, except, ..Detection::of(Reply::Stall, ONLY_GATEWAY()) }.compare();
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
    // What resets the stream is one too, and none is ejected for it unless that is enforced.
    let found = ("detected_consecutive_local_origin_failure", 1);
    let never = split(json!({"enforcing_consecutive_local_origin_failure": 0}));
    Detection { found, except, ..Detection::refused(never) }.compare();
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
    let grpc = Response::new(200, "").header("content-type", "application/grpc").header("grpc-status", "13");
    let settings = rate(json!({"enforcing_failure_percentage": 100}));
    let except: &[&str] = &["detected_success_rate", "detected_failure_percentage"];
    Detection { grpc: true, except, ..Detection::of(Reply::Respond(grpc), settings) }.compare();
}

/// Rates that are not judged, however many fail: several intervals pass until so many have failed in a row.
#[test]
fn rates_that_say_nothing() {
    let unjudged = |bad_hosts: usize, more: Value| {
        let mut settings = json!({"interval": "0.1s", "success_rate_request_volume": 3, "failure_percentage_request_volume": 3,
            "consecutive_5xx": 100, "enforcing_consecutive_5xx": 0, "enforcing_failure_percentage": 100});
        overlay(&mut settings, more);
        let (found, except) = (("detected_consecutive_5xx", 2), &["detected_consecutive_5xx"][..]);
        Detection { bad_hosts, found, except, events: 0, ..Detection::of(status(500), settings) }.compare();
    };
    // Too few hosts, too few requests, and both detectors at once.
    unjudged(1, json!({"success_rate_minimum_hosts": 6, "failure_percentage_minimum_hosts": 6}));
    unjudged(
        1,
        json!({"success_rate_request_volume": 100_000, "failure_percentage_request_volume": 100_000}),
    );
    // Nobody lies below the mean when all fail, and none may be out.
    unjudged(5, json!({"enforcing_failure_percentage": 0, "failure_percentage_minimum_hosts": 6}));
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

/// `error_matcher`: what is an error is said by the response's head.
#[test]
fn which_responses_count() {
    let head = |matcher: Value| json!({"http_response_headers_match": {"headers": [matcher]}});
    let statuses =
        |start: u16, end: u16| head(json!({"name": ":status", "range_match": {"start": start, "end": end}}));
    let three = || json!({"consecutive_5xx": 3});
    let counts =
        |reply: Reply, errors: Value| Detection { errors, ..Detection::of(reply, three()) }.compare();
    counts(status(404), statuses(400, 500));
    counts(status(429), json!({"or_match": {"rules": [statuses(500, 600), statuses(429, 430)]}}));
    let marked = || Reply::Respond(Response::new(200, "").header("x-failed", "yes"));
    let mark = || head(json!({"name": "x-failed", "string_match": {"exact": "yes"}}));
    counts(marked(), mark());
    counts(marked(), json!({"and_match": {"rules": [mark(), {"not_match": statuses(500, 600)}]}}));
    // A connection that is closed is no response.
    counts(Reply::Close, statuses(400, 401));

    // What is no error does not count, whatever its status; one would do.
    let one = || json!({"consecutive_5xx": 1, "consecutive_gateway_failure": 1, "enforcing_consecutive_gateway_failure": 100});
    let passes = |reply: Reply, errors: Value| {
        let found = ("active", 0);
        Detection { errors, found, events: 0, ..Detection::of(reply, one()) }.compare();
    };
    passes(status(503), statuses(500, 501));
    passes(status(500), mark());
    passes(status(404), json!({"not_match": {"any_match": true}}));

    // Which status an error stands for.
    let except: &[&str] = &["detected_consecutive_5xx"];
    let gateway =
        |reply: Reply, errors: Value| Detection { errors, except, ..Detection::of(reply, ONLY_GATEWAY()) };
    gateway(status(503), statuses(500, 600)).compare();
    let found = ("detected_consecutive_5xx", 2);
    Detection { found, ..gateway(status(404), statuses(400, 500)) }.compare();
    let grpc = Response::new(200, "").header("content-type", "application/grpc").header("grpc-status", "14");
    let of_grpc = head(json!({"name": "grpc-status", "present_match": true}));
    let of_grpc = || Detection { grpc: true, ..gateway(Reply::Respond(grpc.clone()), of_grpc.clone()) };
    of_grpc().compare();
    let (found, errors) = (("active", 0), statuses(500, 600));
    Detection { found, errors, events: 0, ..of_grpc() }.compare();
}
