//! What was said about one kind: enough to tell a change from a repetition, and what a list does not hold any more.

use std::collections::BTreeMap;

use aws_lc_rs::digest;

use crate::source::kubernetes::kinds::Kind;
use crate::source::{Event, Object, ObjectKey};

type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// The objects of one kind as they were last said, by namespace and name; a digest stands for the document.
pub(super) struct Mirror {
    kind: &'static Kind,
    said: BTreeMap<(String, String), Digest>,
}

impl Mirror {
    pub(super) fn new(kind: &'static Kind) -> Self {
        Self { kind, said: BTreeMap::new() }
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.said.len()
    }

    /// `objects` are all that exist.
    pub(super) fn list(&mut self, objects: Vec<Object>) -> Vec<Event> {
        let before = std::mem::take(&mut self.said);
        let mut events = Vec::new();
        for object in objects {
            let (name, digest) = (name(object.key()), digest(&object));
            if before.get(&name) != Some(&digest) {
                events.push(Event::Upsert(object));
            }
            self.said.insert(name, digest);
        }
        let gone = before.into_keys().filter(|name| !self.said.contains_key(name));
        events.extend(gone.map(|name| Event::Delete(self.key(name))));
        events
    }

    /// An object appeared or changed. `None` when no field that is kept did.
    pub(super) fn change(&mut self, object: Object) -> Option<Event> {
        let digest = digest(&object);
        let before = self.said.insert(name(object.key()), digest);
        (before != Some(digest)).then_some(Event::Upsert(object))
    }

    /// An object is gone. `None` when it was never said.
    pub(super) fn remove(&mut self, key: ObjectKey) -> Option<Event> {
        self.said.remove(&name(&key)).map(|_| Event::Delete(key))
    }

    /// All objects are gone.
    pub(super) fn clear(mut self) -> Vec<Event> {
        self.list(Vec::new())
    }

    fn key(&self, (namespace, name): (String, String)) -> ObjectKey {
        ObjectKey { group: self.kind.group.to_owned(), kind: self.kind.kind.to_owned(), namespace, name }
    }
}

fn name(key: &ObjectKey) -> (String, String) {
    (key.namespace.clone(), key.name.clone())
}

fn digest(object: &Object) -> Digest {
    let mut digest = [0; digest::SHA256_OUTPUT_LEN];
    let text = object.document.to_string();
    digest.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    digest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::kubernetes::kinds::BUILT_IN;
    use crate::source::test_objects;

    fn service(name: &str, port: u16) -> Object {
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: {port}}}]}}}}"
        );
        test_objects(&text).remove(0)
    }

    /// Events in short: `+name` upserted, `-name` deleted.
    fn short(events: impl IntoIterator<Item = Event>) -> Vec<String> {
        let short = |event| match event {
            Event::Upsert(object) => format!("+{}", object.key().name),
            Event::Delete(key) => format!("-{key}"),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(short).collect()
    }

    #[test]
    fn only_changes_are_said() {
        let mut mirror = Mirror::new(&BUILT_IN[0]);
        assert_eq!(short(mirror.list(vec![service("a", 1), service("b", 1)])), ["+a", "+b"]);
        assert_eq!(short(mirror.change(service("a", 1))), Vec::<String>::new());
        assert_eq!(short(mirror.change(service("a", 2))), ["+a"]);
        assert_eq!(short(mirror.remove(service("b", 1).key().clone())), ["-Service default/b"]);
        assert_eq!(short(mirror.remove(service("b", 1).key().clone())), Vec::<String>::new());
    }

    #[test]
    fn a_list_tells_what_is_gone() {
        let mut mirror = Mirror::new(&BUILT_IN[0]);
        mirror.list(vec![service("a", 1), service("b", 1), service("c", 1)]);
        let events = mirror.list(vec![service("a", 1), service("b", 2), service("d", 1)]);
        assert_eq!(short(events), ["+b", "+d", "-Service default/c"]);
        assert_eq!(mirror.len(), 3);
        assert_eq!(short(mirror.clear()), ["-Service default/a", "-Service default/b", "-Service default/d"]);
    }
}
