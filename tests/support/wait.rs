//! Waiting for a condition: the only place that sleeps, and only between two looks.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Looks until `probe` gives a value; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, probe).unwrap_or_else(|| panic!("waited {PATIENCE:?} for: {what}"))
}

/// Looks until `condition` holds; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || condition().then_some(()));
}

/// Looks until `probe` gives a value or `limit` has passed.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}
