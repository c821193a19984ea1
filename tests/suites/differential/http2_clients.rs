//! Clients of HTTP/2 on the ways that other tables send HTTP/1 clients: splits, gRPC routes, retries.

use bytes::Bytes;
use http_body_util::Full;
use outrigger_tests::client::Http2Client;
use outrigger_tests::differential::{Case, Target, View, World, compare_cases};
use outrigger_tests::{bootstrap, wait};
use serde_json::{Value, json};

type Fields = &'static [(&'static str, &'static str)];

const GRPC: Fields = &[("content-type", "application/grpc"), ("te", "trailers")];

/// Sends a request and shows both ends of it.
fn send(target: &Target<'_>, view: &mut View, method: &str, path: &str, fields: Fields, body: &'static [u8]) {
    let client = Http2Client::connect(target.addr).unwrap();
    let mut request = http::Request::builder().method(method).uri(format!("http://h{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answer = client.send(request.body(Full::new(Bytes::from_static(body))).unwrap());
    // What the library says of a reset is not the proxy's.
    view.add_answer(
        format!("{method} {path}"),
        &answer.map_err(|_| std::io::ErrorKind::ConnectionReset.into()),
    );
    view.add_requests(format!("{method} {path}: upstream"), &target.world.take_requests());
}

fn gets(target: &Target<'_>, view: &mut View, paths: &[&str], fields: Fields) {
    for path in paths {
        send(target, view, "GET", path, fields, b"");
    }
}

fn weighted(clusters: Value, more: Value) -> Value {
    let mut weighted = json!({ "clusters": clusters });
    bootstrap::overlay(&mut weighted, more);
    json!([{"match": {"prefix": "/"}, "route": {"weighted_clusters": weighted}}])
}

#[test]
fn splits() {
    let get = |target: &Target<'_>, view: &mut View| gets(target, view, &["/a", "/503"], &[]);
    let header = |name: &str| json!([{"header": {"key": "x-drawn", "value": name}}]);
    compare_cases(&[
        Case::routes("all to one", weighted(json!([{"name": "up", "weight": 0}, {"name": "up2", "weight": 5}]), json!({}))).drive(get),
        Case::routes("to HTTP/2", weighted(json!([{"name": "h2", "weight": 1}, {"name": "up", "weight": 0}]), json!({}))).drive(get),
        Case::routes(
            "headers of the drawn one",
            weighted(
                json!([{"name": "up", "weight": 0}, {"name": "h2", "weight": 1, "host_rewrite_literal": "drawn.example",
                    "request_headers_to_add": header("request"), "response_headers_to_add": header("response"),
                    "response_headers_to_remove": ["x-from"]}]),
                json!({}),
            ),
        )
        .drive(get),
        Case::routes("to nobody", weighted(json!([{"name": "empty", "weight": 1}, {"name": "up", "weight": 0}]), json!({}))).drive(get),
        Case::routes("by a share of requests", json!([
            {"match": {"prefix": "/", "runtime_fraction": {"default_value": {"numerator": 0}}}, "route": {"cluster": "up"}},
            {"match": {"prefix": "/", "runtime_fraction": {"default_value": {"numerator": 100}}}, "route": {"cluster": "h2"}},
        ]))
        .drive(get),
        Case::routes("by a header of the request", json!([{"match": {"prefix": "/"}, "route": {"cluster_header": "x-to"}}])).drive(
            |target, view| {
                send(target, view, "GET", "/a", &[("x-to", "h2")], b"");
                send(target, view, "GET", "/b", &[("x-to", "up2")], b"");
                send(target, view, "GET", "/c", &[("x-to", "nobody")], b"");
            },
        ),
    ]);
}

/// What GRPCRoute becomes.
#[test]
fn grpc_routes() {
    let to = |matched: Value, cluster: &str| json!({"match": matched, "route": {"cluster": cluster}});
    compare_cases(&[
        Case::routes(
            "methods and services",
            json!([
                to(json!({"path": "/shop.Carts/Add"}), "h2"),
                to(json!({"prefix": "/shop.Carts/"}), "up"),
                to(json!({"safe_regex": {"regex": "/[^/]+/Watch"}}), "up2"),
            ]),
        )
        .drive(|target, view| {
            gets(
                target,
                view,
                &[
                    "/shop.Carts/Add",
                    "/shop.Carts/Drop",
                    "/shop.Items/Watch",
                    "/shop.Items/Get",
                    "/shop.Carts",
                ],
                GRPC,
            );
        }),
        Case::routes(
            "only gRPC",
            json!([to(json!({"prefix": "/", "grpc": {}}), "h2"), to(json!({"prefix": "/"}), "up")]),
        )
        .drive(|target, view| {
            gets(target, view, &["/a"], GRPC);
            gets(target, view, &["/a"], &[("content-type", "application/grpc+proto")]);
            gets(target, view, &["/a"], &[("content-type", "application/grpc-web")]);
            gets(target, view, &["/a"], &[]);
        }),
        Case::routes(
            "by metadata",
            json!([
                to(
                    json!({"prefix": "/", "headers": [{"name": "version", "string_match": {"exact": "2"}}]}),
                    "h2"
                ),
                to(json!({"prefix": "/"}), "up"),
            ]),
        )
        .drive(|target, view| {
            send(
                target,
                view,
                "POST",
                "/s/m",
                &[("content-type", "application/grpc"), ("version", "2")],
                b"\0\0\0\0\0",
            );
            send(
                target,
                view,
                "POST",
                "/s/m",
                &[("content-type", "application/grpc"), ("version", "1")],
                b"\0\0\0\0\0",
            );
        }),
        Case::routes(
            "nobody answers",
            json!([
                to(json!({"prefix": "/away"}), "refusing"),
                to(json!({"prefix": "/empty"}), "empty"),
                to(json!({"prefix": "/up"}), "up"),
            ]),
        )
        .drive(|target, view| {
            gets(
                target,
                view,
                &["/away/m", "/empty/m", "/up/503", "/up/404", "/up/reset", "/unknown/m"],
                GRPC,
            )
        }),
        Case::routes("statuses", json!([to(json!({"prefix": "/"}), "h2")]))
            .drive(|target, view| gets(target, view, &["/grpc-0", "/grpc-5", "/grpc-14"], GRPC)),
    ]);
}

/// A virtual host that counts attempts.
fn retrying(name: &'static str, cluster: &str, policy: Value) -> Case {
    let mut quick =
        json!({"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}});
    bootstrap::overlay(&mut quick, policy);
    Case::hosts(
        name,
        json!([{"name": "v", "domains": ["*"], "include_request_attempt_count": true,
        "include_attempt_count_in_response": true, "per_request_buffer_limit_bytes": 8,
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s", "retry_policy": quick}}]}]),
    )
}

const RETRIES: &str = "^cluster.[a-z0-9-]+.(upstream_rq_retry(_success|_overflow|_limit_exceeded|_backoff_[a-z]+)?|retry_or_shadow_abandoned)$";

#[test]
fn bodies_that_are_sent_again() {
    let posts = |target: &Target<'_>, view: &mut View| {
        send(target, view, "POST", "/recovers/503", &[], b"");
        send(target, view, "POST", "/recovers/503", &[], b"seven b");
        send(target, view, "POST", "/recovers/503", &[], b"eight by");
        send(target, view, "POST", "/503", &[], b"eight by");
        send(target, view, "PUT", "/recovers/reset", &[], b"small");
    };
    compare_cases(&[
        retrying("to HTTP/1", "up", json!({})).drive(posts).statistics(RETRIES),
        retrying("to HTTP/2", "h2", json!({})).drive(posts).statistics(RETRIES),
    ]);
}

fn budget(world: &World, name: &str, budget: Value) -> Vec<Value> {
    let limits = json!({"circuit_breakers": {"thresholds": [{"retry_budget": budget}]}});
    vec![bootstrap::cluster(name, &[world.up.addr()], limits)]
}

#[test]
fn budgets() {
    let get = |target: &Target<'_>, view: &mut View| gets(target, view, &["/503", "/recovers/503"], &[]);
    compare_cases(&[
        retrying("one at a time", "one", json!({}))
            .clusters(|world| {
                budget(world, "one", json!({"budget_percent": {"value": 0}, "min_retry_concurrency": 1}))
            })
            .drive(get)
            .statistics(RETRIES),
        retrying("all that there are", "all", json!({}))
            .clusters(|world| {
                budget(world, "all", json!({"budget_percent": {"value": 100}, "min_retry_concurrency": 1}))
            })
            .drive(get)
            .statistics(RETRIES),
        retrying("the default", "default", json!({}))
            .clusters(|world| budget(world, "default", json!({})))
            .drive(get)
            .statistics(RETRIES),
    ]);
}

/// The upstream says when it wants to be asked again.
#[test]
fn back_off_that_is_asked_for() {
    let limited = |name: &str, format: &str, max: &str| {
        json!({
        "num_retries": 1, "rate_limited_retry_back_off": {"reset_headers": [{"name": name, "format": format}], "max_interval": max}})
    };
    let get = |target: &Target<'_>, view: &mut View| {
        let start = std::time::Instant::now();
        gets(target, view, &["/retry-after"], &[]);
        view.add("has waited", format!("{}\n", start.elapsed() >= std::time::Duration::from_millis(980)));
    };
    compare_cases(&[
        retrying("seconds", "up", limited("retry-after", "SECONDS", "5s")).drive(get).statistics(RETRIES),
        retrying("by another name", "up", limited("x-reset", "SECONDS", "5s")).drive(get).statistics(RETRIES),
        retrying("longer than allowed", "up", limited("retry-after", "SECONDS", "0.5s"))
            .drive(get)
            .statistics(RETRIES),
        retrying("a moment long ago", "up", limited("retry-after", "UNIX_TIMESTAMP", "5s"))
            .drive(get)
            .statistics(RETRIES),
        retrying("to HTTP/2", "h2", limited("retry-after", "SECONDS", "5s")).drive(get).statistics(RETRIES),
    ]);
}

fn two_hosts(world: &World, name: &str) -> Vec<Value> {
    vec![bootstrap::cluster(name, &[world.up.addr(), world.up2.addr()], Value::Null)]
}

/// Each attempt goes to another host: with two hosts and one retry, both are asked once, whoever is first.
#[test]
fn other_hosts() {
    let policy = json!({"num_retries": 1, "host_selection_retry_max_attempts": 20, "retry_host_predicate": [
        {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
            "@type": bootstrap::type_url("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate")}}]});
    let get = |target: &Target<'_>, view: &mut View| {
        for path in ["/503", "/reset"] {
            target.world.take_requests();
            let client = Http2Client::connect(target.addr).unwrap();
            let status = client.get("h", path).map(|response| response.status).unwrap_or_default();
            wait::until("both attempts", || target.world.up.recorded() + target.world.up2.recorded() == 2);
            let asked = (target.world.up.take_requests().len(), target.world.up2.take_requests().len());
            view.add(path, format!("{status} {asked:?}\n"));
        }
    };
    compare_cases(&[retrying("both", "both", policy)
        .clusters(|world| two_hosts(world, "both"))
        .drive(get)
        .without_logs()]);
}
