//! Where hosts stand.

use std::fmt;

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

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.region, self.zone, self.sub_zone)
    }
}
