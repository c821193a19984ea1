//! What is hashed: the same request reaches the same host as through an Envoy, and is answered with the same cookie.

use std::net::SocketAddr;

use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{file_access_log, listener, tcp_proxy, to};
use outrigger_tests::differential::{Case, View, compare, compare_cases};
use outrigger_tests::proxy::Launch;
use outrigger_tests::{Bootstrap, RawClient};
use serde_json::{Value, json};

use crate::hashed_hosts::{by, by_user, hashed, users};

/// A case over a Maglev table of 20 hosts.
fn hashing(name: &'static str, policies: Value) -> Case {
    by(name, name, policies)
}

macro_rules! maglev {
    ($name:literal, $policies:expr) => {
        hashing($name, $policies).clusters(|_| vec![hashed($name, 20, json!({"lb_policy": "MAGLEV"}))])
    };
}

#[test]
fn headers() {
    let lines = [
        "x-user: a\r\n",
        "X-USER: a\r\n",
        "x-user: a b\r\n",
        "x-user: a\r\nx-user: b\r\n",
        "x-user: b\r\nx-user: a\r\n",
        "x-user: ab\r\n",
        "x-user: a,b\r\n",
        "x-user: c\r\nx-user: a\r\nx-user: b\r\n",
        "x-user:\r\n",
        "x-user: a-12\r\n",
        "x-user: a-123\r\n",
        "x-user: 12-b\r\nx-user: a-12\r\n",
    ];
    let rewritten = json!([{"header": {"header_name": "x-user",
        "regex_rewrite": {"pattern": {"regex": "^(.*)-[0-9]+"}, "substitution": "\\1!"}}}]);
    compare_cases(&[
        maglev!("header", by_user()).header_lines(&lines),
        maglev!("rewritten", rewritten).header_lines(&lines),
        maglev!("authority", json!([{"header": {"header_name": ":authority"}}]))
            .authorities(&["a", "b:80", "C"]),
        maglev!("host", json!([{"header": {"header_name": "Host"}}])).authorities(&["a", "b:80", "C"]),
        maglev!("path", json!([{"header": {"header_name": ":path"}}])).paths(&["/a", "/b?c=d", "/c//d"]),
        maglev!("method", json!([{"header": {"header_name": ":method"}}])).paths(&["/"]),
    ]);
}

#[test]
fn cookies_of_the_client() {
    let lines = [
        "cookie: user=a\r\n",
        "cookie: other=1; user=a; user=b\r\n",
        "cookie: other=1\r\ncookie: user=b\r\n",
        "cookie: user=\"quoted\"\r\n",
        "cookie: user=\"half\r\n",
        "cookie: user=a=b;c\r\n",
        "cookie:user=a ;x\r\n",
        "cookie: novalue; user=c\r\n",
    ];
    let cookie = |more: Value| {
        let mut cookie = json!({"name": "user"});
        outrigger_tests::bootstrap::overlay(&mut cookie, more);
        json!([{ "cookie": cookie }])
    };
    compare_cases(&[
        maglev!("cookie", cookie(json!({}))).header_lines(&lines),
        maglev!("never made", cookie(json!({"ttl": "60s"}))).header_lines(&lines),
    ]);
}

/// Who has no cookie gets one. It is made of the ends of the connection, so the client always uses the same port.
#[test]
fn cookies_that_are_made() {
    fn from_one_port(target: &outrigger_tests::differential::Target<'_>, view: &mut View) {
        // The same for both proxies.
        let local = SocketAddr::from(([127, 7, 7, 7], target.addr.port()));
        for (name, path, lines) in [
            ("none", "/", ""),
            ("empty", "/", "cookie: user=\r\n"),
            ("another", "/", "cookie: users=x\r\n"),
            ("one", "/", "cookie: user=x\r\n"),
            ("the upstream's answer is an error", "/503", ""),
        ] {
            let mut client = RawClient::connect_from(local, target.addr).unwrap();
            client.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n{lines}\r\n").as_bytes());
            view.add_answer(name, &client.response());
            client.reset();
        }
    }
    let attributes = json!([{"name": "SameSite", "value": "Lax"}, {"name": "Secure"}]);
    let made = |cookie: Value| json!([{ "cookie": cookie }]);
    let retried = json!({"cluster": "retried", "hash_policy": made(json!({"name": "user", "ttl": "60s"})),
        "retry_policy": {"retry_on": "5xx", "retry_back_off": {"base_interval": "0.001s"}}});
    compare_cases(&[
        maglev!("for a session", made(json!({"name": "user", "ttl": "0s"}))).drive(from_one_port),
        maglev!("for a time", made(json!({"name": "user", "ttl": "90.7s", "path": "/p"})))
            .drive(from_one_port),
        maglev!(
            "attributes",
            made(json!({"name": "user", "ttl": "9s", "path": "/", "attributes": attributes}))
        )
        .drive(from_one_port),
        maglev!(
            "two",
            json!([{"cookie": {"name": "user", "ttl": "9s"}}, {"cookie": {"name": "other", "ttl": "8s"}}])
        )
        .drive(from_one_port),
        Case::routes("retried", json!([{"match": {"prefix": "/"}, "route": retried}]))
            .clusters(|_| vec![hashed("retried", 20, json!({"lb_policy": "MAGLEV"}))])
            .drive(from_one_port)
            .deviates(
                "the upstream's answer is an error",
                "Envoy sets the cookie once for each attempt; one is enough",
            ),
        // Nobody asks for the hash.
        maglev!("no table", made(json!({"name": "user", "ttl": "60s"})))
            .clusters(|_| vec![hashed("no table", 1, json!({"lb_policy": "RANDOM"}))])
            .drive(from_one_port),
    ]);
}

#[test]
fn where_requests_come_from() {
    let source = || json!([{"connection_properties": {"source_ip": true}}]);
    let forwarded = [
        "x-forwarded-for: 10.0.0.1\r\n",
        "x-forwarded-for: 10.0.0.2, 2001:db8::1\r\n",
        "x-forwarded-for: none\r\n",
        "",
    ];
    compare_cases(&[
        maglev!("source", source()).hcm(json!({"use_remote_address": false})).header_lines(&forwarded),
        // Nothing else asks for the address.
        maglev!("without a log", source()).hcm(json!({"access_log": []})).header_lines(&forwarded),
        maglev!("hops", source()).hcm(json!({"xff_num_trusted_hops": 1})).header_lines(&forwarded),
        maglev!(
            "off",
            json!([{"connection_properties": {"source_ip": false}}, {"header": {"header_name": "x-user"}}])
        )
        .header_lines(&["x-user: a\r\n", "x-user: b\r\n"]),
        maglev!("addresses", source()).drive(|target, view| {
            for last in 1..=12 {
                // The same port with both proxies: it is in the log.
                let local = SocketAddr::from(([127, 7, 7, last], target.addr.port()));
                let mut client = RawClient::connect_from(local, target.addr).unwrap();
                view.add_answer(format!("from {}", local.ip()), &client.get("h", "/"));
                client.reset();
            }
        }),
    ]);
}

#[test]
fn queries() {
    let paths = [
        "/?user=a",
        "/?x=1&user=b&user=c",
        "/?user",
        "/?user=",
        "/?user=%61",
        "/?user=a=b",
        "/p?User=a&user=A",
    ];
    compare_cases(&[maglev!("query", json!([{"query_parameter": {"name": "user"}}])).paths(&paths)]);
}

#[test]
fn several() {
    let user = |terminal: bool| json!({"header": {"header_name": "x-user"}, "terminal": terminal});
    let team = |terminal: bool| json!({"header": {"header_name": "x-team"}, "terminal": terminal});
    let lines = [
        "x-user: a\r\nx-team: t\r\n",
        "x-user: a\r\nx-team: a\r\n",
        "x-user: a\r\n",
        "x-team: t\r\n",
        "x-user: b\r\nx-team: t\r\ncookie: c=1\r\n",
    ];
    compare_cases(&[
        maglev!("both", json!([user(false), team(false)])).header_lines(&lines),
        maglev!("the other way round", json!([team(false), user(false)])).header_lines(&lines),
        maglev!("twice", json!([user(false), team(false), user(false)])).header_lines(&lines[..4]),
        maglev!("first ends it", json!([user(true), team(false)])).header_lines(&lines),
        maglev!("second ends it", json!([user(false), team(true), {"cookie": {"name": "c"}}]))
            .header_lines(&lines),
    ]);
}

/// The hash is that of the request as the route has made it.
#[test]
fn routes_change_requests_before_that() {
    let route = |name: &str, policies: Value, more: Value| {
        let mut route =
            json!({"match": {"prefix": "/"}, "route": {"cluster": name, "hash_policy": policies}});
        outrigger_tests::bootstrap::overlay(&mut route["route"], more);
        route["request_headers_to_add"] = json!([{"header": {"key": "x-user", "value": "fixed"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]);
        json!([route])
    };
    let path = json!([{"header": {"header_name": ":path"}}]);
    compare_cases(&[
        users(Case::routes("header", route("header", by_user(), json!({}))))
            .clusters(|_| vec![hashed("header", 20, json!({"lb_policy": "MAGLEV"}))]),
        Case::routes("path", route("path", path, json!({"prefix_rewrite": "/new/"})))
            .paths(&["/a", "/b", "/c"])
            .clusters(|_| vec![hashed("path", 20, json!({"lb_policy": "MAGLEV"}))]),
    ]);
}

/// Weighted clusters are drawn as ever; each has its table.
#[test]
fn in_weighted_clusters() {
    let action = json!({"hash_policy": by_user(), "weighted_clusters": {"clusters": [
        {"name": "weighted", "weight": 100}, {"name": "up", "weight": 0}]}});
    compare_cases(&[users(Case::routes("weighted", json!([{"match": {"prefix": "/"}, "route": action}])))
        .clusters(|_| vec![hashed("weighted", 20, json!({"lb_policy": "RING_HASH"}))])]);
}

/// A cluster without a table takes no notice of policies.
#[test]
fn without_a_table() {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "up", "hash_policy": by_user()}}]);
    compare_cases(&[
        Case::routes("hashed", routes).header_lines(&["x-user: a\r\n"]),
        Case::routes("plain", to("up")).header_lines(&["x-user: a\r\n"]),
    ]);
}

#[test]
fn tcp_connections() {
    let bootstrap = Bootstrap::new();
    let addr = free_addr();
    let more = json!({
        "hash_policy": [{"source_ip": {}}],
        "access_log": [file_access_log(&bootstrap.path("log"), Some("%UPSTREAM_HOST%\n"))],
    });
    let clusters = [hashed("tcp", 20, json!({"lb_policy": "RING_HASH"}))];
    bootstrap.write(&[listener("tcp", addr, tcp_proxy("tcp", more))], &clusters);
    compare(|engine| {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        for last in 1..=12 {
            let mut client = RawClient::connect_from(([127, 7, 7, last], 0).into(), addr).unwrap();
            assert_eq!(client.get("h", "/").unwrap().status, 200);
            client.finish();
            let _ = client.read_to_end();
        }
        proxy.stop();
        let mut view = View::default();
        view.add("hosts", bootstrap.take_log("log").join("\n"));
        Some(view)
    });
}
