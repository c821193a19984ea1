//! `ClusterLoadAssignment`.

use std::sync::Arc;

use outrigger_xds_api::wire::core::v3::{HealthStatus, Metadata};
use outrigger_xds_api::wire::endpoint::v3 as wire;
use outrigger_xds_api::wire::protobuf::value::Kind;

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::metadata::compile_metadata;
use super::values;
use crate::cluster::HostSpec;

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

/// Compiles a load assignment.
pub fn compile_endpoints(
    value: &wire::ClusterLoadAssignment,
    cx: &mut CompileCx<'_>,
) -> Compiled<Assignment> {
    let wire::ClusterLoadAssignment { cluster_name, endpoints, named_endpoints, policy } = value;
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
    let localities = cx.each("endpoints", endpoints, compile_locality)?;
    let mut hosts: Vec<HostSpec> = localities.into_iter().flatten().collect();
    hosts.shrink_to_fit();
    Ok(Assignment { name: cluster_name.as_str().into(), hosts, overprovisioning_percent })
}

fn compile_locality(value: &wire::LocalityLbEndpoints, cx: &mut CompileCx<'_>) -> Compiled<Vec<HostSpec>> {
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
    // The weight only counts with locality weighted load balancing, which a cluster cannot have here.
    informational!(locality, metadata, load_balancing_weight, proximity);
    if *priority > MAX_PRIORITY {
        return Err(cx.refuse("priority", format!("value must be less than or equal to {MAX_PRIORITY}")));
    }
    cx.each("lb_endpoints", lb_endpoints, |endpoint, cx| compile_endpoint(endpoint, *priority, cx))
}

fn compile_endpoint(value: &wire::LbEndpoint, priority: u32, cx: &mut CompileCx<'_>) -> Compiled<HostSpec> {
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
    let (address, hostname) = cx.field("endpoint", |cx| {
        let wire::Endpoint {
            address,
            health_check_config,
            hostname,
            additional_addresses,
            observability_name,
        } = endpoint;
        unsupported!(cx; additional_addresses);
        // A cluster with active health checks is refused.
        informational!(health_check_config, observability_name);
        values::address(cx, "address", address).map(|address| (address, hostname.as_str().into()))
    })?;
    if let crate::net::Address::Ip(address) = &address
        && address.port() == 0
    {
        cx.refuse("endpoint.address.socket_address.port_value", "a port to connect to is required");
    }
    Ok(HostSpec {
        address,
        hostname,
        weight,
        healthy: matches!(health?, HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded),
        workload: metadata.as_ref().and_then(workload),
        metadata: compile_metadata(metadata),
        priority,
    })
}

/// `filter_metadata.istio.workload`: `name;namespace;canonical-name;canonical-revision;cluster`.
pub(super) fn workload(metadata: &Metadata) -> Option<Arc<str>> {
    match metadata.filter_metadata.get("istio")?.fields.get("workload")?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.as_str().into()),
        _ => None,
    }
}
