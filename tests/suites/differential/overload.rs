//! The overload manager beside Envoy: under the same pressure the same is refused, closed and said.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{any_host, http_connection_manager, listener, overlay};
use outrigger_tests::differential::{Case, Target, View, compare, compare_cases_under};
use outrigger_tests::proxy::{Launch, Proxy};
use outrigger_tests::wait::until;
use outrigger_tests::{Bootstrap, Engine, Http2Client, RawClient};
use serde_json::{Value, json};

const HEAP: &str = "envoy.resource_monitors.fixed_heap";
const CONNECTIONS: &str = "envoy.resource_monitors.global_downstream_max_connections";
const FILE: &str = "envoy.resource_monitors.injected_resource";

const STOP_REQUESTS: &str = "envoy.overload_actions.stop_accepting_requests";
const DISABLE_KEEPALIVE: &str = "envoy.overload_actions.disable_http_keepalive";
const REJECT: &str = "envoy.overload_actions.reject_incoming_connections";
const STOP_CONNECTIONS: &str = "envoy.overload_actions.stop_accepting_connections";
const DECODE_HEADERS: &str = "envoy.load_shed_points.http_connection_manager_decode_headers";
const CODEC: &str = "envoy.load_shed_points.hcm_ondata_creating_codec";
const GO_AWAY: &str = "envoy.load_shed_points.http2_server_go_away_on_dispatch";
const ACCEPT: &str = "envoy.load_shed_points.tcp_listener_accept";

/// What both count.
const COUNTED: &str = "^overload.*(active|scale_percent|shed_load_count)$|^http.ingress.downstream_(rq_overload_close|cx_overload|rq_.xx|rq_completed|cx_total)";

fn monitor(name: &str, message: &str, fields: Value) -> Value {
    let mut config =
        json!({"@type": format!("type.googleapis.com/envoy.extensions.resource_monitors.{message}")});
    overlay(&mut config, fields);
    json!({"name": name, "typed_config": config})
}

/// A heap that is always too large.
fn heap() -> Value {
    monitor(HEAP, "fixed_heap.v3.FixedHeapConfig", json!({"max_heap_size_bytes": 1000}))
}

fn trigger(resource: &str) -> Value {
    json!([{"name": resource, "threshold": {"value": 0.9}}])
}

/// A manager that does this for good.
fn saturated(name: &str) -> Value {
    let list = if name.contains("overload_actions") { "actions" } else { "loadshed_points" };
    let mut manager = json!({"refresh_interval": "0.1s", "resource_monitors": [heap()]});
    manager[list] = json!([{"name": name, "triggers": trigger(HEAP)}]);
    json!({"overload_manager": manager})
}

/// Nothing is asked before the pressure was measured: the first request of each case only waits for that.
fn pressed(target: &Target<'_>, _: &mut View) {
    until("it is saturated", || {
        target
            .world
            .admin("GET", "/stats?filter=overload.*scale_percent")
            .text()
            .contains("scale_percent: 100")
    });
}

const POST: &str = "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody";
const GRPC: &str = "POST /a.B/C HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0";
const TWO: &str = "GET /1 HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HTTP/1.1\r\nhost: h\r\n\r\n";

fn of_http1(case: Case) -> Case {
    case.paths(&["/", "/ok?a=b"])
        .send_and_look("stays open", "GET /stay HTTP/1.1\r\nhost: h\r\n\r\n")
        .send_for(2, "two requests", TWO)
        .send_and_look("a body", POST)
        .send("gRPC", GRPC)
        .send("HEAD", "HEAD /h HTTP/1.1\r\nhost: h\r\n\r\n")
}

fn of_http2(target: &Target<'_>, view: &mut View) {
    for path in ["/", "/other"] {
        let client = Http2Client::connect(target.addr).unwrap();
        view.add_answer(format!("http2 {path}"), &client.get("h", path).map_err(std::io::Error::other));
    }
    view.add_requests("http2 upstream", &target.world.take_requests());
}

fn local_replies() -> Value {
    json!({"local_reply_config": {"body_format": {"text_format_source": {
        "inline_string": "%RESPONSE_CODE_DETAILS%: %LOCAL_REPLY_BODY%\n"}}}})
}

#[test]
fn requests_are_refused() {
    for name in [STOP_REQUESTS, DECODE_HEADERS] {
        compare_cases_under(
            &saturated(name),
            &[
                Case::plain("pressure").drive(pressed),
                of_http1(Case::plain("http1")).statistics(COUNTED),
                Case::plain("http2").drive(of_http2),
                Case::plain("said").hcm(json!({"append_local_overload": true})).paths(&["/"]),
                Case::plain("worded").hcm(local_replies()).paths(&["/"]).send("gRPC", GRPC),
                // Whatever else would be wrong with them.
                Case::plain("bad")
                    .hcm(json!({"normalize_path": true}))
                    .paths(&["/%00", "no-path"])
                    .send("no host", "GET / HTTP/1.1\r\n\r\n"),
            ],
        );
    }
}

#[test]
fn connections_end_with_their_response() {
    for name in [DISABLE_KEEPALIVE, GO_AWAY] {
        let http1 = Case::plain("http1")
            .paths(&["/", "/ok?a=b"])
            // Ours is closed at once, Envoy's when its client has had the time to do so.
            .send("a body", POST)
            .statistics(COUNTED);
        let mut cases = vec![Case::plain("pressure").drive(pressed), http1];
        if name == DISABLE_KEEPALIVE {
            // At the point Envoy's GOAWAY comes before the first request, which some clients then do not send.
            cases.push(Case::plain("http2").drive(of_http2));
        }
        compare_cases_under(&saturated(name), &cases);
    }
}

#[test]
fn connections_without_a_codec() {
    compare_cases_under(
        &saturated(CODEC),
        &[
            Case::plain("pressure").drive(pressed),
            Case::plain("http1").paths(&["/"]).send("a body", POST).statistics(COUNTED),
        ],
    );
}

/// Two listeners that answer by themselves, the second one with these members.
struct Listeners {
    bootstrap: Bootstrap,
    first: SocketAddr,
    second: SocketAddr,
}

impl Listeners {
    fn new(manager: impl FnOnce(&Bootstrap) -> Value, second: Value) -> Self {
        let (bootstrap, addrs) = (Bootstrap::new(), [free_addr(), free_addr()]);
        let mut listeners = addrs.map(|addr| {
            let routes = any_host(json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]));
            let mut one = listener("l", addr, http_connection_manager(routes, json!({})));
            one["name"] = json!(addr.to_string());
            one
        });
        overlay(&mut listeners[1], second);
        bootstrap.write_value(&json!({
            "overload_manager": manager(&bootstrap),
            "static_resources": {"listeners": listeners},
        }));
        Self { bootstrap, first: addrs[0], second: addrs[1] }
    }

    /// What the listeners count, by number and not by address.
    fn count(&self, proxy: &Proxy, view: &mut View) {
        let page = proxy.admin("/stats?usedonly&filter=listener.127.*downstream_(cx_overload_reject|global_cx_overflow|cx_total)$").text();
        let mut lines: Vec<String> = Vec::new();
        for (addr, name) in [(self.first, "first"), (self.second, "second")] {
            let prefix = format!("listener.{}.", addr.to_string().replace(':', "_"));
            let of = page.lines().filter_map(|line| line.strip_prefix(&prefix));
            lines.extend(
                of.filter(|line| !line.contains("worker") && !line.ends_with(": 0"))
                    .map(|line| format!("  {name} {line}\n")),
            );
        }
        view.add("listeners", lines.concat());
    }
}

fn served(client: &mut RawClient) -> bool {
    client.get("h", "/").is_ok_and(|response| response.status == 200)
}

fn is_served(addr: SocketAddr) -> bool {
    RawClient::connect(addr).is_ok_and(|mut client| served(&mut client))
}

/// `scale_percent` of all that there is.
fn is_saturated(proxy: &Proxy) -> bool {
    proxy.admin("/stats?filter=overload.*scale_percent").text().contains("scale_percent: 100")
}

#[test]
fn too_many_connections_are_closed() {
    let limit = |_: &Bootstrap| {
        let fields = json!({"max_active_downstream_connections": 2});
        let message = "downstream_connections.v3.DownstreamConnectionsConfig";
        // Envoy measures nothing where there is no other monitor.
        json!({"refresh_interval": "0.1s", "resource_monitors": [monitor(CONNECTIONS, message, fields), heap()]})
    };
    let listeners = Listeners::new(limit, json!({"ignore_global_conn_limit": true}));
    compare(|engine| {
        let proxy = Launch::new(engine).start(&listeners.bootstrap)?;
        let mut view = View::default();
        let mut two = [(); 2].map(|()| RawClient::connect(listeners.first).unwrap());
        view.add("two", format!("  {:?}\n", two.each_mut().map(served)));
        view.add("a third one", format!("  {}\n", is_served(listeners.first)));
        view.add("where that does not count", format!("  {}\n", is_served(listeners.second)));
        let [one, mut other] = two;
        drop(one);
        until("there is a place again", || is_served(listeners.first));
        view.add("the other one", format!("  {}\n", served(&mut other)));
        if engine == Engine::Outrigger {
            // Envoy takes those away that it has not counted.
            let pressure = || proxy.stat(&format!("overload.{CONNECTIONS}.pressure"));
            until("the pressure is known", || pressure() == Some(50));
        }
        Some(view)
    });
}

#[test]
fn connections_are_closed_at_once() {
    for name in [REJECT, ACCEPT] {
        let listeners = Listeners::new(
            |_| saturated(name)["overload_manager"].clone(),
            json!({"bypass_overload_manager": true}),
        );
        compare(|engine| {
            let proxy = Launch::new(engine).start(&listeners.bootstrap)?;
            until("it is saturated", || is_saturated(&proxy));
            let mut view = View::default();
            view.add("first", format!("  {:?}\n", [is_served(listeners.first), is_served(listeners.first)]));
            view.add("second", format!("  {}\n", is_served(listeners.second)));
            listeners.count(&proxy, &mut view);
            Some(view)
        });
    }
}

/// Files are replaced by renaming: that is what Envoy watches.
fn press(bootstrap: &Bootstrap, pressure: &str) {
    let (new, file) = (bootstrap.path("pressure.new"), bootstrap.path("pressure"));
    fs::write(&new, pressure).unwrap();
    fs::rename(new, file).unwrap();
}

#[test]
fn connections_wait_to_be_accepted() {
    let manager = |bootstrap: &Bootstrap| {
        press(bootstrap, "0.5");
        let fields = json!({"filename": bootstrap.path("pressure")});
        json!({
            "refresh_interval": "0.1s",
            "resource_monitors": [monitor(FILE, "injected_resource.v3.InjectedResourceConfig", fields)],
            "actions": [{"name": STOP_CONNECTIONS, "triggers": trigger(FILE)}],
        })
    };
    let listeners = Listeners::new(manager, json!({}));
    compare(|engine| {
        press(&listeners.bootstrap, "0.5");
        let proxy = Launch::new(engine).start(&listeners.bootstrap)?;
        let mut view = View::default();
        let mut before = RawClient::connect(listeners.first).unwrap();
        view.add("before", format!("  {}\n", served(&mut before)));
        press(&listeners.bootstrap, "0.95");
        until("it is saturated", || is_saturated(&proxy));
        view.add("open already", format!("  {}\n", served(&mut before)));
        let mut waiting = RawClient::connect(listeners.first).unwrap();
        waiting.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        view.add("refused", format!("  {}\n", waiting.closes_within(Duration::from_millis(300))));
        press(&listeners.bootstrap, "0.1");
        view.add_answer("waited", &waiting.response());
        Some(view)
    });
}
