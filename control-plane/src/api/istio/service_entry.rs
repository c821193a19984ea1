//! ServiceEntry -> [`ServiceEntry`]: host names with endpoints that are written down, with the workloads that it selects, or with names
//! that proxies resolve.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;

use super::hosts;
use super::workload_entry::{AddressKind, EntrySpec};
use crate::api::values::port;
use crate::api::{Refusal, Strict, name_of, names, read};
use crate::model::{
    External, MeshSettings, Name, NamedEndpoints, Protocol, Remark, Service, ServiceEntry, ServicePort,
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
    endpoints: Vec<EntrySpec>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectorSpec {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Who finds the endpoints, and how.
enum Resolution {
    /// Nobody: the client has found an address.
    None,
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
    let mut remarks = remarks(&spec);
    let resolution = match spec.resolution.as_deref() {
        Some("STATIC") => Resolution::Static,
        Some("NONE") | None if spec.workload_selector.is_some() => Resolution::Static,
        Some("DNS") => Resolution::Dns { is_logical: false },
        Some("DNS_ROUND_ROBIN") => Resolution::Dns { is_logical: true },
        Some("NONE") | None => Resolution::None,
        Some(other) => {
            let reason = format!("{other:?} is not supported; supported: NONE, STATIC, DNS, DNS_ROUND_ROBIN");
            return Err(Refusal::new("spec.resolution", reason));
        }
    };
    if !spec.endpoints.is_empty() && spec.workload_selector.is_some() {
        return Err(Refusal::new("spec.endpoints", "only one of endpoints and workloadSelector can apply"));
    }
    let selects = spec.workload_selector.is_some();
    let selector = spec.workload_selector.unwrap_or_default().labels;
    let (ports, tls_ports) = ports(spec.ports)?;
    let is_dns = matches!(resolution, Resolution::Dns { .. });
    let Addresses { own, ranges } = Addresses::read(&spec.addresses, spec.hosts.len(), is_dns)?;
    if spec.hosts.len() > 1 && !matches!(resolution, Resolution::None) {
        let tells_no_host =
            |port: &ServicePort| port.protocol.may_be_tcp() && !tls_ports.contains(&port.number);
        if let Some(index) = ports.iter().position(tells_no_host) {
            let reason = "several hosts can share ports of HTTP, HTTPS and TLS only: nothing else tells which host is meant";
            return Err(Refusal::new(format!("spec.ports[{index}].protocol"), reason));
        }
    }
    let is_original_destination = matches!(resolution, Resolution::None);
    let (addressed, named) = match resolution {
        Resolution::None if spec.endpoints.is_empty() => (Vec::new(), None),
        Resolution::None => {
            let reason =
                "with resolution NONE there are none: a connection goes to the address that the client meant";
            return Err(Refusal::new("spec.endpoints", reason));
        }
        Resolution::Static => (endpoints(spec.endpoints, &ports, AddressKind::Static)?, None),
        Resolution::Dns { is_logical } => {
            if is_logical && spec.endpoints.len() > 1 {
                let reason = "with resolution DNS_ROUND_ROBIN there can be one endpoint only";
                return Err(Refusal::new("spec.endpoints", reason));
            }
            if is_logical && selects {
                let reason =
                    "of several workloads that it selects every address counts, as with resolution DNS";
                remarks.push(Remark::new("spec.workloadSelector", reason));
            }
            (Vec::new(), Some((endpoints(spec.endpoints, &ports, AddressKind::Dns)?, is_logical)))
        }
    };
    let visibility = hosts::visibility(&spec.export_to, &name.namespace)?;
    let mut services: Vec<Arc<Service>> = Vec::new();
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        check_host(host, &field)?;
        if host.starts_with('*')
            && named.as_ref().is_some_and(|(endpoints, _)| endpoints.is_empty() && !selects)
        {
            let reason =
                format!("{host:?} is no name that could be looked up: resolution DNS needs endpoints then");
            return Err(Refusal::new(field, reason));
        }
        if host.starts_with('*') && !host.starts_with("*.") && !tls_ports.is_empty() {
            let reason = format!("{host:?}: in server names of TLS * stands for whole labels only");
            return Err(Refusal::new(field, reason));
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
            is_original_destination,
            ranges: ranges.clone(),
            tls_ports: tls_ports.clone(),
            endpoints: addressed.clone(),
        };
        let named = named.as_ref().map(|(endpoints, is_logical)| NamedEndpoints {
            // Without any, the host is its own endpoint.
            endpoints: if endpoints.is_empty() && !selects {
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
            cluster_ips: own.clone(),
            external: Some(external),
            named,
            session_affinity: false,
            traffic_distribution: None,
            origin: object.origin.clone(),
        }));
    }
    let created = metadata.creation_timestamp.unwrap_or_default();
    Ok(ServiceEntry { name, services, created, remarks, origin: object.origin.clone() })
}

/// What of it has no effect, as far as it is seen before the rest is checked.
fn remarks(spec: &Spec) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if let Some(selector) = &spec.workload_selector {
        if selector.labels.is_empty() {
            remarks.push(Remark::new("spec.workloadSelector", "has no labels, so it selects no workload"));
        }
        if spec.resolution.as_deref() == Some("NONE") {
            let reason = "the addresses of workloads that are selected are known, so this counts as STATIC";
            remarks.push(Remark::new("spec.resolution", reason));
        }
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        remarks.extend(endpoint.remarks(&format!("spec.endpoints[{index}]")));
    }
    remarks
}

/// A whole name with a dot, which may begin with `*`.
fn check_host(host: &str, field: &str) -> Result<(), Refusal> {
    if host == "*" {
        return Err(Refusal::new(field, "* alone is every host; say which hosts are meant"));
    }
    let fixed = host.strip_prefix('*').unwrap_or(host);
    names::subdomain(field, fixed.strip_prefix('.').filter(|_| host.starts_with('*')).unwrap_or(fixed))?;
    if !host.contains('.') {
        return Err(Refusal::new(field, format!("{host:?} must be a whole name, with a dot")));
    }
    Ok(())
}

/// What `addresses` comes to.
#[derive(Default)]
struct Addresses {
    /// Addresses that nobody shares.
    own: Vec<IpAddr>,
    ranges: Vec<IpNet>,
}

impl Addresses {
    fn read(texts: &[String], hosts: usize, is_dns: bool) -> Result<Self, Refusal> {
        let mut found = Self::default();
        for (index, text) in texts.iter().enumerate() {
            let field = format!("spec.addresses[{index}]");
            let range = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
                (Ok(_), _) if is_dns => {
                    let reason =
                        format!("{text:?} is a range, which only resolution NONE and STATIC can have");
                    return Err(Refusal::new(field, reason));
                }
                (Ok(range), _) => range.trunc(),
                (_, Ok(ip)) => ip.into(),
                _ => {
                    return Err(Refusal::new(
                        field,
                        format!("{text:?} is neither an IP address nor a range"),
                    ));
                }
            };
            if range.prefix_len() < range.max_prefix_len() || hosts > 1 {
                found.ranges.push(range);
            } else {
                found.own.push(range.addr());
            }
        }
        Ok(found)
    }
}

/// The ports, and the numbers of those that are TLS.
fn ports(specs: Vec<PortSpec>) -> Result<(Vec<ServicePort>, BTreeSet<u16>), Refusal> {
    let mut ports: Vec<ServicePort> = Vec::new();
    let mut tls = BTreeSet::new();
    for (index, spec) in specs.into_iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let number = port(spec.number, format!("{field}.number"))?;
        let target =
            spec.target_port.map(|target| port(target, format!("{field}.targetPort"))).transpose()?;
        if ports.iter().any(|other| other.number == number || other.name == spec.name) {
            return Err(Refusal::new(field, format!("port {number} or name {:?} is there twice", spec.name)));
        }
        let said = spec.protocol.as_deref().map(str::to_ascii_uppercase);
        let by_name = || spec.name.split('-').next().unwrap_or_default().to_ascii_uppercase();
        if matches!(said.clone().unwrap_or_else(by_name).as_str(), "HTTPS" | "TLS") {
            tls.insert(number);
        }
        let protocol = match said.as_deref() {
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
    Ok((ports, tls))
}

fn endpoints(
    specs: Vec<EntrySpec>,
    ports: &[ServicePort],
    kind: AddressKind,
) -> Result<Vec<StaticEndpoint>, Refusal> {
    let endpoint =
        |(index, spec): (usize, EntrySpec)| spec.endpoint(ports, &format!("spec.endpoints[{index}]"), kind);
    specs.into_iter().enumerate().map(endpoint).collect()
}
