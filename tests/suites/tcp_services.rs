//! Real servers and real clients of TCP protocols through captured pods, on declared ports and under STRICT: neither end knows of a mesh.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use outrigger_tests::certs::spiffe;
use outrigger_tests::netns::NetPod;
use outrigger_tests::pods::{PodMesh, cluster_ip};
use outrigger_tests::tcp_servers::TcpServers;
use outrigger_tests::tools::{repository, require_tool};
use outrigger_tests::wait;

/// The second listener of Kafka, which only a headless Service declares: as usual, each broker is told by its own address.
const KAFKA_BROKERS: u16 = 9093;

/// What no recorded frame may hold.
const PAYLOAD: &str = "payload-of-";

/// A protocol; its Service is called like it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Protocol {
    Redis,
    Postgres,
    Rabbitmq,
    Memcached,
    Kafka,
}

use Protocol::{Kafka, Memcached, Postgres, Rabbitmq, Redis};

const PROTOCOLS: [Protocol; 5] = [Redis, Postgres, Rabbitmq, Memcached, Kafka];

impl Protocol {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Of the Service and of the server.
    fn port(self) -> u16 {
        match self {
            Redis => 6379,
            Postgres => 5432,
            Rabbitmq => 5672,
            Memcached => 11211,
            Kafka => 9092,
        }
    }

    fn cluster_ip(self) -> Ipv4Addr {
        cluster_ip(1 + self as u8)
    }

    fn service(self) -> String {
        let (name, ip, port) = (self.name(), self.cluster_ip(), self.port());
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  selector: {{app: data}}\n  \
             clusterIP: {ip}\n  clusterIPs: [{ip}]\n  ports: [{{name: tcp-{name}, port: {port}}}]\n---\n"
        )
    }

    /// Gives `text` to the server at this address and asks for it again, with the protocol's usual client.
    fn ask(self, pod: &NetPod, ip: impl Into<IpAddr>, port: u16, text: &str) -> Result<String, String> {
        let (ip, port) = (ip.into().to_string(), port.to_string());
        let run = |program: &str, args: &[&str]| run(pod, program, args);
        match self {
            Redis => {
                run("redis-cli", &["-h", &ip, "-p", &port, "set", text, text])?;
                run("redis-cli", &["-h", &ip, "-p", &port, "get", text])
            }
            Postgres => {
                let create = "create table if not exists said (what text)";
                let insert = format!("insert into said values ('{text}')");
                let select = format!("select distinct what from said where what = '{text}'");
                let to = ["-h", &ip, "-p", &port, "-U", "postgres", "-qAt"];
                run("psql", &[&to[..], &["-c", create, "-c", &insert, "-c", &select]].concat())
            }
            Rabbitmq => {
                let to = ["-s", &ip, "--port", &port];
                let ask = |program, args: &[&str]| run(program, &[&to[..], args].concat());
                ask("amqp-declare-queue", &["-q", text])?;
                ask("amqp-publish", &["-r", text, "-b", text])?;
                ask("amqp-get", &["-q", text])
            }
            Memcached => {
                // The client copies a file, and names the item like it.
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join(text);
                std::fs::write(&file, text).unwrap();
                let server = format!("--servers={ip}:{port}");
                run("memccp", &[&server, file.to_str().unwrap()])?;
                run("memccat", &[&server, text])
            }
            Kafka => {
                let script = repository().join("tests/support/kafka/roundtrip.py");
                run("kafka-python", &[script.to_str().unwrap(), &format!("{ip}:{port}"), text])
            }
        }
    }
}

fn run(pod: &NetPod, program: &str, args: &[&str]) -> Result<String, String> {
    let mut command: Command = pod.command("timeout");
    let output = command.arg("20").arg(require_tool(program).unwrap()).args(args).output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(said(&output.stdout)),
        false => Err(format!("{program} {args:?}: {}: {}", output.status, said(&output.stderr))),
    }
}

fn objects() -> String {
    let services: String = PROTOCOLS.iter().map(|protocol| protocol.service()).collect();
    format!(
        "{services}apiVersion: v1\nkind: Service\nmetadata: {{name: kafka-brokers, namespace: default}}\nspec:\n  \
         selector: {{app: data}}\n  clusterIP: None\n  ports: [{{name: tcp-kafka, port: {KAFKA_BROKERS}}}]\n"
    )
}

fn peer_authentication(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: all, namespace: istio-system}}\n\
         spec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

fn count(frames: &[u8], text: &str) -> usize {
    frames.windows(text.len()).filter(|bytes| *bytes == text.as_bytes()).count()
}

/// Starts all servers; `None`: something is missing, and the test has been reported as skipped.
fn start_servers(mesh: &PodMesh) -> Option<TcpServers<'_>> {
    let clients =
        ["redis-cli", "psql", "amqp-declare-queue", "amqp-publish", "amqp-get", "memccp", "memccat"];
    for client in clients {
        require_tool(client)?;
    }
    let data = mesh.pod("data");
    let mut servers = TcpServers::new(data)?;
    // The slowest first: all start at the same time.
    servers.rabbitmq()?;
    servers.kafka(&[(Kafka.port(), Kafka.cluster_ip()), (KAFKA_BROKERS, data.net.v4)])?;
    servers.redis()?;
    servers.memcached()?;
    servers.postgres()?;
    for protocol in PROTOCOLS {
        servers.wait_listening(&protocol.name(), protocol.port());
    }
    servers.wait_listening("kafka", KAFKA_BROKERS);
    Some(servers)
}

#[test]
fn real_clients_reach_real_servers_encrypted_and_with_both_identities() {
    let Some(mut mesh) = PodMesh::start(&["web", "data"], &objects()) else { return };
    let stranger = mesh.stranger();
    let (web, data) = (mesh.pod("web"), mesh.pod("data"));
    let Some(_servers) = start_servers(&mesh) else { return };
    mesh.write("mtls.yaml", &peer_authentication("STRICT"));
    wait::until("STRICT", || Redis.ask(&stranger, data.net.v4, Redis.port(), "stranger").is_err());

    let recording = mesh.sniff();
    for protocol in PROTOCOLS {
        let ways = [("service", protocol.cluster_ip()), ("pod", data.net.v4)];
        for (way, ip) in ways {
            let text = format!("{PAYLOAD}{}-by-{way}", protocol.name());
            assert_eq!(protocol.ask(&web.net, ip, protocol.port(), &text), Ok(text));
        }
    }
    let text = format!("{PAYLOAD}kafka-headless");
    assert_eq!(Kafka.ask(&web.net, data.net.v4, KAFKA_BROKERS, &text), Ok(text));
    let frames = recording.finish();
    assert!(frames.len() > 10_000, "{} bytes recorded", frames.len());
    assert_eq!(count(&frames, PAYLOAD), 0);

    let (source, destination) = (spiffe("web"), spiffe("data"));
    for protocol in PROTOCOLS {
        let service = format!("{}.default.svc.cluster.local", protocol.name());
        for (pod, reporter) in [(web, "source"), (data, "destination")] {
            let labels = [
                ("reporter", reporter),
                ("destination_service", &service),
                ("source_workload", "web"),
                ("destination_workload", "data"),
                ("source_principal", &source),
                ("destination_principal", &destination),
            ];
            for name in ["istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total"] {
                wait::until(&format!("{name} of {service} by the {reporter}"), || {
                    pod.scrape().sum(name, &labels) > 0.0
                });
            }
        }
    }

    // The same recording does find what is sent in plaintext.
    mesh.write("mtls.yaml", &peer_authentication("DISABLE"));
    for protocol in PROTOCOLS {
        let text = format!("{PAYLOAD}{}-in-plaintext", protocol.name());
        wait::until(&text, || {
            let recording = mesh.sniff();
            // The callee's sidecar and the caller's learn it one after the other.
            let _ = protocol.ask(&web.net, protocol.cluster_ip(), protocol.port(), &text);
            count(&recording.finish(), &text) > 0
        });
    }
}
