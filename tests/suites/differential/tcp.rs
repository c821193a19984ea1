//! TCP below HTTP: how connections end, and what the access log says about them.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::addr::{RefusingAddr, free_addr};
use outrigger_tests::bootstrap::{cluster, file_access_log, listener, tcp_proxy};
use outrigger_tests::differential::{ISTIO_FORMAT, View, compare, mask_log_line};
use outrigger_tests::proxy::Launch;
use outrigger_tests::upstream::{TcpBehaviour, TcpUpstream};
use outrigger_tests::{Bootstrap, RawClient};
use serde_json::{Value, json};

/// How both connections ended.
const ENDS: &str = "%DOWNSTREAM_DETECTED_CLOSE_TYPE% %DOWNSTREAM_LOCAL_CLOSE_REASON% %UPSTREAM_DETECTED_CLOSE_TYPE% \
                    %UPSTREAM_LOCAL_CLOSE_REASON% %DOWNSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_HEADER_BYTES_SENT% \
                    %UPSTREAM_WIRE_BYTES_RECEIVED%";

/// What a client does with its connection; it writes what it saw.
type Client = fn(RawClient, &mut View);

fn echo(mut client: RawClient, view: &mut View) {
    client.send(b"hello");
    view.add("echo", format!("{:?}\n", client.read_exactly(5)));
    client.finish();
    view.add("end", format!("{:?}\n", client.read_to_end()));
}

fn listen(mut client: RawClient, view: &mut View) {
    view.add("greeting", format!("{:?}\n", client.read_exactly(6)));
    client.finish();
    view.add("end", format!("{:?}\n", client.read_to_end()));
}

/// The other side must end the connection; whether by FIN or by RST is seen too.
fn expect_end(mut client: RawClient, view: &mut View) {
    let end = client.read_to_end().map_err(|error| error.kind());
    view.add("end", format!("{end:?}\n"));
}

fn send_and_expect_end(mut client: RawClient, view: &mut View) {
    client.send(b"hello");
    expect_end(client, view);
}

fn leave(mut client: RawClient, view: &mut View) {
    client.send(b"hello");
    view.add("echo", format!("{:?}\n", client.read_exactly(5)));
    client.reset();
}

#[test]
fn connections() {
    let echoing = TcpUpstream::start(TcpBehaviour::Echo);
    let greeting = TcpUpstream::start(TcpBehaviour::Greet(b"hello\n".to_vec()));
    let resetting = TcpUpstream::start(TcpBehaviour::Reset);
    let nobody = RefusingAddr::reserve();
    let clusters = [
        cluster("echo", &[echoing.addr()], json!({})),
        cluster("greet", &[greeting.addr()], json!({})),
        cluster("reset", &[resetting.addr()], json!({})),
        cluster("refuse", &[nobody.addr()], json!({})),
        cluster("empty", &[], json!({})),
        cluster(
            "full",
            &[echoing.addr()],
            json!({"circuit_breakers": {"thresholds": [{"max_connections": 0}]}}),
        ),
    ];
    let rows: [(&str, Value, Client); 10] = [
        ("echo", json!({"cluster": "echo"}), echo),
        ("server first", json!({"cluster": "greet"}), listen),
        ("client resets", json!({"cluster": "echo"}), leave),
        ("upstream resets", json!({"cluster": "reset"}), send_and_expect_end),
        ("refused", json!({"cluster": "refuse", "max_connect_attempts": 1}), expect_end),
        ("no endpoint", json!({"cluster": "empty"}), expect_end),
        ("missing cluster", json!({"cluster": "missing"}), expect_end),
        ("circuit breaker", json!({"cluster": "full"}), expect_end),
        (
            "too long",
            json!({"cluster": "echo", "max_downstream_connection_duration": "0.1s"}),
            |mut client, view| {
                view.add("closed", format!("{}\n", client.closes_within(Duration::from_secs(5))));
            },
        ),
        ("idle", json!({"cluster": "echo", "idle_timeout": "0.1s"}), |mut client, view| {
            view.add("closed", format!("{}\n", client.closes_within(Duration::from_secs(5))));
        }),
    ];
    let bootstrap = Bootstrap::new();
    let addrs: Vec<SocketAddr> = rows.iter().map(|_| free_addr()).collect();
    let log = |number: usize| format!("{number}.log");
    let format = format!("{} {ENDS}\n", ISTIO_FORMAT.trim_end());
    let listeners: Vec<Value> = (rows.iter().zip(&addrs).enumerate())
        .map(|(number, ((name, config, _), addr))| {
            let mut config = config.clone();
            config["access_log"] = json!([file_access_log(&bootstrap.path(&log(number)), Some(&format))]);
            listener(name, *addr, tcp_proxy("echo", config))
        })
        .collect();
    bootstrap.write(&listeners, &clusters);

    compare(|engine| {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        let mut all = View::default();
        for ((name, _, client), addr) in rows.iter().zip(&addrs) {
            let mut view = View::default();
            client(RawClient::connect(*addr).unwrap(), &mut view);
            for (block, text) in view.blocks() {
                all.add(format!("{name}: {block}"), text);
            }
        }
        proxy.stop();
        for (number, (name, ..)) in rows.iter().enumerate() {
            let lines = bootstrap.take_log(&log(number));
            all.add(
                format!("{name}: log"),
                lines.iter().map(|line| mask_log_line(line) + "\n").collect::<String>(),
            );
        }
        Some(all)
    });
}
