//! Reading. Translation does so only through [`InputView`](crate::translate::InputView).

use std::net::IpAddr;
use std::sync::Arc;

use super::{Registry, in_namespace};
use crate::model::{
    DestinationPolicy, EndpointSlice, Finding, Grant, HttpRoute, MeshSettings, Name, Node, PeerAuthn,
    RouteKey, Service, ServiceEntry, TargetKey, TrafficPolicy, VirtualService, Workload, WorkloadEntry,
    WorkloadGroup,
};

impl Registry {
    /// Settings of the mesh.
    pub fn settings(&self) -> &MeshSettings {
        &self.settings
    }

    /// All Services in the order of names.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The Service of this name.
    pub fn service(&self, name: &Name) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// The Service that has this cluster IP. A cluster gives each only once; of several in files the first by name has it.
    pub fn service_at(&self, ip: IpAddr) -> Option<&Name> {
        self.by_cluster_ip.get(&ip)?.first()
    }

    /// The workload of this name.
    pub fn workload(&self, name: &Name) -> Option<&Arc<Workload>> {
        self.workloads.get(name)
    }

    /// The Pod of this name.
    pub(super) fn pod(&self, name: &Name) -> Option<&Arc<Workload>> {
        self.workloads.get(name).filter(|workload| workload.entry.is_none())
    }

    /// The WorkloadEntry of this name.
    pub fn workload_entry(&self, name: &Name) -> Option<&Arc<WorkloadEntry>> {
        self.workload_entries.get(name)
    }

    /// The WorkloadGroup of this name.
    pub fn workload_group(&self, name: &Name) -> Option<&Arc<WorkloadGroup>> {
        self.workload_groups.get(name)
    }

    /// All workloads of a namespace.
    pub fn workloads_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Workload>> {
        in_namespace(&self.workloads, namespace)
    }

    /// All workloads whose connections are captured, in the order of names.
    pub fn captured(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values().filter(|workload| workload.is_captured())
    }

    /// Whether a workload has gRPC clients that speak xDS themselves.
    pub fn has_proxyless(&self) -> bool {
        self.proxyless > 0
    }

    /// The Node of this name.
    pub(in crate::model) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The slices of a Service.
    pub(in crate::model) fn slices_of(&self, service: &Name) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices.of(service)
    }

    /// The slices of all Services of a namespace.
    pub(in crate::model) fn slices_in<'a>(
        &'a self,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Arc<EndpointSlice>> {
        in_namespace(&self.slices.objects, namespace)
    }

    /// The Services of a namespace.
    pub(in crate::model) fn services_in<'a>(
        &'a self,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        in_namespace(&self.services, namespace)
    }

    /// What a ServiceEntry makes of this host name; of several the oldest has it.
    pub fn service_at_host(&self, host: &str) -> Option<&Arc<Service>> {
        self.services.get(self.by_host.get(host)?)
    }

    /// The Services that ServiceEntries make, in the order of host names.
    pub fn services_at_hosts(&self) -> impl Iterator<Item = &Name> {
        self.by_host.values()
    }

    /// The ServiceEntry of this name.
    pub fn service_entry(&self, name: &Name) -> Option<&Arc<ServiceEntry>> {
        self.service_entries.objects.get(name)
    }

    /// The route of this name.
    pub fn route(&self, key: &RouteKey) -> Option<&Arc<HttpRoute>> {
        self.routes.objects.get(key)
    }

    /// The routes whose parent is this Service, oldest first.
    pub fn routes_of(&self, service: &Name) -> Vec<&Arc<HttpRoute>> {
        let mut routes: Vec<_> = self.routes.of(service).collect();
        routes.sort_by(|a, b| {
            (&a.created, &a.key.name, a.key.kind).cmp(&(&b.created, &b.key.name, b.key.kind))
        });
        routes
    }

    /// The ReferenceGrants of a namespace.
    pub fn grants_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Grant>> {
        in_namespace(&self.grants, namespace)
    }

    /// The VirtualService of this name.
    pub fn virtual_service(&self, name: &Name) -> Option<&Arc<VirtualService>> {
        self.virtual_services.get(name)
    }

    /// All VirtualServices, oldest first.
    pub fn virtual_services(&self) -> Vec<&Arc<VirtualService>> {
        let mut services: Vec<_> = self.virtual_services.values().collect();
        services.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        services
    }

    /// The destination policy of this name.
    pub fn policy(&self, name: &Name) -> Option<&Arc<DestinationPolicy>> {
        self.policies.objects.get(name)
    }

    /// The traffic policy of this name.
    pub fn traffic_policy(&self, name: &Name) -> Option<&Arc<TrafficPolicy>> {
        self.traffic_policies.objects.get(name)
    }

    /// The traffic policies that are attached to this object, oldest first.
    pub fn traffic_policies_of(&self, target: &TargetKey) -> Vec<&Arc<TrafficPolicy>> {
        let mut policies: Vec<_> = self.traffic_policies.of(target).collect();
        policies.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        policies
    }

    /// The PeerAuthentications of a namespace, oldest first.
    pub fn peer_authn_in(&self, namespace: &str) -> Vec<Arc<PeerAuthn>> {
        let mut policies: Vec<_> = in_namespace(&self.peer_authn, namespace).cloned().collect();
        policies.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        policies
    }

    /// All rejections, sorted.
    pub fn rejections(&self) -> Vec<Finding> {
        let mut rejections: Vec<_> = self.rejections.values().cloned().collect();
        rejections.sort();
        rejections
    }
}
