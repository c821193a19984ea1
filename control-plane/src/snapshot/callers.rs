//! Which callers there are, as far as what Services come to depends on them.

use std::collections::BTreeMap;

use crate::model::{Audience, Place};

/// How many proxies there are of each kind. Few kinds, where there are many proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Callers {
    places: BTreeMap<Place, usize>,
}

impl Callers {
    /// Takes a proxy in.
    pub(super) fn add(&mut self, place: &Place) {
        *self.places.entry(place.clone()).or_default() += 1;
    }

    /// Takes a proxy out.
    pub(super) fn remove(&mut self, place: &Place) {
        if let Some(count) = self.places.get_mut(place) {
            *count -= 1;
            if *count == 0 {
                self.places.remove(place);
            }
        }
    }

    /// Whether there is somebody of this audience.
    pub(super) fn has(&self, audience: &Audience) -> bool {
        match audience {
            Audience::All => true,
            Audience::At(place) => self.places.contains_key(place),
        }
    }

    /// Every audience, except that of all.
    pub(super) fn audiences(&self) -> impl Iterator<Item = Audience> {
        self.places.keys().cloned().map(Audience::At)
    }
}
