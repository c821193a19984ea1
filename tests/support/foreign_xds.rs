//! A control plane that is not ours (`tests/foreign_xds`), as a child process: its configuration, and what it saw.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::addr::{free_addr_on, pod_ip};
use crate::tools::{repository, require_tool};
use crate::wait;

/// Which of go-control-plane's caches it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// One consistent snapshot: on an aggregated stream it waits for the request that names everything.
    Snapshot,
    /// A collection of each type: in the state of the world only what changed is sent of endpoints and routes.
    Linear,
}

/// The running server.
#[derive(Debug)]
pub struct ForeignXds {
    python: PathBuf,
    cache: Cache,
    addr: SocketAddr,
    folder: TempDir,
    child: Child,
    /// Lines of the log from before the process that runs.
    skipped: usize,
}

impl ForeignXds {
    /// Starts one with these resources; `None` when its Python is not installed, and then the calling test has been reported as skipped.
    #[track_caller]
    pub fn start(cache: Cache, resources: &Value) -> Option<Self> {
        let python = require_tool("grpc-python")?;
        let folder = tempfile::tempdir().expect("temporary folder");
        let addr = free_addr_on(IpAddr::from(pod_ip()));
        let child = spawn(&python, cache, addr, &folder);
        let mut server = ForeignXds { python, cache, addr, folder, child, skipped: 0 };
        server.set(resources);
        server.wait_serving();
        Some(server)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves this configuration instead of the one before.
    ///
    /// # Panics
    /// When the server refuses it.
    #[track_caller]
    pub fn set(&mut self, resources: &Value) {
        if let Err(reason) = self.try_set(resources) {
            panic!("{reason}\n{}", self.stderr());
        }
    }

    /// The same.
    ///
    /// # Errors
    /// Why the server refuses it.
    #[track_caller]
    pub fn try_set(&mut self, resources: &Value) -> Result<(), String> {
        let before = self.events("set").len();
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{resources}").expect("a running server");
        let set = wait::within(wait::PATIENCE, || self.events("set").into_iter().nth(before));
        let set = set.unwrap_or_else(|| panic!("no answer to a configuration:\n{}", self.stderr()));
        set["refused"].as_str().map_or(Ok(()), |reason| Err(reason.to_owned()))
    }

    /// What happened of this kind since the process that runs was started; see `tests/foreign_xds/server.py`.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("stdout")).expect("its log");
        // The last line may be there by half.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let events = whole.lines().skip(self.skipped);
        let events = events.map(|line| serde_json::from_str::<Value>(line).expect("an event"));
        events.filter(|event| event["event"] == kind).collect()
    }

    /// Ends the process, and with it all streams.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts another process at the same address, which serves `resources` from its first stream on.
    #[track_caller]
    pub fn restart(&mut self, resources: &Value) {
        self.kill();
        let log = fs::read_to_string(self.folder.path().join("stdout")).expect("its log");
        self.skipped = log.lines().count();
        self.child = spawn(&self.python, self.cache, self.addr, &self.folder);
        self.set(resources);
        self.wait_serving();
    }

    /// What Python has complained about.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    #[track_caller]
    fn wait_serving(&self) {
        let serving = wait::within(wait::PATIENCE, || (!self.events("serving").is_empty()).then_some(()));
        assert!(serving.is_some(), "no foreign control plane:\n{}", self.stderr());
    }
}

impl Drop for ForeignXds {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(python: &PathBuf, cache: Cache, addr: SocketAddr, folder: &TempDir) -> Child {
    let log = |name: &str| {
        let path = folder.path().join(name);
        File::options().append(true).create(true).open(path).expect("log file")
    };
    Command::new(python)
        // Its modules are sources: nothing is to be written beside them.
        .arg("-B")
        .arg(repository().join("tests/foreign_xds/server.py"))
        .arg(addr.to_string())
        .arg(match cache {
            Cache::Snapshot => "snapshot",
            Cache::Linear => "linear",
        })
        .stdin(Stdio::piped())
        .stdout(log("stdout"))
        .stderr(log("stderr"))
        .spawn()
        .expect("start Python")
}
