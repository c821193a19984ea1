//! Everything that ends because it takes too long: what the client sees, the log says and the counters count.

use std::time::Duration;

use outrigger_tests::client::Http2Client;
use outrigger_tests::differential::{Case, Target, View, World, compare_cases};
use outrigger_tests::{RawClient, bootstrap};

use serde_json::{Value, json};

const COUNTED: &str = "^http.ingress.(downstream_rq_([0-9]|[a-z]*_(timeout|reached)|.xx|timeout|[rt]x_reset|total)|rq_total|downstream_cx_(idle|max)|no_)|\
    ^cluster.[a-z0-9]+.upstream_rq_(timeout|max_duration|cancelled|total|.xx|[0-9]+|[rt]x_reset)";

const POST: &str = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhalf";
const GRPC: &str = "GET /stall HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\n\r\n";

fn grpc(timeout: &str) -> String {
    format!(
        "GET /stall HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ngrpc-timeout: {timeout}\r\n\r\n"
    )
}

fn to(name: &'static str, cluster: &str, route: Value, hcm: Value) -> Case {
    let mut action = json!({"cluster": cluster, "timeout": "0s"});
    bootstrap::overlay(&mut action, route);
    Case::routes(name, json!([{"match": {"prefix": "/"}, "route": action}])).hcm(hcm)
}

/// A request of an HTTP/2 client and what comes of it.
fn of_http2(target: &Target<'_>, view: &mut View, path: &str, headers: &[(&str, &str)]) {
    let client = Http2Client::connect(target.addr).unwrap();
    let mut request = http::Request::get(format!("http://h{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.send(request.body(Default::default()).unwrap());
    // What the library says of a reset is not the proxy's.
    view.add_answer(
        format!("HTTP/2 {path}"),
        &answer.map_err(|_| std::io::ErrorKind::ConnectionReset.into()),
    );
    view.add_requests("upstream", &target.world.take_requests());
}

fn stalls(target: &Target<'_>, view: &mut View) {
    of_http2(target, view, "/half", &[]);
    never_answered(target, view);
}

fn never_answered(target: &Target<'_>, view: &mut View) {
    of_http2(target, view, "/stall", &[]);
    of_http2(target, view, "/stall", &[("content-type", "application/grpc"), ("te", "trailers")]);
}

#[test]
fn of_requests() {
    let limit = || json!({"request_timeout": "0.2s"});
    compare_cases(&[
        to("request", "up", json!({"timeout": "0.4s"}), limit())
            .send_and_look("a body", POST)
            .send_and_look("no body", "GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .paths(&["/stall"])
            .statistics(COUNTED),
        to("head", "up", json!({}), json!({"request_headers_timeout": "0.2s"}))
            .send_and_look("half a head", "GET / HTTP/1.1\r\nhost: h\r\n")
            .send_and_look("a body", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nok")
            .statistics(COUNTED),
    ]);
}

#[test]
fn silent_streams() {
    let limit = || json!({"stream_idle_timeout": "0.2s"});
    compare_cases(&[
        to("of the manager", "up", json!({}), limit())
            .paths(&["/stall", "/half", "/"])
            .send("gRPC", GRPC)
            .send_and_look("a body", POST)
            .drive(stalls)
            .statistics(COUNTED),
        to("of the route", "up", json!({"idle_timeout": "0.2s"}), json!({"stream_idle_timeout": "60s"}))
            .paths(&["/stall", "/half"])
            .statistics(COUNTED),
        to("longer than the manager's", "up", json!({"idle_timeout": "0.4s", "timeout": "0.3s"}), limit())
            .paths(&["/stall"]),
        to("none on the route", "up", json!({"idle_timeout": "0s", "timeout": "0.4s"}), limit())
            .paths(&["/stall", "/half"]),
        to("to HTTP/2", "h2", json!({}), limit())
            .paths(&["/stall"])
            .drive(never_answered)
            .statistics(COUNTED),
    ]);
}

/// Requests whose answer never comes: nobody limits them.
fn waits(target: &Target<'_>, view: &mut View) {
    for request in ["GET /stall HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(), grpc("9S")] {
        let mut client = RawClient::connect(target.addr).unwrap();
        client.send(request.as_bytes());
        view.add("ended", format!("{}\n", client.closes_within(Duration::from_millis(700))));
        client.reset();
        view.add_requests("upstream", &target.world.take_requests());
    }
}

#[test]
fn long_streams() {
    let limit = |limit: &str| json!({"common_http_protocol_options": {"max_stream_duration": limit}});
    let route = |of: Value| json!({ "max_stream_duration": of });
    compare_cases(&[
        to("of the manager", "up", json!({}), limit("0.2s"))
            .paths(&["/stall", "/half", "/"])
            .send("gRPC", GRPC)
            .send_and_look("a body", POST)
            .drive(stalls)
            .statistics(COUNTED),
        to("of the route", "up", route(json!({"max_stream_duration": "0.2s"})), limit("60s"))
            .paths(&["/stall", "/half"]),
        to(
            "none on the route",
            "up",
            json!({"max_stream_duration": {"max_stream_duration": "0s"}, "timeout": "0.4s"}),
            limit("0.2s"),
        )
        .drive(waits),
        to("as gRPC asks", "up", route(json!({"grpc_timeout_header_max": "0.3s"})), json!({}))
            .send("short", &grpc("200m"))
            .send("long", &grpc("60S"))
            .send("no gRPC", "GET /stall HTTP/1.1\r\nhost: h\r\ngrpc-timeout: 200m\r\n\r\n"),
        to(
            "less an offset",
            "up",
            route(json!({"grpc_timeout_header_max": "0s", "grpc_timeout_header_offset": "59.8s"})),
            json!({}),
        )
        .send("long", &grpc("60S")),
        to(
            "none of it",
            "up",
            route(json!({"max_stream_duration": "0.2s", "grpc_timeout_header_max": "60s"})),
            json!({}),
        )
        .send("none asked", GRPC),
        to("as it was asked before", "up", json!({"max_grpc_timeout": "0.3s"}), json!({}))
            .send("short", &grpc("200m"))
            .send("none asked", GRPC),
        to(
            "as it was asked before, less an offset",
            "up",
            json!({"max_grpc_timeout": "0s", "grpc_timeout_offset": "59.8s"}),
            json!({}),
        )
        .send("long", &grpc("60S")),
    ]);
}

fn limited(world: &World, name: &str, h2: bool) -> Value {
    let mut options =
        json!({"common_http_protocol_options": {"max_stream_duration": "0.2s"}, "explicit_http_config": {}});
    let (addr, kind) = if h2 {
        (world.h2.addr(), "http2_protocol_options")
    } else {
        (world.up.addr(), "http_protocol_options")
    };
    options["explicit_http_config"][kind] = json!({});
    options["@type"] = bootstrap::type_url("extensions.upstreams.http.v3.HttpProtocolOptions").into();
    bootstrap::cluster(
        name,
        &[addr],
        json!({"typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}}),
    )
}

#[test]
fn long_streams_of_upstreams() {
    compare_cases(&[
        to("HTTP/1", "short", json!({}), json!({}))
            .clusters(|world| vec![limited(world, "short", false)])
            .paths(&["/stall", "/half", "/"])
            .send("gRPC", GRPC)
            .statistics(COUNTED),
        to("HTTP/2", "short2", json!({}), json!({}))
            .clusters(|world| vec![limited(world, "short2", true)])
            .paths(&["/stall", "/"])
            .statistics(COUNTED),
        to(
            "tried again",
            "short3",
            json!({"retry_policy": {"retry_on": "5xx,reset", "num_retries": 1}}),
            json!({}),
        )
        .clusters(|world| vec![limited(world, "short3", false)])
        .paths(&["/stall"])
        .statistics(COUNTED),
        to("as the caller asks", "short4", json!({}), json!({}))
            .clusters(|world| vec![limited(world, "short4", false)])
            .send(
                "shorter",
                "GET /stall HTTP/1.1\r\nhost: h\r\nx-envoy-upstream-stream-duration-ms: 100\r\n\r\n",
            ),
    ]);
}

/// A request, silence, and whether the connection ends.
fn idle(target: &Target<'_>, view: &mut View) {
    let mut client = RawClient::connect(target.addr).unwrap();
    view.add_answer("first", &client.get("h", "/"));
    view.add("closed", format!("{}\n", client.closes_within(Duration::from_secs(5))));
    view.add_requests("upstream", &target.world.take_requests());
}

/// A request that comes when the connection is idle for too long already.
fn late(target: &Target<'_>, view: &mut View) {
    let mut client = RawClient::connect(target.addr).unwrap();
    view.add_answer("first", &client.get("h", "/"));
    assert!(!client.closes_within(Duration::from_millis(2500)));
    view.add_answer("late", &client.get("h", "/"));
    view.add_requests("upstream", &target.world.take_requests());
}

/// A connection on which nothing ever comes.
fn unused(target: &Target<'_>, view: &mut View) {
    let mut client = RawClient::connect(target.addr).unwrap();
    view.add("closed", format!("{}\n", client.closes_within(Duration::from_secs(5))));
}

/// A request that lasts longer than its connection may.
fn outlives(target: &Target<'_>, view: &mut View) {
    let gate = outrigger_tests::differential::hold(&target.world.up);
    let mut client = RawClient::connect(target.addr).unwrap();
    client.send(b"GET /held HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(!client.closes_within(Duration::from_millis(1000)));
    gate.open();
    view.add_answer("held", &client.response());
    view.add("closed", format!("{}\n", client.closes_within(Duration::from_secs(5))));
    view.add_requests("upstream", &target.world.take_requests());
}

#[test]
fn of_connections() {
    let short = || json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}, "drain_timeout": "0.3s"});
    let old = || json!({"common_http_protocol_options": {"max_connection_duration": "0.3s"}, "drain_timeout": "0.3s"});
    compare_cases(&[
        to("idle", "up", json!({}), short()).drive(idle).statistics(COUNTED),
        to("unused", "up", json!({}), short()).drive(unused).statistics(COUNTED),
        to("busy", "up", json!({}), short()).drive(outlives).statistics(COUNTED),
        to("old", "up", json!({}), old()).drive(idle).statistics(COUNTED),
        to("old and unused", "up", json!({}), old()).drive(unused).statistics(COUNTED),
        to("old and busy", "up", json!({}), old()).drive(outlives).statistics(COUNTED),
        to(
            "idle, and all the time to drain",
            "up",
            json!({}),
            json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}}),
        )
        .drive(late),
    ]);
}
