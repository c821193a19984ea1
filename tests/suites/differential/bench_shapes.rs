//! The configurations that the benchmark runs, as YAML: one hop, a pair with mutual TLS, TCP alone and in a pair.

use std::net::SocketAddr;

use outrigger_tests::certs::{Pki, spiffe};
use outrigger_tests::differential::{View, compare};
use outrigger_tests::upstream::{Http2Upstream, TcpBehaviour, TcpUpstream, Upstream};
use outrigger_tests::{Bootstrap, Engine, Http2Client, Proxy, RawClient, Request, addr};

const ONE_HOP: &str = include_str!("yaml/one_hop.yaml");
const OUTBOUND: &str = include_str!("yaml/outbound_mtls.yaml");
const INBOUND: &str = include_str!("yaml/inbound_mtls.yaml");
const TCP: &str = include_str!("yaml/tcp.yaml");
const TCP_OUTBOUND: &str = include_str!("yaml/tcp_outbound_mtls.yaml");
const TCP_INBOUND: &str = include_str!("yaml/tcp_inbound_mtls.yaml");

/// Placeholders for an address: `{{NAME_ip}}` and `{{NAME_port}}`.
fn at(name: &str, addr: SocketAddr) -> [(String, String); 2] {
    [(format!("{name}_ip"), addr.ip().to_string()), (format!("{name}_port"), addr.port().to_string())]
}

fn fill(template: &str, values: &[[(String, String); 2]], more: &[(&str, String)]) -> Bootstrap {
    let mut all: Vec<(&str, String)> =
        values.iter().flatten().map(|(name, value)| (name.as_str(), value.clone())).collect();
    all.extend_from_slice(more);
    Bootstrap::of_yaml(template, &all)
}

/// The same few exchanges from an HTTP/1 and an HTTP/2 client.
fn http_exchanges(listener: SocketAddr, take: impl Fn() -> Vec<Request>) -> View {
    let mut view = View::default();
    let mut client = RawClient::connect(listener).unwrap();
    for path in ["/", "/a?b=c", "/large", "/404"] {
        view.add_answer(format!("h1 {path}"), &client.get("h", path));
        view.add_requests(format!("h1 {path}, upstream"), &take());
    }
    client.send(b"POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello");
    view.add_answer("h1 POST", &client.response());
    view.add_requests("h1 POST, upstream", &take());
    let client = Http2Client::connect(listener).unwrap();
    for path in ["/", "/a?b=c", "/large", "/404"] {
        view.add_answer(format!("h2 {path}"), &client.get("h", path).map_err(std::io::Error::other));
        view.add_requests(format!("h2 {path}, upstream"), &take());
    }
    view
}

#[test]
fn h1() {
    let (listener, upstream) = (addr::free_addr(), Upstream::start());
    let values = [at("listener", listener), at("upstream", upstream.addr())];
    let bootstrap = fill(ONE_HOP, &values, &[("protocol", "http_protocol_options".into())]);
    compare(|engine| {
        let _proxy = Proxy::start(engine, &bootstrap)?;
        Some(http_exchanges(listener, || upstream.take_requests()))
    });
}

#[test]
fn h2() {
    let (listener, upstream) = (addr::free_addr(), Http2Upstream::start());
    let values = [at("listener", listener), at("upstream", upstream.addr())];
    let bootstrap = fill(ONE_HOP, &values, &[("protocol", "http2_protocol_options".into())]);
    compare(|engine| {
        let _proxy = Proxy::start(engine, &bootstrap)?;
        Some(http_exchanges(listener, || upstream.take_requests()))
    });
}

/// The certificates of both ends as placeholders.
fn identities(pki: &Pki) -> Vec<(&'static str, String)> {
    let (client, server) = (pki.trusted.leaf("client"), pki.trusted.leaf("server"));
    let text = |path: &std::path::Path| path.display().to_string();
    vec![
        ("root", text(&pki.trusted.root)),
        ("client_chain", text(&client.chain)),
        ("client_key", text(&client.key)),
        ("server_chain", text(&server.chain)),
        ("server_key", text(&server.key)),
        ("client_id", spiffe("client")),
        ("server_id", spiffe("server")),
    ]
}

/// Gives the proxies at the client's and at the server's side.
type Place = fn(Engine) -> (Engine, Engine);

/// Who runs at the client's and at the server's side: `engine` at both, or beside an Envoy.
const PLACES: [(&str, Place); 3] = [
    ("both sides", |engine| (engine, engine)),
    ("the client's side", |engine| (engine, Engine::Envoy)),
    ("the server's side", |engine| (Engine::Envoy, engine)),
];

#[test]
fn pair() {
    let pki = Pki::new();
    let (listener, peer, upstream) = (addr::free_addr(), addr::free_addr(), Upstream::start());
    let identities = identities(&pki);
    let outbound = fill(OUTBOUND, &[at("listener", listener), at("peer", peer)], &identities);
    let inbound = fill(INBOUND, &[at("listener", peer), at("upstream", upstream.addr())], &identities);
    for (place, engines) in PLACES {
        compare(|engine| {
            let (client_side, server_side) = engines(engine);
            let _server = Proxy::start(server_side, &inbound)?;
            let _client = Proxy::start(client_side, &outbound)?;
            let mut view = View::default();
            view.add(place, "\n");
            for (name, text) in http_exchanges(listener, || upstream.take_requests()).blocks() {
                view.add(format!("{place}: {name}"), text);
            }
            Some(view)
        });
    }
}

/// Bytes there and back, then a half-close that must arrive and be answered.
fn tcp_exchange(listener: SocketAddr) -> View {
    let mut view = View::default();
    let mut client = RawClient::connect(listener).unwrap();
    for length in [1, 1000, 300_000] {
        let sent: Vec<u8> = (0..length).map(|at: usize| (at % 251) as u8).collect();
        let (mut received, mut at) = (Vec::new(), 0);
        // In pieces, so that neither side's socket buffers must hold all of it.
        while at < sent.len() {
            let end = sent.len().min(at + 16_384);
            client.send(&sent[at..end]);
            received.extend(client.read_exactly(end - at).unwrap_or_default());
            at = end;
        }
        view.add(format!("{length} bytes"), format!("equal: {}\n", sent == received));
    }
    client.send(b"last words");
    client.finish();
    let rest = client.read_to_end().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    view.add("half-close", format!("{rest:?}\n"));
    view
}

#[test]
fn tcp() {
    let (listener, upstream) = (addr::free_addr(), TcpUpstream::start(TcpBehaviour::Echo));
    let bootstrap = fill(TCP, &[at("listener", listener), at("upstream", upstream.addr())], &[]);
    compare(|engine| {
        let _proxy = Proxy::start(engine, &bootstrap)?;
        Some(tcp_exchange(listener))
    });
}

#[test]
fn tcp_pair() {
    let pki = Pki::new();
    let (listener, peer) = (addr::free_addr(), addr::free_addr());
    let upstream = TcpUpstream::start(TcpBehaviour::Echo);
    let identities = identities(&pki);
    let outbound = fill(TCP_OUTBOUND, &[at("listener", listener), at("peer", peer)], &identities);
    let inbound = fill(TCP_INBOUND, &[at("listener", peer), at("upstream", upstream.addr())], &identities);
    for (place, engines) in PLACES {
        compare(|engine| {
            let (client_side, server_side) = engines(engine);
            let _server = Proxy::start(server_side, &inbound)?;
            let _client = Proxy::start(client_side, &outbound)?;
            let mut view = tcp_exchange(listener);
            view.add(place, "\n");
            Some(view)
        });
    }
}
