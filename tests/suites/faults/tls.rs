//! Certificates that the other side must not accept, or must not have.

use outrigger_tests::bootstrap::{
    any_host, cluster, http_connection_manager, listener, overlay, to, type_url,
};
use outrigger_tests::certs::{Leaf, Pki, spiffe};
use outrigger_tests::{Bootstrap, Proxy, RawClient, Tls, Upstream, addr, client, wait};
use serde_json::{Value, json};

use super::Fixture;

const SERVER: &str = "server.default.svc.cluster.local";

/// `tls_certificates` and a `validation_context` that wants this identity.
fn common_tls(pki: &Pki, shown: &Leaf, wanted: &str) -> Value {
    json!({
        "tls_certificates": [{
            "certificate_chain": {"filename": shown.chain},
            "private_key": {"filename": shown.key},
        }],
        "validation_context": {
            "trusted_ca": {"filename": pki.trusted.root},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": wanted}}],
        },
    })
}

fn downstream_tls(pki: &Pki, shown: &Leaf) -> Value {
    json!({"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": type_url("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": common_tls(pki, shown, &spiffe("client")),
    }}})
}

fn upstream_tls(pki: &Pki) -> Value {
    json!({"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": type_url("extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": SERVER,
        "common_tls_context": common_tls(pki, &pki.trusted.leaf("client"), &spiffe("server")),
    }}})
}

#[test]
fn a_client_without_the_right_certificate_gets_no_byte() {
    let pki = Pki::new();
    let upstream = Upstream::start();
    let clusters = [cluster("up", &[upstream.addr()], json!({}))];
    let chain = downstream_tls(&pki, &pki.trusted.leaf("server"));
    let fixture = Fixture::prepare(to("up"), &clusters, chain, |bootstrap| Proxy::outrigger(bootstrap));
    let tls = || Tls::trusting(&pki.trusted, SERVER);
    let get =
        |tls: &Tls| RawClient::connect_tls(fixture.addr, tls).and_then(|mut client| client.get("h", "/"));

    assert_eq!(get(&tls().identity(&pki.trusted.leaf("client"))).unwrap().status, 200);
    let refused = [
        ("no certificate", tls()),
        ("expired", tls().identity(&pki.trusted.expired("client"))),
        ("another root", tls().identity(&pki.foreign.leaf("client"))),
        ("another identity", tls().identity(&pki.trusted.leaf("stranger"))),
    ];
    for (name, tls) in &refused {
        assert!(get(tls).is_err(), "{name} was accepted");
    }
    let mut plaintext = RawClient::connect(fixture.addr).unwrap();
    assert!(plaintext.get("h", "/").is_err(), "plaintext was accepted");
    assert_eq!(upstream.take_requests().len(), 1);
    wait::until("the handshakes are counted", || {
        let name = |stat: &str| format!("listener.{}.ssl.{stat}", fixture.addr.to_string().replace(':', "_"));
        let failed: u64 = ["fail_verify_no_cert", "fail_verify_error", "fail_verify_san", "connection_error"]
            .iter()
            .filter_map(|stat| fixture.proxy.stat(&name(stat)))
            .sum();
        failed >= 5
    });
}

#[test]
fn an_upstream_without_the_right_certificate_is_a_503_with_uf() {
    let pki = Pki::new();
    let upstream = Upstream::start();
    let shown = [
        ("good", pki.trusted.leaf("server"), 200),
        ("expired", pki.trusted.expired("server"), 503),
        ("another root", pki.foreign.leaf("server"), 503),
        ("another identity", pki.trusted.leaf("stranger"), 503),
    ];
    for (name, leaf, status) in shown {
        // The peer is a proxy too: it ends the TLS and goes on to the upstream.
        let (peer, peer_addr) = (Bootstrap::new(), addr::free_addr());
        let mut inbound =
            listener("inbound", peer_addr, http_connection_manager(any_host(to("up")), json!({})));
        overlay(&mut inbound["filter_chains"][0], downstream_tls(&pki, &leaf));
        peer.write(&[inbound], &[cluster("up", &[upstream.addr()], json!({}))]);
        let _peer = Proxy::outrigger(&peer);

        let fixture = Fixture::start(to("peer"), &[cluster("peer", &[peer_addr], upstream_tls(&pki))]);
        let response = client::get(fixture.addr, "h", "/");
        assert_eq!(response.status, status, "{name}: {}", response.text());
        let flags = if status == 200 { "200 - /" } else { "503 UF /" };
        assert_eq!(fixture.into_log(), [flags], "{name}");
    }
    assert_eq!(upstream.take_requests().len(), 1);
}
