//! The version of what a client gets of one type.

use aws_lc_rs::digest::{Context, SHA256};

/// Collects the resources of a type, in the order of their names.
pub(super) struct VersionOf(Context);

impl VersionOf {
    pub(super) fn new() -> VersionOf {
        VersionOf(Context::new(&SHA256))
    }

    /// Adds a resource. One that the client has rejected, and that is not sent again, counts as another one than the same
    /// accepted: who presents the version on a new stream must not look as if it had accepted it.
    pub(super) fn add(&mut self, name: &str, version: &str, is_rejected: bool) {
        for part in [name, version] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part.as_bytes());
        }
        self.0.update(&[is_rejected.into()]);
    }

    /// The first 16 hexadecimal digits of the SHA-256 of all that was added.
    pub(super) fn finish(self) -> String {
        let digest = self.0.finish();
        digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_of(resources: &[(&str, &str, bool)]) -> String {
        let mut version = VersionOf::new();
        for (name, of, is_rejected) in resources {
            version.add(name, of, *is_rejected);
        }
        version.finish()
    }

    #[test]
    fn is_a_function_of_names_versions_and_rejections() {
        // The SHA-256 of nothing begins so.
        assert_eq!(version_of(&[]), "e3b0c44298fc1c14");
        let one = version_of(&[("ab", "c", false)]);
        assert_eq!(one, version_of(&[("ab", "c", false)]));
        for other in
            [&[("a", "bc", false)][..], &[("ab", "c", true)], &[("ab", "c", false), ("d", "", false)]]
        {
            assert_ne!(one, version_of(other));
        }
    }
}
