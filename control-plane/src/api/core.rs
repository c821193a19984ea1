//! Kubernetes' own kinds: Service, Pod, Node, EndpointSlice. Fields that the mesh does not read are Kubernetes' business.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::{Lenient, Metadata, Refusal, name_of, names, read};
use crate::model::{
    EndpointSlice, Interception, Locality, LocalityBalancing, MeshSettings, Name, NamedEndpoints, Node,
    Protocol, Service, ServicePort, Sidecars, SliceEndpoint, SlicePort, TargetPort, Workload,
};
use crate::source::Object;

/// Label or annotation that switches the sidecar of a Pod off.
const INJECT: &str = "sidecar.istio.io/inject";

/// Annotation that the injector leaves.
const STATUS: &str = "sidecar.istio.io/status";

/// Annotation that lists what is injected, and its two words for a Pod whose gRPC clients need no sidecar.
const TEMPLATES: &str = "inject.istio.io/templates";
const PROXYLESS_TEMPLATES: [&str; 2] = ["grpc-agent", "grpc-simple"];

/// Annotation that stands for `spec.trafficDistribution`.
const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// Annotation that says how traffic gets to the sidecar.
const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    r#type: Option<String>,
    external_name: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    selector: BTreeMap<String, String>,
    ports: Vec<ServicePortSpec>,
    traffic_distribution: Option<String>,
    session_affinity: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServicePortSpec {
    #[serde(default)]
    name: Option<String>,
    port: u16,
    #[serde(default)]
    target_port: Option<NumberOrName>,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    app_protocol: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a port number (1 to 65535) or the name of a container port")]
enum NumberOrName {
    Number(u16),
    Name(String),
}

/// Decodes a Service. `None` for `type: ExternalName` without ports: an alias in DNS and nothing more.
pub(super) fn service(object: &Object) -> Result<Option<Service>, Refusal> {
    let Lenient { spec, metadata, .. }: Lenient<ServiceSpec, IgnoredAny> = read(object)?;
    let traffic_distribution = traffic_distribution(&spec, &metadata)?;
    let named = match (spec.r#type.as_deref(), &spec.external_name) {
        (Some("ExternalName"), _) if spec.ports.is_empty() => return Ok(None),
        (Some("ExternalName"), Some(name)) => {
            names::subdomain("spec.externalName", name.strip_suffix('.').unwrap_or(name))?;
            Some(NamedEndpoints::one(name))
        }
        (Some("ExternalName"), None) => {
            return Err(Refusal::new("spec.externalName", "must be a name in DNS"));
        }
        _ => None,
    };
    let cluster_ips = cluster_ips(&spec)?;
    let mut ports = Vec::new();
    for (index, port) in spec.ports.into_iter().enumerate() {
        if port.protocol.as_deref().is_some_and(|protocol| protocol != "TCP") {
            continue;
        }
        let field = format!("spec.ports[{index}]");
        if port.port == 0 {
            return Err(Refusal::new(format!("{field}.port"), "must be between 1 and 65535"));
        }
        let target = match port.target_port {
            // The alias leads to another host, not to another port.
            _ if named.is_some() => TargetPort::Number(port.port),
            None => TargetPort::Number(port.port),
            Some(NumberOrName::Number(0)) => {
                return Err(Refusal::new(format!("{field}.targetPort"), "must be between 1 and 65535"));
            }
            Some(NumberOrName::Number(number)) => TargetPort::Number(number),
            Some(NumberOrName::Name(name)) => TargetPort::Named(name),
        };
        let name = port.name.unwrap_or_default();
        if ports.iter().any(|other: &ServicePort| other.number == port.port) {
            return Err(Refusal::new(format!("{field}.port"), format!("port {} is there twice", port.port)));
        }
        let protocol = Protocol::of(port.app_protocol.as_deref(), &name, port.port);
        ports.push(ServicePort { name, number: port.port, target, protocol });
    }
    // An alias has neither an address nor Pods.
    let (cluster_ips, selector) =
        if named.is_some() { Default::default() } else { (cluster_ips, spec.selector) };
    Ok(Some(Service {
        name: name_of(object),
        ports,
        cluster_ips,
        external: None,
        selector,
        named,
        session_affinity: spec.session_affinity.is_some_and(|affinity| affinity == "ClientIP"),
        traffic_distribution,
        origin: object.origin.clone(),
    }))
}

/// `spec.trafficDistribution`, else Istio's annotation for clusters that do not have the field yet.
fn traffic_distribution(
    spec: &ServiceSpec,
    metadata: &Metadata,
) -> Result<Option<LocalityBalancing>, Refusal> {
    let (field, value) = match (&spec.traffic_distribution, metadata.annotations.get(TRAFFIC_DISTRIBUTION)) {
        (Some(value), _) => ("spec.trafficDistribution".to_owned(), value),
        (None, Some(value)) => (format!("metadata.annotations.{TRAFFIC_DISTRIBUTION}"), value),
        (None, None) => return Ok(None),
    };
    match LocalityBalancing::of_traffic_distribution(value) {
        Some(balancing) => Ok(Some(balancing)),
        None => {
            let reason = format!("{value:?} is none of PreferClose, PreferSameZone, PreferSameNode");
            Err(Refusal::new(field, reason))
        }
    }
}

/// `clusterIPs`, which holds `clusterIP` too where Kubernetes filled it in. `None` is headless; the empty text is not given yet.
fn cluster_ips(spec: &ServiceSpec) -> Result<Vec<IpAddr>, Refusal> {
    let all =
        spec.cluster_ips.iter().enumerate().map(|(index, ip)| (format!("spec.clusterIPs[{index}]"), ip));
    let first = spec.cluster_ip.iter().map(|ip| ("spec.clusterIP".to_owned(), ip));
    let mut ips = Vec::new();
    for (field, text) in first.chain(all) {
        if text.is_empty() || text == "None" {
            continue;
        }
        let ip = text.parse().map_err(|_| Refusal::new(field, format!("{text:?} is no IP address")))?;
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    Ok(ips)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    service_account_name: Option<String>,
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    host_network: bool,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct Container {
    #[serde(default)]
    ports: Vec<ContainerPort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    #[serde(default)]
    name: Option<String>,
    container_port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<IpAddr>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct PodIp {
    ip: IpAddr,
}

#[derive(Debug, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

/// Decodes a Pod. A Pod whose status tells no condition counts as ready (a file written by hand); one that has ended has
/// no address any more.
pub(super) fn pod(object: &Object, settings: &MeshSettings) -> Result<Workload, Refusal> {
    let Lenient { metadata, spec, status }: Lenient<PodSpec, PodStatus> = read(object)?;
    let name = name_of(object);
    for (key, value) in &metadata.labels {
        names::label_value(&format!("metadata.labels.{key}"), value)?;
    }
    let service_account = spec.service_account_name.unwrap_or_else(|| "default".to_owned());
    names::subdomain("spec.serviceAccountName", &service_account)?;
    let controller = controller(&metadata, &name);
    names::subdomain("metadata.ownerReferences", &controller)?;
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let mut ips: Vec<IpAddr> = status.pod_ip.into_iter().collect();
    ips.extend(status.pod_ips.iter().map(|entry| entry.ip).filter(|ip| status.pod_ip != Some(*ip)));
    if ended {
        ips.clear();
    }
    let ready = status.conditions.iter().find(|condition| condition.r#type == "Ready");
    let is_ending = metadata.deletion_timestamp.is_some();
    let ready = ready.is_none_or(|condition| condition.status == "True") && !is_ending;
    let inject = metadata.labels.get(INJECT).or_else(|| metadata.annotations.get(INJECT));
    let injected = match settings.sidecars {
        Sidecars::Assumed => true,
        Sidecars::Injected => metadata.annotations.contains_key(STATUS),
    };
    let templates = metadata.annotations.get(TEMPLATES).map_or("", String::as_str).split(',');
    let proxyless = templates.map(str::trim).any(|template| PROXYLESS_TEMPLATES.contains(&template));
    let sidecar = injected && !proxyless && !spec.host_network && inject.is_none_or(|value| value != "false");
    let interception = match metadata.annotations.get(INTERCEPTION_MODE).map(String::as_str) {
        None => settings.interception,
        Some("NONE") => Interception::None,
        Some("REDIRECT") => Interception::Redirect,
        Some(other) => {
            let field = format!("metadata.annotations.{INTERCEPTION_MODE}");
            return Err(Refusal::new(
                field,
                format!("{other:?} is not supported; supported are NONE and REDIRECT"),
            ));
        }
    };
    let named_ports = spec.containers.into_iter().flat_map(|container| container.ports);
    let named_ports = named_ports.filter_map(|port| Some((port.name?, port.container_port))).collect();
    Ok(Workload {
        controller,
        name,
        ips,
        node: spec.node_name,
        service_account,
        named_ports,
        ready,
        is_ending,
        sidecar,
        proxyless,
        interception,
        entry: None,
        labels: metadata.labels,
        origin: object.origin.clone(),
    })
}

/// Only its labels.
#[derive(Debug, Deserialize)]
struct NodeDocument {
    #[serde(default)]
    metadata: Metadata,
}

/// Decodes a Node.
pub(super) fn node(object: &Object) -> Result<Node, Refusal> {
    let NodeDocument { metadata } = read(object)?;
    Ok(Node { name: object.key().name.clone(), locality: Locality::of_labels(&metadata.labels) })
}

/// Name of what a Pod belongs to. A ReplicaSet's name is its Deployment's and the Pod's template hash.
fn controller(metadata: &Metadata, pod: &Name) -> String {
    let Some(owner) = metadata.owner_references.iter().find(|owner| owner.controller) else {
        return pod.name.clone();
    };
    let deployment = metadata
        .labels
        .get("pod-template-hash")
        .filter(|_| owner.kind == "ReplicaSet")
        .and_then(|hash| owner.name.strip_suffix(hash.as_str()))
        .and_then(|name| name.strip_suffix('-'));
    deployment.unwrap_or(&owner.name).to_owned()
}

/// An EndpointSlice has no `spec`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointSliceDocument {
    #[serde(default)]
    metadata: Metadata,
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<EndpointSpec>>,
    #[serde(default)]
    ports: Option<Vec<EndpointPort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointSpec {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
    #[serde(default)]
    target_ref: Option<TargetRef>,
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    zone: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Conditions {
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    terminating: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct TargetRef {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

#[derive(Debug, Deserialize)]
struct EndpointPort {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    protocol: Option<String>,
}

/// Decodes an EndpointSlice. `None` when it belongs to no Service or holds host names (`addressType: FQDN`).
pub(super) fn endpoint_slice(object: &Object) -> Result<Option<EndpointSlice>, Refusal> {
    let document: EndpointSliceDocument = read(object)?;
    let name = name_of(object);
    let Some(service) = document.metadata.labels.get("kubernetes.io/service-name") else { return Ok(None) };
    match document.address_type.as_str() {
        "IPv4" | "IPv6" => {}
        "FQDN" => return Ok(None),
        other => return Err(Refusal::new("addressType", format!("{other:?} is not IPv4, IPv6 or FQDN"))),
    }
    let mut endpoints = Vec::new();
    for (index, endpoint) in document.endpoints.into_iter().flatten().enumerate() {
        let field = format!("endpoints[{index}].addresses");
        let Some(first) = endpoint.addresses.first() else {
            return Err(Refusal::new(field, "must hold an address"));
        };
        let address = first
            .parse()
            .map_err(|_| Refusal::new(format!("{field}[0]"), format!("{first:?} is no IP address")))?;
        endpoints.push(SliceEndpoint {
            address,
            ready: endpoint.conditions.ready.unwrap_or(true),
            is_ending: endpoint.conditions.terminating.unwrap_or(false),
            pod: endpoint.target_ref.filter(|target| target.kind == "Pod").map(|target| target.name),
            node: endpoint.node_name,
            zone: endpoint.zone,
        });
    }
    let ports = document.ports.into_iter().flatten().filter(|port| {
        // No protocol means TCP; no number means all ports, which Services never make.
        port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    });
    let ports = ports
        .filter_map(|port| Some(SlicePort { name: port.name.unwrap_or_default(), number: port.port? }))
        .collect();
    let service = Name::new(&name.namespace, service);
    Ok(Some(EndpointSlice { name, service, ports, endpoints, origin: object.origin.clone() }))
}
