//! `forward_client_cert_details`: what an upstream is told of a client's certificate.

use std::net::SocketAddr;

use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{
    any_host, cluster, http_connection_manager, listener, overlay, to, type_url,
};
use outrigger_tests::certs::{Leaf, Pki};
use outrigger_tests::client::Tls;
use outrigger_tests::differential::{View, compare};
use outrigger_tests::upstream::Upstream;
use outrigger_tests::{Bootstrap, Proxy, RawClient};
use serde_json::{Value, json};

fn secured(server: &Leaf, pki: &Pki) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": type_url("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "common_tls_context": {
            "tls_certificates": [{
                "certificate_chain": {"filename": server.chain}, "private_key": {"filename": server.key}}],
            "validation_context": {"trusted_ca": {"filename": pki.trusted.root}},
        },
    }})
}

#[test]
fn every_mode() {
    let details = |details: Value| json!({ "set_current_client_cert_details": details });
    let all = details(
        json!({"subject": true, "cert": true, "chain": true, "dns": true, "uri": true, "issuer": true}),
    );
    let rows: [(&str, &str, Value); 10] = [
        ("default", "SANITIZE", json!({})),
        ("sanitized whatever is to be set", "SANITIZE", all.clone()),
        ("forward", "FORWARD_ONLY", all.clone()),
        ("always", "ALWAYS_FORWARD_ONLY", json!({})),
        ("append the least", "APPEND_FORWARD", json!({})),
        ("append everything", "APPEND_FORWARD", all.clone()),
        ("set the least", "SANITIZE_SET", json!({})),
        ("set everything", "SANITIZE_SET", all),
        ("set the issuer", "SANITIZE_SET", details(json!({"issuer": true, "subject": true, "uri": true}))),
        ("set names", "SANITIZE_SET", details(json!({"uri": true, "dns": true}))),
    ];
    let pki = Pki::new();
    let (server, client) = (pki.trusted.leaf("server"), pki.trusted.leaf("client"));
    let up = Upstream::start();
    let addrs: Vec<(SocketAddr, SocketAddr)> = rows.iter().map(|_| (free_addr(), free_addr())).collect();
    let listeners: Vec<Value> = (rows.iter().zip(&addrs))
        .flat_map(|((name, mode, more), (plain, tls))| {
            let mut config = json!({ "forward_client_cert_details": mode });
            overlay(&mut config, more.clone());
            let manager = || http_connection_manager(any_host(to("up")), config.clone());
            let mut secure = listener(&format!("{name}, TLS"), *tls, manager());
            secure["filter_chains"][0]["transport_socket"] = secured(&server, &pki);
            [listener(name, *plain, manager()), secure]
        })
        .collect();
    let bootstrap = Bootstrap::of(&listeners, &[cluster("up", &[up.addr()], Value::Null)]);
    let anonymous = Tls::trusting(&pki.trusted, "server.default.svc.cluster.local");
    let known = Tls::trusting(&pki.trusted, "server.default.svc.cluster.local").identity(&client);
    compare(|engine| {
        let _proxy = Proxy::start(engine, &bootstrap)?;
        let mut view = View::default();
        for ((name, ..), (plain, tls)) in rows.iter().zip(&addrs) {
            let clients = [
                ("plaintext", RawClient::connect(*plain)),
                ("no certificate", RawClient::connect_tls(*tls, &anonymous)),
                ("certificate", RawClient::connect_tls(*tls, &known)),
            ];
            for (kind, client) in clients {
                let mut client = client.unwrap();
                // Twice: the second request of a connection is told the same.
                for claim in ["", "x-forwarded-client-cert: By=someone;Hash=0\r\n", ""] {
                    client.send(format!("GET / HTTP/1.1\r\nhost: h\r\n{claim}\r\n").as_bytes());
                    client.response().unwrap();
                    view.add_requests(format!("{name}: {kind}"), &up.take_requests());
                }
            }
        }
        Some(view)
    });
}
