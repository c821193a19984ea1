//! The recording view: reading the model notes what was read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    Client, DestinationPolicies, DestinationPolicy, Endpoint, Grant, HttpRoute, InboundPort, Input,
    MeshSettings, MutualTlsMode, Name, PeerAuthn, Registry, RouteKey, Service, ServiceEntry, ServicePort,
    ServiceRef, TargetKey, TrafficPolicy, VirtualService, Workload, WorkloadEntry, WorkloadGroup,
};

/// A view of the model that remembers which [`Input`]s were read through it, found or not. Translation has no other way to
/// the model, so that no dependency can be forgotten.
#[derive(Debug)]
pub struct InputView<'a> {
    registry: &'a Registry,
    /// For whom is translated, where destination policies are not the same for all.
    client: Option<Client>,
    read: RefCell<BTreeSet<Input>>,
}

impl<'a> InputView<'a> {
    /// A fresh view.
    pub fn new(registry: &'a Registry) -> Self {
        Self { registry, client: None, read: RefCell::default() }
    }

    /// A fresh view of what a client follows.
    pub fn of_client(registry: &'a Registry, client: Client) -> Self {
        Self { client: Some(client), ..Self::new(registry) }
    }

    /// What was read.
    pub fn into_read(self) -> BTreeSet<Input> {
        self.read.into_inner()
    }

    fn note(&self, input: Input) {
        self.read.borrow_mut().insert(input);
    }

    /// Settings of the mesh. They never change, so nothing is noted.
    pub fn settings(&self) -> &'a MeshSettings {
        self.registry.settings()
    }

    /// Names of all Services, sorted.
    pub fn service_names(&self) -> impl Iterator<Item = &'a Name> + use<'a> {
        self.note(Input::ServiceList);
        self.registry.services().map(|service| &service.name)
    }

    /// A Service.
    pub fn service(&self, name: &Name) -> Option<&'a Arc<Service>> {
        self.note(Input::Service(name.clone()));
        self.registry.service(name)
    }

    /// The Service that has this cluster IP; of several the first by name.
    pub fn service_at(&self, ip: IpAddr) -> Option<&'a Name> {
        self.note(Input::ClusterIp(ip));
        self.registry.service_at(ip)
    }

    /// Every port of every Service that may be TCP, sorted by Service.
    pub fn tcp_ports(&self) -> impl Iterator<Item = (&'a Name, &'a ServicePort)> + use<'a> {
        self.note(Input::TcpPorts);
        self.registry.services().flat_map(|service| {
            let ports = service.ports.iter().filter(|port| port.protocol.may_be_tcp());
            ports.map(|port| (&service.name, port))
        })
    }

    /// The endpoints of a Service's port.
    pub fn endpoints(&self, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
        self.note(Input::Endpoints(service.name.clone()));
        self.registry.endpoints(service, port)
    }

    /// A workload that a Service's port should lead to and does not, because it has no port of that name.
    pub fn workload_without_target(
        &self,
        service: &Service,
        port: &ServicePort,
    ) -> Option<&'a Arc<Workload>> {
        self.note(Input::Endpoints(service.name.clone()));
        self.registry.workload_without_target(service, port)
    }

    /// The Service that a rule means: a Kubernetes Service, or what a ServiceEntry makes.
    pub fn resolve(&self, service: &ServiceRef) -> Option<&'a Arc<Service>> {
        match service {
            ServiceRef::Name(name) => self.service(name),
            ServiceRef::Host(host) => {
                self.note(Input::Host(host.clone()));
                self.service(&self.registry.service_at_host(host)?.name)
            }
            ServiceRef::OtherKind(_) => None,
        }
    }

    /// The names of the Services that ServiceEntries make.
    pub fn services_at_hosts(&self) -> impl Iterator<Item = &'a Name> + use<'a> {
        self.note(Input::Hosts);
        self.registry.services_at_hosts()
    }

    /// The ServiceEntry of this name.
    pub fn service_entry(&self, name: &Name) -> Option<&'a Arc<ServiceEntry>> {
        self.note(Input::ServiceEntry(name.clone()));
        self.registry.service_entry(name)
    }

    /// The WorkloadEntry of this name.
    pub fn workload_entry(&self, name: &Name) -> Option<&'a Arc<WorkloadEntry>> {
        self.note(Input::WorkloadEntry(name.clone()));
        self.registry.workload_entry(name)
    }

    /// The WorkloadGroup of this name.
    pub fn workload_group(&self, name: &Name) -> Option<&'a Arc<WorkloadGroup>> {
        self.note(Input::WorkloadGroup(name.clone()));
        self.registry.workload_group(name)
    }

    /// The route of this name.
    pub fn route(&self, key: &RouteKey) -> Option<&'a Arc<HttpRoute>> {
        self.note(Input::Route(key.clone()));
        self.registry.route(key)
    }

    /// The routes whose parent is this Service, oldest first.
    pub fn routes_of(&self, service: &Name) -> Vec<&'a Arc<HttpRoute>> {
        self.note(Input::RoutesOf(service.clone()));
        self.registry.routes_of(service)
    }

    /// The ReferenceGrants of a namespace.
    pub fn grants_in(&self, namespace: &str) -> Vec<&'a Arc<Grant>> {
        self.note(Input::Grants(namespace.to_owned()));
        self.registry.grants_in(namespace).collect()
    }

    /// The VirtualService of this name.
    pub fn virtual_service(&self, name: &Name) -> Option<&'a Arc<VirtualService>> {
        self.note(Input::VirtualService(name.clone()));
        self.registry.virtual_service(name)
    }

    /// All VirtualServices, oldest first.
    pub fn virtual_services(&self) -> Vec<&'a Arc<VirtualService>> {
        self.note(Input::VirtualServices);
        self.registry.virtual_services()
    }

    /// The VirtualServices that have rules for connections, oldest first.
    pub fn connection_rules(&self) -> impl Iterator<Item = &'a Arc<VirtualService>> + use<'a> {
        self.note(Input::ConnectionRules);
        self.registry.virtual_services().into_iter().filter(|service| service.rules_connections())
    }

    /// The client that a workload is. The workload itself must have been read through this view.
    pub fn client_of(&self, workload: &Workload) -> Client {
        self.note(Input::SourceLabels);
        self.registry.client_of(workload)
    }

    /// The destination policies that the client follows for this Service, the one in force first. The Service must have been read
    /// through this view.
    pub fn policies_of(&self, service: &Service) -> Vec<Arc<DestinationPolicy>> {
        self.note(Input::PoliciesOf(service.policy_key()));
        self.registry.policies_of(service, self.client.as_ref())
    }

    /// All that the destination policies of the client, and traffic policies, say of how the endpoints of this Service are treated. It must
    /// have been read through this view.
    pub fn destination_of(&self, service: &Service) -> DestinationPolicies {
        self.note(Input::PoliciesOf(service.policy_key()));
        self.note(Input::TrafficPoliciesOf(TargetKey::service(&service.name)));
        self.registry.destination_of(service, self.client.as_ref())
    }

    /// Whether clients of a Service may follow different destination policies.
    pub fn has_own_policies(&self, service: &Service) -> bool {
        self.note(Input::PoliciesOf(service.policy_key()));
        self.registry.has_own_policies(service)
    }

    /// The names of the Services whose clients may follow different destination policies.
    pub fn services_with_own_policies(&self) -> BTreeSet<Name> {
        self.note(Input::OwnPolicies);
        self.note(Input::Hosts);
        self.registry.services_with_own_policies().cloned().collect()
    }

    /// The destination policy of this name.
    pub fn policy(&self, name: &Name) -> Option<&'a Arc<DestinationPolicy>> {
        self.note(Input::Policy(name.clone()));
        self.registry.policy(name)
    }

    /// The traffic policy of this name.
    pub fn traffic_policy(&self, name: &Name) -> Option<&'a Arc<TrafficPolicy>> {
        self.note(Input::TrafficPolicy(name.clone()));
        self.registry.traffic_policy(name)
    }

    /// The traffic policies that are attached to this object, oldest first.
    pub fn traffic_policies_of(&self, target: &TargetKey) -> Vec<&'a Arc<TrafficPolicy>> {
        self.note(Input::TrafficPoliciesOf(target.clone()));
        self.registry.traffic_policies_of(target)
    }

    /// A workload.
    pub fn workload(&self, name: &Name) -> Option<&'a Arc<Workload>> {
        self.note(Input::Workload(name.clone()));
        self.registry.workload(name)
    }

    /// The ports of Services that lead to a workload.
    pub fn inbound_ports(&self, workload: &Workload) -> Vec<InboundPort> {
        self.note(Input::InboundPorts(workload.name.clone()));
        self.registry.inbound_ports(workload)
    }

    /// All workloads whose connections are captured, in the order of names.
    pub fn captured(&self) -> impl Iterator<Item = &'a Arc<Workload>> + use<'a> {
        self.note(Input::Captured);
        self.registry.captured()
    }

    /// The PeerAuthentications of a namespace, oldest first.
    pub fn peer_authentications_in(&self, namespace: &str) -> Vec<Arc<PeerAuthn>> {
        self.note(Input::PeerAuthn(namespace.to_owned()));
        self.registry.peer_authn_in(namespace)
    }

    /// The ports of a workload that PeerAuthentication says something of by number. The workload itself must have been read
    /// through this view.
    pub fn mutual_tls_ports(&self, workload: &Workload) -> Vec<u16> {
        self.note(Input::PeerAuthn(workload.name.namespace.clone()));
        self.registry.mutual_tls_ports(workload)
    }

    /// What a workload's port accepts; port 0 stands for those that no policy names. The workload itself must have been read
    /// through this view.
    pub fn mutual_tls_mode(&self, workload: &Workload, port: u16) -> MutualTlsMode {
        self.note(Input::PeerAuthn(workload.name.namespace.clone()));
        self.note(Input::PeerAuthn(self.settings().root_namespace.clone()));
        self.registry.mutual_tls_mode(workload, port)
    }
}
