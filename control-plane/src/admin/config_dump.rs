//! `/config_dump?proxy=ID`: what the control plane has for one proxy, in the form of the proxy's own `/config_dump`
//! (`envoy.admin.v3.ConfigDump`), so that the two can be compared.
//!
//! It has what the proxy asks for: all clusters and listeners, and the endpoints and route configurations that these name.
//! Never a secret: a workload's own sidecar makes them.

use std::collections::BTreeSet;

use outrigger_xds_api::{ResourceType, json};
use serde_json::{Value, json as value};

use crate::auth::NodeId;
use crate::scope::ScopeKey;
use crate::snapshot::{Resource, Snapshot};

/// The proxy that a request asks about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProxyName(ScopeKey);

impl ProxyName {
    /// Reads `proxy=POD.NAMESPACE`, or `proxy=` and a node id. None of their characters has to be escaped.
    ///
    /// # Errors
    /// What has to be written instead.
    pub(super) fn of_query(query: &str) -> Result<Self, &'static str> {
        let name = query.split('&').find_map(|pair| pair.strip_prefix("proxy=")).unwrap_or_default();
        let (pod, namespace) = match NodeId::parse(name) {
            Ok(node) => (node.pod, node.namespace),
            // A pod's name may hold dots, a namespace may not.
            Err(_) => match name.rsplit_once('.') {
                Some((pod, namespace)) if !pod.is_empty() && !namespace.is_empty() => {
                    (pod.to_owned(), namespace.to_owned())
                }
                _ => return Err("name a proxy: /config_dump?proxy=POD.NAMESPACE, or its node id"),
            },
        };
        Ok(Self(ScopeKey { namespace, pod }))
    }
}

/// The dump for a proxy; `None` when there is no such Pod in the mesh.
pub(super) fn dump(snapshot: &Snapshot, ProxyName(scope): &ProxyName) -> Option<Value> {
    if !snapshot.has_scope(scope) {
        return None;
    }
    let all = |of: ResourceType, field: &str| -> Vec<Value> {
        snapshot.resources(scope, of).iter().map(|resource| version(of, resource, field)).collect()
    };
    let only = |of: ResourceType, field: &str, names: &BTreeSet<String>| -> Vec<Value> {
        let set = snapshot.resources(scope, of);
        names.iter().filter_map(|name| Some(version(of, set.get(name)?, field))).collect()
    };
    let clusters = all(ResourceType::Cluster, "cluster");
    let listeners = all(ResourceType::Listener, "listener");
    let assignments: BTreeSet<String> =
        clusters.iter().filter_map(|c| assignment_of(&c["cluster"])).collect();
    let mut route_names = BTreeSet::new();
    listeners.iter().for_each(|listener| routes_of(listener, &mut route_names));
    let endpoints = only(ResourceType::ClusterLoadAssignment, "endpoint_config", &assignments);
    let routes = only(ResourceType::RouteConfiguration, "route_config", &route_names);
    let listeners = listeners.into_iter().map(|listener| {
        let name = listener["listener"]["name"].clone();
        value!({ "name": name, "active_state": listener })
    });
    let kind = |name: &str| format!("type.googleapis.com/envoy.admin.v3.{name}");
    Some(value!({ "configs": [
        { "@type": kind("ClustersConfigDump"), "dynamic_active_clusters": sorted(clusters, "cluster", "name") },
        { "@type": kind("ListenersConfigDump"), "dynamic_listeners": listeners.collect::<Vec<_>>() },
        { "@type": kind("RoutesConfigDump"), "dynamic_route_configs": routes },
        { "@type": kind("EndpointsConfigDump"), "dynamic_endpoint_configs": endpoints },
    ]}))
}

fn version(of: ResourceType, resource: &Resource, field: &str) -> Value {
    let message = json::to_json(of.message_name(), &resource.content.value);
    let mut shown = value!({ "@type": of.type_url() });
    match (shown.as_object_mut(), message) {
        (Some(shown), Ok(Value::Object(fields))) => shown.extend(fields),
        (_, Ok(other)) => shown = other,
        (_, Err(reason)) => shown["error"] = reason.into(),
    }
    value!({ "version_info": &*resource.version, field: shown })
}

/// The shared and the own ones in one order.
fn sorted(mut entries: Vec<Value>, field: &str, name: &str) -> Vec<Value> {
    entries.sort_by(|a, b| a[field][name].as_str().cmp(&b[field][name].as_str()));
    entries
}

/// The load assignment that a cluster gets by EDS.
fn assignment_of(cluster: &Value) -> Option<String> {
    let name = cluster["eds_cluster_config"].as_object()?.get("service_name").unwrap_or(&cluster["name"]);
    name.as_str().map(str::to_owned)
}

/// The route configurations that a listener gets by RDS.
fn routes_of(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value.as_str()) {
                    ("route_config_name", Some(routes)) => {
                        names.insert(routes.to_owned());
                    }
                    _ => routes_of(value, names),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| routes_of(element, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_by_its_pod_or_its_node_id() {
        let key = |pod: &str, namespace: &str| {
            Ok(ProxyName(ScopeKey { namespace: namespace.to_owned(), pod: pod.to_owned() }))
        };
        assert_eq!(ProxyName::of_query("proxy=web-0.shop"), key("web-0", "shop"));
        assert_eq!(ProxyName::of_query("a=b&proxy=a.b.shop"), key("a.b", "shop"));
        let node = "proxy=sidecar~127.1.0.1~web-0.shop~shop.svc.cluster.local";
        assert_eq!(ProxyName::of_query(node), key("web-0", "shop"));
        for wrong in ["", "proxy=", "proxy=web-0", "proxy=.shop", "x=a.b"] {
            assert!(ProxyName::of_query(wrong).is_err(), "{wrong}");
        }
    }
}
