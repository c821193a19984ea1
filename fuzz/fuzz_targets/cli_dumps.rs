//! What `outrigger diff` and `outrigger status` are told: dumps of configurations, a control plane's `/proxies`.

use outrigger_cli::fuzzing::{diff, status};
use serde_json::Value;

/// A dump is the same as itself, and whatever is in them a table can be printed.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let (same, compared) = diff(&value, &value);
    assert_eq!(same, compared);
    diff(&value, &Value::Null);
    diff(&Value::Null, &value);
    let proxies = value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice);
    assert!(status(proxies).ends_with('\n'));
}
