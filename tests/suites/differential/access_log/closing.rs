//! How connections of HTTP ended and why, in the lines of requests and in those of their listener.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::addr::{RefusingAddr, free_addr};
use outrigger_tests::bootstrap::{
    any_host, cluster, file_access_log, http_connection_manager, listener, overlay,
};
use outrigger_tests::differential::{View, compare};
use outrigger_tests::proxy::Launch;
use outrigger_tests::upstream::{Reply, Upstream};
use outrigger_tests::{Bootstrap, Http2Client, RawClient, wait};
use serde_json::{Value, json};

const FORMAT: &str = "%RESPONSE_CODE% %PROTOCOL% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% \
    %DOWNSTREAM_DETECTED_CLOSE_TYPE% %DOWNSTREAM_LOCAL_CLOSE_REASON% %UPSTREAM_DETECTED_CLOSE_TYPE% %UPSTREAM_LOCAL_CLOSE_REASON% \
    %CONNECTION_TERMINATION_DETAILS% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n";

/// What a client does with its connection.
type Client = fn(SocketAddr, &mut View);

const GET: &str = "GET /ok HTTP/1.1\r\nhost: h\r\n\r\n";
const HALF: &str = "POST /direct HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhalf";

fn send(addr: SocketAddr, bytes: &str) -> RawClient {
    let mut client = RawClient::connect(addr).unwrap();
    client.send(bytes.as_bytes());
    client
}

fn answered(mut client: RawClient, view: &mut View) -> RawClient {
    view.add(
        "status",
        format!("{:?}\n", client.response().map(|answer| answer.status).map_err(|e| e.kind())),
    );
    client
}

/// Whether we end it soon, with the client still there.
fn expect_end(mut client: RawClient, view: &mut View) {
    view.add("closed", format!("{}\n", client.closes_within(Duration::from_secs(5))));
}

/// The same, and the client stays whatever comes.
fn stay(mut client: RawClient, view: &mut View) {
    view.add("closed", format!("{}\n", client.closes_within(Duration::from_secs(5))));
    std::mem::forget(client);
}

/// Framing of HTTP/2 is its peers' own: bytes are left out.
fn masked(line: &str) -> String {
    match line.split_once(" HTTP/2 - ") {
        Some((code, rest)) => {
            let rest: Vec<&str> = rest.split(' ').skip(2).collect();
            format!("{code} HTTP/2 - (bytes) {}\n", rest.join(" "))
        }
        None => format!("{line}\n"),
    }
}

fn rows() -> Vec<(&'static str, Value, Client)> {
    let idle = |name: &str| json!({"common_http_protocol_options": {name: "0.1s"}});
    vec![
        ("the client ends it", json!({}), |addr, view| drop(answered(send(addr, GET), view))),
        ("the client resets it", json!({}), |addr, view| answered(send(addr, GET), view).reset()),
        ("the client leaves before the answer", json!({}), |addr, _| {
            drop(send(addr, &GET.replace("ok", "stall")))
        }),
        ("the last response", json!({}), |addr, view| {
            let last = GET.replace("host", "connection: close\r\nhost");
            expect_end(answered(send(addr, &last), view), view);
        }),
        ("an early answer", json!({"delayed_close_timeout": "0.2s"}), |addr, view| {
            stay(answered(send(addr, HALF), view), view);
        }),
        ("an early answer to who leaves", json!({}), |addr, view| drop(answered(send(addr, HALF), view))),
        ("an early answer that is not waited for", json!({"delayed_close_timeout": "0s"}), |addr, view| {
            expect_end(answered(send(addr, HALF), view), view);
        }),
        ("nobody there", json!({}), |addr, view| {
            drop(answered(send(addr, &GET.replace("ok", "away")), view))
        }),
        ("nothing is said", json!({}), |addr, _| drop(RawClient::connect(addr).unwrap())),
        ("never used", idle("idle_timeout"), |addr, view| {
            expect_end(RawClient::connect(addr).unwrap(), view)
        }),
        ("open for too long", idle("max_connection_duration"), |addr, view| {
            expect_end(RawClient::connect(addr).unwrap(), view);
        }),
        (
            "a late head",
            json!({"request_headers_timeout": "0.1s", "delayed_close_timeout": "0.1s"}),
            |addr, view| {
                stay(answered(send(addr, "GET /"), view), view);
            },
        ),
        ("HTTP/2", json!({}), |addr, view| {
            let client = Http2Client::connect(addr).unwrap();
            view.add("status", format!("{:?}\n", client.get("h", "/ok").map(|answer| answer.status).ok()));
        }),
    ]
}

#[test]
fn of_http() {
    let up = Upstream::start();
    up.answer_with(|request| match request.target.as_str() {
        "/stall" => Reply::Stall,
        _ => Reply::status(200, "ok"),
    });
    let nobody = RefusingAddr::reserve();
    let routes = json!([
        {"match": {"path": "/direct"}, "direct_response": {"status": 200}},
        {"match": {"path": "/away"}, "route": {"cluster": "nobody"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "up"}},
    ]);
    let rows = rows();
    let bootstrap = Bootstrap::new();
    let addrs: Vec<SocketAddr> = rows.iter().map(|_| free_addr()).collect();
    let log = |kind: &str, number: usize| {
        file_access_log(&bootstrap.path(&format!("{number}-{kind}")), Some(FORMAT))
    };
    let listeners: Vec<Value> = (rows.iter().zip(&addrs).enumerate())
        .map(|(number, ((name, more, _), addr))| {
            let mut hcm = json!({"access_log": [log("requests", number)]});
            overlay(&mut hcm, more.clone());
            let mut listener = listener(name, *addr, http_connection_manager(any_host(routes.clone()), hcm));
            listener["access_log"] = json!([log("listener", number)]);
            listener
        })
        .collect();
    let clusters =
        [cluster("up", &[up.addr()], Value::Null), cluster("nobody", &[nobody.addr()], Value::Null)];
    bootstrap.write(&listeners, &clusters);
    compare(|engine| {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        let mut all = View::default();
        for ((name, _, client), addr) in rows.iter().zip(&addrs) {
            let mut view = View::default();
            client(*addr, &mut view);
            for (block, text) in view.blocks() {
                all.add(format!("{name}: {block}"), text);
            }
        }
        wait::until("all connections have ended", || {
            let open = proxy.admin("/stats?filter=^listener.127.*downstream_cx_active").text();
            open.lines().filter(|line| !line.contains("worker_")).all(|line| line.ends_with(": 0"))
        });
        proxy.stop();
        for (number, (name, ..)) in rows.iter().enumerate() {
            for kind in ["requests", "listener"] {
                let lines = bootstrap.take_log(&format!("{number}-{kind}"));
                all.add(format!("{name}: {kind}"), lines.iter().map(|line| masked(line)).collect::<String>());
            }
        }
        Some(all)
    });
}
