//! What a route is attached to and where it leads.
//!
//! Every parent names its own controller: those that are not Services are for others, which is told. A backend may be in
//! another namespace; whether it may be used is decided where ReferenceGrants are known, in translation.

use serde::de::DeserializeOwned;

use super::{filters, wire};
use crate::api::values::{number, port};
use crate::api::{Refusal, Strict, name_of, names, read};
use crate::model::{
    Backend, Destination, HttpRoute, Name, Parent, RouteKey, RouteKind, RouteRule, ServiceRef,
};
use crate::source::Object;

/// Largest weight of a backend (Gateway API).
const MAX_WEIGHT: u32 = 1_000_000;

/// Reads a route, whose rules are read by `rule` with the route's name and the path of their field. A route that is only for others
/// has none: it may have what is not known here.
pub(super) fn read_route<R: DeserializeOwned>(
    object: &Object,
    kind: RouteKind,
    rule: impl Fn(R, &Name, String) -> Result<RouteRule, Refusal>,
) -> Result<HttpRoute, Refusal> {
    let wire::Addressees { spec } = read(object)?;
    if spec.parent_refs.is_empty() {
        return Err(Refusal::new("spec.parentRefs", "must name a Service"));
    }
    let others = spec.parent_refs.iter().enumerate().filter(|(_, parent)| !is_service(parent));
    let others = others.map(|(index, parent)| {
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        (format!("{kind} {}", parent.name), format!("spec.parentRefs[{index}]"))
    });
    let mut route = HttpRoute {
        key: RouteKey { kind, name: name_of(object) },
        parents: Vec::new(),
        others: others.collect(),
        rules: Vec::new(),
        created: String::new(),
        origin: object.origin.clone(),
    };
    if route.others.len() == spec.parent_refs.len() {
        return Ok(route);
    }
    let Strict { metadata, spec, .. }: Strict<wire::RouteSpec<R>> = read(object)?;
    if !spec.hostnames.is_empty() && route.others.is_empty() {
        let reason = "host names are not supported for a route whose parent is a Service: \
                      it applies to every name of the Service";
        return Err(Refusal::new("spec.hostnames", reason));
    }
    if spec.rules.is_empty() {
        return Err(Refusal::new("spec.rules", "must hold a rule"));
    }
    for (index, parent_ref) in spec.parent_refs.into_iter().enumerate() {
        if is_service(&parent_ref) {
            route.parents.push(parent(parent_ref, &route.key.name, index)?);
        }
    }
    for (index, written) in spec.rules.into_iter().enumerate() {
        route.rules.push(rule(written, &route.key.name, format!("spec.rules[{index}]"))?);
    }
    route.created = metadata.creation_timestamp.unwrap_or_default();
    Ok(route)
}

/// Checks the name of a rule: it becomes a part of the route's name, which is logged.
pub(super) fn check_rule_name(name: &str, field: &str) -> Result<(), Refusal> {
    match name.is_empty() {
        true => Ok(()),
        false => names::subdomain(&format!("{field}.name"), name),
    }
}

/// The default group is the Gateway API's; that of Services is the empty one and must be written.
fn is_service(parent: &wire::ParentRef) -> bool {
    parent.kind.as_deref() == Some("Service")
}

fn parent(parent: wire::ParentRef, route: &Name, index: usize) -> Result<Parent, Refusal> {
    let field = format!("spec.parentRefs[{index}]");
    if parent.group.as_deref() != Some("") {
        return Err(Refusal::new(format!("{field}.group"), "must be \"\" for a Service"));
    }
    let port = parent.port.map(|number| port(number, format!("{field}.port"))).transpose()?;
    let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
    Ok(Parent {
        service: Name::new(namespace, parent.name),
        port,
        section: parent.section_name,
        index,
        field,
    })
}

pub(super) fn backends(
    refs: Vec<wire::BackendRef>,
    route: &Name,
    rule: &str,
) -> Result<Vec<Backend>, Refusal> {
    let backend = |(index, backend_ref)| backend(backend_ref, route, format!("{rule}.backendRefs[{index}]"));
    refs.into_iter().enumerate().map(backend).collect()
}

fn backend(mut backend: wire::BackendRef, route: &Name, field: String) -> Result<Backend, Refusal> {
    let weight = number(backend.weight.take().unwrap_or(1), 0, MAX_WEIGHT, format!("{field}.weight"))?;
    let headers = filters::of_backend(std::mem::take(&mut backend.filters), &field)?;
    let destination = destination(backend, route, &field)?;
    Ok(Backend { destination, weight, headers, host: None, field })
}

/// The Service that a backend names. One of another kind is no error of the route: the API answers its share with 500 and says
/// so in the status.
pub(super) fn destination(
    backend: wire::BackendRef,
    route: &Name,
    field: &str,
) -> Result<Destination, Refusal> {
    let (kind, group) = (backend.kind.as_deref().unwrap_or("Service"), backend.group.unwrap_or_default());
    if kind != "Service" || !group.is_empty() {
        let group = if group.is_empty() { "the core group" } else { &group };
        let other = format!("{kind} {} of {group}", backend.name);
        return Ok(Destination { service: ServiceRef::OtherKind(other), port: None, subset: None });
    }
    let Some(number) = backend.port else {
        return Err(Refusal::new(format!("{field}.port"), "must be there for a Service"));
    };
    let number = port(number, format!("{field}.port"))?;
    names::label(&format!("{field}.name"), &backend.name)?;
    let namespace = backend.namespace.as_deref().unwrap_or(&route.namespace);
    names::label(&format!("{field}.namespace"), namespace)?;
    let service = ServiceRef::Name(Name::new(namespace, backend.name));
    Ok(Destination { service, port: Some(number), subset: None })
}
