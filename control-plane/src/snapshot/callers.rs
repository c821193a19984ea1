//! Which callers there are, as far as what Services come to depends on them.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Audience, Client, Place};

/// How many proxies there are of each kind. Few kinds, where there are many proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Callers {
    kinds: BTreeMap<(Client, Place), usize>,
    places: BTreeMap<Place, usize>,
}

impl Callers {
    /// Takes a proxy in.
    pub(super) fn add(&mut self, client: &Client, place: &Place) {
        *self.kinds.entry((client.clone(), place.clone())).or_default() += 1;
        *self.places.entry(place.clone()).or_default() += 1;
    }

    /// Takes a proxy out.
    pub(super) fn remove(&mut self, client: &Client, place: &Place) {
        subtract(&mut self.kinds, &(client.clone(), place.clone()));
        subtract(&mut self.places, place);
    }

    /// Whether there is somebody of this audience.
    pub(super) fn has(&self, audience: &Audience) -> bool {
        match audience {
            Audience::All => true,
            Audience::At(place) => self.places.contains_key(place),
            Audience::Of(client, place) => self.kinds.contains_key(&(client.clone(), place.clone())),
        }
    }

    /// Every audience, except that of all.
    pub(super) fn audiences(&self) -> impl Iterator<Item = Audience> {
        let kinds = self.kinds.keys().cloned().map(|(client, place)| Audience::Of(client, place));
        self.places.keys().cloned().map(Audience::At).chain(kinds)
    }

    /// The audiences that are not in `other`.
    pub(super) fn without(&self, other: &Self) -> BTreeSet<Audience> {
        self.audiences().filter(|audience| !other.has(audience)).collect()
    }
}

fn subtract<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
