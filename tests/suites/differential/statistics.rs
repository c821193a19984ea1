//! What the counters say after requests that end in every way. Each kind of end has a listener and a `stat_prefix` of its own, so that a
//! difference names it.

use outrigger_tests::RawClient;
use outrigger_tests::bootstrap;
use outrigger_tests::client::Http2Client;
use outrigger_tests::differential::{Case, Target, View, World, compare_cases};
use serde_json::{Value, json};

/// Names that both have; what Envoy counts besides has no series here.
macro_rules! counted {
    ($prefix:literal) => {
        concat!(
            "^http.", $prefix, ".(no_route|no_cluster|rq_direct_response|rq_redirect|rq_total|downstream_cx_(total|http[12]_total|ssl_total|",
            "protocol_error|max_requests_reached|upgrades_total)|downstream_rq_(total|http[12]_total|completed|.xx|timeout|idle_timeout|",
            "header_timeout|max_duration_reached|rx_reset|tx_reset|non_relative_path|ws_on_non_ws_route))$|",
            "^cluster.", $prefix, ".(upstream_cx_(total|connect_fail|connect_timeout|overflow|none_healthy|protocol_error|",
            "max_requests)|upstream_rq_(total|completed|timeout|per_try_timeout|per_try_idle_timeout|retry|retry_success|retry_overflow|",
            "retry_limit_exceeded|cancelled|pending_total|pending_overflow|pending_failure_eject|rx_reset|tx_reset|.xx|[0-9]+))$"
        )
    };
}

/// A case whose connection manager and cluster have its own name.
fn case(name: &'static str, filter: &'static str, action: Value, clusters: fn(&World) -> Vec<Value>) -> Case {
    let mut route = json!({"cluster": name});
    bootstrap::overlay(&mut route, action);
    Case::routes(
        name,
        json!([
            {"match": {"path": "/direct"}, "direct_response": {"status": 418}},
            {"match": {"path": "/moved"}, "redirect": {"path_redirect": "/there"}},
            {"match": {"prefix": "/up"}, "route": route},
        ]),
    )
    .hcm(json!({"stat_prefix": name, "access_log": []}))
    .clusters(clusters)
    .without_logs()
    .statistics(filter)
}

fn to_up(world: &World, name: &str, more: Value) -> Vec<Value> {
    vec![bootstrap::cluster(name, &[world.up.addr()], more)]
}

fn to_h2(world: &World, name: &str) -> Vec<Value> {
    vec![bootstrap::cluster(name, &[world.h2.addr()], bootstrap::http2_upstream())]
}

/// A client that goes away while the upstream still thinks.
fn leaves(target: &Target<'_>, _: &mut View) {
    let mut client = RawClient::connect(target.addr).unwrap();
    client.send(b"GET /up/stall HTTP/1.1\r\nhost: h\r\n\r\n");
    outrigger_tests::wait::until("the request at the upstream", || {
        target.world.up.recorded() + target.world.h2.recorded() > 0
    });
    client.reset();
    target.world.take_requests();
}

fn by_http2(target: &Target<'_>, view: &mut View) {
    let client = Http2Client::connect(target.addr).unwrap();
    for path in ["/up/200", "/up/503", "/direct", "/moved", "/nowhere"] {
        view.add_answer(path, &client.get("h", path).map_err(std::io::Error::other));
    }
    target.world.take_requests();
}

#[test]
fn answers() {
    compare_cases(&[
        case("classes", counted!("classes"), json!({}), |w| to_up(w, "classes", Value::Null))
            .paths(&["/up/200", "/up/204", "/up/302", "/up/404", "/up/500", "/up/503"]),
        case("of_h2", counted!("of_h2"), json!({}), |w| to_h2(w, "of_h2"))
            .paths(&["/up/200", "/up/404", "/up/503"]),
        case("own", counted!("own"), json!({}), |w| to_up(w, "own", Value::Null))
            .paths(&["/direct", "/moved", "/nowhere"]),
        case("by_h2", counted!("by_h2"), json!({}), |w| to_up(w, "by_h2", Value::Null)).drive(by_http2),
        case("head", counted!("head"), json!({}), |w| to_up(w, "head", Value::Null))
            .send("HEAD", "HEAD /up/200 HTTP/1.1\r\nhost: h\r\n\r\n")
            .send("gRPC", "GET /nowhere HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\n\r\n"),
        case("kept", counted!("kept"), json!({}), |w| to_up(w, "kept", Value::Null)).send_for(
            3,
            "three",
            &"GET /up/200 HTTP/1.1\r\nhost: h\r\n\r\n".repeat(3),
        ),
        case("not_http", counted!("not_http"), json!({}), |w| to_up(w, "not_http", Value::Null))
            .send("garbage", "nonsense\r\n\r\n")
            .send("no host", "GET /up HTTP/1.1\r\n\r\n")
            .send("relative", "GET up HTTP/1.1\r\nhost: h\r\n\r\n"),
    ]);
}

/// Plain requests to a virtual host that wants TLS are redirected before anything else looks at them.
#[test]
fn tls_that_is_required() {
    let hosts = json!([{"name": "v", "domains": ["*"], "require_tls": "ALL", "routes": bootstrap::to("up")}]);
    compare_cases(&[Case::hosts("secure", hosts)
        .hcm(json!({"stat_prefix": "secure", "access_log": []}))
        .paths(&["/a", "/b?c"])
        .without_logs()
        .statistics(counted!("secure"))]);
}

#[test]
fn failures() {
    compare_cases(&[
        case("refused", counted!("refused"), json!({}), |w| vec![bootstrap::cluster("refused", &[w.refusing()], Value::Null)])
            .paths(&["/up/a", "/up/b"]),
        case("nobody", counted!("nobody"), json!({}), |_| vec![bootstrap::cluster("nobody", &[], Value::Null)]).paths(&["/up"]),
        case("closes", counted!("closes"), json!({}), |w| to_up(w, "closes", Value::Null)).paths(&["/up/close", "/up/200"]),
        case("resets", counted!("resets"), json!({}), |w| to_up(w, "resets", Value::Null)).paths(&["/up/reset"]),
        case("resets_h2", counted!("resets_h2"), json!({}), |w| to_h2(w, "resets_h2")).paths(&["/up/reset", "/up/reset-after-head"]),
        case("garbles", counted!("garbles"), json!({}), |w| to_up(w, "garbles", Value::Null)).paths(&["/up/garbage"]),
        case("late", counted!("late"), json!({"timeout": "0.2s"}), |w| to_up(w, "late", Value::Null)).paths(&["/up/stall", "/up/200"]),
        case("late_h2", counted!("late_h2"), json!({"timeout": "0.2s"}), |w| to_h2(w, "late_h2")).paths(&["/up/stall", "/up/200"]),
        case("full", counted!("full"), json!({}), |w| {
            to_up(w, "full", json!({"circuit_breakers": {"thresholds": [{"max_connections": 1, "max_pending_requests": 0}]}}))
        })
        .paths(&["/up"]),
        case("left", counted!("left"), json!({}), |w| to_up(w, "left", Value::Null)).drive(leaves),
        case("left_h2", counted!("left_h2"), json!({}), |w| to_h2(w, "left_h2")).drive(leaves),
    ]);
}

#[test]
fn retries() {
    let again = |more: Value| {
        let mut policy =
            json!({"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}});
        bootstrap::overlay(&mut policy, more);
        json!({ "retry_policy": policy, "timeout": "0s" })
    };
    compare_cases(&[
        case("again", counted!("again"), again(json!({})), |w| to_up(w, "again", Value::Null)).paths(&[
            "/up/503",
            "/up/reset",
            "/up/200",
        ]),
        case("again_h2", counted!("again_h2"), again(json!({})), |w| to_h2(w, "again_h2")).paths(&[
            "/up/503",
            "/up/reset",
            "/up/200",
        ]),
        case("each_late", counted!("each_late"), again(json!({"per_try_timeout": "0.1s"})), |w| {
            to_up(w, "each_late", Value::Null)
        })
        .paths(&["/up/stall"]),
        case("each_late_h2", counted!("each_late_h2"), again(json!({"per_try_timeout": "0.1s"})), |w| {
            to_h2(w, "each_late_h2")
        })
        .paths(&["/up/stall"]),
        case("once", counted!("once"), again(json!({})), |w| {
            to_up(w, "once", json!({"circuit_breakers": {"thresholds": [{"max_retries": 0}]}}))
        })
        .paths(&["/up/503"]),
    ]);
}

/// What virtual clusters and routes count beside their cluster.
#[test]
fn parts_of_a_virtual_host() {
    let method = |name: &str| json!([{"name": ":method", "string_match": {"exact": name}}]);
    let quick = json!({"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}});
    let saved = json!({"retry_on": "5xx", "num_retries": 3, "retry_back_off": {"base_interval": "0.001s"}});
    let hosts = json!([{
        "name": "host.example", "domains": ["*"], "include_request_attempt_count": true,
        "virtual_clusters": [
            {"name": "posts", "headers": method("POST")},
            {"name": "a.b", "headers": [
                {"name": ":path", "string_match": {"prefix": "/a"}}, {"name": "x-not", "present_match": true, "invert_match": true}]},
        ],
        "routes": [
            {"match": {"path": "/a/direct"}, "stat_prefix": "direct", "direct_response": {"status": 200}},
            {"match": {"prefix": "/a/stall"}, "stat_prefix": "slow", "route": {"cluster": "up", "timeout": "0.1s"}},
            {"match": {"prefix": "/away"}, "stat_prefix": "away", "route": {"cluster": "refusing"}},
            {"match": {"prefix": "/empty"}, "stat_prefix": "empty", "route": {"cluster": "empty"}},
            {"match": {"prefix": "/none"}, "stat_prefix": "none", "route": {"cluster_header": "x-none"}},
            {"match": {"prefix": "/retried"}, "stat_prefix": "retried", "route": {"cluster": "up", "retry_policy": quick}},
            {"match": {"prefix": "/recovers"}, "stat_prefix": "saved", "route": {"cluster": "up", "retry_policy": saved}},
            {"match": {"prefix": "/a"}, "stat_prefix": "pre.fix", "route": {"cluster": "up"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "h2"}},
        ],
    }]);
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
    compare_cases(&[Case::hosts("counted", hosts)
        .paths(&[
            "/a/ok",
            "/a/404",
            "/a/direct",
            "/a/stall",
            "/away",
            "/empty",
            "/none",
            "/retried/503",
            "/recovers/503",
            "/other",
            "/a/reset",
        ])
        .send("POST", &post("/a/204"))
        .send("POST elsewhere", &post("/z/503"))
        .send("not the second", "GET /a/ok HTTP/1.1\r\nhost: h\r\nx-not: 1\r\n\r\n")
        .statistics("^vhost")]);
}
