//! A map for few entries: a listener has thousands of such maps, nearly all of one entry.

use std::borrow::Borrow;

/// Sorted, and without spare room while it is small.
#[derive(Debug)]
pub(super) struct SortedMap<K, V>(Vec<(K, V)>);

/// From this size on it grows as a vector does.
const SMALL: usize = 8;

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    /// The value of a key.
    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let at = self.0.binary_search_by(|(other, _)| other.borrow().cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Sets the value of a key; the one before.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.0.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.insert_at(at, key, value);
                None
            }
        }
    }

    /// The value of a key, made when there is none.
    pub(super) fn entry(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let at = match self.0.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => at,
            Err(at) => {
                self.insert_at(at, key, V::default());
                at
            }
        };
        &mut self.0[at].1
    }

    fn insert_at(&mut self, at: usize, key: K, value: V) {
        if self.0.len() < SMALL {
            self.0.reserve_exact(1);
        }
        self.0.insert(at, (key, value));
    }
}

impl<K, V> SortedMap<K, V> {
    /// All entries, by their keys.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &(K, V)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map_in_order() {
        let mut map = SortedMap::<u32, u32>::default();
        for key in [5, 1, 9, 3, 7, 2, 8, 4, 6, 0] {
            assert_eq!(map.insert(key, 10 * key), None);
        }
        assert_eq!(map.insert(7, 1), Some(70));
        *map.entry(7) += 1;
        *map.entry(20) += 1;
        assert_eq!((map.get(&7), map.get(&20), map.get(&11)), (Some(&2), Some(&1), None));
        let keys: Vec<u32> = map.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20]);
        assert_eq!(SortedMap::<u32, u32>::default().get(&1), None);
    }

    #[test]
    fn one_entry_has_room_for_one() {
        let mut map = SortedMap::<u32, u32>::default();
        map.insert(1, 1);
        assert_eq!(map.0.capacity(), 1);
    }
}
