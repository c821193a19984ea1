//! gRPC statistics: what is counted, and under which name.

use outrigger_tests::bootstrap::to;
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::message::Response;
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, wait};
use serde_json::{Value, json};

use super::{chain, filter, filter_config, route, says};

fn case(name: &'static str, cluster: &str, config: Value) -> Case {
    Case::routes(name, to(cluster))
        .hcm(chain(&[filter("grpc_stats", "grpc_stats.v3.FilterConfig", config)]))
        .without_logs()
}

fn all() -> Value {
    json!({"stats_for_all_methods": true})
}

/// A call with these messages.
fn call(path: &str, messages: &[&str]) -> String {
    let body: String = messages
        .iter()
        .map(|message| format!("\0\0\0\0{}{message}", char::from(u8::try_from(message.len()).unwrap())))
        .collect();
    format!(
        "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn names() {
    let listed = json!({"individual_method_stats_allowlist": {"services": [
        {"name": "list.Ed", "method_names": ["grpc-0", "grpc-3"]}, {"name": "list.Other", "method_names": ["grpc-0"]}]}});
    let json_call = call("/a.S/grpc-0", &["x"]).replace("application/grpc", "application/json");
    compare_cases(&[
        case("all methods", "up", all())
            .send("ok", &call("/a.S/grpc-0", &["x"]))
            .send("not found", &call("/a.S/grpc-5", &[]))
            .send("of a package in a package", &call("/a.b.c.S/grpc-16", &["x", "yy"]))
            .send("with a query", &call("/a.S/grpc-0?q=1/2", &["x"]))
            .send("three parts", &call("/a/S/grpc-0", &["x"]))
            .send("one part", &call("/grpc-0", &["x"]))
            .send("empty parts", &call("//a.E//grpc-0/", &["x"]))
            .send("no gRPC", &json_call)
            .statistics("^cluster.up.grpc"),
        case("none by name", "up2", json!({"stats_for_all_methods": false}))
            .send("ok", &call("/b.S/grpc-0", &["x"]))
            .send("not found", &call("/b.S/grpc-5", &["x"]))
            .send("three parts", &call("/b/S/grpc-0", &["x"]))
            .statistics("^cluster.up2.grpc"),
        case("nothing said", "up2", json!({}))
            .send("ok", &call("/b.S/grpc-0", &["x"]))
            .statistics("^cluster.up2.grpc"),
        case("some", "up", listed)
            .send("listed", &call("/list.Ed/grpc-0", &["x"]))
            .send("listed, fails", &call("/list.Ed/grpc-3", &["x"]))
            .send("another method", &call("/list.Ed/grpc-4", &["x"]))
            .send("another service's method", &call("/list.Other/grpc-3", &["x"]))
            .send("another service", &call("/un.Listed/grpc-0", &["x"]))
            .statistics("^cluster.up.grpc.(list|un|[a-z0-9_]+$)"),
        case("without dots", "up", {
            let mut config = all();
            config["replace_dots_in_grpc_service_name"] = json!(true);
            config
        })
        .send("ok", &call("/dots.in.S/grpc-0", &["x"]))
        .send("none there", &call("/NoDots/grpc-0", &["x"]))
        .statistics("^cluster.up.grpc.(dots|No)"),
    ]);
}

/// One call, whose answer the upstream makes of this.
fn answered(target: &Target<'_>, view: &mut View, path: &str, answer: Response) {
    target.world.h2.answer(Reply::Respond(answer));
    let mut client = RawClient::connect(target.addr).unwrap();
    client.send(call(path, &["one", "two"]).as_bytes());
    view.add_answer("client", &client.response());
    view.add_requests("upstream", &target.world.take_requests());
}

fn grpc(body: &str) -> Response {
    Response::new(200, body).header("content-type", "application/grpc")
}

fn with_trailers(mut response: Response, trailers: &[(&str, &str)]) -> Response {
    response.trailers.0 = trailers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    response
}

#[test]
fn outcomes() {
    compare_cases(&[
        case("trailers", "h2", all())
            .drive(|target, view| {
                let body = "\0\0\0\0\u{2}hi\0\0\0\0\0";
                answered(target, view, "/t.S/Ok", with_trailers(grpc(body), &[("grpc-status", "0")]));
                answered(target, view, "/t.S/No", with_trailers(grpc(body), &[("grpc-status", "14")]));
                answered(
                    target,
                    view,
                    "/t.S/Odd",
                    with_trailers(grpc(body), &[("grpc-status", "9"), ("x", "y")]),
                );
                answered(target, view, "/t.S/None", with_trailers(grpc(body), &[("x", "y")]));
            })
            .statistics("^cluster.h2.grpc.t"),
        case("no gRPC", "h2", all())
            .drive(|target, view| {
                answered(target, view, "/n.S/Html", Response::new(200, "\0\0\0\0\0"));
                answered(target, view, "/n.S/Status", Response { status: 503, ..grpc("\0\0\0\0\0") });
                answered(
                    target,
                    view,
                    "/n.S/Head",
                    Response { status: 503, ..grpc("") }.header("grpc-status", "2"),
                );
            })
            .statistics("^cluster.h2.grpc.n"),
        case("no answer", "refusing", all())
            .send("refused", &call("/r.S/M", &["x"]))
            .statistics("^cluster.refusing.grpc")
            .deviates(
                "statistics",
                "a body that no upstream takes is not read, so its messages are not counted",
            ),
        Case::routes(
            "no call to a cluster",
            json!([{"match": {"prefix": "/"}, "direct_response": {"status": 503}}]),
        )
        .hcm(chain(&[filter("grpc_stats", "grpc_stats.v3.FilterConfig", all())]))
        .without_logs()
        .send("direct", &call("/d.S/M", &[]))
        .statistics("[.]grpc[.]d"),
        Case::routes(
            "disabled",
            json!([
                route("/off.S", says("grpc_stats", filter_config(json!({"disabled": true})))),
                route("/", json!({}))
            ]),
        )
        .hcm(chain(&[filter("grpc_stats", "grpc_stats.v3.FilterConfig", all())]))
        .without_logs()
        .send("off", &call("/off.S/grpc-0", &["x"]))
        .send("on", &call("/on.S/grpc-0", &["x"]))
        .statistics("^cluster.up.grpc.o"),
    ]);
}

#[test]
fn times() {
    let times = |mut config: Value| {
        config["enable_upstream_stats"] = json!(true);
        config
    };
    /// How many times the histogram of each name was told a time.
    fn counts(target: &Target<'_>, view: &mut View, filter: &str) {
        let page = || target.world.admin("GET", &format!("/stats/prometheus?filter={filter}")).text();
        // Envoy merges its workers' histograms now and then.
        let counted = wait::eventually("a time", || {
            let page = page();
            let lines = page.lines().filter(|line| line.contains("upstream_rq_time_count{"));
            let mut values: Vec<String> =
                lines.filter_map(|line| line.rsplit(' ').next()).map(str::to_owned).collect();
            values.retain(|value| value != "0");
            (!values.is_empty()).then(|| values.join(" "))
        });
        view.add("times", format!("  {counted}\n"));
    }
    compare_cases(&[
        case("by method", "h2", times(all())).drive(|target, view| {
            answered(target, view, "/Times/M", with_trailers(grpc("\0\0\0\0\0"), &[("grpc-status", "0")]));
            counts(target, view, "cluster.h2.grpc.*Times");
        }),
        case("together", "up", times(json!({}))).drive(|target, view| {
            let mut client = RawClient::connect(target.addr).unwrap();
            client.send(call("/a.S/grpc-0", &["x"]).as_bytes());
            view.add_answer("client", &client.response());
            counts(target, view, "cluster.up.grpc");
        }),
    ]);
}
