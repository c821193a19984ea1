//! A `/config_dump` (`envoy.admin.v3.ConfigDump`), taken apart. Ours and a real Envoy's alike.

use serde_json::Value;

use crate::output::{list, text};

/// The kinds of resources in a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Clusters,
    Endpoints,
    Listeners,
    Routes,
    Secrets,
}

impl Kind {
    /// Message of its dump.
    fn message(self) -> &'static str {
        match self {
            Self::Clusters => "envoy.admin.v3.ClustersConfigDump",
            Self::Endpoints => "envoy.admin.v3.EndpointsConfigDump",
            Self::Listeners => "envoy.admin.v3.ListenersConfigDump",
            Self::Routes => "envoy.admin.v3.RoutesConfigDump",
            Self::Secrets => "envoy.admin.v3.SecretsConfigDump",
        }
    }

    /// Field of an entry that holds the resource.
    fn field(self) -> &'static str {
        match self {
            Self::Clusters => "cluster",
            Self::Endpoints => "endpoint_config",
            Self::Listeners => "listener",
            Self::Routes => "route_config",
            Self::Secrets => "secret",
        }
    }

    /// Lists of its dump, and what being in one means.
    fn lists(self) -> &'static [(&'static str, State)] {
        match self {
            Self::Clusters => &[
                ("static_clusters", State::Static),
                ("dynamic_active_clusters", State::Active),
                ("dynamic_warming_clusters", State::Warming),
            ],
            Self::Endpoints => {
                &[("static_endpoint_configs", State::Static), ("dynamic_endpoint_configs", State::Active)]
            }
            Self::Listeners => &[("static_listeners", State::Static), ("dynamic_listeners", State::Active)],
            Self::Routes => {
                &[("static_route_configs", State::Static), ("dynamic_route_configs", State::Active)]
            }
            Self::Secrets => &[
                ("static_secrets", State::Static),
                ("dynamic_active_secrets", State::Active),
                ("dynamic_warming_secrets", State::Warming),
            ],
        }
    }
}

/// What a resource is to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Of the bootstrap.
    Static,
    /// In force, from the control plane.
    Active,
    /// Newer than what is in force; waits for something that it names.
    Warming,
    /// No longer in force; its connections end.
    Draining,
}

impl State {
    /// As a table shows it: nothing for the normal case.
    pub(crate) fn note(self) -> &'static str {
        match self {
            Self::Active => "",
            Self::Static => "static",
            Self::Warming => "warming",
            Self::Draining => "draining",
        }
    }
}

/// One resource.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    /// As the control plane calls it; empty when it gave none.
    pub(crate) version: &'a str,
    pub(crate) state: State,
    pub(crate) resource: &'a Value,
}

/// The resources of a kind, in the order of the dump.
pub(crate) fn entries(dump: &Value, kind: Kind) -> Vec<Entry<'_>> {
    let configs =
        list(dump, "/configs").iter().filter(|config| text(config, "/@type").ends_with(kind.message()));
    let lists = configs.flat_map(|config| {
        let lists = kind.lists().iter();
        lists.flat_map(move |(name, state)| {
            let entries = config.get(name).and_then(Value::as_array).into_iter().flatten();
            entries.map(move |entry| (entry, *state))
        })
    });
    lists.flat_map(|(entry, state)| versions(entry, state, kind)).collect()
}

/// The versions in an entry: one, but a listener may have several at once.
fn versions(entry: &Value, state: State, kind: Kind) -> Vec<Entry<'_>> {
    if kind != Kind::Listeners || state == State::Static {
        return version(entry, state, kind).into_iter().collect();
    }
    let states = [
        ("active_state", State::Active),
        ("warming_state", State::Warming),
        ("draining_state", State::Draining),
    ];
    states.into_iter().filter_map(|(field, state)| version(entry.get(field)?, state, kind)).collect()
}

fn version(entry: &Value, state: State, kind: Kind) -> Option<Entry<'_>> {
    let resource = entry.get(kind.field())?;
    // Envoy gives its built-in route configurations and secrets a name beside them.
    let names = [text(resource, "/name"), text(resource, "/cluster_name"), text(entry, "/name")];
    let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    Some(Entry { name, version: text(entry, "/version_info"), state, resource })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_state_of_every_kind() {
        let dump = json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {}},
            {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
             "static_clusters": [{"cluster": {"name": "a"}}],
             "dynamic_active_clusters": [{"version_info": "1", "cluster": {"name": "b"}}],
             "dynamic_warming_clusters": [{"version_info": "2", "cluster": {"name": "b"}}]},
            {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
             "dynamic_listeners": [
                {"name": "l", "active_state": {"version_info": "1", "listener": {"name": "l"}},
                 "warming_state": {"version_info": "2", "listener": {"name": "l"}}},
                {"name": "never", "error_state": {"details": "no"}}]},
            {"@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
             "dynamic_endpoint_configs": [{"endpoint_config": {"cluster_name": "b"}}]},
        ]});
        let shown = |kind: Kind| -> Vec<String> {
            let entries = entries(&dump, kind).into_iter();
            entries.map(|e| format!("{} {} {:?}", e.name, e.version, e.state)).collect()
        };
        assert_eq!(shown(Kind::Clusters), ["a  Static", "b 1 Active", "b 2 Warming"]);
        assert_eq!(shown(Kind::Listeners), ["l 1 Active", "l 2 Warming"]);
        assert_eq!(shown(Kind::Endpoints), ["b  Active"]);
        assert_eq!(shown(Kind::Routes), [""; 0]);
    }
}
