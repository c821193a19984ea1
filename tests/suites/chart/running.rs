//! The real control plane as a child process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use outrigger_tests::addr::pod_ip;
use outrigger_tests::client::get;
use outrigger_tests::proxy::binary;
use outrigger_tests::wait::{eventually, until};
use serde_json::Value;

/// Where a control plane is asked.
pub(crate) struct Listeners {
    pub(crate) ready: SocketAddr,
    pub(crate) xds: SocketAddr,
    pub(crate) webhook: SocketAddr,
}

/// A control plane, which ends with the value.
pub(crate) struct Running {
    child: Child,
    data: tempfile::TempDir,
    pub(crate) listeners: Listeners,
}

impl Running {
    /// Starts one on free ports, with more flags.
    pub(crate) fn start(flags: &[String]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let ip = pod_ip();
        let child = Command::new(binary("outrigger-control-plane"))
            .arg(format!("--data-dir={}", data.path().display()))
            .arg("--xds-address=127.0.0.1:0")
            .args(["xds-tls", "admin", "webhook"].map(|listener| format!("--{listener}-address={ip}:0")))
            .args(flags)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let addresses: Value = eventually("addresses.json", || {
            serde_json::from_slice(&std::fs::read(data.path().join("addresses.json")).ok()?).ok()
        });
        let address = |name: &str| addresses[name].as_str().unwrap().parse().unwrap();
        let listeners =
            Listeners { ready: address("admin"), xds: address("xds_tls"), webhook: address("webhook") };
        Running { child, data, listeners }
    }

    /// What it says of its readiness: status and text.
    pub(crate) fn readiness(&self) -> (u16, String) {
        let answer = get(self.listeners.ready, "control-plane", "/ready");
        (answer.status, answer.text())
    }

    pub(crate) fn until_ready(&self) {
        until("the control plane is ready", || self.readiness().0 == 200);
    }

    /// PEM file of the mesh's root certificate.
    pub(crate) fn root(&self) -> PathBuf {
        self.data.path().join("root-cert.pem")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
