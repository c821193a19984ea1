//! What a route configuration says of all its routes, and matchers beyond path, headers and query.

use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{any_host, http_connection_manager, listener, overlay, type_url};
use outrigger_tests::certs::Pki;
use outrigger_tests::client::{Http2Client, Tls};
use outrigger_tests::differential::{Case, Target, View, compare, compare_cases};
use outrigger_tests::proxy::Launch;
use outrigger_tests::{Bootstrap, RawClient};
use serde_json::{Value, json};

fn answers(name: &str) -> Value {
    json!({"status": 200, "body": {"inline_string": name}})
}

fn direct(matched: Value, name: &str) -> Value {
    json!({"match": matched, "direct_response": answers(name)})
}

/// A connection manager with this route configuration.
fn configured(name: &'static str, hosts: Value, more: Value) -> Case {
    let mut config = json!({"name": "local_route", "virtual_hosts": hosts});
    overlay(&mut config, more);
    Case::plain(name).hcm(json!({ "route_config": config }))
}

fn cookie(name: &str, value: Value, invert: bool) -> Value {
    json!({"prefix": "/", "cookies": [{"name": name, "string_match": value, "invert_match": invert}]})
}

/// The same request by an HTTP/2 client, which splits its cookies.
fn split_cookies(target: &Target<'_>, view: &mut View) {
    let client = Http2Client::connect(target.addr).unwrap();
    let request = http::Request::get("http://h/").header("cookie", "a=1").header("cookie", "session=blue");
    let answer = client.send(request.body(Default::default()).unwrap());
    view.add_answer("HTTP/2", &answer.map_err(std::io::Error::other));
}

#[test]
fn cookies() {
    let rows = [
        ("exact", cookie("session", json!({"exact": "blue"}), false)),
        ("not exact", cookie("session", json!({"exact": "blue"}), true)),
        ("prefix", cookie("session", json!({"prefix": "BL", "ignore_case": true}), false)),
        ("regex", cookie("session", json!({"safe_regex": {"regex": "b.*e"}}), false)),
    ];
    let cases = rows.map(|(name, matched)| {
        Case::routes(name, json!([direct(matched, "matched"), direct(json!({"prefix": "/"}), "other")]))
            .header_lines(&[
                "",
                "cookie: session=blue\r\n",
                "cookie: a=1; session=blue; b=2\r\n",
                "cookie: session=\"blue\"\r\n",
                "cookie: a=1;session=blue\r\n",
                "cookie: session=red; session=blue\r\n",
                "cookie: session=red\r\ncookie: session=blue\r\n",
                "cookie: Session=blue\r\n",
                "cookie: session=\r\n",
                "cookie: session\r\n",
                "cookie: session = blue\r\n",
                "cookie: mysession=blue\r\n",
            ])
            .drive(split_cookies)
    });
    compare_cases(&cases);
}

#[test]
fn two_cookies() {
    let both = json!({"prefix": "/", "cookies": [
        {"name": "a", "string_match": {"exact": "1"}}, {"name": "b", "string_match": {"exact": "2"}, "invert_match": true}]});
    compare_cases(&[Case::routes(
        "both",
        json!([direct(both, "matched"), direct(json!({"prefix": "/"}), "other")]),
    )
    .header_lines(&[
        "cookie: a=1\r\n",
        "cookie: a=1; b=2\r\n",
        "cookie: a=1; b=3\r\n",
        "cookie: b=3\r\n",
    ])]);
}

#[test]
fn path_parameters() {
    let routes = json!([
        direct(json!({"path": "/exact"}), "exact"),
        direct(json!({"path": "/a/c"}), "two"),
        direct(json!({"path_separated_prefix": "/separated"}), "separated"),
        direct(json!({"safe_regex": {"regex": "/r[0-9]+"}}), "regex"),
        {"match": {"prefix": "/up"}, "route": {"cluster": "up", "prefix_rewrite": "/new"}},
        {"match": {"prefix": "/away"}, "redirect": {"prefix_rewrite": "/there"}},
        direct(json!({"prefix": "/q", "query_parameters": [{"name": "a", "string_match": {"exact": "1"}}]}), "query"),
        direct(json!({"prefix": "/"}), "other"),
    ]);
    let paths = [
        "/exact",
        "/exact;v=1",
        "/exact;v=1/more",
        "/exact;v=1?q",
        "/separated;x/y",
        "/separated/;x",
        "/r12;a=b",
        "/r12",
        "/up;v=1/x",
        "/away;v=1/x?q=1",
        "/q;x?a=1",
        "/q?a=1;b",
        "/a;b/c;d",
        "/a;b/c",
        "/;x",
        "/exact;",
        "/up;v=1;w/x;y",
    ];
    compare_cases(&[
        configured(
            "ignored",
            any_host(routes.clone()),
            json!({"ignore_path_parameters_in_path_matching": true}),
        )
        .paths(&paths),
        configured("not ignored", any_host(routes), json!({})).paths(&paths),
    ]);
}

#[test]
fn the_header_that_names_the_virtual_host() {
    let hosts = json!([
        {"name": "a", "domains": ["a.example", "a.example:8080"], "routes": [direct(json!({"prefix": "/"}), "a")]},
        {"name": "wild", "domains": ["*.wild.example"], "routes": [direct(json!({"prefix": "/"}), "wild")]},
        {"name": "any", "domains": ["*"], "routes": [direct(json!({"prefix": "/"}), "any")]},
    ]);
    let lines = [
        "",
        "x-host: a.example\r\n",
        "x-host: A.Example\r\n",
        "x-host: a.example:8080\r\n",
        "x-host: x.wild.example\r\n",
        "x-host: nobody\r\n",
        "x-host:\r\n",
        "x-host: a.example\r\nx-host: x.wild.example\r\n",
    ];
    let only =
        json!([{"name": "a", "domains": ["a.example"], "routes": [direct(json!({"prefix": "/"}), "a")]}]);
    compare_cases(&[
        configured("by header", hosts, json!({"vhost_header": "X-Host"}))
            .header_lines(&lines)
            .authorities(&["a.example"]),
        configured("no other", only, json!({"vhost_header": "x-host"}))
            .header_lines(&lines[..2])
            .authorities(&["a.example"]),
    ]);
}

#[test]
fn headers_from_inside_only() {
    let routes = || outrigger_tests::bootstrap::to("up");
    let lines = [
        "x-secret: 1\r\nX-Other: 2\r\n",
        "x-secret: 1\r\nx-forwarded-for: 10.0.0.1\r\n",
        "x-secret: 1\r\nx-forwarded-for: 8.8.8.8\r\n",
    ];
    let only = || json!({"internal_only_headers": ["x-secret"]});
    let with = |case: Case, more: Value| {
        let mut hcm = json!({"route_config": {"name": "local_route", "virtual_hosts": any_host(routes()), "internal_only_headers": ["x-secret"]}});
        overlay(&mut hcm, more);
        case.hcm(hcm)
    };
    let inside = json!({"internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}});
    let mut edge = inside.clone();
    edge["use_remote_address"] = true.into();
    compare_cases(&[
        configured("as it is", any_host(routes()), only()).header_lines(&lines),
        with(Case::plain("known addresses"), inside).header_lines(&lines),
        with(Case::plain("at the edge"), edge).header_lines(&lines),
        with(Case::plain("matched before"), json!({"route_config": {"virtual_hosts": any_host(json!([
            direct(json!({"prefix": "/", "headers": [{"name": "x-secret", "present_match": true}]}), "secret"),
            direct(json!({"prefix": "/"}), "plain")]))}})).header_lines(&lines),
    ]);
}

fn tls_context(pki: &Pki, more: Value) -> Value {
    let server = pki.trusted.leaf("server");
    let mut context = json!({
        "@type": type_url("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "common_tls_context": {"tls_certificates": [{
            "certificate_chain": {"filename": server.chain}, "private_key": {"filename": server.key}}]},
    });
    overlay(&mut context["common_tls_context"], more);
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

/// With and without a certificate, over TLS that asks for one, TLS that does not, and plain TCP.
#[test]
fn client_certificates() {
    let pki = Pki::new();
    let peer = |options: Value| json!({"prefix": "/", "tls_context": options});
    let routes = json!([
        direct(json!({"path": "/presented", "tls_context": {"presented": true}}), "presented"),
        direct(json!({"path": "/not-presented", "tls_context": {"presented": false}}), "not presented"),
        direct(json!({"path": "/validated", "tls_context": {"validated": true}}), "validated"),
        direct(json!({"path": "/not-validated", "tls_context": {"validated": false}}), "not validated"),
        direct(json!({"path": "/any", "tls_context": {}}), "any"),
        direct(peer(json!({"presented": true, "validated": false})), "shown only"),
        direct(json!({"prefix": "/"}), "other"),
    ]);
    let roots = json!({"validation_context": {"trusted_ca": {"filename": pki.trusted.root}}});
    let sockets = [
        ("roots", Some(tls_context(&pki, roots))),
        ("none asked", Some(tls_context(&pki, json!({})))),
        ("plain", None),
    ];
    let bootstrap = Bootstrap::new();
    let addrs = sockets.each_ref().map(|_| free_addr());
    let listeners: Vec<Value> = sockets
        .iter()
        .zip(addrs)
        .map(|((name, socket), addr)| {
            let mut listener =
                listener(name, addr, http_connection_manager(any_host(routes.clone()), json!({})));
            if let Some(socket) = socket {
                listener["filter_chains"][0]["transport_socket"] = socket.clone();
            }
            listener
        })
        .collect();
    bootstrap.write(&listeners, &[]);
    let paths = ["/presented", "/not-presented", "/validated", "/not-validated", "/any", "/"];
    let client = pki.trusted.leaf("client");
    compare(|engine| {
        let _proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        let mut view = View::default();
        for ((name, socket), addr) in sockets.iter().zip(addrs) {
            for certificate in [false, true] {
                let tls = Tls::trusting(&pki.trusted, "server.default.svc.cluster.local");
                let tls = if certificate { tls.identity(&client) } else { tls };
                let connect = || match socket {
                    Some(_) => RawClient::connect_tls(addr, &tls).unwrap(),
                    None => RawClient::connect(addr).unwrap(),
                };
                for path in paths {
                    view.add_answer(format!("{name}, {certificate}: {path}"), &connect().get("h", path));
                }
            }
        }
        Some(view)
    });
}
