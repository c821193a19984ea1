//! Services: defaults, and the addresses and node ports that the server gives out.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::cluster::Cluster;
use crate::kinds::Collection;
use crate::object;

pub(super) fn default(service: &mut Value) {
    let root = object::root(service);
    let spec = object::child(root, "spec");
    object::default(spec, "type", "ClusterIP");
    object::default(spec, "sessionAffinity", "None");
    let is_external = spec.get("type").is_some_and(|one| one == "ExternalName");
    if !is_external {
        object::default(spec, "internalTrafficPolicy", "Cluster");
    }
    if spec.get("type").is_some_and(|one| one == "NodePort" || one == "LoadBalancer") {
        object::default(spec, "externalTrafficPolicy", "Cluster");
    }
    if spec.get("type").is_some_and(|one| one == "LoadBalancer") {
        object::default(spec, "allocateLoadBalancerNodePorts", true);
    }
    for port in object::items(spec, "ports") {
        object::default(port, "protocol", "TCP");
        let target = port.get("port").cloned().unwrap_or_default();
        object::default(port, "targetPort", target);
    }
    let balancer = object::child(object::child(root, "status"), "loadBalancer");
    for ingress in object::items(balancer, "ingress") {
        if ingress.contains_key("ip") {
            object::default(ingress, "ipMode", "VIP");
        }
    }
}

/// Gives a new service (or one whose type changed) its addresses and node ports.
pub(super) fn allocate(cluster: &Cluster, service: &mut Value) {
    let spec = object::child(object::root(service), "spec");
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == "ExternalName" {
        return;
    }
    let is_headless = spec.get("clusterIP").is_some_and(|ip| ip == "None");
    families(spec, is_headless);
    if is_headless {
        object::default(spec, "clusterIPs", json!(["None"]));
    } else {
        let taken = taken_addresses(cluster);
        let mut addresses: Vec<Value> = match spec.get("clusterIPs").and_then(Value::as_array) {
            Some(list) => list.clone(),
            None => spec.get("clusterIP").filter(|ip| *ip != "").cloned().into_iter().collect(),
        };
        let families = spec.get("ipFamilies").and_then(Value::as_array).cloned().unwrap_or_default();
        for family in families.iter().skip(addresses.len()) {
            addresses.push(free_address(family == "IPv6", &taken).into());
        }
        if let Some(first) = addresses.first() {
            spec.insert("clusterIP".into(), first.clone());
        }
        spec.insert("clusterIPs".into(), addresses.into());
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        for port in object::items(spec, "ports") {
            object::default(port, "nodePort", fastrand::u16(30000..32768));
        }
    }
}

fn families(spec: &mut Map<String, Value>, is_headless: bool) {
    let has_selector =
        spec.get("selector").and_then(Value::as_object).is_some_and(|selector| !selector.is_empty());
    if is_headless && !has_selector {
        // Nobody knows what its endpoints will be, so it may be both.
        object::default(spec, "ipFamilyPolicy", "RequireDualStack");
    } else {
        object::default(spec, "ipFamilyPolicy", "SingleStack");
    }
    let is_dual = spec.get("ipFamilyPolicy").is_some_and(|policy| policy != "SingleStack");
    let asked_ipv6 = [spec.get("clusterIP"), spec.get("clusterIPs").and_then(|list| list.get(0))]
        .into_iter()
        .flatten()
        .any(|ip| ip.as_str().is_some_and(|ip| ip.contains(':')));
    let (first, second) = if asked_ipv6 { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
    object::default(spec, "ipFamilies", if is_dual { json!([first, second]) } else { json!([first]) });
    if is_dual
        && let Some(list) = spec.get_mut("ipFamilies").and_then(Value::as_array_mut)
        && list.len() == 1
    {
        let other = if list[0] == "IPv6" { "IPv4" } else { "IPv6" };
        list.push(other.into());
    }
}

fn taken_addresses(cluster: &Cluster) -> HashSet<String> {
    let services = cluster.read(|store| store.list(&Collection::new("", "services")));
    let addresses = services.values().flat_map(|service| {
        let list = service["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
        list.into_iter().filter_map(|ip| ip.as_str().map(str::to_owned))
    });
    addresses.collect()
}

fn free_address(ipv6: bool, taken: &HashSet<String>) -> String {
    loop {
        let address = match ipv6 {
            true => format!("fd00:10:96::{:x}", fastrand::u16(1..)),
            false => format!("10.96.{}.{}", fastrand::u8(..), fastrand::u8(1..255)),
        };
        if !taken.contains(&address) {
            return address;
        }
    }
}
