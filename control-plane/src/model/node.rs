//! Nodes: where workloads are.

/// A place in the topology of a cluster (Envoy: `Locality`). Parts that are not known are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone of the region.
    pub zone: String,
    /// Part of the zone.
    pub sub_zone: String,
}

impl Locality {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A Kubernetes Node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it is: labels `topology.kubernetes.io/region` and `zone`, and `topology.istio.io/subzone`.
    pub locality: Locality,
}
