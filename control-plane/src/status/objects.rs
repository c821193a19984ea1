//! All that is known of each object of a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::by_proxies::{RefusedByProxies, refused_by_proxies};
use super::timestamp;
use crate::ads::proxies::Proxy;
use crate::model::Finding;
use crate::snapshot::Snapshot;
use crate::source::{ObjectKey, Origin};

/// Of the proxies that refuse the same so many are named; the others are counted.
const PROXIES_MAX: usize = 10;

/// The field of an object's status that says what became of it.
pub(super) const STATE: &str = "state";

/// What is known of one file, without times that move.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FileStatus {
    /// What is wrong with the file as a whole.
    pub(super) failures: Vec<Value>,
    /// Its objects, in the order of names.
    pub(super) objects: BTreeMap<ObjectKey, Map<String, Value>>,
}

/// The statuses of all files, by path.
pub(super) fn statuses(snapshot: &Snapshot, proxies: &[Arc<Proxy>]) -> BTreeMap<Arc<str>, FileStatus> {
    let mut objects: BTreeMap<ObjectKey, ObjectStatus> = BTreeMap::new();
    for origin in snapshot.origins().iter() {
        objects.entry(origin.object.clone()).or_default().origin = Some(origin.clone());
    }
    let mut files: BTreeMap<Arc<str>, FileStatus> = BTreeMap::new();
    for finding in snapshot.rejections() {
        match (&finding.object, &finding.file) {
            (Some(object), _) => {
                objects.entry(object.clone()).or_default().rejections.push(finding.clone());
            }
            (None, Some(file)) => {
                files.entry(file.clone()).or_default().failures.push(shown(finding));
            }
            (None, None) => {}
        }
    }
    for finding in snapshot.problems() {
        let Some(object) = &finding.object else { continue };
        objects.entry(object.clone()).or_default().problems.push(finding.clone());
    }
    for refused in refused_by_proxies(snapshot, proxies) {
        let Some(object) = refused.finding.object.clone() else { continue };
        objects.entry(object).or_default().by_proxies.push(refused);
    }
    for (key, status) in objects {
        if let Some(file) = status.file() {
            let shown = status.shown(&key);
            files.entry(file).or_default().objects.insert(key, shown);
        }
    }
    files
}

/// What is known of one object.
#[derive(Debug, Default)]
struct ObjectStatus {
    origin: Option<Arc<Origin>>,
    rejections: Vec<Finding>,
    problems: Vec<Finding>,
    by_proxies: Vec<RefusedByProxies>,
}

impl ObjectStatus {
    fn file(&self) -> Option<Arc<str>> {
        let written =
            self.origin.as_ref().and_then(|origin| origin.text.as_ref()).map(|text| text.file.clone());
        let findings = self.rejections.iter().chain(&self.problems);
        written.or_else(|| findings.filter_map(|finding| finding.file.clone()).next())
    }

    /// `refused` is stronger than `refused_by_proxies`: what the proxies refuse then is its last good version.
    fn state(&self) -> &'static str {
        match (self.rejections.is_empty(), self.by_proxies.is_empty()) {
            (false, _) => "refused",
            (true, false) => "refused_by_proxies",
            (true, true) => "accepted",
        }
    }

    fn shown(&self, key: &ObjectKey) -> Map<String, Value> {
        let mut shown = Map::new();
        let mut add = |name: &str, value: Value| {
            shown.insert(name.to_owned(), value);
        };
        add("group", key.group.as_str().into());
        add("kind", key.kind.as_str().into());
        add("namespace", key.namespace.as_str().into());
        add("name", key.name.as_str().into());
        if let Some(text) = self.origin.as_ref().and_then(|origin| origin.text.as_ref()) {
            add("line", text.start.line.into());
        }
        add(STATE, self.state().into());
        let lists = [
            ("refused", self.rejections.iter().map(self::shown).collect::<Vec<_>>()),
            ("warnings", self.problems.iter().map(self::shown).collect()),
            ("refused_by_proxies", self.by_proxies.iter().map(refused).collect()),
        ];
        for (name, list) in lists {
            if !list.is_empty() {
                add(name, list.into());
            }
        }
        shown
    }
}

fn shown(finding: &Finding) -> Value {
    let mut shown = json!({});
    if let Some(position) = finding.position {
        shown["line"] = position.line.into();
        shown["column"] = position.column.into();
    }
    if !finding.field.is_empty() {
        shown["field"] = finding.field.as_str().into();
    }
    shown["reason"] = finding.reason.as_str().into();
    shown
}

fn refused(refused: &RefusedByProxies) -> Value {
    let mut shown = shown(&refused.finding);
    shown["resource"] = json!({
        "type": refused.of.short_name(),
        "name": refused.resource,
        "field": refused.resource_field,
    });
    shown["since"] = timestamp(refused.since).into();
    shown["proxies"] = refused.proxies.iter().take(PROXIES_MAX).cloned().collect();
    if refused.proxies.len() > PROXIES_MAX {
        shown["more_proxies"] = (refused.proxies.len() - PROXIES_MAX).into();
    }
    shown
}
