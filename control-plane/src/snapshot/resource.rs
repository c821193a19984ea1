//! One encoded xDS resource, and sets of them.
//!
//! Invariant: a [`Resource`] is immutable and encoded exactly once; every proxy and both protocol variants share it
//! behind an `Arc`. Its version is a hash of its content, so equal content has an equal version across restarts and
//! replicas. Runs anywhere; holds no runtime state.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::protobuf::Any;

/// One resource, ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// The resource's xDS name.
    pub name: Arc<str>,
    /// The first 16 hexadecimal digits of the SHA-256 of the encoded message.
    pub version: Arc<str>,
    /// The encoded message with its type URL.
    pub content: Any,
}

impl Resource {
    /// Wraps an encoded message and computes its version.
    pub fn new(of: ResourceType, name: &str, encoded: Vec<u8>) -> Self {
        use std::fmt::Write as _;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &encoded);
        let mut version = String::with_capacity(16);
        for byte in &digest.as_ref()[..8] {
            // Writing to a String cannot fail.
            let _ = write!(version, "{byte:02x}");
        }
        let content = Any { type_url: of.type_url().to_owned(), value: encoded };
        Self { name: name.into(), version: version.into(), content }
    }
}

/// Resources of one type by name.
pub type ResourceMap = BTreeMap<Arc<str>, Arc<Resource>>;

/// How many layers there are.
const LAYERS: usize = 4;

/// What one proxy gets of one type, in layers: what every proxy of its scope gets, what those like it get, and what is its own
/// (listeners and inbound clusters carry the workload's address). A name in a later layer hides the same name in an earlier
/// one.
///
/// Cloning copies pointers. Two sets with [`same_as`](Self::same_as) need no comparison.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    layers: [Arc<ResourceMap>; LAYERS],
}

impl ResourceSet {
    /// A set of these layers.
    pub(crate) fn layered(layers: [Arc<ResourceMap>; LAYERS]) -> Self {
        Self { layers }
    }

    /// A set of what is shared and what is the proxy's own.
    pub(crate) fn of(shared: Arc<ResourceMap>, own: Arc<ResourceMap>) -> Self {
        Self::layered([shared, Arc::default(), Arc::default(), own])
    }

    /// The resource called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.layers.iter().rev().find_map(|layer| layer.get(name))
    }

    /// All resources: one layer after the other, each in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.layers.iter().enumerate().flat_map(|(index, layer)| {
            let later = &self.layers[index + 1..];
            let is_seen = move |(name, _): &(&Arc<str>, &Arc<Resource>)| {
                !later.iter().any(|layer| layer.contains_key(*name))
            };
            layer.iter().filter(is_seen).map(|(_, resource)| resource)
        })
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(|layer| layer.is_empty())
    }

    /// Whether both are the very same sets (a pointer comparison for each layer). `true` means that nothing changed between the two
    /// snapshots that they came from; `false` that something may have.
    pub fn same_as(&self, other: &Self) -> bool {
        let same =
            |a: &Arc<ResourceMap>, b: &Arc<ResourceMap>| Arc::ptr_eq(a, b) || (a.is_empty() && b.is_empty());
        self.layers.iter().zip(&other.layers).all(|(a, b)| same(a, b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_follows_content_only() {
        let a = Resource::new(ResourceType::Cluster, "a", vec![1, 2, 3]);
        let b = Resource::new(ResourceType::Cluster, "b", vec![1, 2, 3]);
        let c = Resource::new(ResourceType::Cluster, "a", vec![1, 2, 4]);
        assert_eq!(a.version, b.version);
        assert_ne!(a.version, c.version);
        // sha256(01 02 03) begins so.
        assert_eq!(&*a.version, "039058c6f2c0cb49");
    }
}
