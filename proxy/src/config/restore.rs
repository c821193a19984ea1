//! The last good configuration of the process before this one: applied as if it had just come. Runs once, on main.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::WILDCARD;
use tokio::time::Instant;

use super::apply::Update;
use super::configuration::Configuration;
use super::sources::SourceId;
use crate::state::Saved;

/// What is referred to comes after what refers to it: it is taken once it is wanted.
const ORDER: [ResourceType; 6] = [
    ResourceType::Cluster,
    ResourceType::ClusterLoadAssignment,
    ResourceType::Listener,
    ResourceType::RouteConfiguration,
    ResourceType::Secret,
    ResourceType::ExtensionConfig,
];

/// Versions by type and name.
pub type Versions = BTreeMap<(ResourceType, String), String>;

impl Configuration {
    /// Takes what is wanted of the saved resources of the aggregated stream, and gives their versions. What this version of the
    /// program refuses is left out.
    pub fn restore(&mut self, saved: &Saved, now: Instant) -> Versions {
        let mut restored = Versions::new();
        let mut refused = BTreeSet::new();
        loop {
            let before = restored.len() + refused.len();
            for resource_type in ORDER {
                let watches = &self.inputs().watches;
                let is_wanted = |name: &str| {
                    watches.is_wanted(SourceId::ADS, resource_type, WILDCARD)
                        || watches.is_wanted(SourceId::ADS, resource_type, name)
                };
                let updates: Vec<Update<'_>> = saved
                    .iter()
                    .filter(|(key, _)| key.0 == resource_type && is_wanted(&key.1))
                    .filter(|(key, _)| !restored.contains_key(*key) && !refused.contains(*key))
                    .filter_map(|((_, name), saved)| {
                        Some(Update {
                            name,
                            version: &saved.version,
                            resource: saved.resource.as_ref()?,
                            aliases: &[],
                        })
                    })
                    .collect();
                if updates.is_empty() {
                    continue;
                }
                let versions = updates
                    .iter()
                    .map(|update| ((resource_type, update.name.to_owned()), update.version.to_owned()));
                let versions: Versions = versions.collect();
                let rejected = self.apply(SourceId::ADS, resource_type, &updates, &[], now);
                for invalid in rejected {
                    tracing::warn!(target: "config", "not restored: {invalid}");
                    refused.insert((resource_type, invalid.name));
                }
                restored.extend(versions.into_iter().filter(|(key, _)| !refused.contains(key)));
            }
            if restored.len() + refused.len() == before {
                return restored;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile::Fetch;
    use crate::config::testing::{configuration, published_routes, resource};
    use outrigger_xds_api::wire::discovery::v3::Resource;
    use std::time::Duration;

    fn save(saved: &mut Saved, resource_type: ResourceType, name: &str, yaml: &str) {
        let resource = Some(resource(resource_type, yaml));
        let entry =
            Resource { name: name.to_owned(), version: "7".to_owned(), resource, ..Default::default() };
        saved.insert((resource_type, name.to_owned()), entry);
    }

    #[test]
    fn what_is_wanted_is_restored_and_what_is_no_good_is_not() {
        let mut saved = Saved::new();
        let eds = "type: EDS, eds_cluster_config: {eds_config: {ads: {}}}";
        save(&mut saved, ResourceType::Cluster, "c", &format!("{{name: c, {eds}}}"));
        save(&mut saved, ResourceType::Cluster, "bad", "{name: bad, lb_policy: CLUSTER_PROVIDED}");
        save(&mut saved, ResourceType::ClusterLoadAssignment, "c", "{cluster_name: c}");
        save(&mut saved, ResourceType::ClusterLoadAssignment, "nobody", "{cluster_name: nobody}");
        let routes = "{name: r, virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}";
        save(&mut saved, ResourceType::RouteConfiguration, "r", routes);
        let listener = "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: \
             [{name: h, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
             HttpConnectionManager, stat_prefix: s, rds: {route_config_name: r, config_source: {ads: {}}}, http_filters: [{name: \
             router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}";
        save(&mut saved, ResourceType::Listener, "l", listener);
        let (mut configuration, now) = (configuration(), Instant::now());
        for resource_type in [ResourceType::Cluster, ResourceType::Listener] {
            let fetch = Fetch { source: SourceId::ADS, timeout: Duration::MAX };
            configuration.take_all(resource_type, fetch, now);
        }
        let restored = configuration.restore(&saved, now);
        let names: Vec<_> = restored.keys().map(|(kind, name)| (*kind, name.as_str())).collect();
        assert_eq!(
            names,
            [
                (ResourceType::Cluster, "c"),
                (ResourceType::ClusterLoadAssignment, "c"),
                (ResourceType::Listener, "l"),
                (ResourceType::RouteConfiguration, "r"),
            ]
        );
        assert!(published_routes(&configuration, "r").is_some());
        assert!(configuration.is_initialized(), "nobody has to be waited for");
    }
}
