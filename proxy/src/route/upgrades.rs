//! Which other protocols requests may ask for: `upgrade_configs` of a connection manager or of a route.

/// Upgrade types and whether each is allowed. Few, and only looked at for requests that ask.
#[derive(Debug, Default)]
pub struct Upgrades(Box<[Upgrade]>);

/// `UpgradeConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// `upgrade_type`: what the `upgrade` header or `:protocol` asks for; `CONNECT` for tunnels.
    pub name: Box<str>,
    /// `enabled`, default true.
    pub enabled: bool,
    /// `connect_config`: a tunnel ends here, and what is in it goes to the cluster as TCP; else CONNECT goes on to the cluster.
    pub terminates: bool,
}

impl Upgrades {
    /// The types, as configured, each at most once.
    pub fn new(types: Vec<Upgrade>) -> Self {
        Self(types.into())
    }

    /// What is said of this type; `None`: nothing. Compared as a whole, letter case aside.
    pub fn get(&self, name: &[u8]) -> Option<&Upgrade> {
        self.0.iter().find(|upgrade| upgrade.name.as_bytes().eq_ignore_ascii_case(name))
    }
}
