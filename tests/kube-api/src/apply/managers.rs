//! `metadata.managedFields`: who owns what.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::paths::{self, Paths, Scope};
use super::types::Type;
use crate::dispatch::Call;
use crate::object;

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manager {
    pub(super) name: String,
    /// By server-side apply; otherwise by an update.
    pub(super) applies: bool,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) time: Option<String>,
    pub(super) fields: Paths,
}

impl Manager {
    /// A new entry for who makes this call.
    pub(super) fn of(call: &Call, applies: bool) -> Self {
        Manager {
            name: call.query.field_manager(&call.user_agent),
            applies,
            api_version: call.resource.api_version(),
            subresource: call.target.subresource.clone().unwrap_or_default(),
            time: None,
            fields: Paths::new(),
        }
    }

    pub(super) fn is_same(&self, other: &Manager) -> bool {
        (&self.name, self.applies, &self.subresource) == (&other.name, other.applies, &other.subresource)
    }

    /// How a conflict names it.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applies {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

pub(super) fn read(object: &Value) -> Vec<Manager> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|entry| Manager {
            name: text(&entry["manager"]),
            applies: entry["operation"] == "Apply",
            api_version: text(&entry["apiVersion"]),
            subresource: text(&entry["subresource"]),
            time: entry["time"].as_str().map(str::to_owned),
            fields: paths::from_fields(&entry["fieldsV1"]),
        })
        .collect()
}

/// Writes the entries in the server's order: applied ones first, then by time and name.
pub(super) fn write(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|manager| !manager.fields.is_empty());
    managers.sort_by(|a, b| (!a.applies, &a.time, &a.name).cmp(&(!b.applies, &b.time, &b.name)));
    if managers.is_empty() {
        object::remove_meta(object, "managedFields");
        return;
    }
    let entries: Vec<Value> = managers
        .iter()
        .map(|manager| {
            let operation = if manager.applies { "Apply" } else { "Update" };
            let mut entry =
                json!({"manager": manager.name, "operation": operation, "apiVersion": manager.api_version});
            if let Some(time) = &manager.time {
                entry["time"] = time.as_str().into();
            }
            entry["fieldsType"] = "FieldsV1".into();
            entry["fieldsV1"] = paths::to_fields(&manager.fields);
            if !manager.subresource.is_empty() {
                entry["subresource"] = manager.subresource.as_str().into();
            }
            entry
        })
        .collect();
    object::set_meta(object, "managedFields", entries.into());
}

pub(super) fn scope(call: &Call) -> Scope<'_> {
    Scope {
        subresource: call.target.subresource.as_deref(),
        has_status: call.resource.status,
        custom: call.resource.custom.is_some(),
    }
}

/// Notes what an update (or a create, without `old`) has changed.
pub(crate) fn record_update(call: &Call, object: &mut Value, old: Option<&Value>) {
    let kind = Type::of(&call.resource);
    // An empty list in the body resets it.
    let reset = object["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|list| list.is_empty() || list == &[json!({})]);
    let mut managers = old.filter(|_| !reset).map(read).unwrap_or_default();
    let none = Value::Null;
    let old = old.unwrap_or(&none);
    let (before, after) =
        (paths::of_object(&kind, old, scope(call), true), paths::of_object(&kind, object, scope(call), true));
    // An item or a map that is still there has not changed by what changed inside.
    let changed: Paths = after
        .iter()
        .filter(|path| {
            let is_container =
                after.range((*path).clone()..).nth(1).is_some_and(|next| next.starts_with(path));
            match before.contains(*path) {
                true => !is_container && paths::get(&kind, old, path) != paths::get(&kind, object, path),
                false => true,
            }
        })
        .cloned()
        .collect();
    let removed: BTreeSet<_> = before.difference(&after).cloned().collect();
    if changed.is_empty() && removed.is_empty() {
        write(object, managers);
        return;
    }
    let mut own = Manager::of(call, false);
    managers.retain_mut(|manager| {
        if manager.is_same(&own) {
            own.fields = std::mem::take(&mut manager.fields);
            return false;
        }
        manager.fields.retain(|path| !changed.contains(path) && !removed.contains(path));
        true
    });
    own.fields.retain(|path| !removed.contains(path));
    own.time = Some(object::now());
    own.fields.extend(changed);
    managers.push(own);
    write(object, managers);
}
