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

/// What one proxy gets of one type: a layer shared by every proxy of its scope, and a layer of its own (listeners and
/// inbound clusters carry the workload's address). No name is in both layers.
///
/// Cloning is two pointer copies. Two sets with [`same_as`](Self::same_as) need no comparison.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    pub(crate) shared: Arc<ResourceMap>,
    pub(crate) own: Arc<ResourceMap>,
}

impl ResourceSet {
    /// The resource called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.own.get(name).or_else(|| self.shared.get(name))
    }

    /// All resources: the shared layer in the order of names, then the proxy's own.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.shared.values().chain(self.own.values())
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.shared.len() + self.own.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether both are the very same sets (two pointer comparisons). `true` means that nothing changed between the two
    /// snapshots that they came from; `false` that something may have.
    pub fn same_as(&self, other: &Self) -> bool {
        let same =
            |a: &Arc<ResourceMap>, b: &Arc<ResourceMap>| Arc::ptr_eq(a, b) || (a.is_empty() && b.is_empty());
        same(&self.shared, &other.shared) && same(&self.own, &other.own)
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
