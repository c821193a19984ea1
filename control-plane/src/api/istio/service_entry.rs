//! ServiceEntry -> [`ServiceEntry`]: host names with endpoints that are written down, with the Pods that it selects, or with names that
//! proxies resolve.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::hosts;
use crate::api::values::{number, port};
use crate::api::{Refusal, Strict, name_of, names, read};
use crate::model::{
    External, Locality, MeshSettings, Name, NamedEndpoints, Protocol, Service, ServiceEntry, ServicePort,
    StaticEndpoint, TargetPort,
};
use crate::source::Object;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    hosts: Vec<String>,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    ports: Vec<PortSpec>,
    #[serde(default)]
    location: Location,
    #[serde(default)]
    resolution: Option<String>,
    #[serde(default)]
    endpoints: Vec<EndpointSpec>,
    #[serde(default)]
    workload_selector: Option<SelectorSpec>,
    #[serde(default)]
    export_to: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PortSpec {
    number: i64,
    name: String,
    protocol: Option<String>,
    target_port: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
enum Location {
    #[default]
    #[serde(rename = "MESH_EXTERNAL")]
    External,
    #[serde(rename = "MESH_INTERNAL")]
    Internal,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EndpointSpec {
    address: String,
    #[serde(default)]
    ports: BTreeMap<String, i64>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    locality: String,
    weight: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectorSpec {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Who finds the endpoints, and how.
enum Resolution {
    /// They are written down, or are Pods.
    Static,
    /// Proxies ask DNS.
    Dns { is_logical: bool },
}

/// Decodes a ServiceEntry.
pub(in crate::api) fn service_entry(
    object: &Object,
    settings: &MeshSettings,
) -> Result<ServiceEntry, Refusal> {
    let Strict { metadata, spec, .. }: Strict<Spec> = read(object)?;
    let name = name_of(object);
    if spec.hosts.is_empty() {
        return Err(Refusal::new("spec.hosts", "must name a host"));
    }
    let resolution = match spec.resolution.as_deref() {
        Some("STATIC") => Resolution::Static,
        Some("NONE") | None if spec.workload_selector.is_some() => Resolution::Static,
        Some("DNS" | "DNS_ROUND_ROBIN") if spec.workload_selector.is_some() => {
            let reason = "selects Pods, whose addresses are known: it needs no resolution by DNS";
            return Err(Refusal::new("spec.workloadSelector", reason));
        }
        Some("DNS") => Resolution::Dns { is_logical: false },
        Some("DNS_ROUND_ROBIN") => Resolution::Dns { is_logical: true },
        other => {
            let other = other.unwrap_or("NONE");
            let reason = format!(
                "resolution {other} is not supported yet; supported: DNS and DNS_ROUND_ROBIN, STATIC with endpoints or a \
                 workloadSelector"
            );
            return Err(Refusal::new("spec.resolution", reason));
        }
    };
    let selector = spec.workload_selector.unwrap_or(SelectorSpec { labels: BTreeMap::new() }).labels;
    if !spec.endpoints.is_empty() && !selector.is_empty() {
        return Err(Refusal::new("spec.endpoints", "only one of endpoints and workloadSelector can apply"));
    }
    let mut addresses = Vec::new();
    for (index, text) in spec.addresses.iter().enumerate() {
        addresses.push(address(text, format!("spec.addresses[{index}]"))?);
    }
    if addresses.len() > 1 && spec.hosts.len() > 1 {
        let reason = "several hosts cannot share several addresses: nothing would tell which is meant";
        return Err(Refusal::new("spec.addresses", reason));
    }
    let ports = ports(spec.ports)?;
    let (addressed, named) = match resolution {
        Resolution::Static => (endpoints(spec.endpoints, &ports, address)?, None),
        Resolution::Dns { is_logical } => {
            if is_logical && spec.endpoints.len() > 1 {
                let reason = "with resolution DNS_ROUND_ROBIN there can be one endpoint only";
                return Err(Refusal::new("spec.endpoints", reason));
            }
            (Vec::new(), Some((endpoints(spec.endpoints, &ports, dns_name)?, is_logical)))
        }
    };
    let visibility = hosts::visibility(&spec.export_to, &name.namespace)?;
    let mut services: Vec<Arc<Service>> = Vec::new();
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        names::subdomain(&field, host)?;
        if !host.contains('.') {
            return Err(Refusal::new(field, format!("{host:?} must be a whole name, with a dot")));
        }
        if Name::of_host(host, &settings.cluster_domain).is_some() {
            return Err(Refusal::new(field, format!("{host:?} is the name of a Kubernetes Service")));
        }
        if services.iter().any(|other| other.name.name == *host) {
            return Err(Refusal::new(field, format!("host {host} is there twice")));
        }
        let external = External {
            visibility: visibility.clone(),
            is_internal: matches!(spec.location, Location::Internal),
            endpoints: addressed.clone(),
        };
        let named = named.as_ref().map(|(endpoints, is_logical)| NamedEndpoints {
            // Without any, the host is its own endpoint.
            endpoints: if endpoints.is_empty() {
                vec![StaticEndpoint::named(host)]
            } else {
                endpoints.clone()
            },
            is_logical: *is_logical,
        });
        services.push(Arc::new(Service {
            name: Name::new(&name.namespace, host),
            ports: ports.clone(),
            selector: selector.clone(),
            cluster_ips: addresses.clone(),
            external: Some(external),
            named,
            session_affinity: false,
            traffic_distribution: None,
            origin: object.origin.clone(),
        }));
    }
    let created = metadata.creation_timestamp.unwrap_or_default();
    Ok(ServiceEntry { name, services, created, origin: object.origin.clone() })
}

fn address(text: &str, field: String) -> Result<IpAddr, Refusal> {
    text.parse().map_err(|_| {
        let what = if text.contains('/') { "is a range, which is not supported" } else { "is no IP address" };
        Refusal::new(field, format!("{text:?} {what}"))
    })
}

/// A name that proxies resolve, or an address.
fn dns_name(text: &str, field: String) -> Result<String, Refusal> {
    if text.parse::<IpAddr>().is_err() {
        names::subdomain(&field, text)?;
    }
    Ok(text.to_owned())
}

fn ports(specs: Vec<PortSpec>) -> Result<Vec<ServicePort>, Refusal> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for (index, spec) in specs.into_iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let number = port(spec.number, format!("{field}.number"))?;
        let target =
            spec.target_port.map(|target| port(target, format!("{field}.targetPort"))).transpose()?;
        if ports.iter().any(|other| other.number == number || other.name == spec.name) {
            return Err(Refusal::new(field, format!("port {number} or name {:?} is there twice", spec.name)));
        }
        let protocol = match spec.protocol.as_deref().map(str::to_ascii_uppercase).as_deref() {
            None => Protocol::of(None, &spec.name, number),
            Some("HTTP") => Protocol::Http,
            Some("HTTP2" | "GRPC") => Protocol::Http2,
            Some("HTTPS" | "TLS" | "TCP" | "MONGO") => Protocol::Tcp,
            Some(other) => {
                let reason = format!(
                    "{other:?} is not supported; supported: HTTP, HTTP2, GRPC, HTTPS, TLS, TCP, MONGO"
                );
                return Err(Refusal::new(format!("{field}.protocol"), reason));
            }
        };
        ports.push(ServicePort {
            name: spec.name,
            number,
            target: TargetPort::Number(target.unwrap_or(number)),
            protocol,
        });
    }
    if ports.is_empty() {
        return Err(Refusal::new("spec.ports", "must hold a port"));
    }
    Ok(ports)
}

fn endpoints<A>(
    specs: Vec<EndpointSpec>,
    ports: &[ServicePort],
    address: impl Fn(&str, String) -> Result<A, Refusal>,
) -> Result<Vec<StaticEndpoint<A>>, Refusal> {
    let mut endpoints = Vec::new();
    for (index, spec) in specs.into_iter().enumerate() {
        let field = format!("spec.endpoints[{index}]");
        let mut targets = BTreeMap::new();
        for (name, number) in spec.ports {
            let field = format!("{field}.ports.{name}");
            if ports.iter().all(|port| port.name != name) {
                return Err(Refusal::new(field, "is no port of the ServiceEntry"));
            }
            targets.insert(name, port(number, field)?);
        }
        endpoints.push(StaticEndpoint {
            address: address(&spec.address, format!("{field}.address"))?,
            ports: targets,
            labels: spec.labels,
            locality: Locality::parse(&spec.locality),
            weight: match spec.weight {
                Some(weight) => number(weight, 1, u32::MAX, format!("{field}.weight"))?,
                None => 1,
            },
        });
    }
    Ok(endpoints)
}
