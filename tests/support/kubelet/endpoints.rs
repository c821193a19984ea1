//! The endpoint controller: from Services and Pods to EndpointSlices, one for each family of the Service.

use std::net::IpAddr;

use outrigger_kube_api::{ApiServer, Collection};
use serde_json::{Value, json};

use super::api::ApiClient;
use super::sandbox::{list, text};
use super::workload::references;

/// Writes the EndpointSlices of every Service with a selector.
pub(crate) fn sync(server: &ApiServer, api: &ApiClient) {
    let pods = server.list(&Collection::new("", "pods"));
    for service in server.list(&Collection::new("", "services")) {
        let Some(selector) = service["spec"]["selector"].as_object() else { continue };
        let namespace = &service["metadata"]["namespace"];
        let selected: Vec<&Value> = pods
            .iter()
            .filter(|pod| {
                let labels = &pod["metadata"]["labels"];
                pod["metadata"]["namespace"] == *namespace
                    && selector.iter().all(|(name, value)| labels[name] == *value)
                    && pod["status"]["phase"] == "Running"
            })
            .collect();
        for family in list(&service["spec"]["ipFamilies"]).iter().map(text) {
            let slice = slice(&service, &selected, family);
            let (name, namespace) = (text(&slice["metadata"]["name"]), text(namespace));
            let stored = server.get(&Collection::new("discovery.k8s.io", "endpointslices"), namespace, name);
            let is_same = |field: &str| stored.as_ref().is_some_and(|stored| stored[field] == slice[field]);
            if !is_same("endpoints") || !is_same("ports") {
                let collection = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
                api.put(&collection, &slice, stored.is_some()).unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }
}

fn slice(service: &Value, pods: &[&Value], family: &str) -> Value {
    let (namespace, name) = (&service["metadata"]["namespace"], text(&service["metadata"]["name"]));
    let endpoints: Vec<Value> = pods.iter().flat_map(|pod| endpoints(pod, family)).collect();
    let ports = list(&service["spec"]["ports"]).iter().filter_map(|port| {
        let target = &port["targetPort"];
        let number = if target.is_u64() { Some(target) } else { named(pods, target) };
        Some(json!({"name": port["name"].as_str().unwrap_or_default(), "port": number?, "protocol": "TCP"}))
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-{}", family.to_ascii_lowercase()), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name}, "ownerReferences": references(service),
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports.collect::<Vec<_>>(),
    })
}

fn endpoints(pod: &Value, family: &str) -> impl Iterator<Item = Value> {
    let is_ready = list(&pod["status"]["conditions"])
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let terminating = !pod["metadata"]["deletionTimestamp"].is_null();
    let conditions =
        json!({"ready": is_ready && !terminating, "serving": is_ready, "terminating": terminating});
    let metadata = &pod["metadata"];
    let target = json!({"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]});
    let node = &pod["spec"]["nodeName"];
    list(&pod["status"]["podIPs"]).iter().filter_map(move |ip| {
        let ip: IpAddr = text(&ip["ip"]).parse().expect("an address");
        (ip.is_ipv4() == (family == "IPv4")).then(|| {
            json!({"addresses": [ip.to_string()], "conditions": conditions, "targetRef": target, "nodeName": node})
        })
    })
}

/// The number of a port that the Service names; none while no Pod has it.
fn named<'a>(pods: &[&'a Value], name: &Value) -> Option<&'a Value> {
    let ports = pods.iter().flat_map(|pod| list(&pod["spec"]["containers"]));
    let mut ports = ports.flat_map(|container| list(&container["ports"]));
    ports.find(|port| port["name"] == *name).map(|port| &port["containerPort"])
}
