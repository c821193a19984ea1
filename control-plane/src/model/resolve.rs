//! What follows from several objects together: endpoints of Services, inbound ports of workloads, modes of ports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{
    EndpointAddress, EndpointSlice, Locality, MutualTlsMode, Name, PeerAuthn, Registry, Service, ServicePort,
    SliceEndpoint, TargetPort, Workload,
};

/// One address behind a port of a Service.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where it is called.
    pub address: EndpointAddress,
    /// Its port.
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
    /// The Pod or WorkloadEntry, when it is known.
    pub workload: Option<Arc<Workload>>,
    /// Labels of one that is neither.
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
    /// selects Pods itself. It selects WorkloadEntries in any case, which no slice tells; those that have names only where proxies
    /// resolve names. Where there are both IPv4 and IPv6, the Service's first address decides: a Pod counts once.
    pub fn endpoints(&self, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
        let mut endpoints: BTreeMap<(EndpointAddress, u16), Endpoint> = BTreeMap::new();
        let mut add = |endpoint: Endpoint| {
            let key = (endpoint.address.clone(), endpoint.port);
            // While an endpoint moves between slices it may be in two: it is ready when one says so.
            let entry = endpoints.entry(key).or_insert_with(|| endpoint.clone());
            entry.ready |= endpoint.ready;
        };
        for endpoint in service.external.iter().flat_map(|external| &external.endpoints) {
            add(Endpoint {
                address: endpoint.address.clone(),
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
                    address: endpoint.address.into(),
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
        for workload in self.workloads_in(&service.name.namespace) {
            if (has_slices && workload.entry.is_none()) || !service.selects(&workload.labels) {
                continue;
            }
            let Some(address) = address(workload, service) else { continue };
            let Some(port) = target(workload, port) else { continue };
            add(Endpoint {
                address,
                port,
                ready: workload.ready,
                is_ending: workload.is_ending,
                locality: self.locality_of(workload, workload.node.as_deref()),
                weight: workload.entry.as_ref().map_or(1, |entry| entry.weight),
                node: workload.node.clone(),
                workload: Some(workload.clone()),
                labels: BTreeMap::new(),
            });
        }
        let prefers_v4 = service.cluster_ips.first().is_none_or(|ip| ip.is_ipv4());
        if endpoints.keys().any(|(address, _)| address.is_of_other_version(!prefers_v4)) {
            endpoints.retain(|(address, _), _| !address.is_of_other_version(prefers_v4));
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

    /// A workload that a port should lead to and does not, because it has no port of the name that `targetPort` gives.
    pub fn workload_without_target<'a>(
        &'a self,
        service: &Service,
        port: &ServicePort,
    ) -> Option<&'a Arc<Workload>> {
        let has_slices = self.slices_of(&service.name).next().is_some();
        let mut selected = self
            .workloads_in(&service.name.namespace)
            .filter(|workload| !has_slices || workload.entry.is_some())
            .filter(|workload| service.selects(&workload.labels));
        selected.find(|workload| target(workload, port).is_none())
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
            // Slices tell of Pods only.
            let selects = (workload.entry.is_some() || !has_slices.contains(&service.name))
                && service.selects(&workload.labels);
            let by_slice = by_slices.get(&service.name);
            if !selects && by_slice.is_none() {
                continue;
            }
            for port in &service.ports {
                let of_slice = by_slice.and_then(|ports| ports.get(port.name.as_str()).copied());
                let of_selector = || if selects { target(workload, port) } else { None };
                if let Some(target) = of_slice.or_else(of_selector) {
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

/// Where a workload is called for a Service.
fn address(workload: &Workload, service: &Service) -> Option<EndpointAddress> {
    match &workload.entry {
        None => workload.ips.first().copied().map(EndpointAddress::Ip),
        Some(entry) => match &entry.address {
            EndpointAddress::Name(_) if service.named.is_none() => None,
            // No name leads to a Unix socket, and it has no port that a Service of Kubernetes could have.
            EndpointAddress::Pipe(_) if service.named.is_some() || service.external.is_none() => None,
            address => Some(address.clone()),
        },
    }
}

/// The number at a workload of the port that a Service's port leads to. What a WorkloadEntry says of its own ports counts first.
fn target(workload: &Workload, port: &ServicePort) -> Option<u16> {
    let own = |name: &String| workload.entry.as_ref().and_then(|entry| entry.ports.get(name).copied());
    own(&port.name).or_else(|| match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Named(name) => workload.named_ports.get(name).copied().or_else(|| own(name)),
    })
}
