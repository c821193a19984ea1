//! Doors for the targets in `fuzz/`: what the commands read from files and from others. Exists with the feature `fuzzing` only.

use outrigger_control_plane::inject::settings::InjectionSettings;
use serde_json::Value;

use crate::{diff, inject, status};

/// What `outrigger inject` makes of a file.
///
/// # Errors
/// What cannot be injected, with its place.
pub fn inject(text: &str) -> Result<String, String> {
    let injected = inject::inject_text(text, "fuzz.yaml", &InjectionSettings::default());
    injected.map(|injected| injected.text).map_err(|error| format!("{error:#}"))
}

/// The names that `outrigger diff` finds the same in a control plane's dump and in a proxy's, and all that it compares.
pub fn diff(wanted: &Value, running: &Value) -> (usize, usize) {
    let compared = diff::compare::dumps(wanted, running, Some(wanted));
    let same = compared.iter().filter(|one| one.outcome == diff::compare::Outcome::Same).count();
    (same, compared.len())
}

/// What `outrigger status` prints of a control plane's `/proxies`.
pub fn status(proxies: &[Value]) -> String {
    status::table::text_of(proxies, true)
}
