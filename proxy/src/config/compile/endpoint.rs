//! `ClusterLoadAssignment`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use outrigger_xds_api::wire::core::v3::{self as core, HealthStatus, Metadata};
use outrigger_xds_api::wire::endpoint::v3 as wire;
use outrigger_xds_api::wire::protobuf::value::Kind;

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::health_check::compile_check_target;
use super::metadata::compile_metadata;
use super::values;
use crate::cluster::{EdsHealth, HostSpec, Locality};
use crate::config::dns::DnsEndpoint;
use crate::net::Address;

/// Envoy's default overprovisioning factor, percent.
const OVERPROVISIONING_PERCENT: u32 = 140;
/// Envoy's highest priority number.
const MAX_PRIORITY: u32 = 128;

/// A compiled `ClusterLoadAssignment`: what an `EndpointSet` is built from.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// `cluster_name`.
    pub name: Arc<str>,
    /// All endpoints of all localities.
    pub hosts: Vec<HostSpec>,
    /// `policy.overprovisioning_factor`.
    pub overprovisioning_percent: u32,
}

/// Compiles a load assignment whose endpoints are addresses.
pub fn compile_endpoints(
    value: &wire::ClusterLoadAssignment,
    cx: &mut CompileCx<'_>,
) -> Compiled<Assignment> {
    let (hosts, overprovisioning_percent) = compile_assignment(value, cx, |endpoint, place, cx| {
        compile_endpoint(endpoint, place, cx, |cx, address| values::address(cx, "address", address))
    })?;
    Ok(Assignment { name: value.cluster_name.as_str().into(), hosts, overprovisioning_percent })
}

/// Compiles a load assignment whose endpoints are DNS names, or addresses all the same; with its overprovisioning factor.
pub(super) fn compile_dns_endpoints(
    value: &wire::ClusterLoadAssignment,
    cx: &mut CompileCx<'_>,
) -> Compiled<(Vec<DnsEndpoint>, u32)> {
    compile_assignment(value, cx, |endpoint, place, cx| {
        let mut at = None;
        let mut host = compile_endpoint(endpoint, place, cx, |cx, address| {
            let (name, port) = values::named_address(cx, "address", address)?;
            at = Some(name);
            Ok(Address::Ip((Ipv4Addr::UNSPECIFIED, port).into()))
        })?;
        if host.more_addresses.is_some() {
            let reason = "only for STATIC and EDS clusters: those of a name come from DNS";
            cx.refuse("endpoint.additional_addresses", reason);
        }
        let (name, port) = (at.unwrap_or_default(), host.address.port().unwrap_or_default());
        if host.hostname.is_empty() {
            host.hostname = name.clone();
        }
        Ok(DnsEndpoint { name, port, host })
    })
}

/// What there is for each endpoint of all localities, and `policy.overprovisioning_factor`.
fn compile_assignment<T>(
    value: &wire::ClusterLoadAssignment,
    cx: &mut CompileCx<'_>,
    endpoint: impl Fn(&wire::LbEndpoint, &Place, &mut CompileCx<'_>) -> Compiled<T>,
) -> Compiled<(Vec<T>, u32)> {
    let wire::ClusterLoadAssignment { cluster_name: _, endpoints, named_endpoints, policy } = value;
    unsupported!(cx; named_endpoints);
    let overprovisioning_percent = match policy {
        None => OVERPROVISIONING_PERCENT,
        Some(policy) => cx.field("policy", |cx| {
            let wire::cluster_load_assignment::Policy {
                drop_overloads,
                overprovisioning_factor,
                endpoint_stale_after,
                weighted_priority_health,
            } = policy;
            unsupported!(cx; drop_overloads, weighted_priority_health);
            ignored!(cx; endpoint_stale_after);
            let factor = values::uint32(overprovisioning_factor, OVERPROVISIONING_PERCENT);
            if factor == 0 {
                cx.refuse("overprovisioning_factor", "value must be greater than 0");
            }
            factor
        }),
    };
    let localities = cx.each("endpoints", endpoints, |value, cx| compile_locality(value, cx, &endpoint))?;
    let mut hosts: Vec<T> = localities.into_iter().flatten().collect();
    hosts.shrink_to_fit();
    Ok((hosts, overprovisioning_percent))
}

/// What a `LocalityLbEndpoints` says of all its endpoints.
struct Place {
    priority: u32,
    locality: Arc<Locality>,
    weight: u32,
}

fn compile_locality<T>(
    value: &wire::LocalityLbEndpoints,
    cx: &mut CompileCx<'_>,
    endpoint: impl Fn(&wire::LbEndpoint, &Place, &mut CompileCx<'_>) -> Compiled<T>,
) -> Compiled<Vec<T>> {
    let wire::LocalityLbEndpoints {
        locality,
        metadata,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity,
        lb_config,
    } = value;
    unsupported!(cx; lb_config);
    informational!(metadata, proximity);
    if *priority > MAX_PRIORITY {
        return Err(cx.refuse("priority", format!("value must be less than or equal to {MAX_PRIORITY}")));
    }
    let mut place = Place { priority: *priority, locality: compile_locality_name(locality), weight: 0 };
    // As in Envoy: what has no name has no weight.
    if locality.is_some() {
        place.weight = values::uint32(load_balancing_weight, 0);
    }
    cx.each("lb_endpoints", lb_endpoints, |value, cx| endpoint(value, &place, cx))
}

/// Compiles a `Locality`; one that is not set has no names.
pub(crate) fn compile_locality_name(value: &Option<core::Locality>) -> Arc<Locality> {
    let Some(core::Locality { region, zone, sub_zone }) = value else { return Locality::none() };
    Arc::new(Locality {
        region: region.as_str().into(),
        zone: zone.as_str().into(),
        sub_zone: sub_zone.as_str().into(),
    })
}

fn compile_endpoint(
    value: &wire::LbEndpoint,
    place: &Place,
    cx: &mut CompileCx<'_>,
    at: impl FnOnce(&mut CompileCx<'_>, &Option<core::Address>) -> Compiled<Address>,
) -> Compiled<HostSpec> {
    use wire::lb_endpoint::HostIdentifier;
    let wire::LbEndpoint { health_status, metadata, load_balancing_weight, host_identifier } = value;
    let health = values::enumeration(cx, "health_status", *health_status);
    let weight = values::uint32(load_balancing_weight, 1);
    if weight == 0 {
        cx.refuse("load_balancing_weight", "value must be greater than or equal to 1");
    }
    let endpoint = match host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(HostIdentifier::EndpointName(_)) => return Err(cx.refuse("endpoint_name", "not supported")),
        None => return Err(cx.refuse("endpoint", "value is required")),
    };
    let (address, more_addresses, hostname, check) = cx.field("endpoint", |cx| {
        let wire::Endpoint {
            address,
            health_check_config,
            hostname,
            additional_addresses,
            observability_name,
        } = endpoint;
        informational!(observability_name);
        let check = compile_check_target(cx, health_check_config);
        let more = compile_more_addresses(cx, additional_addresses);
        let (address, more) = (at(cx, address)?, more?);
        if more.is_some() && matches!(address, Address::Pipe(_)) {
            cx.refuse("additional_addresses", "a Unix socket has no other addresses");
        }
        let check = check?;
        if matches!(address, Address::Pipe(_))
            && check.as_ref().is_some_and(|check| check.address.is_none() && check.port.is_some())
        {
            cx.refuse(
                "health_check_config.port_value",
                "Invalid host configuration: non-zero port for non-IP address",
            );
        }
        Ok((address, more, hostname.as_str().into(), check))
    })?;
    if let Address::Ip(address) = &address
        && address.port() == 0
    {
        cx.refuse("endpoint.address.socket_address.port_value", "a port to connect to is required");
    }
    Ok(HostSpec {
        address,
        more_addresses,
        hostname,
        weight,
        health: match health? {
            HealthStatus::Unknown | HealthStatus::Healthy => EdsHealth::Healthy,
            HealthStatus::Degraded => EdsHealth::Degraded,
            HealthStatus::Unhealthy | HealthStatus::Timeout => EdsHealth::Unhealthy,
            HealthStatus::Draining => EdsHealth::Draining,
        },
        workload: metadata.as_ref().and_then(workload),
        metadata: compile_metadata(metadata),
        priority: place.priority,
        locality: place.locality.clone(),
        locality_weight: place.weight,
        check,
    })
}

/// `additional_addresses`: IP addresses with a port.
fn compile_more_addresses(
    cx: &mut CompileCx<'_>,
    value: &[wire::endpoint::AdditionalAddress],
) -> Compiled<Option<Arc<Vec<SocketAddr>>>> {
    let addresses = cx.each("additional_addresses", value, |additional, cx| {
        let wire::endpoint::AdditionalAddress { address } = additional;
        match values::address(cx, "address", address)? {
            Address::Ip(ip) if ip.port() == 0 => {
                Err(cx.refuse("address.socket_address.port_value", "a port to connect to is required"))
            }
            Address::Ip(ip) => Ok(ip),
            Address::Pipe(_) => Err(cx.refuse("address.pipe", "not supported")),
        }
    })?;
    Ok((!addresses.is_empty()).then(|| Arc::new(addresses)))
}

/// `filter_metadata.istio.workload`: `name;namespace;canonical-name;canonical-revision;cluster`.
pub(super) fn workload(metadata: &Metadata) -> Option<Arc<str>> {
    match metadata.filter_metadata.get("istio")?.fields.get("workload")?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.as_str().into()),
        _ => None,
    }
}
