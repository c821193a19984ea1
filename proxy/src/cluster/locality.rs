//! Where hosts stand.

use std::fmt;
use std::sync::{Arc, LazyLock};

/// `envoy.config.core.v3.Locality`; each part may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// `region`.
    pub region: Box<str>,
    /// `zone`.
    pub zone: Box<str>,
    /// `sub_zone`.
    pub sub_zone: Box<str>,
}

impl Locality {
    /// That of all who say nothing of where they stand: one for all, for memory is by the host.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Locality>> = LazyLock::new(Arc::default);
        NONE.clone()
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.region, self.zone, self.sub_zone)
    }
}
