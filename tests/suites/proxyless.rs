//! Real gRPC clients and servers without sidecars: the client finds its servers by the xDS that gRPC has built in, from our
//! control plane, follows an HTTPRoute's weights and the endpoints, and goes on without us.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

use outrigger_tests::addr::pod_ip;
use outrigger_tests::mesh::{APP_PORT, Mesh};
use outrigger_tests::secret_server::SecretServer;
use outrigger_tests::tools::{repository, require_tool};
use outrigger_tests::wait;
use serde_json::Value;
use tempfile::TempDir;

/// What a user is told to write.
const BOOTSTRAP: &str = include_str!("../../docs/foreign-peers/grpc.json");
const METHOD: &str = "/shop.Reviews/Get";

/// A process that ends with the value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of the programs of `tests/proxyless_grpc`; `None` when Python's gRPC is not installed.
#[track_caller]
fn python(program: &str) -> Option<Command> {
    let mut command = Command::new(require_tool("grpc-python")?);
    command.arg("-B").arg(repository().join("tests/proxyless_grpc").join(program));
    Some(command)
}

/// A pod with a server.
struct Server {
    pod: &'static str,
    version: &'static str,
    ip: Ipv4Addr,
    _process: Process,
}

impl Server {
    #[track_caller]
    fn start(pod: &'static str, version: &'static str) -> Option<Self> {
        let ip = pod_ip();
        let child = python("server.py")?.arg(format!("{ip}:{APP_PORT}")).arg(pod).spawn().unwrap();
        wait::until("a gRPC server", || TcpStream::connect((ip, APP_PORT)).is_ok());
        Some(Server { pod, version, ip, _process: Process(child) })
    }

    fn yaml(&self) -> String {
        let Self { pod, version, ip, .. } = self;
        pod_yaml(pod, "reviews", version, *ip, "sidecar.istio.io/inject: 'false'")
    }
}

fn pod_yaml(name: &str, app: &str, version: &str, ip: Ipv4Addr, annotation: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, namespace: default, labels: {{ app: {app}, version: {version} \
         }}, annotations: {{ {annotation} }} }}\nspec: {{ serviceAccountName: {app}, containers: [ {{ name: app }} ] }}\n\
         status: {{ podIP: {ip}, podIPs: [ {{ ip: {ip} }} ] }}\n---\n"
    )
}

/// The Services `reviews`, `reviews-v1` and `reviews-v2`.
fn services() -> String {
    let service = |name: &str, selector: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: default }}\nspec: {{ selector: {{ app: reviews\
             {selector} }}, ports: [ {{ name: grpc, port: {APP_PORT} }} ] }}\n---\n"
        )
    };
    [service("reviews", ""), service("reviews-v1", ", version: v1"), service("reviews-v2", ", version: v2")]
        .concat()
}

/// The HTTPRoute of `reviews`, split by these weights.
fn route(v1: u32, v2: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: reviews, namespace: default }}\n\
         spec:\n  parentRefs:\n  - {{ group: \"\", kind: Service, name: reviews, port: {APP_PORT} }}\n  rules:\n  \
         - matches: [ {{ path: {{ type: PathPrefix, value: /shop.Reviews }} }} ]\n    backendRefs:\n    \
         - {{ name: reviews-v1, port: {APP_PORT}, weight: {v1} }}\n    \
         - {{ name: reviews-v2, port: {APP_PORT}, weight: {v2} }}\n"
    )
}

/// A client in a pod of its own, and the certificate files that it proves itself with.
struct Client {
    process: Process,
    answers: BufReader<ChildStdout>,
    _secrets: SecretServer,
    folder: TempDir,
}

impl Client {
    /// Starts one in the pod `web-0` that calls `target`.
    #[track_caller]
    fn start(mesh: &Mesh, ip: Ipv4Addr, target: &str) -> Option<Self> {
        let mut command = python("client.py")?;
        let folder = tempfile::tempdir().unwrap();
        let certificates = folder.path().join("certs");
        let args = [OsStr::new("--output-certs"), certificates.as_os_str()];
        let secrets = SecretServer::start(mesh, "web-0", "web", &args, &folder.path().join("sds.stderr"));
        wait::until("certificate files", || certificates.join("root-cert.pem").exists());
        let values = [
            ("control_plane", mesh.control_plane.xds_tls().to_string()),
            ("certificates", certificates.display().to_string()),
            ("pod_ip", ip.to_string()),
            ("pod", "web-0".to_owned()),
            ("namespace", "default".to_owned()),
        ];
        let fill =
            |text: String, (name, value): &(&str, String)| text.replace(&format!("{{{{{name}}}}}"), value);
        let bootstrap = folder.path().join("bootstrap.json");
        fs::write(&bootstrap, values.iter().fold(BOOTSTRAP.to_owned(), fill)).unwrap();
        let mut child = command
            .arg(target)
            .env("GRPC_XDS_BOOTSTRAP", &bootstrap)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Some(Client { process: Process(child), answers, _secrets: secrets, folder })
    }

    /// Makes so many calls: how often which answer came, and how often which error.
    #[track_caller]
    fn call(&mut self, count: usize) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
        writeln!(self.process.0.stdin.as_mut().unwrap(), "{count} {METHOD}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let found: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{}", self.stderr()));
        let read = |key: &str| serde_json::from_value(found[key].clone()).unwrap();
        (read("answers"), read("errors"))
    }

    /// The same, when no call may fail.
    #[track_caller]
    fn answers(&mut self, count: usize) -> BTreeMap<String, usize> {
        let (answers, errors) = self.call(count);
        assert!(errors.is_empty(), "{errors:?}\n{}", self.stderr());
        answers
    }

    #[track_caller]
    fn wait_for_an_answer(&mut self) {
        let mut last = BTreeMap::new();
        let answered = wait::within(wait::PATIENCE, || {
            let (answers, errors) = self.call(1);
            last = errors;
            (!answers.is_empty()).then_some(())
        });
        assert!(answered.is_some(), "{last:?}\n{}", self.stderr());
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }
}

/// The part of the answers that came from v1.
fn share_of_v1(answers: &BTreeMap<String, usize>) -> f64 {
    let v1: usize = answers.iter().filter(|(pod, _)| pod.contains("-v1-")).map(|(_, count)| count).sum();
    v1 as f64 / answers.values().sum::<usize>() as f64
}

/// Calls until the split is `expected`, and then checks it on fresh calls. None may fail.
#[track_caller]
fn wait_for_share(client: &mut Client, expected: f64) {
    wait::until("the new split", || (share_of_v1(&client.answers(100)) - expected).abs() < 0.15);
    let calls = 2_000;
    let share = share_of_v1(&client.answers(calls));
    // Five standard deviations of a binomial distribution.
    let margin = 5.0 * (expected * (1.0 - expected) / calls as f64).sqrt();
    assert!((share - expected).abs() <= margin, "{share} of v1, expected {expected} ± {margin}");
}

#[test]
fn a_client_follows_routes_and_endpoints() {
    let Some(v1) = Server::start("reviews-v1-a", "v1") else { return };
    let Some(v2) = Server::start("reviews-v2-a", "v2") else { return };
    let ip = pod_ip();
    let web = pod_yaml("web-0", "web", "v1", ip, "inject.istio.io/templates: grpc-agent");
    let objects = |servers: &[&Server]| {
        let pods: String = servers.iter().map(|server| server.yaml()).collect();
        services() + &web + &pods
    };
    let mut mesh = Mesh::start(&[], &objects(&[&v1, &v2]));
    mesh.write("route.yaml", &route(90, 10));
    let target = format!("xds:///reviews.default.svc.cluster.local:{APP_PORT}");
    let Some(mut client) = Client::start(&mesh, ip, &target) else { return };
    client.wait_for_an_answer();
    wait_for_share(&mut client, 0.9);
    mesh.write("route.yaml", &route(50, 50));
    wait_for_share(&mut client, 0.5);

    // One more instance of v1, then one less.
    let Some(other) = Server::start("reviews-v1-b", "v1") else { return };
    mesh.write("more.yaml", &objects(&[&v1, &v2, &other]));
    wait::until("the new instance", || client.answers(50).contains_key("reviews-v1-b"));
    let answers = client.answers(400);
    let counts = ["reviews-v1-a", "reviews-v1-b"].map(|pod| answers[pod]);
    assert!(counts[0].abs_diff(counts[1]) <= 10, "round robin: {answers:?}");
    mesh.write("more.yaml", &objects(&[&v2, &other]));
    wait::until("the old instance is gone", || !client.answers(50).contains_key("reviews-v1-a"));
    assert!(!client.answers(400).contains_key("reviews-v1-a"));

    let page: Value = serde_json::from_str(&mesh.control_plane.page("/proxies").text()).unwrap();
    let row = &page["proxies"][0];
    assert_eq!(row["variant"], "sotw", "{page}");
    for of in ["lds", "rds", "cds", "eds"] {
        assert_eq!(row["types"][of]["state"], "synced", "{of}: {page}");
    }
    assert!(!mesh.control_plane.log().contains("NACK"), "{}", mesh.control_plane.log());

    mesh.control_plane.kill();
    client.answers(400);
}

#[test]
fn a_short_name_is_enough_in_the_own_namespace() {
    let Some(v1) = Server::start("reviews-v1-a", "v1") else { return };
    let ip = pod_ip();
    let web = pod_yaml("web-0", "web", "v1", ip, "inject.istio.io/templates: grpc-agent");
    let mesh = Mesh::start(&[], &(services() + &web + &v1.yaml()));
    let Some(mut client) = Client::start(&mesh, ip, &format!("xds:///reviews:{APP_PORT}")) else { return };
    client.wait_for_an_answer();
    assert_eq!(client.answers(20), [("reviews-v1-a".to_owned(), 20)].into());
}

#[test]
fn a_pod_that_should_have_a_sidecar_is_told_what_it_lacks() {
    let ip = pod_ip();
    let web = pod_yaml("web-0", "web", "v1", ip, "sidecar.istio.io/status: '{}'");
    let mesh = Mesh::start(&[], &(services() + &web));
    let Some(mut client) = Client::start(&mesh, ip, &format!("xds:///reviews:{APP_PORT}")) else { return };
    let (answers, errors) = client.call(1);
    assert!(answers.is_empty());
    let error = errors.keys().next().unwrap();
    assert!(error.contains("inject.istio.io/templates"), "{error}\n{}", client.stderr());
}
