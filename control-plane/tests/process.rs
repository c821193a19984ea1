//! The binary as a process: start, readiness, bad flags, SIGTERM.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use outrigger_control_plane::Addresses;

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: { name: web-0, namespace: shop, labels: { app: web } }
spec: { serviceAccountName: web, containers: [ { name: web } ] }
status: { podIP: 127.1.0.1, podIPs: [ { ip: 127.1.0.1 } ] }
";

/// Whatever is waited for comes much earlier.
const DEADLINE: Duration = Duration::from_secs(30);

struct Process {
    child: Child,
    data: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &Path, source: &str, flags: &[&str]) -> Command {
    std::fs::create_dir_all(dir.join("mesh")).unwrap();
    std::fs::write(dir.join("mesh/pod.yaml"), POD).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-control-plane"));
    command
        .arg(match source {
            "kubernetes" => "--source=kubernetes".to_owned(),
            directory => format!("--source=file:{}", dir.join(directory).display()),
        })
        .arg(format!("--data-dir={}", dir.join("data").display()))
        .args(flags)
        .env_remove("RUST_LOG")
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

const FREE_PORTS: &[&str] =
    &["--xds-address=127.0.0.1:0", "--xds-tls-address=127.0.0.1:0", "--admin-address=127.0.0.1:0"];

/// Runs to the end and shows what was said.
fn fails(dir: &Path, source: &str, flags: &[&str]) -> String {
    let Output { status, stderr, .. } = command(dir, source, flags).output().unwrap();
    assert!(!status.success(), "{flags:?}");
    String::from_utf8(stderr).unwrap()
}

impl Process {
    fn start(dir: &Path, flags: &[&str]) -> Self {
        Self { child: command(dir, "mesh", flags).spawn().unwrap(), data: dir.join("data") }
    }

    /// Sends the signal, waits for the end and returns whether that was a good one.
    fn end(&mut self, signal: &str) -> bool {
        let pid = self.child.id();
        assert!(
            Command::new("sh").arg("-c").arg(format!("kill -{signal} {pid}")).status().unwrap().success()
        );
        self.child.wait().unwrap().success()
    }

    fn addresses(&mut self) -> Addresses {
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < DEADLINE, "no addresses.json");
            if let Ok(text) = std::fs::read(self.data.join("addresses.json")) {
                return serde_json::from_slice(&text).unwrap();
            }
            assert!(self.child.try_wait().unwrap().is_none(), "it ended");
            std::thread::yield_now();
        }
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn it_becomes_ready_and_ends_well_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), FREE_PORTS);
    let addresses = process.addresses();
    let started = Instant::now();
    while !get(addresses.admin, "/ready").starts_with("HTTP/1.1 200 ") {
        assert!(started.elapsed() < DEADLINE, "not ready");
        std::thread::yield_now();
    }
    let token = std::fs::read_to_string(process.data.join("tokens/shop/web-0")).unwrap();
    assert_eq!(token.len(), 43);
    assert!(get(addresses.admin, "/version").contains(env!("CARGO_PKG_VERSION")));
    assert!(get(addresses.admin, "/nothing").starts_with("HTTP/1.1 404 "));

    assert!(process.end("TERM"));
    let mut log = String::new();
    process.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("control plane started"), "{log}");
    assert!(!log.contains(&token), "a token leaked into the log");
}

#[test]
fn a_socket_that_was_left_behind_is_taken_over_and_one_in_use_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("xds.sock");
    let flag = format!("--xds-address=unix:{}", socket.display());
    let flags = [&flag, "--admin-address=127.0.0.1:0"];
    let mut killed = Process::start(dir.path(), &flags);
    assert_eq!(killed.addresses().xds.to_string(), format!("unix:{}", socket.display()));
    assert!(!killed.end("KILL") && socket.exists());

    std::fs::remove_file(killed.data.join("addresses.json")).unwrap();
    let mut second = Process::start(dir.path(), &flags);
    second.addresses();
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = fails(elsewhere.path(), "mesh", &flags);
    assert!(refused.contains(&flag.replace('=', " ")), "{refused}");
    assert!(refused.contains("another process listens there"), "{refused}");
    assert!(second.end("TERM") && !socket.exists());
}

#[test]
fn bad_flags_end_it_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let refused = fails(dir.path(), "mesh", &["--xds-address=0.0.0.0:0", "--admin-address=127.0.0.1:0"]);
    assert!(refused.contains("not a loopback address"), "{refused}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let flag = format!("--xds-address={}", taken.local_addr().unwrap());
    let refused = fails(dir.path(), "mesh", &[&flag, "--admin-address=127.0.0.1:0"]);
    assert!(refused.contains("--xds-address") && refused.contains("in use"), "{refused}");

    let refused = fails(dir.path(), "elsewhere", FREE_PORTS);
    assert!(refused.contains("--source") && refused.contains("elsewhere"), "{refused}");

    let refused = fails(dir.path(), "kubernetes", FREE_PORTS);
    assert!(refused.contains("--source kubernetes: not in a cluster, and no --kubeconfig"), "{refused}");

    let refused = fails(dir.path(), "kubernetes", &[&["--kubeconfig=/nonexistent"], FREE_PORTS].concat());
    assert!(refused.contains("--kubeconfig: ") && refused.contains("/nonexistent"), "{refused}");

    let missing = ["--ca-cert=/nonexistent.pem", "--ca-key=/nonexistent-key.pem"];
    let refused = fails(dir.path(), "mesh", &[&missing[..], FREE_PORTS].concat());
    assert!(refused.contains("/nonexistent"), "{refused}");
}
