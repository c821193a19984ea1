//! `tcp` and `tls` of VirtualServices: connections that are not HTTP, by port, caller and server name.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use outrigger_tests::mesh::Workload;
use outrigger_tests::upstream::{TcpBehaviour, TcpUpstream};
use outrigger_tests::wait::{self, PATIENCE};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;

use crate::world::World;

const TCP: u16 = 7000;
const OTHER_TCP: u16 = 7001;
const TLS: u16 = 8443;

/// A Service of connections with a subset for each version.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: stream, namespace: default}
spec:
  selector: {app: reviews}
  ports: [{name: tcp, port: 7000}, {name: tcp-other, port: 7001}, {name: tls, port: 8443}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: stream, namespace: default}
spec: {host: stream, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
";

const TO_V1: &str = "route: [{destination: {host: stream, subset: v1}}]";
const TO_V2: &str = "route: [{destination: {host: stream, subset: v2}}]";

fn rules(hosts: &str, rules: &str) -> String {
    format!(
        "{SERVICE}apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: stream, namespace: default}}\n\
         spec:\n  hosts: [{hosts}]\n{rules}"
    )
}

/// Both versions, greeting at every port with their name.
struct Streams {
    world: World,
    _servers: Vec<TcpUpstream>,
}

impl Streams {
    fn start() -> Self {
        let world = World::with_callers();
        let mut servers = Vec::new();
        for pod in ["reviews-0", "reviews-1"] {
            let ip = world.0.workload(pod).ip;
            let greet = || TcpBehaviour::Greet(pod.as_bytes().to_vec());
            servers
                .extend([TCP, OTHER_TCP, TLS].map(|port| TcpUpstream::start_at((ip, port).into(), greet())));
        }
        Self { world, _servers: servers }
    }

    /// Waits until connections of these callers to these ports arrive at these pods, each several times.
    #[track_caller]
    fn table(&self, rules: &str, rows: &[(&str, u16, &str, &str)]) {
        self.world.apply(rules);
        for (from, port, server_name, to) in rows {
            let caller = self.world.0.workload(from);
            let what = format!("{from} at {port} {server_name} reaches {to}\n{rules}");
            wait::until(&what, || (0..6).all(|_| greeting(caller, *port, server_name) == *to));
        }
    }
}

/// Who greets a caller that begins to speak TLS to `server_name`, or says anything where that is empty.
fn greeting(caller: &Workload, port: u16, server_name: &str) -> String {
    let mut greeting = [0; 9];
    let connection = TcpStream::connect((caller.ip, port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        let hello = if server_name.is_empty() { b"hello".to_vec() } else { client_hello(server_name) };
        stream.write_all(&hello)?;
        stream.read_exact(&mut greeting)
    });
    connection.map_or_else(|error| error.to_string(), |()| String::from_utf8_lossy(&greeting).into_owned())
}

/// The first message of a TLS client.
fn client_hello(server_name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(server_name.to_owned()).unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn tcp_by_port_and_caller() {
    let streams = Streams::start();
    let one = ("web-0", TCP, "", "reviews-0");
    streams.table(
        &rules("stream", &format!("  tcp:\n  - match: [{{port: {OTHER_TCP}}}]\n    {TO_V2}\n  - {TO_V1}\n")),
        &[one, ("web-0", OTHER_TCP, "", "reviews-1"), ("web-1", TCP, "", "reviews-0")],
    );
    let by_caller = format!(
        "  tcp:\n  - match: [{{port: {TCP}, sourceLabels: {{version: v2}}}}]\n    {TO_V2}\n  - {TO_V1}\n"
    );
    streams.table(
        &rules("stream", &by_caller),
        &[one, ("web-1", TCP, "", "reviews-1"), ("web-1", OTHER_TCP, "", "reviews-0")],
    );
    let by_namespace = by_caller.replace("sourceLabels: {version: v2}", "sourceNamespace: client");
    streams.table(
        &rules("stream", &by_namespace),
        &[one, ("web-1", TCP, "", "reviews-0"), ("guest-0", TCP, "", "reviews-1")],
    );
    // Shares, as with the sample of a TCP echo.
    let shares = "  tcp:\n  - route: [{destination: {host: stream, subset: v1}, weight: 80}, \
                  {destination: {host: stream, subset: v2}, weight: 20}]\n";
    streams.world.apply(&rules("stream", shares));
    let caller = streams.world.0.workload("web-0");
    wait::until("both versions in their shares", || {
        let second = (0..100).filter(|_| greeting(caller, TCP, "") == "reviews-1").count();
        (5..45).contains(&second)
    });
}

#[test]
fn tls_by_server_name() {
    let streams = Streams::start();
    let tls = format!(
        "  tls:\n  - match: [{{port: {TLS}, sniHosts: [one.example, '*.two.example']}}]\n    {TO_V2}\n  \
         - match: [{{port: {TLS}, sniHosts: [a.two.example], sourceLabels: {{version: v1}}}}]\n    {TO_V1}\n"
    );
    streams.table(
        &rules("stream, one.example, '*.two.example'", &(tls + &format!("  tcp:\n  - {TO_V1}\n"))),
        &[
            ("web-0", TLS, "one.example", "reviews-1"),
            ("web-0", TLS, "b.two.example", "reviews-1"),
            ("web-0", TLS, "a.two.example", "reviews-0"),
            ("web-1", TLS, "a.two.example", "reviews-1"),
            ("web-0", TLS, "two.example", "reviews-0"),
            ("web-0", TLS, "other.example", "reviews-0"),
            ("web-0", TCP, "", "reviews-0"),
        ],
    );
}
