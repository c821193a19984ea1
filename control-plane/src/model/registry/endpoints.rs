//! Taking Services, workloads, EndpointSlices and Nodes in.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{ChangeSet, Input, Registry, in_namespace, place, replace};
use crate::model::{EndpointSlice, Name, Node, Protocol, Service, Workload, WorkloadEntry, WorkloadGroup};

impl Registry {
    pub(super) fn set_service(&mut self, name: &Name, new: Option<Arc<Service>>, changes: &mut ChangeSet) {
        let old = replace(&mut self.services, name, new.clone());
        if old.is_some() != new.is_some() {
            changes.inputs.insert(Input::ServiceList);
        }
        if tcp_ports(old.as_deref()) != tcp_ports(new.as_deref()) {
            changes.inputs.insert(Input::TcpPorts);
        }
        self.count_place_labels(
            old.iter().flat_map(|old| place::of_service(old)),
            new.iter().flat_map(|new| place::of_service(new)),
            changes,
        );
        let either = [old, new];
        self.index_cluster_ips(&either, changes);
        for workload in in_namespace(&self.workloads, &name.namespace) {
            if either.iter().flatten().any(|service| service.selects(&workload.labels)) {
                changes.inputs.insert(Input::InboundPorts(workload.name.clone()));
            }
        }
        for slice in self.slices.of(name) {
            self.slice_workloads(slice, changes);
        }
        changes.inputs.insert(Input::Service(name.clone()));
        changes.inputs.insert(Input::Endpoints(name.clone()));
    }

    /// Takes the addresses of the first, old Service out and those of the second, new one in.
    fn index_cluster_ips(&mut self, [old, new]: &[Option<Arc<Service>>; 2], changes: &mut ChangeSet) {
        let ips = |service: &Option<Arc<Service>>| -> BTreeSet<IpAddr> {
            service.iter().flat_map(|service| service.cluster_ips.iter().copied()).collect()
        };
        let (before, after) = (ips(old), ips(new));
        for ip in before.difference(&after) {
            if let (Some(names), Some(old)) = (self.by_cluster_ip.get_mut(ip), old) {
                names.remove(&old.name);
                if names.is_empty() {
                    self.by_cluster_ip.remove(ip);
                }
            }
        }
        for ip in after.difference(&before) {
            if let Some(new) = new {
                self.by_cluster_ip.entry(*ip).or_default().insert(new.name.clone());
            }
        }
        changes.inputs.extend(before.symmetric_difference(&after).copied().map(Input::ClusterIp));
    }

    /// A Pod hides the WorkloadEntry of its name.
    pub(super) fn set_pod(&mut self, name: &Name, new: Option<Arc<Workload>>, changes: &mut ChangeSet) {
        let entry = || self.workload_entries.get(name).map(|entry| entry.workload.clone());
        let new = new.or_else(entry);
        self.set_workload(name, new, changes);
    }

    pub(super) fn set_workload_entry(
        &mut self,
        name: &Name,
        new: Option<Arc<WorkloadEntry>>,
        changes: &mut ChangeSet,
    ) {
        replace(&mut self.workload_entries, name, new.clone());
        changes.inputs.insert(Input::WorkloadEntry(name.clone()));
        if self.pod(name).is_none() {
            self.set_workload(name, new.map(|entry| entry.workload.clone()), changes);
        }
    }

    pub(super) fn set_workload_group(
        &mut self,
        name: &Name,
        new: Option<Arc<WorkloadGroup>>,
        changes: &mut ChangeSet,
    ) {
        replace(&mut self.workload_groups, name, new);
        changes.inputs.insert(Input::WorkloadGroup(name.clone()));
    }

    fn set_workload(&mut self, name: &Name, new: Option<Arc<Workload>>, changes: &mut ChangeSet) {
        let old = replace(&mut self.workloads, name, new.clone());
        if captured(old.as_deref()) != captured(new.as_deref()) {
            changes.inputs.insert(Input::Captured);
        }
        let count = |workload: &Option<Arc<Workload>>| {
            usize::from(workload.as_ref().is_some_and(|workload| workload.proxyless))
        };
        let had = self.has_proxyless();
        self.proxyless = self.proxyless - count(&old) + count(&new);
        if self.has_proxyless() != had {
            changes.inputs.insert(Input::Proxyless);
        }
        let either = [old, new];
        for service in in_namespace(&self.services, &name.namespace) {
            if either.iter().flatten().any(|workload| service.selects(&workload.labels)) {
                changes.inputs.insert(Input::Endpoints(service.name.clone()));
            }
        }
        for slice in in_namespace(&self.slices.objects, &name.namespace) {
            for endpoint in &slice.endpoints {
                match &endpoint.pod {
                    Some(pod) if *pod == name.name => {}
                    None if either.iter().flatten().any(|pod| pod.ips.contains(&endpoint.address)) => {
                        // Pods may share an address (the node's): then another one may be found by it now.
                        let sharers = in_namespace(&self.workloads, &name.namespace)
                            .filter(|workload| workload.ips.contains(&endpoint.address));
                        changes
                            .inputs
                            .extend(sharers.map(|workload| Input::InboundPorts(workload.name.clone())));
                    }
                    _ => continue,
                }
                changes.inputs.insert(Input::Endpoints(slice.service.clone()));
            }
        }
        changes.inputs.insert(Input::Workload(name.clone()));
        changes.inputs.insert(Input::InboundPorts(name.clone()));
    }

    pub(super) fn set_slice(
        &mut self,
        name: &Name,
        new: Option<Arc<EndpointSlice>>,
        changes: &mut ChangeSet,
    ) {
        let (old, services) = self.slices.replace(name, new.clone(), |slice| vec![slice.service.clone()]);
        for slice in [old, new].iter().flatten() {
            self.slice_workloads(slice, changes);
        }
        for service in services {
            // With its first slice a Service stops to select Pods, after its last it begins again.
            if let Some(service) = self.services.get(&service) {
                for workload in in_namespace(&self.workloads, &service.name.namespace) {
                    if service.selects(&workload.labels) {
                        changes.inputs.insert(Input::InboundPorts(workload.name.clone()));
                    }
                }
            }
            changes.inputs.insert(Input::Endpoints(service));
        }
    }

    /// A Node that moves takes the endpoints on it along.
    pub(super) fn set_node(&mut self, name: &str, new: Option<Node>, changes: &mut ChangeSet) {
        let locality = new.as_ref().map(|node| node.locality.clone()).unwrap_or_default();
        let old = match new {
            Some(node) => self.nodes.insert(name.to_owned(), node),
            None => self.nodes.remove(name),
        };
        if old.map(|node| node.locality).unwrap_or_default() == locality {
            return;
        }
        let is_here = |workload: &Workload| workload.node.as_deref() == Some(name);
        for slice in self.slices.objects.values() {
            let has_endpoint_here = slice.endpoints.iter().any(|endpoint| match &endpoint.node {
                Some(node) => node == name,
                None => self.workload_of(slice, endpoint).is_some_and(|workload| is_here(workload)),
            });
            if has_endpoint_here {
                changes.inputs.insert(Input::Endpoints(slice.service.clone()));
            }
        }
        for workload in self.workloads.values().filter(|workload| is_here(workload)) {
            changes.inputs.insert(Input::Place(workload.name.clone()));
            for service in in_namespace(&self.services, &workload.name.namespace) {
                if service.selects(&workload.labels) {
                    changes.inputs.insert(Input::Endpoints(service.name.clone()));
                }
            }
        }
    }

    /// The workloads that a slice leads to get or lose inbound ports with it.
    fn slice_workloads(&self, slice: &EndpointSlice, changes: &mut ChangeSet) {
        for endpoint in &slice.endpoints {
            if let Some(workload) = self.workload_of(slice, endpoint) {
                changes.inputs.insert(Input::InboundPorts(workload.name.clone()));
            }
        }
    }
}

/// What other workloads depend on in one whose connections are captured.
fn captured(workload: Option<&Workload>) -> Option<impl PartialEq + '_> {
    let workload = workload.filter(|workload| workload.is_captured())?;
    Some((&workload.ips, &workload.service_account, &workload.controller, &workload.labels))
}

fn tcp_ports(service: Option<&Service>) -> Vec<(u16, Protocol)> {
    let ports = service.map_or(&[][..], |service| &service.ports);
    ports.iter().filter(|port| port.protocol.may_be_tcp()).map(|port| (port.number, port.protocol)).collect()
}
