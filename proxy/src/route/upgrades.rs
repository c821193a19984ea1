//! Which other protocols requests may ask for: `upgrade_configs` of a connection manager or of a route.

use http::HeaderValue;

/// Upgrade types and whether each is allowed. Few, and only looked at for requests that ask.
#[derive(Debug, Default)]
pub struct Upgrades(Box<[(Box<str>, bool)]>);

impl Upgrades {
    /// The types, as configured, each at most once.
    pub fn new(types: Vec<(Box<str>, bool)>) -> Self {
        Self(types.into())
    }

    /// Whether this `upgrade` header is allowed; `None`: nothing is said of it. Compared as a whole, letter case aside.
    pub fn get(&self, upgrade: &HeaderValue) -> Option<bool> {
        let found = self.0.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(upgrade.as_bytes()));
        found.map(|(_, enabled)| *enabled)
    }
}
