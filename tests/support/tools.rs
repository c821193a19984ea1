//! Programs that a suite needs and that a machine may lack. `scripts/install-tools.sh` installs them.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Finds the program `name`, first among the installed tools, then on the `PATH`.
///
/// When it is missing the calling test reports itself as skipped, on the real standard error (the test runner hides
/// what `eprintln!` writes in a passing test), and returns. With `CI=true` a skip is a failure: everything asked for
/// here can be installed.
#[track_caller]
pub fn require_tool(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        skip(&format!("`{name}` is not installed; run scripts/install-tools.sh"));
    }
    found
}

/// Reports the running test as skipped for `reason`; fails it with `CI=true`.
#[track_caller]
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test").to_owned();
    assert!(
        env::var("CI").as_deref() != Ok("true"),
        "{test}: {reason} (with CI=true nothing may be skipped)"
    );
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {reason}");
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate is in the workspace")
}

fn find(name: &str) -> Option<PathBuf> {
    let installed =
        env::var_os("OUTRIGGER_TOOLS").map_or_else(|| repository().join("target/tools"), PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(installed.join("bin"))
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}
