//! `outrigger`, run as a person runs it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::proxy::{Ended, binary};

/// Runs `outrigger` until it ends. It sees no kubeconfig and no control plane that is not in its arguments.
///
/// # Panics
/// When it cannot be run.
#[track_caller]
pub fn outrigger(arguments: &[&str]) -> Ended {
    run(arguments, None, Path::new("."))
}

/// The same with this on its standard input, in this folder.
///
/// # Panics
/// When it cannot be run.
#[track_caller]
pub fn run(arguments: &[&str], input: Option<&str>, folder: &Path) -> Ended {
    let mut child = Command::new(binary("outrigger"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("KUBECONFIG")
        .env_remove("OUTRIGGER_CONTROL_PLANE")
        .env("HOME", "/nonexistent")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start outrigger");
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes()).expect("write to outrigger");
    }
    let output = child.wait_with_output().expect("run outrigger");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("a text");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Ended {
    /// The standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
