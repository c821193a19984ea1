//! What was refused last of each resource: the same content is not tried again until it changes.
//!
//! A server repeats a resource that was refused when it does not know of the refusal: on a new stream, and with every change of
//! a sibling in the state-of-the-world variant. The answer is then known without work. Only what follows from the content is kept: an
//! address that is in use may be free the next time, and a file may be there.

use rustc_hash::FxHashMap;

use outrigger_xds_api::ResourceType;

use super::compile::Invalid;

/// Type and name → the hash of the content, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct RefusedContent(FxHashMap<(ResourceType, Box<str>), (u64, Invalid)>);

impl RefusedContent {
    /// Whether this content was not refused before.
    ///
    /// # Errors
    /// It was: the same answer again.
    pub(super) fn check(&self, resource_type: ResourceType, name: &str, hash: u64) -> Result<(), Invalid> {
        // Mostly nothing is refused, and then no key is made.
        if self.0.is_empty() {
            return Ok(());
        }
        match self.0.get(&(resource_type, name.into())) {
            Some((refused, invalid)) if *refused == hash => Err(invalid.clone()),
            _ => Ok(()),
        }
    }

    /// Keeps what compiling this content came to.
    pub(super) fn keep<T>(
        &mut self,
        resource_type: ResourceType,
        name: &str,
        hash: u64,
        outcome: Result<T, Invalid>,
    ) -> Result<T, Invalid> {
        match &outcome {
            Ok(_) => self.forget(resource_type, name),
            Err(invalid) if invalid.is_final => {
                self.0.insert((resource_type, name.into()), (hash, invalid.clone()));
            }
            Err(_) => self.forget(resource_type, name),
        }
        outcome
    }

    /// The resource is gone, or no longer wanted.
    pub(super) fn forget(&mut self, resource_type: ResourceType, name: &str) {
        if !self.0.is_empty() {
            self.0.remove(&(resource_type, name.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: ResourceType = ResourceType::Cluster;

    #[test]
    fn the_same_content_has_the_same_answer_until_it_changes() {
        let mut refused = RefusedContent::default();
        let invalid = Invalid::one("cluster", "c", "name", "no");
        let outcome: Result<(), Invalid> = Err(invalid.clone());
        assert_eq!(refused.check(TYPE, "c", 1), Ok(()));
        assert_eq!(refused.keep(TYPE, "c", 1, outcome.clone()), outcome);
        assert_eq!(refused.check(TYPE, "c", 1), outcome);
        for (resource_type, name, hash) in [(TYPE, "c", 2), (TYPE, "d", 1), (ResourceType::Secret, "c", 1)] {
            assert_eq!(refused.check(resource_type, name, hash), Ok(()));
        }
        // Only the last one is kept.
        let _ = refused.keep(TYPE, "c", 2, outcome.clone());
        assert_eq!(refused.check(TYPE, "c", 1), Ok(()));
        assert_eq!(refused.keep(TYPE, "c", 3, Ok(())), Ok(()));
        assert_eq!(refused.check(TYPE, "c", 2), Ok(()));
    }

    #[test]
    fn what_depends_on_more_than_the_content_is_not_kept() {
        let mut refused = RefusedContent::default();
        let invalid = Invalid { is_final: false, ..Invalid::one("cluster", "c", "name", "no file") };
        let _ = refused.keep::<()>(TYPE, "c", 1, Err(invalid));
        assert_eq!(refused.check(TYPE, "c", 1), Ok(()));
        let _ = refused.keep::<()>(TYPE, "c", 1, Err(Invalid::one("cluster", "c", "name", "no")));
        refused.forget(TYPE, "c");
        assert_eq!(refused.check(TYPE, "c", 1), Ok(()));
    }
}
