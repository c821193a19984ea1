//! Where the objects that people write stand: Services, and the rules of the mesh's own kinds.
//!
//! Pods, Nodes and EndpointSlices are not kept: the cluster makes them, by the thousand. Cloning copies pointers.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::source::{ObjectKey, Origin};

/// The latest origin of each object, accepted or refused, in the order of objects.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeSet<ByObject>);

/// An origin that is found by its object.
#[derive(Debug, Clone)]
struct ByObject(Arc<Origin>);

impl Origins {
    /// Whether objects of this kind are kept.
    pub(crate) fn has_kind_of(object: &ObjectKey) -> bool {
        match object.group.as_str() {
            "" => object.kind == "Service",
            "gateway.networking.k8s.io" | "outrigger.dev" => true,
            group => group.ends_with(".istio.io"),
        }
    }

    /// Where this object is written.
    pub fn get(&self, object: &ObjectKey) -> Option<&Arc<Origin>> {
        self.0.get(object).map(|found| &found.0)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Origin>> {
        self.0.iter().map(|found| &found.0)
    }

    /// Puts an origin in the place of the one that its object had.
    pub(crate) fn insert(&mut self, origin: Arc<Origin>) {
        self.0.replace(ByObject(origin));
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, object: &ObjectKey) {
        self.0.remove(object);
    }
}

impl Borrow<ObjectKey> for ByObject {
    fn borrow(&self) -> &ObjectKey {
        &self.0.object
    }
}

impl Ord for ByObject {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.object.cmp(&other.0.object)
    }
}

impl PartialOrd for ByObject {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByObject {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByObject {}
