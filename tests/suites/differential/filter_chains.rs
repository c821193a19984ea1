//! Which filter chain a connection gets: by server name, by transport and application protocol, by addresses.

use std::net::SocketAddr;

use outrigger_tests::bootstrap::{
    any_host, cluster, file_access_log, http_connection_manager, socket_address, tcp_proxy, type_url,
};
use outrigger_tests::certs::{Leaf, Pki};
use outrigger_tests::differential::{View, compare, mask_log_line};
use outrigger_tests::proxy::Launch;
use outrigger_tests::{Bootstrap, Http2Client, RawClient, Tls, addr};
use serde_json::{Value, json};

/// A chain that answers with its name.
fn chain(name: &str, condition: Value, certificate: Option<&Leaf>, log: &Value) -> Value {
    let answer = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": name}}}]);
    let manager = http_connection_manager(any_host(answer), json!({"access_log": [log]}));
    let mut chain = json!({"name": name, "filter_chain_match": condition, "filters": [manager]});
    if let Some(leaf) = certificate {
        chain["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": type_url("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{
                    "certificate_chain": {"filename": leaf.chain},
                    "private_key": {"filename": leaf.key},
                }],
            },
        }});
    }
    chain
}

/// A listener with a `tls_inspector` whose own log tells of connections that no chain takes.
fn inspecting(addr: SocketAddr, chains: &[Value], log: &Value) -> Value {
    json!({
        "name": "inspecting",
        "address": socket_address(addr),
        "access_log": [log],
        "listener_filters": [{
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {"@type": type_url("extensions.filters.listener.tls_inspector.v3.TlsInspector")},
        }],
        "filter_chains": chains,
    })
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn host(name: &str) -> String {
    format!("{name}.default.svc.cluster.local")
}

#[test]
fn chains() {
    let pki = Pki::new();
    let [a, b, c, d] = NAMES.map(|name| pki.trusted.leaf(name));
    let bootstrap = Bootstrap::new();
    let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
                  %REQUESTED_SERVER_NAME% %DOWNSTREAM_TLS_VERSION%\n";
    let log = file_access_log(&bootstrap.path("log"), Some(format));
    let (inspected, narrow) = (addr::free_addr(), addr::free_addr());
    let chains = [
        chain("exact name", json!({"server_names": [host("a")]}), Some(&a), &log),
        chain(
            "h2 of a name",
            json!({"server_names": [host("c")], "application_protocols": ["h2"]}),
            Some(&c),
            &log,
        ),
        chain("suffix", json!({"server_names": ["*.default.svc.cluster.local"]}), Some(&b), &log),
        chain(
            "own protocol",
            json!({"transport_protocol": "tls", "application_protocols": ["own"]}),
            Some(&d),
            &log,
        ),
        chain("plaintext", json!({"transport_protocol": "raw_buffer"}), None, &log),
    ];
    let by_source = [
        chain(
            "from 127.0.0.1",
            json!({"source_prefix_ranges": [{"address_prefix": "127.0.0.1", "prefix_len": 32}]}),
            None,
            &log,
        ),
        chain("from elsewhere", json!({}), None, &log),
    ];
    let listeners = [
        inspecting(inspected, &chains, &log),
        json!({"name": "by source", "address": socket_address(narrow), "filter_chains": by_source}),
    ];
    bootstrap.write(&listeners, &[]);

    let tls = |name: &str| Tls::trusting(&pki.trusted, &host(name));
    let rows: [(&str, Option<Tls>); 7] = [
        ("a", Some(tls("a"))),
        ("b", Some(tls("b"))),
        ("c with http/1.1", Some(tls("c").alpn(&["http/1.1"]))),
        ("a with http/1.1", Some(tls("a").alpn(&["http/1.1"]))),
        ("another domain", Some(Tls::trusting(&pki.trusted, "x.example.com"))),
        (
            "another domain with an own protocol",
            Some(Tls::trusting(&pki.trusted, "x.example.com").alpn(&["own"])),
        ),
        ("plaintext", None),
    ];
    compare(|engine| {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        let mut view = View::default();
        for (name, tls) in &rows {
            let answer = match tls {
                Some(tls) => RawClient::connect_tls(inspected, tls),
                None => RawClient::connect(inspected),
            }
            .and_then(|mut client| client.get("h", "/"));
            match answer {
                Ok(_) => view.add_answer(*name, &answer),
                // Which alert or end a client meets is the TLS library's own.
                Err(_) => view.add(*name, "no response\n"),
            }
        }
        for name in ["a", "c"] {
            let answer = Http2Client::connect_tls(inspected, &tls(name).alpn(&["h2", "http/1.1"]))
                .and_then(|client| client.get("h", "/"))
                .map_err(std::io::Error::other);
            view.add_answer(format!("{name} with h2"), &answer);
        }
        view.add_answer("by source", &RawClient::connect(narrow).and_then(|mut client| client.get("h", "/")));
        proxy.stop();
        let mut lines: Vec<String> =
            bootstrap.take_log("log").iter().map(|line| mask_log_line(line) + "\n").collect();
        // A deviation: the client breaks this handshake off (the certificate is another name's), and Envoy has a version by then.
        lines.iter_mut().for_each(|line| *line = line.replace("x.example.com TLSv1.3", "x.example.com -"));
        // The listener's lines come at the end of a connection, the manager's at the end of a request.
        lines.sort();
        view.add("log", lines.concat());
        Some(view)
    });
}

/// The handshake goes through to who terminates it: the client trusts the certificate of that one.
#[test]
fn tls_is_passed_through_by_server_name() {
    let pki = Pki::new();
    let bootstrap = Bootstrap::new();
    let log = file_access_log(
        &bootstrap.path("log"),
        Some(
            "%REQUESTED_SERVER_NAME% %UPSTREAM_CLUSTER_RAW% %UPSTREAM_HOST% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n",
        ),
    );
    let quiet = file_access_log(&bootstrap.path("quiet"), None);
    let passing = addr::free_addr();
    let terminating = ["a", "b"].map(|name| {
        let leaf = pki.trusted.leaf(name);
        let addr = addr::free_addr();
        let chain = chain(name, json!({}), Some(&leaf), &quiet);
        let listener = json!({"name": name, "address": socket_address(addr), "filter_chains": [chain]});
        (listener, cluster(name, &[addr], json!({})))
    });
    let to = |cluster: &str, names: &[String]| {
        json!({
            "filter_chain_match": {"transport_protocol": "tls", "server_names": names},
            "filters": [tcp_proxy(cluster, json!({"access_log": [log]}))],
        })
    };
    let chains = [to("a", &[host("a")]), to("b", &["*.default.svc.cluster.local".into()])];
    let [(a, cluster_a), (b, cluster_b)] = terminating;
    bootstrap.write(&[inspecting(passing, &chains, &log), a, b], &[cluster_a, cluster_b]);

    compare(|engine| {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        let mut view = View::default();
        for name in ["a", "b"] {
            let tls = Tls::trusting(&pki.trusted, &host(name)).alpn(&["http/1.1"]);
            let answer = RawClient::connect_tls(passing, &tls).and_then(|mut client| client.get("h", "/"));
            view.add_answer(name, &answer);
        }
        let elsewhere = Tls::trusting(&pki.trusted, "x.example.com");
        view.add("no chain", format!("{}\n", RawClient::connect_tls(passing, &elsewhere).is_ok()));
        let plain = RawClient::connect(passing).and_then(|mut client| client.get("h", "/"));
        view.add("plaintext", format!("{}\n", plain.is_ok()));
        proxy.stop();
        let mut lines = bootstrap.take_log("log");
        lines.sort();
        view.add("log", lines.join("\n"));
        Some(view)
    });
}
