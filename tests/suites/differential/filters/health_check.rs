//! Health checks: who answers them, with what, and that they do not count.

use outrigger_tests::bootstrap::{any_host, cluster, overlay};
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, wait};
use serde_json::{Value, json};

use super::{chain, filter, filter_config, route, says};

const CHECK: &str = "GET /health HTTP/1.1\r\nhost: h\r\n\r\n";
const OTHER: &str = "GET /other HTTP/1.1\r\nhost: h\r\n\r\n";
const WITH_BODY: &str = "POST /health HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello";

/// The filter for `/health`.
fn check(config: Value) -> Value {
    let mut all = json!({"pass_through_mode": false,
        "headers": [{"name": ":path", "string_match": {"exact": "/health"}}]});
    overlay(&mut all, config);
    filter("health_check", "health_check.v3.HealthCheck", all)
}

fn case(name: &'static str, prefix: &'static str, config: Value) -> Case {
    let mut hcm = chain(&[check(config)]);
    hcm["stat_prefix"] = json!(prefix);
    Case::plain(name).hcm(hcm)
}

#[test]
fn answers() {
    let percentages = |of: Value| json!({ "cluster_min_healthy_percentages": of });
    let least = |cluster: &str, percent: f64| percentages(json!({cluster: {"value": percent}}));
    let grpc =
        "POST /health HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    compare_cases(&[
        case("not passed on", "c1", json!({}))
            .send("check", CHECK)
            .send("other", OTHER)
            .send("with a body", WITH_BODY)
            .send("gRPC", grpc)
            .statistics("^http.c1.(downstream_rq_(completed|2xx|total)|tracing.health_check)"),
        case("passed on", "c2", json!({"pass_through_mode": true}))
            .send("check", CHECK)
            .send("other", OTHER)
            .send("failing", &CHECK.replace("/health", "/503"))
            .statistics("^http.c2.(downstream_rq_(completed|2xx|total)|tracing.health_check)|^cluster.up.upstream_rq_(total|completed|2xx|200)"),
        case("any request", "c3", json!({"headers": [{"name": "x-check"}, {"name": ":method", "string_match": {"exact": "GET"}}]}))
            .header_lines(&["", "x-check: 1\r\n"]),
        case("no headers", "c4", json!({"headers": []})).send("other", OTHER),
        case("healthy", "c5", least("up", 100.0)).send("check", CHECK),
        case("no host", "c6", least("empty", 1.0)).send("check", CHECK),
        case("no host, none wanted", "c7", least("empty", 0.9)).send("check", CHECK),
        case("no cluster", "c8", least("nowhere", 0.0)).send("check", CHECK),
        case("half", "c9", percentages(json!({"half": {"value": 50.9}, "up": {"value": 1}}))).send("check", CHECK)
            .clusters(|world| vec![half_healthy(world.up.addr(), world.refusing())]),
        case("more than half", "c10", least("half", 51.0)).send("check", CHECK),
        case("passed on, whatever the cluster", "c11", {
            let mut config = least("empty", 100.0);
            config["pass_through_mode"] = json!(true);
            config
        })
        .send("check", CHECK),
    ]);
}

fn half_healthy(up: std::net::SocketAddr, down: std::net::SocketAddr) -> Value {
    let mut half = cluster("half", &[up, down], json!({}));
    half["load_assignment"]["endpoints"][0]["lb_endpoints"][1]["health_status"] = json!("UNHEALTHY");
    half
}

#[test]
fn places() {
    let two = chain(&[check(json!({})), {
        let mut second = check(json!({"headers": [{"name": ":path", "string_match": {"exact": "/ready"}}]}));
        second["name"] = json!("second");
        second
    }]);
    let routes = any_host(json!([
        {"match": {"path": "/health"}, "route": {"cluster": "up"},
            "typed_per_filter_config": says("health_check", filter_config(json!({"disabled": true})))},
        route("/", json!({}))
    ]));
    compare_cases(&[
        Case::hosts("disabled by the route", routes).hcm(chain(&[check(json!({}))])).send("check", CHECK),
        Case::hosts("no route", json!([])).hcm(chain(&[check(json!({}))])).send("check", CHECK).send("other", OTHER),
        Case::hosts(
            "the route's headers",
            json!([{"name": "v", "domains": ["*"], "response_headers_to_add": [{"header": {"key": "x-route", "value": "1"}}],
                "routes": [route("/", json!({}))]}]),
        )
        .hcm(chain(&[check(json!({}))]))
        .send("check", CHECK),
        Case::plain("two").hcm(two.clone()).send("check", CHECK).paths(&["/ready", "/"]),
        Case::plain("two, failed").hcm(two).drive(|target, view| {
            failed(target, view, |target, view| {
                for path in ["/health", "/ready", "/"] {
                    ask(target, view, path);
                }
            });
        }),
    ]);
}

/// Runs this between `/healthcheck/fail` and `/healthcheck/ok`.
fn failed(target: &Target<'_>, view: &mut View, during: fn(&Target<'_>, &mut View)) {
    assert_eq!(target.world.admin("POST", "/healthcheck/fail").status, 200);
    during(target, view);
    assert_eq!(target.world.admin("POST", "/healthcheck/ok").status, 200);
}

fn ask(target: &Target<'_>, view: &mut View, path: &str) {
    let mut client = RawClient::connect(target.addr).unwrap();
    client.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
    view.add_answer(format!("GET {path}: client"), &client.response());
    view.add_requests(format!("GET {path}: upstream"), &target.world.take_requests());
}

#[test]
fn failed_by_the_administrator() {
    let during = |target: &Target<'_>, view: &mut View| {
        failed(target, view, |target, view| {
            ask(target, view, "/health");
            ask(target, view, "/other");
        });
        ask(target, view, "/health");
        ask(target, view, "/other");
    };
    compare_cases(&[
        case("not passed on", "f1", json!({})).drive(during),
        case("passed on", "f2", json!({"pass_through_mode": true})).drive(during),
        case("healthy clusters", "f3", json!({"cluster_min_healthy_percentages": {"up": {"value": 1}}}))
            .drive(during),
        Case::plain("no filter").drive(during),
    ]);
}

/// One answer that is kept, then a change of the upstream that nobody is to see.
fn changes(target: &Target<'_>, view: &mut View) {
    ask(target, view, "/health");
    target.world.up.answer(Reply::status(404, "gone"));
    ask(target, view, "/health");
    ask(target, view, "/other");
}

#[test]
fn kept_answers() {
    let kept = |time: &str| json!({"pass_through_mode": true, "cache_time": time});
    compare_cases(&[
        case("for long", "k1", kept("3600s")).drive(changes),
        case("a failure", "k2", kept("3600s")).drive(|target, view| {
            target.world.up.answer(Reply::status(503, "busy"));
            ask(target, view, "/health");
            target.world.up.answer(Reply::status(200, "ok"));
            ask(target, view, "/health");
        }),
        case("degraded", "k3", kept("3600s")).drive(|target, view| {
            let degraded =
                outrigger_tests::message::Response::new(200, "so so").header("x-envoy-degraded", "1");
            target.world.up.answer(Reply::Respond(degraded));
            ask(target, view, "/health");
            ask(target, view, "/health");
        }),
        case("by a body as well", "k4", kept("3600s")).drive(|target, view| {
            for _ in 0..2 {
                let mut client = RawClient::connect(target.addr).unwrap();
                client.send(WITH_BODY.as_bytes());
                view.add_answer("client", &client.response());
            }
            view.add_requests("upstream", &target.world.take_requests());
        }),
        case("until its time has passed", "k5", kept("0.1s")).without_logs().drive(|target, view| {
            ask(target, view, "/health");
            target.world.up.answer(Reply::status(404, "gone"));
            let mut client = RawClient::connect(target.addr).unwrap();
            wait::until("the upstream is asked again", || {
                client.get("h", "/health").is_ok_and(|answer| answer.status == 404)
            });
            let asked = !target.world.take_requests().is_empty();
            view.add("asked", format!("  {asked}\n"));
        }),
    ]);
}
