//! What `scripts/install-tools.sh` installs and a machine may lack.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, thread};

/// Reports the running test as skipped, past the test runner; with `CI=true` that is a failure.
#[track_caller]
pub fn skip(reason: &str) {
    let name = thread::current().name().unwrap_or("test").to_owned();
    assert!(
        env::var("CI").as_deref() != Ok("true"),
        "{name}: {reason} (with CI=true nothing may be skipped)"
    );
    let _ = writeln!(io::stderr(), "SKIPPED {name}: {reason}");
}

/// The Python that has the Helm SDK.
pub fn python() -> Option<PathBuf> {
    installed("helm-python")
}

/// The real kubectl.
pub fn kubectl() -> Option<PathBuf> {
    installed("kubectl")
}

fn installed(program: &str) -> Option<PathBuf> {
    let tools = env::var_os("OUTRIGGER_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools"), PathBuf::from);
    let found = tools.join("bin").join(program);
    if found.is_file() {
        return Some(found);
    }
    skip(&format!("{program} is not installed; run scripts/install-tools.sh"));
    None
}
