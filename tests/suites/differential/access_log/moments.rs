//! When lines are written: at the end, and before.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{cluster, file_access_log, listener, overlay, tcp_proxy};
use outrigger_tests::differential::{View, compare};
use outrigger_tests::proxy::Launch;
use outrigger_tests::upstream::{TcpBehaviour, TcpUpstream};
use outrigger_tests::{Bootstrap, RawClient};
use serde_json::{Value, json};

use super::{Row, compare_logs};

const FORMAT: &str = "%ACCESS_LOG_TYPE% %REQ(:PATH)% %RESPONSE_CODE% %ROUTE_NAME% %UPSTREAM_CLUSTER% %BYTES_SENT% %RESPONSE_FLAGS%";

#[test]
fn of_requests() {
    let on_start = json!({"access_log_options": {"flush_access_log_on_new_request": true}});
    let only =
        |types: &[&str], exclude: bool| json!({"log_type_filter": {"types": types, "exclude": exclude}});
    let paths = ["/", "/direct", "/away"];
    compare_logs(&[
        Row::text("at the end", FORMAT, &paths),
        Row::text("on a new request", FORMAT, &paths).hcm(on_start.clone()),
        Row::text("as it was called before", FORMAT, &paths)
            .hcm(json!({"flush_access_log_on_new_request": true})),
        Row::text("only the start", FORMAT, &paths)
            .hcm(on_start.clone())
            .filter(only(&["DownstreamStart"], false)),
        Row::text("all but the start", FORMAT, &paths).hcm(on_start).filter(only(&["DownstreamStart"], true)),
        Row::text("never", FORMAT, &paths).filter(only(&["TcpConnectionEnd"], false)),
    ]);
}

/// Below HTTP: in logs of the proxy and of the listener.
#[test]
fn of_connections() {
    const FORMAT: &str = "%ACCESS_LOG_TYPE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %UPSTREAM_HOSTS_ATTEMPTED% \
        %DOWNSTREAM_WIRE_BYTES_RECEIVED% %UPSTREAM_WIRE_BYTES_RECEIVED% %UPSTREAM_PROTOCOL% %PATH% %FILTER_CHAIN_NAME%\n";
    let options = |options: Value| json!({ "access_log_options": options });
    let header = json!({"header_filter": {"header": {"name": "x", "present_match": true}}});
    let rows: [(&str, Value, Value); 8] = [
        ("at the end", json!({}), Value::Null),
        ("at the start", options(json!({"flush_access_log_on_start": true})), Value::Null),
        ("connected", options(json!({"flush_access_log_on_connected": true})), Value::Null),
        ("as it was called before", json!({"flush_access_log_on_connected": true}), Value::Null),
        ("not connected", json!({"cluster": "missing", "flush_access_log_on_connected": true}), Value::Null),
        ("a header", json!({}), header),
        ("a flag", json!({"cluster": "missing"}), json!({"response_flag_filter": {"flags": ["NC"]}})),
        ("no flag", json!({}), json!({"response_flag_filter": {}})),
    ];
    let echoing = TcpUpstream::start(TcpBehaviour::Echo);
    let bootstrap = Bootstrap::new();
    let addrs: Vec<SocketAddr> = rows.iter().map(|_| free_addr()).collect();
    let file = |number: usize, whose: &str| format!("{number}-{whose}.log");
    let listeners: Vec<Value> = (rows.iter().zip(&addrs).enumerate())
        .map(|(number, ((name, config, filter), addr))| {
            let log = |whose: &str| {
                let mut log = file_access_log(&bootstrap.path(&file(number, whose)), Some(FORMAT));
                if !filter.is_null() {
                    log["filter"] = filter.clone();
                }
                json!([log])
            };
            let mut proxy = json!({"access_log": log("proxy")});
            overlay(&mut proxy, config.clone());
            let mut listener = listener(name, *addr, tcp_proxy("echo", proxy));
            listener["access_log"] = log("listener");
            listener["filter_chains"][0]["name"] = "tcp-chain".into();
            listener
        })
        .collect();
    bootstrap.write(&listeners, &[cluster("echo", &[echoing.addr()], json!({}))]);
    compare(|engine| {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        for addr in &addrs {
            let mut client = RawClient::connect(*addr).unwrap();
            client.send(b"hello");
            // A connection without a cluster is closed or reset.
            let _ = client.read_exactly(5);
            client.finish();
            let _ = client.read_to_end();
        }
        proxy.stop();
        let mut view = View::default();
        for (number, (name, ..)) in rows.iter().enumerate() {
            for whose in ["proxy", "listener"] {
                let lines = bootstrap.take_log(&file(number, whose));
                view.add(
                    format!("{name}: {whose}"),
                    lines.iter().map(|l| format!("{l}\n")).collect::<String>(),
                );
            }
        }
        Some(view)
    });
}

/// The first line of a connection that stays comes after the interval.
#[test]
fn from_time_to_time() {
    let echoing = TcpUpstream::start(TcpBehaviour::Echo);
    let (bootstrap, addr) = (Bootstrap::new(), free_addr());
    let log =
        file_access_log(&bootstrap.path("0.log"), Some("%ACCESS_LOG_TYPE% %BYTES_RECEIVED% %BYTES_SENT%\n"));
    let config = json!({"access_log": [log], "access_log_options": {"access_log_flush_interval": "0.2s"}});
    bootstrap.write(
        &[listener("l", addr, tcp_proxy("echo", config))],
        &[cluster("echo", &[echoing.addr()], json!({}))],
    );
    compare(|engine| {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        let mut client = RawClient::connect(addr).unwrap();
        client.send(b"hello");
        client.read_exactly(5).unwrap();
        // Silence of more than an interval: a line is written meanwhile.
        assert!(!client.closes_within(Duration::from_millis(700)));
        client.finish();
        client.read_to_end().unwrap();
        proxy.stop();
        let mut lines = bootstrap.take_log("0.log");
        let last = lines.pop();
        // How many there are is a matter of time.
        lines.dedup();
        let mut view = View::default();
        view.add("lines", format!("{lines:?} {last:?}\n"));
        Some(view)
    });
}
