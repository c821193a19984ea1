//! `helm test`: the command of its Pod, run against a control plane that is well, and against some that are not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use outrigger_tests::addr::pod_ip;
use outrigger_tests::certs::{Leaf, Pki};
use outrigger_tests::helm::{Helm, Release};
use outrigger_tests::proxy::binary;
use outrigger_tests::upstream::{Reply, Upstream};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::running::{Listeners, Running};

/// What a webhook does with the review that it gets.
type Webhook = fn(&Value) -> Value;

/// A fake.
struct ControlPlane {
    ready: Upstream,
    listeners: Listeners,
}

impl ControlPlane {
    fn start(leaf: &Leaf, webhook: Webhook) -> Self {
        let ip = pod_ip();
        let ready = Upstream::start_at((ip, 0).into());
        let listeners = Listeners {
            ready: ready.addr(),
            xds: serve_tls((ip, 0).into(), leaf, webhook),
            webhook: serve_tls((ip, 0).into(), leaf, webhook),
        };
        ControlPlane { ready, listeners }
    }
}

/// TLS, and one HTTP/1 request on each connection; ends with the process.
fn serve_tls(address: SocketAddr, leaf: &Leaf, webhook: Webhook) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(leaf.chain_der(), leaf.key_der())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // A caller that does not trust us ends the connection: that is its business.
            let _ = answer(socket, &config, webhook);
        }
    });
    address
}

fn answer(socket: TcpStream, config: &Arc<ServerConfig>, webhook: Webhook) -> std::io::Result<()> {
    let session = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(session, socket));
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let review: Value = serde_json::from_slice(&body)?;
    let body = webhook(&review).to_string();
    write!(stream.get_mut(), "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn allow(review: &Value) -> Value {
    let pod = &review["request"]["object"];
    assert_eq!((&pod["kind"], &review["request"]["dryRun"]), (&json!("Pod"), &json!(true)));
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], "allowed": true}})
}

fn refuse(review: &Value) -> Value {
    json!({"response": {"uid": review["request"]["uid"], "allowed": false, "status": {"message": "no"}}})
}

fn forget(_: &Value) -> Value {
    json!({"response": {"uid": "another", "allowed": true}})
}

/// The command of the chart's Pod, put to these listeners; `name` is the one that their certificate must have.
fn check(helm: &Helm, release: &Release, listeners: &Listeners, root: &Path, name: &str) -> (Output, String) {
    let rendered = helm.render(release);
    let container = &rendered.the("Pod")["spec"]["containers"][0];
    let text = |key: &str| -> Vec<String> { serde_json::from_value(container[key].clone()).unwrap() };
    let command = text("command");
    let mut arguments = text("args");
    let service = rendered.the("Service")["metadata"]["name"].as_str().unwrap();
    // As Kubernetes names it.
    let variable = format!("{}_SERVICE_HOST", service.to_uppercase().replace('-', "_"));
    let mut replace = |from: &str, to: String| {
        let argument = arguments.iter_mut().find(|argument| *argument == from);
        *argument.unwrap_or_else(|| panic!("no {from} in {container}")) = to;
    };
    // What the kubelet, the volume and the cluster's addresses do.
    replace(&format!("--address=$({variable})"), format!("--address={}", listeners.ready.ip()));
    replace(&format!("--name={service}.{}.svc", release.namespace), format!("--name={name}"));
    replace("--root-cert=/var/run/secrets/istio/root-cert.pem", format!("--root-cert={}", root.display()));
    replace("--timeout=60", "--timeout=0".into());
    let output = Command::new(binary(&command[0]))
        .args(&command[1..])
        .args(arguments)
        .arg(format!("--admin-port={}", listeners.ready.port()))
        .arg(format!("--xds-port={}", listeners.xds.port()))
        .arg(format!("--webhook-port={}", listeners.webhook.port()))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

/// Of the certificates that the fakes get.
const NAME: &str = "cp.default.svc.cluster.local";

#[test]
fn the_real_control_plane_passes() {
    let Some(helm) = Helm::find() else { return };
    let objects = tempfile::tempdir().unwrap();
    let control_plane = Running::start(&[format!("--source=file:{}", objects.path().display())]);
    control_plane.until_ready();
    let release = Release::new(json!({}));
    let name = "outrigger-control-plane.outrigger-system.svc";
    let (output, text) = check(&helm, &release, &control_plane.listeners, &control_plane.root(), name);
    assert!(output.status.success(), "{text}");
}

#[test]
fn a_control_plane_that_is_well_passes() {
    let Some(helm) = Helm::find() else { return };
    let pki = Pki::new();
    let control_plane = ControlPlane::start(&pki.trusted.leaf("cp"), allow);
    let release = Release { namespace: "mesh".into(), ..Release::new(json!({"revision": "blue"})) };
    let (output, text) = check(&helm, &release, &control_plane.listeners, &pki.trusted.root, NAME);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("ok")).count(), 3, "{text}");
    assert_eq!(control_plane.ready.take_requests()[0].target, "/ready");
}

#[test]
fn one_that_is_not_fails_and_says_why() {
    let Some(helm) = Helm::find() else { return };
    let pki = Pki::new();
    let own = pki.trusted.leaf("cp");
    let ready = |_: &ControlPlane| {};
    let not_ready =
        |it: &ControlPlane| it.ready.answer_with(|_| Reply::status(503, "the source is being read"));
    type Case<'a> = (Leaf, Webhook, &'a dyn Fn(&ControlPlane), &'a [&'a str]);
    let cases: [Case<'_>; 6] = [
        (own.clone(), allow, &not_ready, &["503", "the source is being read"]),
        (pki.foreign.leaf("cp"), allow, &ready, &["xDS listener", "TLS", "UnknownIssuer"]),
        (pki.trusted.leaf("other"), allow, &ready, &["xDS listener", "TLS", "not valid for name"]),
        (pki.trusted.expired("cp"), allow, &ready, &["xDS listener", "TLS", "expired"]),
        (own.clone(), refuse, &ready, &["webhook", "is refused"]),
        (own, forget, &ready, &["webhook", "not for the review"]),
    ];
    for (leaf, webhook, prepare, expected) in cases {
        let control_plane = ControlPlane::start(&leaf, webhook);
        prepare(&control_plane);
        let release = Release::new(json!({}));
        let (output, text) = check(&helm, &release, &control_plane.listeners, &pki.trusted.root, NAME);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in expected {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
    }
}
