//! Who may ask for a snapshot's configuration.

use std::sync::Arc;

use super::Snapshot;
use crate::scope::ScopeKey;

impl Snapshot {
    /// Every pod that a proxy may run in, with its service account.
    pub fn pods(&self) -> impl Iterator<Item = (&ScopeKey, &str)> {
        self.proxies.iter().map(|(pod, scope)| (pod, scope.service_account.as_str()))
    }

    /// Istio's description of the workload that a pod belongs to. `None`: there is no such pod in the mesh.
    pub fn description_of(&self, namespace: &str, pod: &str) -> Option<Arc<str>> {
        let key = ScopeKey { namespace: namespace.to_owned(), pod: pod.to_owned() };
        Some(self.proxies.get(&key)?.description.clone())
    }

    /// A snapshot made by hand: `pods` of one namespace with their service account and address, all with the same
    /// `resources`.
    #[cfg(test)]
    pub(crate) fn by_hand(
        generation: u64,
        namespace: &str,
        pods: &[(&str, &str, std::net::IpAddr)],
        resources: impl Fn(outrigger_xds_api::ResourceType) -> std::sync::Arc<super::ResourceMap>,
    ) -> Self {
        use super::by_audience::ByAudience;
        use outrigger_xds_api::ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};

        let client = crate::model::Client { namespace: namespace.to_owned(), ..Default::default() };
        let proxies = pods.iter().map(|(pod, service_account, ip)| {
            let key = ScopeKey { namespace: namespace.to_owned(), pod: (*pod).to_owned() };
            let scope = super::ProxyScope {
                service_account: (*service_account).to_owned(),
                description: "".into(),
                client: client.clone(),
                place: crate::model::Place::default(),
                ips: vec![*ip],
                captured: false,
                proxyless: false,
                clusters: Arc::default(),
                listeners: resources(Listener),
            };
            (key, Arc::new(scope))
        });
        Self {
            generation,
            clusters: ByAudience::for_all(resources(Cluster)),
            endpoints: ByAudience::for_all(resources(ClusterLoadAssignment)),
            routes: Arc::new([(client.clone(), resources(RouteConfiguration))].into()),
            proxies: Arc::new(proxies.collect()),
            ..Self::default()
        }
    }
}
