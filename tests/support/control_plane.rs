//! The control plane as a child process, at addresses of its own that stay the same when it is started again.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::addr::pod_ip;
use crate::client::get;
use crate::message::Response;
use crate::proxy::binary;
use crate::wait;

/// A control plane that keeps its data in the folder `data`.
#[derive(Debug)]
pub struct ControlPlane {
    folder: PathBuf,
    source: String,
    env: Vec<(String, String)>,
    ip: Ipv4Addr,
    child: Option<Child>,
}

impl ControlPlane {
    /// Starts one that reads `source`, with more environment, and waits until it listens. `folder` is for its data and its log.
    pub fn start(folder: &Path, source: String, env: Vec<(String, String)>) -> Self {
        let mut started = Self { folder: folder.into(), source, env, ip: pod_ip(), child: None };
        started.start_again();
        started
    }

    /// Starts it again on the same data and, unless moved, at the same addresses.
    pub fn start_again(&mut self) {
        let addresses = self.folder.join("data/addresses.json");
        let _ = fs::remove_file(&addresses);
        self.spawn();
        let started = wait::within(wait::PATIENCE, || addresses.exists().then_some(()));
        assert!(started.is_some(), "no control plane:\n{}", self.log());
    }

    /// The same without waiting for anything.
    pub fn spawn(&mut self) {
        self.kill();
        let log = File::options().append(true).create(true).open(self.folder.join("control-plane.stderr"));
        let ip = self.ip;
        let child = Command::new(binary("outrigger-control-plane"))
            .args(["--source", &self.source, "--access-log", "--data-dir"])
            .arg(self.folder.join("data"))
            .args(["--xds-address", &format!("{ip}:15010"), "--xds-tls-address", &format!("{ip}:15012")])
            .args(["--admin-address", &format!("{ip}:15014")])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("log file"))
            .spawn();
        self.child = Some(child.expect("start outrigger-control-plane"));
    }

    /// The next start is at addresses that nobody knows.
    pub fn relocate(&mut self) {
        self.ip = pod_ip();
    }

    /// The next start has this in its environment.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(other, _)| other != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// What it was given in its environment.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    /// Sends it a signal, for example `STOP`.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("a control plane that runs").id();
        let sent = Command::new("kill").args(["-s", name, &id.to_string()]).status();
        assert!(sent.expect("run kill").success());
    }

    /// Where sidecars find it.
    pub fn xds_tls(&self) -> SocketAddr {
        (self.ip, 15012).into()
    }

    /// Its admin listener.
    pub fn admin(&self) -> SocketAddr {
        (self.ip, 15014).into()
    }

    /// A page of its admin listener.
    #[track_caller]
    pub fn page(&self, path: &str) -> Response {
        get(self.admin(), "control-plane", path)
    }

    /// What it has logged, over all starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("control-plane.stderr")).unwrap_or_default()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.kill();
    }
}
