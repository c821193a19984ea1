//! A watched file as a source (`PathConfigSource`): a `DiscoveryResponse` that says all that there is.
//!
//! A file that cannot be read, or not be understood, changes nothing. Runs on main; the operating system tells of changes on a
//! thread of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::RecommendedWatcher;
use notify::event::{EventKind, ModifyKind};
use outrigger_xds_api::wire::discovery::v3::DiscoveryResponse;
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::{ResourceType, json, resource};
use prost::Message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::update::{self, Outcome, count};
use crate::config::apply::Update;
use crate::config::folder;
use crate::config::handle::ConfigurationHandle;
use crate::config::sources::{FileSource, FileTrigger, SourceId};
use crate::config::watch::WatchChange;

/// Keeps reading the file; never ends.
pub(super) async fn keep(
    source: SourceId,
    file: FileSource,
    resource_type: ResourceType,
    configuration: Arc<ConfigurationHandle>,
    mut wanted: UnboundedReceiver<WatchChange>,
) {
    let path = PathBuf::from(&*file.path);
    let (tell, mut changes) = unbounded_channel();
    // Watching comes first, so that no change falls between reading and it.
    let _watcher = watch(&file.trigger, &path, tell.clone());
    let mut content =
        Content { source, resource_type, path, configuration, resources: BTreeMap::new(), read: None };
    content.read();
    loop {
        let poll = async {
            match file.trigger {
                FileTrigger::Every(interval) => tokio::time::sleep(interval).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = changes.recv() => {
                while changes.try_recv().is_ok() {}
                content.read();
            }
            () = poll => content.read(),
            Some(change) = wanted.recv() => {
                let mut names = vec![change];
                while let Ok(change) = wanted.try_recv() {
                    names.push(change);
                }
                content.give(&names);
            }
        }
    }
}

/// The file, and what it said when it was good last.
struct Content {
    source: SourceId,
    resource_type: ResourceType,
    path: PathBuf,
    configuration: Arc<ConfigurationHandle>,
    resources: BTreeMap<String, (String, Any)>,
    /// The bytes, so that what has not changed is not taken in again.
    read: Option<Vec<u8>>,
}

impl Content {
    /// Reads the file and applies what is different.
    fn read(&mut self) {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) if self.read.as_ref() == Some(&bytes) => return,
            Ok(bytes) => bytes,
            Err(error) => return self.fail(&error.to_string()),
        };
        self.count(Outcome::Attempt);
        let resources = parse(&self.path, &bytes, self.resource_type);
        // What is wrong stays so until the file changes again.
        self.read = Some(bytes);
        let resources = match resources {
            Ok(resources) => resources,
            Err(reason) => return self.fail(&reason),
        };
        let before = std::mem::replace(&mut self.resources, resources);
        let is_new = |(name, (_, content)): &(&String, &(String, Any))| {
            before.get(*name).is_none_or(|(_, old)| old != content)
        };
        let updates: Vec<Update<'_>> = self.resources.iter().filter(is_new).map(update_of).collect();
        let removed: Vec<&str> =
            before.keys().filter(|name| !self.resources.contains_key(*name)).map(String::as_str).collect();
        update::apply(&self.configuration, self.source, self.resource_type, &updates, &removed);
    }

    /// Gives what is there of the names that are wanted from now on.
    fn give(&self, names: &[WatchChange]) {
        let wanted = names.iter().filter(|change| change.is_wanted).map(|change| &*change.key.name);
        let updates: Vec<Update<'_>> =
            wanted.filter_map(|name| self.resources.get_key_value(name)).map(update_of).collect();
        if !updates.is_empty() {
            update::apply(&self.configuration, self.source, self.resource_type, &updates, &[]);
        }
    }

    fn fail(&self, reason: &str) {
        self.count(Outcome::Failure);
        tracing::warn!(target: "config", "{}: '{}': {reason}", self.resource_type, self.path.display());
    }

    fn count(&self, outcome: Outcome) {
        let stats = self.configuration.read(|c| c.inputs().stats.clone());
        count(&stats, self.resource_type, outcome);
    }
}

fn update_of<'a>((name, (version, resource)): (&'a String, &'a (String, Any))) -> Update<'a> {
    Update { name, version, resource, aliases: &[] }
}

/// The resources of a file, by name; each must be of this type.
fn parse(
    path: &Path,
    bytes: &[u8],
    resource_type: ResourceType,
) -> Result<BTreeMap<String, (String, Any)>, String> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let response = match extension {
        Some("pb") => DiscoveryResponse::decode(bytes).map_err(|error| error.to_string())?,
        Some("pb_text") => return Err("protobuf's text format is not supported".to_owned()),
        extension => {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            let response =
                if extension == Some("json") { json::from_json(text) } else { json::from_yaml(text) };
            response.map_err(|error| error.to_string())?
        }
    };
    let DiscoveryResponse {
        version_info,
        resources,
        canary: _,
        type_url: _,
        nonce: _,
        control_plane: _,
        resource_errors: _,
    } = response;
    let mut all = BTreeMap::new();
    for (index, any) in resources.into_iter().enumerate() {
        let expected = resource_type.type_url();
        if any.type_url != expected {
            return Err(format!("resources[{index}] has type '{}', expected {expected}", any.type_url));
        }
        let name = resource::name_of(&any).map_err(|error| format!("resources[{index}]: {error}"))?;
        if all.contains_key(&name) {
            return Err(format!("resources[{index}]: duplicate name '{name}'"));
        }
        all.insert(name, (version_info.clone(), any));
    }
    Ok(all)
}

/// Tells of everything that may have changed the file, as long as the watcher lives.
fn watch(trigger: &FileTrigger, path: &Path, tell: UnboundedSender<()>) -> Option<RecommendedWatcher> {
    let name = path.file_name().map(ToOwned::to_owned);
    let (folder, wanted, on_write) = match trigger {
        FileTrigger::Every(_) => return None,
        FileTrigger::Moved => (folder::of(path), name, false),
        FileTrigger::Directory { path, on_write } => (Path::new(&**path), None, *on_write),
    };
    let relevant = move |event: &notify::Event| {
        let is_move = matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)));
        let is_write = on_write && matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)));
        let is_ours =
            wanted.as_ref().is_none_or(|name| event.paths.iter().any(|path| path.file_name() == Some(name)));
        (is_move || is_write) && is_ours
    };
    folder::watch(folder, relevant, move || {
        // Nobody listens any more when the source goes.
        let _ = tell.send(());
    })
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
