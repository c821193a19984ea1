//! What follows from several objects together: endpoints of Services, inbound ports of workloads, modes of ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    EndpointSlice, Locality, MutualTlsMode, Name, PeerAuthn, Registry, Service, ServicePort, SliceEndpoint,
    TargetPort, Workload,
};

/// One address behind a port of a Service.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The Pod's address.
    pub ip: IpAddr,
    /// The Pod's port.
    pub port: u16,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Whether it is about to end, and so will take none any more.
    pub is_ending: bool,
    /// Where it is, as far as that is known.
    pub locality: Locality,
    /// Its share is this by the sum of all.
    pub weight: u32,
    /// The Node that it is on, when that is known.
    pub node: Option<String>,
    /// The Pod, when it is known.
    pub workload: Option<Arc<Workload>>,
    /// Labels of one that is no Pod.
    labels: BTreeMap<String, String>,
}

impl Endpoint {
    /// Its labels, which subsets ask for.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.workload.as_ref().map_or(&self.labels, |workload| &workload.labels)
    }
}

/// A port of a workload that a Service's port leads to.
#[derive(Debug, Clone)]
pub struct InboundPort {
    /// The Service.
    pub service: Arc<Service>,
    /// The Service's port.
    pub port: ServicePort,
    /// The workload's port.
    pub target: u16,
}

impl Registry {
    /// All endpoints of a port, ready or not, in the order of addresses. EndpointSlices tell them; a Service that has none
    /// selects Pods itself. Where there are both IPv4 and IPv6, the Service's first address decides: a Pod counts once.
    pub fn endpoints(&self, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
        let mut endpoints: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
        let mut add = |endpoint: Endpoint| {
            let key = (endpoint.ip, endpoint.port);
            // While an endpoint moves between slices it may be in two: it is ready when one says so.
            let entry = endpoints.entry(key).or_insert_with(|| endpoint.clone());
            entry.ready |= endpoint.ready;
        };
        for endpoint in service.external.iter().flat_map(|external| &external.endpoints) {
            add(Endpoint {
                ip: endpoint.address,
                port: endpoint.port(port),
                ready: true,
                is_ending: false,
                locality: endpoint.locality.clone(),
                weight: endpoint.weight,
                node: None,
                workload: None,
                labels: endpoint.labels.clone(),
            });
        }
        let mut has_slices = false;
        for slice in self.slices_of(&service.name) {
            has_slices = true;
            let Some(slice_port) = slice.ports.iter().find(|slice_port| slice_port.name == port.name) else {
                continue;
            };
            for endpoint in &slice.endpoints {
                let workload = self.workload_of(slice, endpoint).cloned();
                // A slice may be told before its Pod. Whether it has a sidecar, and so how to reach it, is not known yet.
                if endpoint.pod.is_some() && workload.is_none() {
                    continue;
                }
                add(Endpoint {
                    ip: endpoint.address,
                    port: slice_port.number,
                    ready: endpoint.ready,
                    is_ending: endpoint.is_ending,
                    locality: self.locality_of_slice(endpoint, workload.as_deref()),
                    weight: 1,
                    node: node_of(endpoint, workload.as_deref()).map(str::to_owned),
                    workload,
                    labels: BTreeMap::new(),
                });
            }
        }
        if !has_slices {
            for workload in self.workloads_in(&service.name.namespace) {
                let (Some(ip), Some(port)) = (workload.ips.first(), target(workload, &port.target)) else {
                    continue;
                };
                if service.selects(&workload.labels) {
                    add(Endpoint {
                        ip: *ip,
                        port,
                        ready: workload.ready,
                        is_ending: workload.is_ending,
                        locality: self.locality_of(workload, workload.node.as_deref()),
                        weight: 1,
                        node: workload.node.clone(),
                        workload: Some(workload.clone()),
                        labels: BTreeMap::new(),
                    });
                }
            }
        }
        let is_v4 = |ip: &IpAddr| ip.is_ipv4();
        let prefers_v4 = service.cluster_ips.first().is_none_or(is_v4);
        if endpoints.keys().any(|(ip, _)| is_v4(ip) == prefers_v4) {
            endpoints.retain(|(ip, _), _| is_v4(ip) == prefers_v4);
        }
        endpoints.into_values().collect()
    }

    /// Where a slice's endpoint is: at the Node that the slice names, else at that of its Pod. The zone in the slice stands
    /// for a Node that is not known or says none.
    fn locality_of_slice(&self, endpoint: &SliceEndpoint, workload: Option<&Workload>) -> Locality {
        let node = node_of(endpoint, workload);
        let mut locality = match workload {
            Some(workload) => self.locality_of(workload, node),
            None => {
                node.and_then(|node| self.node(node)).map(|node| node.locality.clone()).unwrap_or_default()
            }
        };
        if let Some(zone) = endpoint.zone.as_ref().filter(|_| locality.zone.is_empty()) {
            locality.zone.clone_from(zone);
        }
        locality
    }

    /// A Pod that a port should lead to and does not, because none of its containers has a port of the name that
    /// `targetPort` gives.
    pub fn pod_without_target<'a>(
        &'a self,
        service: &Service,
        port: &ServicePort,
    ) -> Option<&'a Arc<Workload>> {
        if self.slices_of(&service.name).next().is_some() {
            return None;
        }
        let mut pods = self.workloads_in(&service.name.namespace);
        pods.find(|pod| service.selects(&pod.labels) && target(pod, &port.target).is_none())
    }

    /// The Pod behind an endpoint of a slice: the one that it names, else the one that has its address.
    pub(super) fn workload_of<'a>(
        &'a self,
        slice: &EndpointSlice,
        endpoint: &SliceEndpoint,
    ) -> Option<&'a Arc<Workload>> {
        let namespace = &slice.name.namespace;
        match &endpoint.pod {
            Some(pod) => self.workload(&Name::new(namespace, pod)),
            None => self.workloads_in(namespace).find(|workload| workload.ips.contains(&endpoint.address)),
        }
    }

    /// The ports of Services that lead to a workload, in the order of Services and port numbers.
    pub fn inbound_ports(&self, workload: &Workload) -> Vec<InboundPort> {
        let namespace = &workload.name.namespace;
        // Services whose slices lead here, with the number of each port by name.
        let mut by_slices: BTreeMap<&Name, BTreeMap<&str, u16>> = BTreeMap::new();
        let mut has_slices = BTreeSet::new();
        for slice in self.slices_in(namespace) {
            has_slices.insert(&slice.service);
            let leads_here = slice.endpoints.iter().any(|endpoint| match &endpoint.pod {
                Some(pod) => *pod == workload.name.name,
                // Looking the workload up costs more than this first question.
                None => {
                    workload.ips.contains(&endpoint.address)
                        && self.workload_of(slice, endpoint).is_some_and(|found| found.name == workload.name)
                }
            });
            if leads_here {
                let ports = slice.ports.iter().map(|port| (port.name.as_str(), port.number));
                by_slices.entry(&slice.service).or_default().extend(ports);
            }
        }
        let mut inbound = Vec::new();
        for service in self.services_in(namespace) {
            let sliced = has_slices.contains(&service.name);
            if !sliced && !service.selects(&workload.labels) {
                continue;
            }
            for port in &service.ports {
                let target = if sliced {
                    by_slices.get(&service.name).and_then(|ports| ports.get(port.name.as_str()).copied())
                } else {
                    target(workload, &port.target)
                };
                if let Some(target) = target {
                    inbound.push(InboundPort { service: service.clone(), port: port.clone(), target });
                }
            }
        }
        inbound.sort_by(|a, b| (&a.service.name, a.port.number).cmp(&(&b.service.name, b.port.number)));
        inbound
    }

    /// The ports of a workload that PeerAuthentication says something of by number.
    pub fn mutual_tls_ports(&self, workload: &Workload) -> Vec<u16> {
        let own = self.peer_authn_in(&workload.name.namespace);
        let selected = own.iter().find(|policy| policy.selects(&workload.labels));
        selected.map(|policy| policy.port_modes.keys().copied().collect()).unwrap_or_default()
    }

    /// What a workload's port accepts; port 0 stands for those that no policy names. The most specific PeerAuthentication that says something decides: port, selected
    /// workload, namespace, mesh; of two equally specific ones the older (Istio).
    pub fn mutual_tls_mode(&self, workload: &Workload, port: u16) -> MutualTlsMode {
        let own = self.peer_authn_in(&workload.name.namespace);
        let root = self.peer_authn_in(&self.settings().root_namespace);
        let selected = own.iter().find(|policy| policy.selects(&workload.labels));
        if let Some(policy) = selected
            && let Some(mode) = policy.port_modes.get(&port).copied().flatten()
        {
            return mode;
        }
        let wide = |policies: &[Arc<PeerAuthn>]| {
            let first = policies.iter().find(|policy| policy.selector.is_empty());
            first.and_then(|policy| policy.mode)
        };
        selected
            .and_then(|policy| policy.mode)
            .or_else(|| wide(&own))
            .or_else(|| wide(&root))
            .unwrap_or_default()
    }
}

/// The Node that a slice's endpoint is on.
fn node_of<'a>(endpoint: &'a SliceEndpoint, workload: Option<&'a Workload>) -> Option<&'a str> {
    endpoint.node.as_deref().or(workload.and_then(|workload| workload.node.as_deref()))
}

/// The number of a Service's target port at a workload.
fn target(workload: &Workload, port: &TargetPort) -> Option<u16> {
    match port {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Named(name) => workload.named_ports.get(name).copied(),
    }
}
