//! What translation can depend on, and what a batch of events changed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::{Name, RouteKey, TargetKey};

/// A part of the model that translation can depend on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// Which Services exist, those of ServiceEntries among them.
    ServiceList,
    /// The Service of this name, or that there is none.
    Service(Name),
    /// Which host names ServiceEntries make Services of.
    Hosts,
    /// Which Service a ServiceEntry makes of this host name.
    Host(String),
    /// Which ports of which Services may be TCP.
    TcpPorts,
    /// The endpoints of the Service of this name, with their workloads.
    Endpoints(Name),
    /// The ServiceEntry of this name, or that there is none.
    ServiceEntry(Name),
    /// The WorkloadEntry of this name, or that there is none.
    WorkloadEntry(Name),
    /// The WorkloadGroup of this name, or that there is none.
    WorkloadGroup(Name),
    /// The route of this name, or that there is none.
    Route(RouteKey),
    /// The routes whose parent is the Service of this name.
    RoutesOf(Name),
    /// The ReferenceGrants of this namespace.
    Grants(String),
    /// The VirtualService of this name, or that there is none.
    VirtualService(Name),
    /// All VirtualServices.
    VirtualServices,
    /// The VirtualServices that have rules for connections.
    ConnectionRules,
    /// By which labels VirtualServices and policies tell callers apart.
    SourceLabels,
    /// By which labels policies tell the places of callers apart.
    PlaceLabels,
    /// Where the workload of this name is.
    Place(Name),
    /// The destination policy of this name, or that there is none.
    Policy(Name),
    /// The destination policies for the Service of this name.
    PoliciesOf(Name),
    /// The destination policies that not all clients follow.
    OwnPolicies,
    /// The traffic policy of this name, or that there is none.
    TrafficPolicy(Name),
    /// The traffic policies that are attached to this object.
    TrafficPoliciesOf(TargetKey),
    /// The workload of this name, or that there is none.
    Workload(Name),
    /// Which Services lead to the workload of this name, by which ports.
    InboundPorts(Name),
    /// The PeerAuthentications of this namespace.
    PeerAuthn(String),
    /// Which Services have this cluster IP.
    ClusterIp(IpAddr),
    /// The workloads whose connections are captured: which there are, their addresses, labels and identities.
    Captured,
    /// Whether a workload has gRPC clients that speak xDS themselves.
    Proxyless,
}

/// The inputs that a batch of events changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// Their names. Naming one that did not change costs work, never correctness.
    pub inputs: BTreeSet<Input>,
    /// Whether the list of rejections changed.
    pub rejections: bool,
}

impl ChangeSet {
    /// Adds the changes of another event.
    pub fn merge(&mut self, other: Self) {
        self.inputs.extend(other.inputs);
        self.rejections |= other.rejections;
    }
}
