//! Names and addresses of Services: a DNS server on the node, and the rules of kube-proxy on the way of all Pods. Headless Services have
//! neither here.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::process::Stdio;

use outrigger_kube_api::{ApiServer, Collection};
use serde_json::Value;

use super::text;
use crate::dns::FakeDns;
use crate::netns::{NetPod, Network};

/// See the module.
#[derive(Debug)]
pub(super) struct Services {
    names: FakeDns,
    /// As they were loaded.
    rules: String,
}

impl Services {
    /// Nothing has a name or an address yet.
    pub(super) fn start(network: &Network, node: &NetPod) -> Self {
        let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
        let status = network.gateway_command("sh").args(["-c", forward]).status();
        assert!(status.is_ok_and(|status| status.success()), "the gateway forwards");
        let names = node.enter(0, || FakeDns::start_at((node.v4, 53).into()));
        Services { names, rules: String::new() }
    }

    /// Names and addresses of the Services that are there now.
    pub(super) fn sync(&mut self, server: &ApiServer, network: &Network) {
        let slices = server.list(&Collection::new("discovery.k8s.io", "endpointslices"));
        let (mut names, mut rules) = (BTreeMap::new(), String::new());
        for service in server.list(&Collection::new("", "services")) {
            let (namespace, name) = (text(&service, "/metadata/namespace"), text(&service, "/metadata/name"));
            let addresses = addresses(&service["spec"]["clusterIPs"]);
            for ip in &addresses {
                let slice = slices.iter().find(|slice| {
                    slice["metadata"]["labels"]["kubernetes.io/service-name"] == name
                        && slice["metadata"]["namespace"] == namespace
                        && (slice["addressType"] == "IPv4") == ip.is_ipv4()
                });
                if let Some(slice) = slice {
                    rules += &forward(*ip, &service, slice);
                }
            }
            names.insert(format!("{name}.{namespace}.svc.cluster.local"), addresses);
        }
        self.names.replace(names);
        if self.rules != rules {
            load(network, &rules);
            self.rules = rules;
        }
    }
}

fn addresses(list: &Value) -> Vec<IpAddr> {
    list.as_array().into_iter().flatten().filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}

/// A rule for each port of a Service that somebody serves.
fn forward(ip: IpAddr, service: &Value, slice: &Value) -> String {
    let family = if ip.is_ipv4() { "ip" } else { "ip6" };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    let ready: Vec<IpAddr> = ready.flat_map(|endpoint| addresses(&endpoint["addresses"])).collect();
    let mut rules = String::new();
    for port in service["spec"]["ports"].as_array().into_iter().flatten() {
        let mut targets = slice["ports"].as_array().into_iter().flatten();
        let target = targets.find(|target| target["name"] == port["name"].as_str().unwrap_or_default());
        let Some(target) = target.filter(|_| !ready.is_empty()) else { continue };
        let targets: Vec<String> = ready
            .iter()
            .enumerate()
            .map(|(number, ip)| format!("{number} : {ip} . {}", target["port"]))
            .collect();
        rules += &format!(
            "    {family} daddr {ip} tcp dport {} dnat {family} to numgen random mod {} map {{ {} }}\n",
            port["port"],
            ready.len(),
            targets.join(", ")
        );
    }
    rules
}

/// Answers come back the same way because the gateway puts its own address in.
fn load(network: &Network, rules: &str) {
    let script = format!(
        "table inet services\ndelete table inet services\ntable inet services {{\n  chain to_endpoints {{\n    \
         type nat hook prerouting priority dstnat\n{rules}  }}\n  chain and_back {{\n    \
         type nat hook postrouting priority srcnat\n    ct status dnat masquerade\n  }}\n}}\n"
    );
    let mut nft = network.gateway_command("nft");
    let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("start nft");
    nft.stdin.take().expect("its input").write_all(script.as_bytes()).expect("write to nft");
    assert!(nft.wait().is_ok_and(|status| status.success()), "nft takes:\n{script}");
}
