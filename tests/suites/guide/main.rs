//! `docs/getting-started.md`, run as a reader would: every command, in its order, with the real `kubectl` and the real Helm, on a cluster
//! that acts by itself ([`LiveCluster`]). The control plane runs as the chart's Deployment says, Pods are injected by its webhook and
//! captured by its init container.
//!
//! What is not real is the cluster: an API server of our own, Pods as network namespaces, our programs in the place of our images. Two
//! more images are played: `curlimages/curl` is this machine's curl, `hashicorp/http-echo` a server that says what its arguments
//! tell it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod output;
mod page;

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use outrigger_tests::Upstream;
use outrigger_tests::kubelet::{Program, Sandbox};
use outrigger_tests::live_cluster::LiveCluster;
use outrigger_tests::pods::any;
use outrigger_tests::tools::{repository, require_tool};
use outrigger_tests::upstream::Reply;
use outrigger_tests::wait::{self, PATIENCE};
use page::Block;

/// The registry that the guide writes for the reader's own.
const REGISTRY: &str = "registry.example.com/mesh";

#[test]
fn every_command_does_what_the_guide_says() {
    let Some(reader) = Reader::start() else { return };
    let before = reader.cluster.server().names();
    let page = std::fs::read_to_string(repository().join("docs/getting-started.md")).unwrap();
    for block in page::blocks(&page) {
        reader.run(&block);
    }
    assert_eq!(reader.cluster.server().names(), before, "the guide leaves something behind");
}

/// Somebody at a terminal.
struct Reader {
    cluster: LiveCluster,
    /// `PATH`.
    programs: OsString,
}

impl Reader {
    #[track_caller]
    fn start() -> Option<Self> {
        let tools: Vec<PathBuf> =
            ["kubectl", "helm", "curl", "bash"].into_iter().map(require_tool).collect::<Option<_>>()?;
        let folders = tools.iter().filter_map(|tool| tool.parent()).map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        let programs = env::join_paths(folders.chain(env::split_paths(&path))).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let ours = |name: &str| format!("{REGISTRY}/{name}:{version}");
        let (control_plane, proxy) = (ours("outrigger-control-plane"), ours("outrigger-proxy"));
        let cluster = LiveCluster::start(vec![
            (&control_plane, Program::binary(&["outrigger-control-plane"], 1337)),
            (&proxy, Program::binary(&["outrigger-proxy"], 1337)),
            ("curlimages/curl:8.11.1", Program::binary(&["curl"], 100)),
            ("hashicorp/http-echo:1.0", Program::server(|sandbox| Box::new(echo(sandbox)))),
        ])?;
        Some(Reader { cluster, programs })
    }

    /// Runs the commands of a block, in the repository, until one fails: what they print, and whether all succeeded.
    fn type_in(&self, block: &Block) -> (String, bool) {
        let script = format!("exec 2>&1\n{}", block.commands);
        let output = self
            .cluster
            .command("timeout")
            .args(["60", "bash", "-euo", "pipefail", "-c", &script])
            .env("PATH", &self.programs)
            .current_dir(repository())
            .output()
            .unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.success())
    }

    #[track_caller]
    fn run(&self, block: &Block) {
        let (mut printed, mut succeeded) = (String::new(), false);
        let patience = if block.is_retried { PATIENCE } else { Duration::ZERO };
        let is_right = wait::within(patience, || {
            (printed, succeeded) = self.type_in(block);
            let fits = block.output.as_ref().is_none_or(|said| output::fits(said, &printed));
            (fits && succeeded != block.fails).then_some(())
        });
        if env::var_os("GUIDE_PRINT").is_some() {
            let _ = writeln!(std::io::stderr(), "{}{printed}", block.commands);
        }
        assert!(
            is_right.is_some(),
            "docs/getting-started.md, line {}:\n{}\nprints (and {}):\n{printed}\ninstead of:\n{}",
            block.line,
            block.commands,
            if succeeded { "succeeds" } else { "fails" },
            block.output.as_deref().unwrap_or("anything"),
        );
    }
}

/// `http-echo -listen=:8080 -text=TEXT`.
fn echo(sandbox: &Sandbox) -> impl FnOnce() + Send + Sync + use<> {
    let arguments = sandbox.pod["spec"]["containers"][0]["args"].as_array().unwrap();
    let text = arguments.iter().find_map(|argument| argument.as_str()?.strip_prefix("-text="));
    let text = format!("{}\n", text.expect("-text"));
    let server = Upstream::start_at(any(8080));
    server.answer_with(move |_| Reply::status(200, &text));
    move || drop(server)
}
