//! All that is wrong with a set of objects, said before anybody serves them.
//!
//! The judge is what will serve them: the same front ends, model and translation. Beside that stands what only the whole set
//! shows ([`selectors`]). Pure; runs anywhere.

mod selectors;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::model::{Finding, MeshSettings};
use crate::snapshot::Engine;
use crate::source::{Event, Object, ObjectKey};

/// Stands for the time of an object that is yet to be created: after all that exist.
const NOT_CREATED_YET: &str = "9999-12-31T23:59:59Z";

/// What is wrong with a set of objects. Both lists are sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Analysis {
    /// Objects and files that would be refused.
    pub errors: Vec<Finding>,
    /// Objects that would be in force without their whole effect.
    pub warnings: Vec<Finding>,
    /// How many objects were looked at, of whatever kind.
    pub objects: usize,
}

impl Analysis {
    /// What `events` say, analyzed.
    pub fn of(settings: MeshSettings, events: &[Event]) -> Self {
        let mut objects: BTreeMap<&ObjectKey, &Object> = BTreeMap::new();
        for event in events {
            match event {
                Event::Upsert(object) => drop(objects.insert(object.key(), object)),
                Event::Delete(key) => drop(objects.remove(key)),
                Event::Unreadable(_) | Event::Readable { .. } | Event::Synced => {}
            }
        }
        let mut warnings = selectors::check(&objects, &settings);
        let mut engine = Engine::new(settings);
        engine.apply(events.iter().cloned());
        let snapshot = engine.publish().unwrap_or_default();
        warnings.extend_from_slice(snapshot.problems());
        warnings.sort();
        Self { errors: snapshot.rejections().to_vec(), warnings, objects: objects.len() }
    }

    /// The findings that are not in `before`, and those about files.
    pub fn since(mut self, before: &Self) -> Self {
        let is_new = |old: &[Finding], finding: &Finding| finding.file.is_some() || !old.contains(finding);
        self.errors.retain(|finding| is_new(&before.errors, finding));
        self.warnings.retain(|finding| is_new(&before.warnings, finding));
        self
    }
}

/// What a cluster would say once `files` were applied to it. Objects of the files are as old as those that they replace.
pub fn applied(cluster: &[Event], files: Vec<Event>) -> Vec<Event> {
    let created: BTreeMap<&ObjectKey, &Value> = cluster
        .iter()
        .filter_map(|event| match event {
            Event::Upsert(object) => {
                Some((object.key(), object.document.pointer("/metadata/creationTimestamp")?))
            }
            _ => None,
        })
        .collect();
    let aged = |event: Event| match event {
        Event::Upsert(mut object) => {
            let time =
                created.get(object.key()).map_or_else(|| NOT_CREATED_YET.into(), |time| (*time).clone());
            Arc::make_mut(&mut object.document)["metadata"]["creationTimestamp"] = time;
            Event::Upsert(object)
        }
        other => other,
    };
    let files: Vec<Event> = files.into_iter().map(aged).collect();
    cluster.iter().cloned().chain(files).collect()
}

#[cfg(test)]
mod tests;
