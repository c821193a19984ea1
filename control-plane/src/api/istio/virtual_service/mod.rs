//! VirtualService -> [`VirtualService`].
//!
//! Sidecars are the reserved gateway `mesh`. Rules and matches for other gateways are read, so that a mistake in them is told, and
//! left out; that they are is told too.

mod connections;
mod format;
mod http;
mod matches;
mod policies;
mod wire;

use super::hosts;
use crate::api::values::port;
use crate::api::{Refusal, Strict, name_of, names, read};
use crate::model::{Destination, Host, MeshSettings, Name, VirtualService};
use crate::source::Object;

/// The gateway that all sidecars are.
const MESH: &str = "mesh";

/// What names in a VirtualService mean, and what of it is for others.
struct Context<'a> {
    name: &'a Name,
    domain: &'a str,
    /// See [`VirtualService::gateways`].
    gateways: Vec<(String, String)>,
}

/// Decodes a VirtualService.
pub(in crate::api) fn virtual_service(
    object: &Object,
    settings: &MeshSettings,
) -> Result<VirtualService, Refusal> {
    let Strict { metadata, spec, .. }: Strict<wire::Spec> = read(object)?;
    let name = name_of(object);
    let mut context = Context { name: &name, domain: &settings.cluster_domain, gateways: Vec::new() };
    let is_for_mesh = context.is_for_mesh(&spec.gateways, "spec.gateways");
    let mut hosts = Vec::new();
    // What is for other gateways only may have names that mean nothing here.
    for (index, host) in spec.hosts.iter().enumerate().filter(|_| is_for_mesh) {
        let field = format!("spec.hosts[{index}]");
        let name = hosts::whole(host, &name.namespace, context.domain, &field)?;
        hosts.push(Host { name, field });
    }
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        return Err(Refusal::new("spec", "must hold a rule in http, tls or tcp"));
    }
    if spec.hosts.is_empty() && !(spec.tls.is_empty() && spec.tcp.is_empty()) {
        let reason = "must name a host: only rules for requests can be delegated to";
        return Err(Refusal::new("spec.hosts", reason));
    }
    let (mut http, mut tls, mut tcp) = (Vec::new(), Vec::new(), Vec::new());
    if is_for_mesh {
        for (index, rule) in spec.http.into_iter().enumerate() {
            http.extend(context.http(rule, spec.hosts.is_empty(), format!("spec.http[{index}]"))?);
        }
        for (index, rule) in spec.tls.into_iter().enumerate() {
            tls.extend(context.tls(rule, &hosts, format!("spec.tls[{index}]"))?);
        }
        for (index, rule) in spec.tcp.into_iter().enumerate() {
            tcp.extend(context.tcp(rule, format!("spec.tcp[{index}]"))?);
        }
    }
    Ok(VirtualService {
        hosts,
        visibility: hosts::visibility(&spec.export_to, &name.namespace)?,
        http,
        tls,
        tcp,
        gateways: context.gateways,
        created: metadata.creation_timestamp.unwrap_or_default(),
        origin: object.origin.clone(),
        name,
    })
}

impl Context<'_> {
    /// Whether sidecars are among these gateways; nothing said means only sidecars. The others are noted.
    fn is_for_mesh(&mut self, gateways: &[String], field: &str) -> bool {
        let others = gateways.iter().enumerate().filter(|(_, gateway)| *gateway != MESH);
        self.gateways.extend(others.map(|(index, gateway)| (gateway.clone(), format!("{field}[{index}]"))));
        gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH)
    }

    fn destination(&self, destination: wire::Destination, field: &str) -> Result<Destination, Refusal> {
        let host_field = format!("{field}.host");
        let service = hosts::service_ref(&destination.host, &self.name.namespace, self.domain, &host_field)?;
        let subset = destination.subset.filter(|subset| !subset.is_empty());
        if let Some(subset) = &subset {
            names::label(&format!("{field}.subset"), subset)?;
        }
        let port = destination.port.map(|of| port(of.number, format!("{field}.port.number"))).transpose()?;
        Ok(Destination { service, port, subset })
    }
}

/// Shares of several destinations. A single one gets all, whatever its weight (Istio).
fn weights(weights: &[i64], field: &str) -> Result<Vec<u32>, Refusal> {
    if weights.len() == 1 {
        return Ok(vec![1]);
    }
    let mut shares = Vec::new();
    for (index, weight) in weights.iter().enumerate() {
        let field = format!("{field}.route[{index}].weight");
        shares.push(crate::api::values::number(*weight, 0, u32::MAX, field)?);
    }
    let refused = |reason: String| Err(Refusal::new(format!("{field}.route"), reason));
    match shares.iter().map(|share| u64::from(*share)).sum::<u64>() {
        0 => refused("the weights of several destinations sum up to 0".to_owned()),
        // A proxy refuses it, and with it every other route of the same route configuration.
        sum if sum > u64::from(u32::MAX) => refused(format!("the weights sum up to more than {}", u32::MAX)),
        _ => Ok(shares),
    }
}
