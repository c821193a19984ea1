//! The objects, the one version counter over all of them, and the history that watches and lists of the past need.
//!
//! Invariants: every change raises the version by one and is in the history; an object's `resourceVersion` is the
//! version of its last change; what a watcher may ask for ends at `compacted`, what is kept for watches that run
//! already goes further back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::kinds::Collection;
use crate::object;

/// Namespace (empty for objects of the cluster) and name.
pub(crate) type Name = (String, String);

/// How many changes are kept for watches that are running, however far compaction went.
const KEPT_FOR_RUNNING_WATCHES: usize = 100_000;

/// One change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) collection: Collection,
    pub(crate) name: Name,
    pub(crate) before: Option<Arc<Value>>,
    /// `None` for a deletion.
    pub(crate) after: Option<Arc<Value>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Store {
    version: u64,
    compacted: u64,
    /// How many versions a client may go back.
    history_limit: Option<u64>,
    history: VecDeque<Change>,
    objects: BTreeMap<Collection, BTreeMap<Name, Arc<Value>>>,
}

impl Store {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Versions before this one cannot be listed or watched any more.
    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Forgets the past: only what happens from now on can be watched.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.version;
    }

    /// Clients may go back this many versions; `None` as far as they like.
    pub(crate) fn limit_history(&mut self, limit: Option<u64>) {
        self.history_limit = limit;
        self.enforce_limit();
    }

    fn enforce_limit(&mut self) {
        if let Some(limit) = self.history_limit {
            self.compacted = self.compacted.max(self.version.saturating_sub(limit));
        }
    }

    pub(crate) fn get(&self, collection: &Collection, name: &Name) -> Option<Arc<Value>> {
        self.objects.get(collection)?.get(name).cloned()
    }

    /// The objects by namespace and name.
    pub(crate) fn list(&self, collection: &Collection) -> BTreeMap<Name, Arc<Value>> {
        self.objects.get(collection).cloned().unwrap_or_default()
    }

    /// The objects as they were at `version`; `None` when that is forgotten.
    pub(crate) fn list_at(
        &self,
        collection: &Collection,
        version: u64,
    ) -> Option<BTreeMap<Name, Arc<Value>>> {
        if version < self.compacted {
            return None;
        }
        let mut objects = self.list(collection);
        for change in self.history.iter().rev().take_while(|change| change.version > version) {
            if change.collection == *collection {
                match &change.before {
                    Some(before) => objects.insert(change.name.clone(), before.clone()),
                    None => objects.remove(&change.name),
                };
            }
        }
        Some(objects)
    }

    /// All changes of a collection after `version`, for a watch that is running; `None` when it fell too far behind.
    pub(crate) fn changes(&self, collection: &Collection, version: u64) -> Option<Vec<Change>> {
        if self.history.front().is_some_and(|oldest| oldest.version > version + 1) && version < self.version {
            return None;
        }
        let after = self.history.partition_point(|change| change.version <= version);
        Some(self.history.range(after..).filter(|change| change.collection == *collection).cloned().collect())
    }

    /// Writes an object and gives it its `resourceVersion`.
    pub(crate) fn put(&mut self, collection: &Collection, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object::set_version(&mut object, self.version);
        let object = Arc::new(object);
        let name = (object::namespace(&object).to_owned(), object::name(&object).to_owned());
        let before = self.objects.entry(collection.clone()).or_default().insert(name.clone(), object.clone());
        self.record(collection, name, before, Some(object.clone()));
        object
    }

    /// Deletes an object and gives it back with the version of its deletion.
    pub(crate) fn remove(&mut self, collection: &Collection, name: &Name) -> Option<Value> {
        let before = self.objects.get_mut(collection)?.remove(name)?;
        self.version += 1;
        let mut last = (*before).clone();
        object::set_version(&mut last, self.version);
        self.record(collection, name.clone(), Some(before), None);
        Some(last)
    }

    fn record(
        &mut self,
        collection: &Collection,
        name: Name,
        before: Option<Arc<Value>>,
        after: Option<Arc<Value>>,
    ) {
        let change = Change { version: self.version, collection: collection.clone(), name, before, after };
        self.history.push_back(change);
        if self.history.len() > KEPT_FOR_RUNNING_WATCHES {
            self.history.pop_front();
            let oldest = self.history.front().map_or(self.version, |change| change.version);
            self.compacted = self.compacted.max(oldest);
        }
        self.enforce_limit();
    }

    /// Every collection that holds anything.
    pub(crate) fn collections(&self) -> Vec<Collection> {
        self.objects.iter().filter(|(_, objects)| !objects.is_empty()).map(|(one, _)| one.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> Collection {
        Collection::new("", "pods")
    }

    fn pod(name: &str, x: u64) -> Value {
        json!({"metadata": {"namespace": "demo", "name": name}, "x": x})
    }

    #[test]
    fn the_past_can_be_listed_until_it_is_compacted() {
        let mut store = Store::default();
        store.put(&pods(), pod("a", 1));
        store.put(&pods(), pod("a", 2));
        store.put(&pods(), pod("b", 1));
        store.remove(&pods(), &("demo".into(), "a".into()));
        let names = |version| {
            let listed = store.list_at(&pods(), version).unwrap();
            listed.into_iter().map(|((_, name), object)| format!("{name}{}", object["x"])).collect::<Vec<_>>()
        };
        assert_eq!(names(0), Vec::<String>::new());
        assert_eq!(names(1), ["a1"]);
        assert_eq!(names(3), ["a2", "b1"]);
        assert_eq!(names(4), ["b1"]);
        store.compact();
        assert!(store.list_at(&pods(), 3).is_none() && store.list_at(&pods(), 4).is_some());
    }

    #[test]
    fn a_running_watch_is_not_hurt_by_compaction() {
        let mut store = Store::default();
        store.put(&pods(), pod("a", 1));
        store.put(&pods(), pod("b", 1));
        store.compact();
        assert_eq!(store.changes(&pods(), 1).unwrap().len(), 1);
        assert_eq!(store.changes(&pods(), 2).unwrap().len(), 0);
    }

    #[test]
    fn a_history_limit_moves_with_the_version() {
        let mut store = Store::default();
        store.limit_history(Some(2));
        for x in 0..5 {
            store.put(&pods(), pod("a", x));
        }
        assert_eq!(store.compacted(), 3);
    }
}
