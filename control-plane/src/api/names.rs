//! Names as the Kubernetes API server would have checked them.
//!
//! Objects from files pass no API server, and names end up in SPIFFE identities, host names, resource names and log lines:
//! a `/` or a `|` in one must not be able to make it another's.

use crate::api::Refusal;
use crate::source::ObjectKey;

/// Checks an object's own names.
pub(super) fn check(object: &ObjectKey) -> Result<(), Refusal> {
    label("metadata.namespace", &object.namespace)?;
    // A dot in a Service's name would make it look like another namespace's.
    match object.kind.as_str() {
        "Service" => label("metadata.name", &object.name),
        _ => subdomain("metadata.name", &object.name),
    }
}

/// A DNS label (RFC 1123), in lower case, of up to 63 characters.
pub(super) fn label(field: &str, name: &str) -> Result<(), Refusal> {
    if is_label(name) {
        return Ok(());
    }
    let reason =
        format!("{name:?} must be 1 to 63 of a-z, 0-9 and -, and begin and end with a letter or digit");
    Err(Refusal::new(field, reason))
}

/// A DNS subdomain (RFC 1123), in lower case, of up to 253 characters.
pub(super) fn subdomain(field: &str, name: &str) -> Result<(), Refusal> {
    if name.len() <= 253 && name.split('.').all(is_label) {
        return Ok(());
    }
    let reason = format!("{name:?} must be made of a-z, 0-9 and -, in parts that are separated by dots");
    Err(Refusal::new(field, reason))
}

/// The value of a label: empty, or up to 63 letters, digits, `-`, `_` and `.`.
pub(super) fn label_value(field: &str, value: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value.len() <= 63 && value.chars().all(allowed) {
        return Ok(());
    }
    Err(Refusal::new(field, format!("{value:?} must be at most 63 letters, digits, -, _ and .")))
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "reviews-v1", "0", "a.b"] {
            assert!(subdomain("f", good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a/b", "a|b", "a..b", "a\n", "a.b."] {
            assert!(subdomain("f", bad).is_err(), "{bad:?}");
            assert!(label("f", bad).is_err(), "{bad:?}");
        }
        assert!(label("f", "a.b").is_err());
        assert!(label("f", &"a".repeat(64)).is_err());
        assert!(label_value("f", "A_1.x-").is_ok() && label_value("f", "").is_ok());
        assert!(label_value("f", "a;b").is_err());
    }
}
