//! Bootstraps in YAML or JSON: read, validated and compiled with their static resources.

use outrigger_proxy::bootstrap::Document;
use outrigger_proxy::fuzzing::Sandbox;

use crate::input::text;
use crate::resources::check_dump;

/// What is accepted can be shown, and each problem of what is not has its place.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let mut document = Document::default();
    if let Err(problems) = document.merge("bootstrap.yaml", text) {
        assert!(problems.iter().all(|problem| problem.position.is_some()), "{problems:?}");
        return;
    }
    let mut sandbox = Sandbox::default();
    if sandbox.bootstrap(document).is_ok() {
        check_dump(&sandbox);
    }
}
