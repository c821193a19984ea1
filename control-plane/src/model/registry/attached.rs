//! Objects by name, and which of them belong to what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::Name;

/// Objects by their names `K`, and by the names `S` of what they belong to.
#[derive(Debug)]
pub(super) struct Attached<T, K = Name, S = Name> {
    pub(super) objects: BTreeMap<K, Arc<T>>,
    by_owner: BTreeMap<S, BTreeSet<K>>,
}

impl<T, K, S> Default for Attached<T, K, S> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), by_owner: BTreeMap::new() }
    }
}

impl<T, K: Ord + Clone, S: Ord + Clone> Attached<T, K, S> {
    /// Puts `new` in the place of what has its name and returns what was there, with all that either belongs to; `owners`
    /// tells what one belongs to.
    pub(super) fn replace<'a>(
        &mut self,
        name: &K,
        new: Option<Arc<T>>,
        owners: impl Fn(&T) -> Vec<S> + 'a,
    ) -> (Option<Arc<T>>, BTreeSet<S>) {
        let mut touched = BTreeSet::new();
        let old = match new {
            Some(ref new) => self.objects.insert(name.clone(), new.clone()),
            None => self.objects.remove(name),
        };
        for owner in old.iter().flat_map(|old| owners(old)) {
            if let Some(names) = self.by_owner.get_mut(&owner) {
                names.remove(name);
                if names.is_empty() {
                    self.by_owner.remove(&owner);
                }
            }
            touched.insert(owner);
        }
        for owner in new.iter().flat_map(|new| owners(new)) {
            self.by_owner.entry(owner.clone()).or_default().insert(name.clone());
            touched.insert(owner);
        }
        (old, touched)
    }

    pub(super) fn of(&self, owner: &S) -> impl Iterator<Item = &Arc<T>> {
        self.by_owner.get(owner).into_iter().flatten().filter_map(|name| self.objects.get(name))
    }
}
