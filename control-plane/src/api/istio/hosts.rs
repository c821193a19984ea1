//! Host names, and who may see an object.
//!
//! A short name is that of a Service in the object's own namespace; with a dot it is a whole name (Istio).

use crate::api::{Refusal, names};
use crate::model::{Name, ServiceRef, Visibility};

/// The Service that a host name means to an object in `namespace`.
pub(super) fn service_ref(
    host: &str,
    namespace: &str,
    domain: &str,
    field: &str,
) -> Result<ServiceRef, Refusal> {
    // A host with `*` is what a ServiceEntry is called that has it, and no other.
    names::subdomain(field, host.strip_prefix("*.").unwrap_or(host))?;
    if !host.contains('.') {
        return Ok(ServiceRef::Name(Name::new(namespace, host)));
    }
    Ok(match Name::of_host(host, domain) {
        Some(name) => ServiceRef::Name(name),
        None => ServiceRef::Host(host.to_owned()),
    })
}

/// Whether `*` in a host can be that of a ServiceEntry's: it stands for no Service of Kubernetes.
pub(super) fn is_of_entry(host: &str, domain: &str) -> bool {
    let services = format!(".svc.{domain}");
    host.strip_prefix('*')
        .is_some_and(|end| end.starts_with('.') && !end.ends_with(&services) && !services.ends_with(end))
}

/// The whole host name that `host` means to an object in `namespace`; it may begin with `*`.
pub(super) fn whole(host: &str, namespace: &str, domain: &str, field: &str) -> Result<String, Refusal> {
    match host.strip_prefix('*') {
        // `*` stands for whole labels or for the beginning of one, as in Istio.
        Some(rest) if !rest.is_empty() => {
            names::subdomain(field, rest.trim_start_matches(['.', '-']))?;
            Ok(host.to_owned())
        }
        Some(_) => {
            Err(Refusal::new(field, "* alone is not for sidecars: it would take every call of the mesh"))
        }
        None => {
            names::subdomain(field, host)?;
            let whole =
                if host.contains('.') { host.to_owned() } else { format!("{host}.{namespace}.svc.{domain}") };
            Ok(whole)
        }
    }
}

/// `exportTo`: `.` is the own namespace, `*` all of them; nothing said means all.
pub(super) fn visibility(export_to: &[String], namespace: &str) -> Result<Visibility, Refusal> {
    let mut namespaces = Vec::new();
    for (index, entry) in export_to.iter().enumerate() {
        match entry.as_str() {
            "*" => return Ok(Visibility::Mesh),
            "." => namespaces.push(namespace.to_owned()),
            other => {
                names::label(&format!("spec.exportTo[{index}]"), other)?;
                namespaces.push(other.to_owned());
            }
        }
    }
    Ok(if namespaces.is_empty() { Visibility::Mesh } else { Visibility::Namespaces(namespaces) })
}
