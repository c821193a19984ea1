//! Resources of one type that are not the same for all callers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Resource, ResourceMap, ResourceSet};
use crate::model::{Audience, Client, Place};

/// What all callers get, and what stands in the place of parts of it for some. Cloning copies pointers.
#[derive(Debug, Clone, Default)]
pub(super) struct ByAudience {
    pub(super) all: Arc<ResourceMap>,
    at: Arc<BTreeMap<Place, Arc<ResourceMap>>>,
    of: Arc<BTreeMap<(Client, Place), Arc<ResourceMap>>>,
}

impl ByAudience {
    /// The same for all.
    #[cfg(test)]
    pub(super) fn for_all(all: Arc<ResourceMap>) -> Self {
        Self { all, ..Self::default() }
    }

    /// What a caller gets, and `own`, which is its own.
    pub(super) fn for_caller(&self, client: &Client, place: &Place, own: Arc<ResourceMap>) -> ResourceSet {
        let at = self.at.get(place).cloned().unwrap_or_default();
        let of = match self.of.is_empty() {
            true => Arc::default(),
            false => self.of.get(&(client.clone(), place.clone())).cloned().unwrap_or_default(),
        };
        ResourceSet::layered([self.all.clone(), at, of, own])
    }

    /// Whether both are the very same.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.all, &other.all)
            && Arc::ptr_eq(&self.at, &other.at)
            && Arc::ptr_eq(&self.of, &other.of)
    }

    /// Puts a resource in, or takes it out, for an audience.
    pub(super) fn change(&mut self, audience: &Audience, name: &Arc<str>, resource: Option<Arc<Resource>>) {
        match audience {
            Audience::All => change(&mut self.all, name, resource),
            Audience::At(place) => change_in(&mut self.at, place, name, resource),
            Audience::Of(client, place) => {
                change_in(&mut self.of, &(client.clone(), place.clone()), name, resource);
            }
        }
    }
}

/// Edits a map, which keeps its `Arc` when it is left as it was.
pub(super) fn change(map: &mut Arc<ResourceMap>, name: &Arc<str>, resource: Option<Arc<Resource>>) {
    match (resource, map.get(name)) {
        (Some(new), Some(old)) if old.version == new.version => {}
        (None, None) => {}
        (Some(new), _) => {
            Arc::make_mut(map).insert(name.clone(), new);
        }
        (None, Some(_)) => {
            Arc::make_mut(map).remove(name);
        }
    }
}

/// Edits one of several maps, which is there as long as it has something.
fn change_in<K: Ord + Clone>(
    maps: &mut Arc<BTreeMap<K, Arc<ResourceMap>>>,
    key: &K,
    name: &Arc<str>,
    resource: Option<Arc<Resource>>,
) {
    let before = maps.get(key).cloned().unwrap_or_default();
    let mut after = before.clone();
    change(&mut after, name, resource);
    if after.is_empty() {
        if !before.is_empty() {
            Arc::make_mut(maps).remove(key);
        }
    } else if !Arc::ptr_eq(&before, &after) {
        Arc::make_mut(maps).insert(key.clone(), after);
    }
}
