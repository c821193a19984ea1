//! Filter configurations that are resources of their own (ECDS): which have come, and who takes them. Owned by main.

use std::sync::{Arc, Weak};

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3 as core;
use rustc_hash::FxHashMap;

use super::apply::{Update, decode, kind, validate};
use super::compile::{CompileCx, Invalid, References, compile_extension};
use super::configuration::{Configuration, Leaf};
use super::sources::SourceId;
use super::warming::Offer;
use crate::http::filters::{DiscoveredFilter, HttpFilter};

/// A compiled `TypedExtensionConfig`.
#[derive(Debug)]
pub struct Extension {
    /// The filter.
    pub filter: Arc<HttpFilter>,
    /// The message of its `typed_config`.
    pub message: Box<str>,
    /// What it refers to is wanted as long as it is there.
    pub(super) _references: References,
}

/// The extension configurations of one source, by name.
#[derive(Debug, Default)]
pub struct Extensions(FxHashMap<Arc<str>, Entry>);

#[derive(Debug, Default)]
struct Entry {
    current: Option<Leaf<Extension>>,
    users: Vec<Weak<DiscoveredFilter>>,
}

impl Entry {
    fn users(&self) -> impl Iterator<Item = Arc<DiscoveredFilter>> {
        self.users.iter().filter_map(Weak::upgrade)
    }
}

impl Extensions {
    /// A filter of a chain takes what comes under this name; what is there already, it has at once.
    pub fn follow(&mut self, name: &str, filter: &Arc<DiscoveredFilter>) {
        let entry = self.0.entry(name.into()).or_default();
        entry.users.retain(|user| user.strong_count() > 0);
        entry.users.push(Arc::downgrade(filter));
        if let Some(current) = &entry.current
            && filter.accepts(&current.value.message)
        {
            filter.publish(Some(current.value.filter.clone()));
        }
    }

    /// Whether some filter still waits for what comes under this name.
    pub fn is_missing(&self, name: &str) -> bool {
        self.0.get(name).is_none_or(|entry| entry.users().any(|user| !user.is_there()))
    }

    /// All that have come, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Leaf<Extension>)> {
        self.0.iter().filter_map(|(name, entry)| Some((name, entry.current.as_ref()?)))
    }

    /// The source has removed it: defaults hold.
    pub(super) fn withdraw(&mut self, name: &str) {
        let Some(entry) = self.0.get_mut(name) else { return };
        entry.current = None;
        entry.users().for_each(|user| user.publish(None));
    }

    /// Nobody wants it any more.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Publishes to all who take the type. Listener and extension may change the type one after the other: who wants another one
    /// keeps what it has.
    fn publish(&mut self, name: &str, extension: Leaf<Extension>) -> Result<(), String> {
        let entry = self.0.entry(name.into()).or_default();
        let message = &extension.value.message;
        let accepting: Vec<_> = entry.users().filter(|user| user.accepts(message)).collect();
        if accepting.is_empty() {
            let expected: Vec<String> = entry.users().map(|user| user.accepts.join(", ")).collect();
            return Err(format!("filter config has type URL {message} but expect {}", expected.join("; ")));
        }
        accepting.iter().for_each(|user| user.publish(Some(extension.value.filter.clone())));
        entry.current = Some(extension);
        Ok(())
    }
}

impl Configuration {
    pub(super) fn update_extension(
        &mut self,
        source: SourceId,
        update: &Update<'_>,
        offer: Offer,
    ) -> Result<(), Invalid> {
        const TYPE: ResourceType = ResourceType::ExtensionConfig;
        let known = self.inputs.registry.extensions.of_mut(source).0.get(update.name);
        if known.and_then(|entry| entry.current.as_ref()).is_some_and(|current| current.hash == offer.hash) {
            return Ok(());
        }
        self.refused.check(TYPE, update.name, offer.hash)?;
        let message = decode(TYPE, update, |m: &core::TypedExtensionConfig| &m.name)?;
        let mut cx = CompileCx::new(&mut self.inputs, offer.is_static);
        validate(&mut cx, update.resource);
        let compiled = compile_extension(&message, &mut cx);
        let outcome = cx.finish(kind(TYPE), update.name, compiled);
        let ((filter, message), references) = self.refused.keep(TYPE, update.name, offer.hash, outcome)?;
        let value = Extension { filter, message, _references: references };
        let leaf = Leaf { value, version: offer.version, wire: offer.wire, hash: offer.hash };
        // Not final: who takes it may change without it.
        self.inputs.registry.extensions.of_mut(source).publish(update.name, leaf).map_err(|reason| Invalid {
            is_final: false,
            ..Invalid::one(kind(TYPE), update.name, "typed_config.@type", reason)
        })
    }
}
