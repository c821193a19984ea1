//! What a handshake established, in the logs of both of its ends: one proxy is the client and the server of the same connection.

use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{
    any_host, cluster, file_access_log, http_connection_manager, listener, overlay, to, type_url,
};
use outrigger_tests::certs::Pki;
use outrigger_tests::differential::{View, compare};
use outrigger_tests::proxy::Launch;
use outrigger_tests::upstream::Upstream;
use outrigger_tests::{Bootstrap, RawClient};
use serde_json::{Value, json};

const FIELDS: [&str; 11] = [
    "TLS_VERSION",
    "TLS_CIPHER",
    "PEER_SUBJECT",
    "PEER_ISSUER",
    "PEER_URI_SAN",
    "PEER_DNS_SAN",
    "PEER_IP_SAN",
    "PEER_CERT",
    "LOCAL_URI_SAN",
    "LOCAL_DNS_SAN",
    "LOCAL_IP_SAN",
];

/// What Envoy has for the server's side only.
const OF_THE_SERVER: [&str; 11] = [
    "PEER_EMAIL_SAN",
    "PEER_OTHERNAME_SAN",
    "PEER_SERIAL",
    "PEER_FINGERPRINT_1",
    "PEER_FINGERPRINT_256",
    "PEER_CHAIN_SERIALS",
    "PEER_CHAIN_FINGERPRINTS_1",
    "PEER_CHAIN_FINGERPRINTS_256",
    "LOCAL_EMAIL_SAN",
    "LOCAL_OTHERNAME_SAN",
    "LOCAL_SUBJECT",
];

fn tls(message: &str, leaf: &outrigger_tests::certs::Leaf, pki: &Pki, version: &str, more: Value) -> Value {
    let mut context = json!({
        "@type": type_url(&format!("extensions.transport_sockets.tls.v3.{message}")),
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": version, "tls_maximum_protocol_version": version},
            "tls_certificates": [{
                "certificate_chain": {"filename": leaf.chain}, "private_key": {"filename": leaf.key}}],
            "validation_context": {"trusted_ca": {"filename": pki.trusted.root}},
        },
    });
    overlay(&mut context, more);
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

fn both_ends(version: &str, more: &[&str]) {
    let pki = Pki::new();
    let (client, server) = (pki.trusted.leaf("client"), pki.trusted.leaf("server"));
    let up = Upstream::start();
    let (outer, inner) = (free_addr(), free_addr());
    let bootstrap = Bootstrap::new();
    let lines = |side: &str, fields: &[&str]| {
        fields.iter().map(|field| format!("{side}_{field} %{side}_{field}%\n")).collect::<String>()
    };
    let times = |side: &str| {
        format!("%{side}_PEER_CERT_V_START% %{side}_PEER_CERT_V_END(%Y-%m-%d)% %{side}_PEER_CERT_V_END%\n")
    };
    let of_client = lines("UPSTREAM", &FIELDS)
        + &lines("UPSTREAM", more)
        + &times("UPSTREAM")
        + "%UPSTREAM_SERVER_NAME%\n";
    let of_server =
        lines("DOWNSTREAM", &FIELDS) + &lines("DOWNSTREAM", &OF_THE_SERVER) + &times("DOWNSTREAM");
    let manager = |to_cluster: &str, file: &str, format: &str| {
        let log = file_access_log(&bootstrap.path(file), Some(format));
        http_connection_manager(any_host(to(to_cluster)), json!({"access_log": [log]}))
    };
    let mut inbound = listener("inbound", inner, manager("up", "server.log", &of_server));
    inbound["filter_chains"][0]["transport_socket"] =
        tls("DownstreamTlsContext", &server, &pki, version, json!({"require_client_certificate": true}));
    let outbound = listener("outbound", outer, manager("inner", "client.log", &of_client));
    let socket = tls("UpstreamTlsContext", &client, &pki, version, json!({"sni": "server.example"}));
    bootstrap.write(
        &[outbound, inbound],
        &[
            cluster("up", &[up.addr()], Value::Null),
            cluster("inner", &[inner], json!({"transport_socket": socket})),
        ],
    );
    compare(|engine| {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        let mut view = View::default();
        view.add_answer("client", &RawClient::connect(outer).unwrap().get("h", "/"));
        proxy.stop();
        for file in ["client.log", "server.log"] {
            for line in bootstrap.take_log(file) {
                let (name, value) = line.split_once(' ').unwrap_or((&line, ""));
                view.add(format!("{file}: {name}"), format!("{value}\n"));
            }
        }
        Some(view)
    });
}

#[test]
fn tls_1_3() {
    // Envoy prefers a group that ours does not offer.
    both_ends("TLSv1_3", &[]);
}

#[test]
fn tls_1_2() {
    both_ends("TLSv1_2", &["TLS_GROUP"]);
}
