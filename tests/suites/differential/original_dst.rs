//! Captured traffic: real iptables redirect connections to the proxy, which finds out where they were going, IPv4 and IPv6.

use std::net::{IpAddr, SocketAddr};

use outrigger_tests::bootstrap::{
    any_host, cluster, file_access_log, http_connection_manager, http2_upstream, overlay, socket_address,
    tcp_proxy, to, type_url,
};
use outrigger_tests::certs::Pki;
use outrigger_tests::differential::{View, compare};
use outrigger_tests::netns_redirect::{CAPTURE_PORT, OWNED, UNOWNED, as_proxy, redirected};
use outrigger_tests::proxy::Launch;
use outrigger_tests::upstream::{TcpBehaviour, TcpUpstream};
use outrigger_tests::wait::until;
use outrigger_tests::{Bootstrap, Http2Client, Http2Upstream, RawClient, Upstream};
use serde_json::{Value, json};

/// Where a connection went to, restored or not; which cluster and host got it; how it ended; who was at both ends.
const LOG: &str = "%DOWNSTREAM_LOCAL_ADDRESS% %UPSTREAM_CLUSTER_RAW% %UPSTREAM_HOST% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% \
                   %RESPONSE_CODE_DETAILS% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN%\n";

/// Ports of listeners that have no socket.
mod port {
    pub(super) const EXACT: u16 = 1001;
    pub(super) const INSPECTED: u16 = 1002;
    pub(super) const MATCHED: u16 = 1003;
    pub(super) const SERVER_FIRST: u16 = 1004;
    pub(super) const DECLARED: u16 = 1005;
    pub(super) const HTTP: u16 = 1006;
    pub(super) const HTTP2: u16 = 1007;
    pub(super) const ELSEWHERE: u16 = 1008;
    pub(super) const NO_CHAIN: u16 = 1009;
    pub(super) const BLACK_HOLE: u16 = 1010;
    pub(super) const CLEANED: u16 = 1011;
    pub(super) const TLS: u16 = 1012;
    /// Where the connections to `TLS` go: a listener with a socket that terminates TLS.
    pub(super) const TERMINATED: u16 = 1013;
    /// No listener has these: they are passed through.
    pub(super) const NOT_LISTENED: u16 = 2001;
    pub(super) const REFUSED: u16 = 2002;
}

fn listener_filter(name: &str, message: &str) -> Value {
    let message = type_url(&format!("extensions.filters.listener.{message}"));
    json!({"name": format!("envoy.filters.listener.{name}"), "typed_config": {"@type": message}})
}

fn inspectors() -> Value {
    json!([
        listener_filter("tls_inspector", "tls_inspector.v3.TlsInspector"),
        listener_filter("http_inspector", "http_inspector.v3.HttpInspector"),
    ])
}

fn original_dst(name: &str, more: Value) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "0.3s",
        "cleanup_interval": "60s",
    });
    overlay(&mut cluster, more);
    cluster
}

/// A listener without a socket for a port on all addresses of both IP versions.
fn unbound(name: &str, port: u16, chains: Value, more: Value) -> Value {
    let any = |ip: &str| socket_address(SocketAddr::new(ip.parse().unwrap(), port));
    let mut listener = json!({
        "name": name,
        "address": any("0.0.0.0"),
        "additional_addresses": [{"address": any("::")}],
        "bind_to_port": false,
        "filter_chains": chains,
    });
    overlay(&mut listener, more);
    listener
}

fn answer(client: std::io::Result<RawClient>, request: &str) -> String {
    let answered = client.and_then(|mut client| {
        client.send(request.as_bytes());
        client.response()
    });
    match answered {
        Ok(response) => format!("{} {:?}\n", response.status, response.text()),
        Err(error) => format!("no response: {:?}\n", error.kind()),
    }
}

fn get(addr: SocketAddr) -> String {
    answer(RawClient::connect(addr), "GET / HTTP/1.1\r\nhost: h\r\n\r\n")
}

/// Sends and waits for the same bytes, then ends its side and waits for the other's.
fn echo(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut client = RawClient::connect(addr).unwrap();
    client.send(bytes);
    let echoed = client.read_exactly(bytes.len()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    client.finish();
    format!("{:?} {:?}\n", echoed.map_err(|e| e.kind()), client.read_to_end().map(|rest| rest.len()))
}

/// How the other side ends a connection on which nothing was sent.
fn end(addr: SocketAddr) -> String {
    let end = RawClient::connect(addr).and_then(|mut client| client.read_to_end());
    format!("{:?}\n", end.map_err(|error| error.kind()))
}

/// Reads a greeting without having sent anything.
fn greeting(addr: SocketAddr) -> String {
    let mut client = RawClient::connect(addr).unwrap();
    let greeting = client.read_exactly(6).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    client.finish();
    format!("{:?} {:?}\n", greeting.map_err(|e| e.kind()), client.read_to_end().map(|rest| rest.len()))
}

/// What listens on the machine's own addresses.
struct Upstreams {
    _tcp: Vec<TcpUpstream>,
    _http: Vec<Upstream>,
    _http2: Vec<Http2Upstream>,
}

impl Upstreams {
    fn start(callee: [IpAddr; 2]) -> Self {
        let at = |ip: IpAddr, port| SocketAddr::new(ip, port);
        let greet = || TcpBehaviour::Greet(b"hello\n".to_vec());
        let all = || OWNED.into_iter().chain(callee);
        let tcp = all().flat_map(|ip| {
            [
                TcpUpstream::start_at(at(ip, port::NOT_LISTENED), TcpBehaviour::Echo),
                TcpUpstream::start_at(at(ip, port::INSPECTED), TcpBehaviour::Echo),
                TcpUpstream::start_at(at(ip, port::CLEANED), TcpBehaviour::Echo),
                TcpUpstream::start_at(at(ip, port::SERVER_FIRST), greet()),
                TcpUpstream::start_at(at(ip, port::DECLARED), greet()),
            ]
        });
        Self {
            _tcp: tcp.collect(),
            _http: all().map(|ip| Upstream::start_at(at(ip, port::HTTP))).collect(),
            _http2: all().map(|ip| Http2Upstream::start_at(at(ip, port::HTTP2))).collect(),
        }
    }
}

/// `common_tls_context` of a workload of the mesh.
fn mutual_tls(pki: &Pki, name: &str) -> Value {
    let leaf = pki.trusted.leaf(name);
    json!({
        "tls_certificates": [{
            "certificate_chain": {"filename": leaf.chain},
            "private_key": {"filename": leaf.key},
        }],
        "validation_context": {"trusted_ca": {"filename": pki.trusted.root}},
    })
}

fn tls_socket(message: &str, config: Value) -> Value {
    let mut typed = json!({"@type": type_url(&format!("extensions.transport_sockets.tls.v3.{message}"))});
    overlay(&mut typed, config);
    json!({"name": "envoy.transport_sockets.tls", "typed_config": typed})
}

/// A listener with sockets on the machine's own addresses that lets in who has a certificate of the mesh.
fn terminating(pki: &Pki, log: &Value) -> Value {
    let tls = json!({"common_tls_context": mutual_tls(pki, "server"), "require_client_certificate": true});
    let answer = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "TLS"}}}]);
    let [first, second] = OWNED.map(|ip| socket_address(SocketAddr::new(ip, port::TERMINATED)));
    json!({
        "name": "terminating",
        "address": first,
        "additional_addresses": [{"address": second}],
        "filter_chains": [{
            "transport_socket": tls_socket("DownstreamTlsContext", tls),
            "filters": [http_connection_manager(any_host(answer), json!({"access_log": [log]}))],
        }],
    })
}

fn listeners(pki: &Pki, log: &Value) -> Vec<Value> {
    let tcp = |cluster: &str| tcp_proxy(cluster, json!({"access_log": [log]}));
    let http = |cluster: &str| http_connection_manager(any_host(to(cluster)), json!({"access_log": [log]}));
    let says = |text: &str| {
        let answer = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": text}}}]);
        json!({"name": text, "filters": [http_connection_manager(any_host(answer), json!({"access_log": [log]}))]})
    };
    let only = |filter: Value| json!([{"filters": [filter]}]);
    let matching = |mut chain: Value, condition: Value| {
        chain["filter_chain_match"] = condition;
        chain
    };
    let plain =
        |protocols: &[&str]| json!({"transport_protocol": "raw_buffer", "application_protocols": protocols});
    let any = |ip: &str| socket_address(SocketAddr::new(ip.parse().unwrap(), CAPTURE_PORT));
    let exact = |name: &str, ip: IpAddr| {
        json!({
            "name": name,
            "address": socket_address(SocketAddr::new(ip, port::EXACT)),
            "bind_to_port": false,
            "filter_chains": [says("exact")],
        })
    };
    // Disabled for nothing.
    let mut undeclared = inspectors();
    undeclared[0]["filter_disabled"] = json!({"not_match": {"any_match": true}});
    let mut declared = inspectors();
    for filter in declared.as_array_mut().unwrap() {
        filter["filter_disabled"] = json!({"or_match": {"rules": [
            {"destination_port_range": {"start": port::DECLARED, "end": port::DECLARED + 1}},
            {"and_match": {"rules": [
                {"any_match": true},
                {"not_match": {"destination_port_range": {"start": 1, "end": 65535}}},
            ]}},
        ]}});
    }
    vec![
        json!({
            "name": "virtual",
            "address": any("0.0.0.0"),
            "additional_addresses": [{"address": any("::")}],
            "use_original_dst": true,
            "filter_chains": [
                matching(json!({"filters": [tcp("black_hole")]}), json!({"destination_port": CAPTURE_PORT})),
            ],
            "default_filter_chain": {"filters": [tcp("passthrough")]},
        }),
        exact("exact", UNOWNED[0]),
        exact("exact of IPv6", UNOWNED[1]),
        unbound("any address of its port", port::EXACT, json!([says("any address")]), json!({})),
        unbound(
            "inspected",
            port::INSPECTED,
            json!([
                matching(json!({"filters": [tcp("black_hole")]}), plain(&["http/1.0"])),
                matching(says("HTTP/1.1"), plain(&["http/1.1"])),
                matching(says("h2c"), plain(&["h2c"])),
                matching(
                    json!({"filters": [tcp("passthrough")]}),
                    json!({"transport_protocol": "raw_buffer"})
                ),
            ]),
            json!({"listener_filters": inspectors(), "listener_filters_timeout": "5s"}),
        ),
        unbound(
            "matched",
            port::MATCHED,
            json!([
                matching(says("this port"), json!({"destination_port": port::MATCHED})),
                matching(says("the proxy's port"), json!({"destination_port": CAPTURE_PORT})),
                matching(
                    says("nobody's address"),
                    json!({"destination_port": port::MATCHED, "prefix_ranges": [
                        {"address_prefix": "10.98.0.0", "prefix_len": 16},
                        {"address_prefix": "fd00:98::", "prefix_len": 64},
                    ]})
                ),
            ]),
            json!({}),
        ),
        unbound(
            "server first",
            port::SERVER_FIRST,
            only(tcp("passthrough")),
            json!({
                "listener_filters": undeclared,
                "listener_filters_timeout": "0.2s",
                "continue_on_listener_filters_timeout": true,
            }),
        ),
        unbound(
            "declared server first",
            port::DECLARED,
            only(tcp("passthrough")),
            json!({"listener_filters": declared, "listener_filters_timeout": "0s"}),
        ),
        unbound("http", port::HTTP, only(http("passthrough")), json!({})),
        unbound("http2", port::HTTP2, only(http("passthrough_h2")), json!({})),
        unbound("elsewhere", port::ELSEWHERE, only(http("another_port")), json!({})),
        unbound(
            "no chain",
            port::NO_CHAIN,
            json!([matching(says("never"), json!({"transport_protocol": "tls"}))]),
            json!({"access_log": [log]}),
        ),
        unbound("black hole", port::BLACK_HOLE, only(tcp("black_hole")), json!({})),
        unbound("tls", port::TLS, only(tcp("tls")), json!({})),
        terminating(pki, log),
        unbound("cleaned", port::CLEANED, only(tcp("cleaned")), json!({})),
    ]
}

fn clusters(pki: &Pki) -> Vec<Value> {
    let tls = json!({"common_tls_context": mutual_tls(pki, "client")});
    let tls = json!({
        "original_dst_lb_config": {"upstream_port_override": port::TERMINATED},
        "transport_socket": tls_socket("UpstreamTlsContext", tls),
    });
    vec![
        original_dst("tls", tls),
        original_dst("passthrough", json!({})),
        original_dst("passthrough_h2", http2_upstream()),
        original_dst(
            "another_port",
            json!({"original_dst_lb_config": {"upstream_port_override": port::HTTP}}),
        ),
        original_dst("cleaned", json!({"cleanup_interval": "0.1s"})),
        cluster("black_hole", &[], json!({})),
    ]
}

/// What both count.
const STATS: [&str; 17] = [
    "listener.0.0.0.0_15001.downstream_cx_total",
    "listener.0.0.0.0_1001.downstream_cx_total",
    "listener.10.98.0.1_1001.downstream_cx_total",
    "listener.0.0.0.0_1002.downstream_cx_total",
    "listener.0.0.0.0_1004.downstream_pre_cx_timeout",
    "listener.0.0.0.0_1005.downstream_pre_cx_timeout",
    "listener.0.0.0.0_1009.downstream_cx_total",
    "listener.0.0.0.0_1009.no_filter_chain_match",
    "http_inspector.http10_found",
    "http_inspector.http11_found",
    "http_inspector.http2_found",
    "http_inspector.http_not_found",
    "tls_inspector.tls_not_found",
    "cluster.passthrough.upstream_cx_total",
    "cluster.passthrough.membership_total",
    "cluster.another_port.membership_total",
    "cluster.black_hole.upstream_cx_none_healthy",
];

#[test]
fn captured_connections() {
    redirected(|pods| {
        let _upstreams = Upstreams::start(pods.callee);
        let bootstrap = Bootstrap::new();
        let log = file_access_log(&bootstrap.path("log"), Some(LOG));
        let pki = Pki::new();
        bootstrap.write(&listeners(&pki, &log), &clusters(&pki));
        compare(|engine| {
            let proxy = as_proxy(Launch::new(engine).arg("-l").arg("error")).start(&bootstrap)?;
            let mut view = View::default();
            for (owned, unowned) in OWNED.into_iter().zip(UNOWNED) {
                let family = if owned.is_ipv4() { "IPv4" } else { "IPv6" };
                let mut add = |name: &str, text: String| view.add(format!("{family}: {name}"), text);
                let [owned, unowned] = [owned, unowned].map(|ip| move |port| SocketAddr::new(ip, port));
                add("a listener's own address", get(unowned(port::EXACT)));
                add("another address of its port", get(owned(port::EXACT)));
                add("HTTP/1.1 by peeking", get(unowned(port::INSPECTED)));
                let old = answer(RawClient::connect(unowned(port::INSPECTED)), "GET / HTTP/1.0\r\n\r\n");
                add("HTTP/1.0 by peeking", old);
                let h2 = Http2Client::connect(unowned(port::INSPECTED)).and_then(|c| c.get("h", "/"));
                add("h2c by peeking", format!("{:?}\n", h2.ok().map(|response| response.text())));
                add("something else by peeking", echo(owned(port::INSPECTED), b"not HTTP at all\n"));
                add("matched by address", get(unowned(port::MATCHED)));
                add("matched by port", get(owned(port::MATCHED)));
                add("server first after the time limit", greeting(owned(port::SERVER_FIRST)));
                add("server first at once", greeting(owned(port::DECLARED)));
                add("HTTP passed through", get(owned(port::HTTP)) + &get(owned(port::HTTP)));
                add("HTTP/2 passed through", get(owned(port::HTTP2)));
                add("HTTP passed on to another port", get(owned(port::ELSEWHERE)));
                add("through TLS", get(owned(port::TLS)));
                add("HTTP to nobody", get(unowned(port::HTTP)));
                add("no chain", end(unowned(port::NO_CHAIN)));
                add("black hole", end(unowned(port::BLACK_HOLE)));
                add("passed through", echo(owned(port::NOT_LISTENED), b"hello\n"));
                add("passed through and forgotten", echo(owned(port::CLEANED), b"hello\n"));
                add("refused", end(owned(port::REFUSED)));
                // Not redirected; but the kernel knows its destination all the same, which is the proxy itself.
                add("straight to the proxy", end(owned(CAPTURE_PORT)));
            }
            for ip in pods.callee {
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                let mut add =
                    |name: &str, text: String| view.add(format!("{family} from elsewhere: {name}"), text);
                let at = |port| SocketAddr::new(ip, port);
                pods.in_caller(|| {
                    add("a listener's port", get(at(port::EXACT)));
                    add("HTTP/1.1 by peeking", get(at(port::INSPECTED)));
                    add("matched by port", get(at(port::MATCHED)));
                    add("HTTP passed through", get(at(port::HTTP)));
                    add("passed through", echo(at(port::NOT_LISTENED), b"hello\n"));
                    add("refused", end(at(port::REFUSED)));
                    add("straight to the proxy", end(at(CAPTURE_PORT)));
                });
            }
            until("unused hosts are gone", || proxy.stat("cluster.cleaned.membership_total") == Some(0));
            // Only now: a client has its answer before the proxy has counted the end of its connection.
            let count = |name: &&str| format!("{name}: {:?}\n", proxy.stat(name));
            view.add("counted", STATS.iter().map(count).collect::<String>());
            let hosts = proxy.admin("/clusters").text();
            let mut hosts: Vec<&str> =
                hosts.lines().filter(|line| line.contains("::cx_connect_fail::")).collect();
            hosts.sort_unstable();
            view.add("hosts", hosts.join("\n"));
            let listeners = proxy.admin("/listeners").text();
            let mut listeners: Vec<&str> = listeners.lines().collect();
            listeners.sort_unstable();
            view.add("listeners", listeners.join("\n"));
            proxy.stop();
            let mut lines = bootstrap.take_log("log");
            lines.sort();
            view.add("log", lines.join("\n"));
            Some(view)
        });
    });
}
