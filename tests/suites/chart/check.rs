//! `helm test`: the command of its Pod, run against a control plane that is well, and against some that are not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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

/// What a webhook does with the review that it gets.
type Webhook = fn(&Value) -> Value;

/// A control plane's three listeners on one address.
struct ControlPlane {
    ready: Upstream,
    xds: SocketAddr,
    webhook: SocketAddr,
}

impl ControlPlane {
    fn start(leaf: &Leaf, webhook: Webhook) -> Self {
        let ip = pod_ip();
        ControlPlane {
            ready: Upstream::start_at((ip, 0).into()),
            xds: serve_tls((ip, 0).into(), leaf, webhook),
            webhook: serve_tls((ip, 0).into(), leaf, webhook),
        }
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

/// The Pod's command as the chart renders it, put to this control plane.
fn check(helm: &Helm, control_plane: &ControlPlane, pki: &Pki, name: &str) -> (Output, String) {
    let release = Release { namespace: "mesh".into(), ..Release::new(json!({"revision": "blue"})) };
    let rendered = helm.render(&release);
    let container = &rendered.the("Pod")["spec"]["containers"][0];
    let text = |key: &str| -> Vec<String> { serde_json::from_value(container[key].clone()).unwrap() };
    let command = text("command");
    let mut arguments = text("args");
    let mut replace = |from: &str, to: String| {
        let argument = arguments.iter_mut().find(|argument| *argument == from);
        *argument.unwrap_or_else(|| panic!("no {from} in {container}")) = to;
    };
    // What the kubelet, the volume and the cluster's addresses do.
    replace(
        "--address=$(OUTRIGGER_CONTROL_PLANE_BLUE_SERVICE_HOST)",
        format!("--address={}", control_plane.ready.addr().ip()),
    );
    replace(
        "--name=outrigger-control-plane-blue.mesh.svc",
        format!("--name={name}.default.svc.cluster.local"),
    );
    replace(
        "--root-cert=/var/run/secrets/istio/root-cert.pem",
        format!("--root-cert={}", pki.trusted.root.display()),
    );
    replace("--timeout=60", "--timeout=0".into());
    let output = Command::new(binary(&command[0]))
        .args(&command[1..])
        .args(arguments)
        .arg(format!("--admin-port={}", control_plane.ready.addr().port()))
        .arg(format!("--xds-port={}", control_plane.xds.port()))
        .arg(format!("--webhook-port={}", control_plane.webhook.port()))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

#[test]
fn a_control_plane_that_is_well_passes() {
    let Some(helm) = Helm::find() else { return };
    let pki = Pki::new();
    let control_plane = ControlPlane::start(&pki.trusted.leaf("cp"), allow);
    let (output, text) = check(&helm, &control_plane, &pki, "cp");
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
        let (output, text) = check(&helm, &control_plane, &pki, "cp");
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in expected {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
    }
}
