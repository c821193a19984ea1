//! Which resources the configuration wants of its sources: those that some version of a resource refers to.
//!
//! A [`Watch`] is part of whatever refers to a name, and ends with the last of it, so nothing can be forgotten and nothing has to be
//! counted. [`Watches::take_changes`] costs what changed. Owned by main.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use outrigger_xds_api::ResourceType;
use rustc_hash::FxHashMap;

use super::sources::SourceId;

/// A name of a source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchKey {
    /// Whom to ask.
    pub source: SourceId,
    /// For what.
    pub resource_type: ResourceType,
    /// The resource's name; `*`: everything that the source has.
    pub name: Arc<str>,
}

/// A name that is wanted as long as this, or a clone of it, lives.
#[derive(Clone)]
pub struct Watch(Arc<Held>);

struct Held {
    key: WatchKey,
    touched: Arc<Mutex<Vec<WatchKey>>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        touch(&self.touched, &self.key);
    }
}

fn touch(touched: &Mutex<Vec<WatchKey>>, key: &WatchKey) {
    touched.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
}

impl Watch {
    /// What is wanted.
    pub fn key(&self) -> &WatchKey {
        &self.0.key
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.key.fmt(f)
    }
}

impl PartialEq for Watch {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Watch {}

/// A name that is wanted from now on, or no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchChange {
    /// The name.
    pub key: WatchKey,
    /// Whether it is wanted.
    pub is_wanted: bool,
}

#[derive(Debug)]
struct Known {
    held: Weak<Held>,
    /// `take_changes` has told that it is wanted.
    told: bool,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

/// All names that are wanted.
#[derive(Debug, Default)]
pub struct Watches {
    known: FxHashMap<WatchKey, Known>,
    /// Names whose watch began or ended since `take_changes`.
    touched: Arc<Mutex<Vec<WatchKey>>>,
}

impl Watches {
    /// Wants a name.
    pub fn watch(&mut self, source: SourceId, resource_type: ResourceType, name: &str) -> Watch {
        let key = WatchKey { source, resource_type, name: name.into() };
        if let Some(held) = self.known.get(&key).and_then(|known| known.held.upgrade()) {
            return Watch(held);
        }
        touch(&self.touched, &key);
        let held = Arc::new(Held { key: key.clone(), touched: self.touched.clone() });
        let told = self.known.get(&key).is_some_and(|known| known.told);
        self.known.insert(key, Known { held: Arc::downgrade(&held), told });
        Watch(held)
    }

    /// Whether somebody wants it.
    pub fn is_wanted(&self, source: SourceId, resource_type: ResourceType, name: &str) -> bool {
        let key = WatchKey { source, resource_type, name: name.into() };
        self.known.get(&key).is_some_and(|known| known.held.strong_count() > 0)
    }

    /// What is different since the last call. A name that came and went meanwhile is left out, and so is one that went and came.
    pub fn take_changes(&mut self) -> Vec<WatchChange> {
        let touched = std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        let mut changes = Vec::new();
        for key in touched {
            let Some(known) = self.known.get_mut(&key) else { continue };
            let is_wanted = known.held.strong_count() > 0;
            if known.told != is_wanted {
                known.told = is_wanted;
                changes.push(WatchChange { key: key.clone(), is_wanted });
            }
            if !is_wanted {
                self.known.remove(&key);
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(watches: &mut Watches, name: &str) -> Watch {
        watches.watch(SourceId::ADS, ResourceType::Secret, name)
    }

    fn changes(watches: &mut Watches) -> Vec<(String, bool)> {
        let changes = watches.take_changes().into_iter();
        changes.map(|change| (change.key.name.to_string(), change.is_wanted)).collect()
    }

    #[test]
    fn a_name_is_wanted_until_the_last_watch_ends() {
        let mut watches = Watches::default();
        let first = watch(&mut watches, "a");
        let second = watch(&mut watches, "a");
        assert_eq!(changes(&mut watches), [("a".to_owned(), true)]);
        drop(first);
        assert_eq!(changes(&mut watches), []);
        assert!(watches.is_wanted(SourceId::ADS, ResourceType::Secret, "a"));
        drop(second);
        assert!(!watches.is_wanted(SourceId::ADS, ResourceType::Secret, "a"));
        assert_eq!(changes(&mut watches), [("a".to_owned(), false)]);
        assert_eq!(changes(&mut watches), []);
        assert!(watches.known.is_empty());
    }

    #[test]
    fn what_came_and_went_is_no_change() {
        let mut watches = Watches::default();
        drop(watch(&mut watches, "a"));
        assert_eq!(changes(&mut watches), []);
        let first = watch(&mut watches, "b");
        assert_eq!(changes(&mut watches), [("b".to_owned(), true)]);
        drop(first);
        let _second = watch(&mut watches, "b");
        assert_eq!(changes(&mut watches), []);
    }

    #[test]
    fn sources_and_types_are_apart() {
        let mut watches = Watches::default();
        let _ads = watch(&mut watches, "a");
        assert!(!watches.is_wanted(SourceId::STATIC, ResourceType::Secret, "a"));
        assert!(!watches.is_wanted(SourceId::ADS, ResourceType::RouteConfiguration, "a"));
    }
}
