//! Front ends: Kubernetes objects -> model nodes.
//!
//! Decoding is pure. Kubernetes' own kinds are read leniently, because most of their fields are not the mesh's business.
//! The mesh's kinds (Gateway API, Istio, our own) are read strictly: a field that is not honoured is refused by its path, never
//! dropped. A refused object leaves its last good version in force (see [`crate::model::Registry`]).

mod core;
pub(crate) mod duration;
mod gateway_api;
mod istio;
mod names;
mod outrigger;
mod values;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::model::{
    DestinationPolicy, EndpointSlice, Grant, HttpRoute, MeshSettings, Name, Node, PeerAuthn, Service,
    ServiceEntry, TrafficPolicy, VirtualService, Workload, WorkloadEntry, WorkloadGroup,
};
use crate::source::Object;
pub use outrigger::definitions;

/// What an object means for the mesh.
#[derive(Debug)]
pub enum Decoded {
    /// From a Service.
    Service(Service),
    /// From an EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// From a Pod.
    Workload(Workload),
    /// From a Node.
    Node(Node),
    /// From an HTTPRoute or a GRPCRoute.
    HttpRoute(HttpRoute),
    /// From a ReferenceGrant.
    Grant(Grant),
    /// From a VirtualService.
    VirtualService(VirtualService),
    /// From a ServiceEntry.
    ServiceEntry(ServiceEntry),
    /// From a WorkloadEntry.
    WorkloadEntry(WorkloadEntry),
    /// From a WorkloadGroup.
    WorkloadGroup(WorkloadGroup),
    /// From a DestinationRule.
    DestinationPolicy(Box<DestinationPolicy>),
    /// From a PeerAuthentication.
    PeerAuthn(PeerAuthn),
    /// From a TrafficPolicy.
    TrafficPolicy(Box<TrafficPolicy>),
}

/// Why an object is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Path of the field, for example `spec.rules[0].filters[0].type`; empty for the whole object.
    pub field: String,
    /// The reason, in a sentence.
    pub reason: String,
}

impl Refusal {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// Decodes an object. `None`: its kind has no meaning for the mesh (a Deployment, a ConfigMap).
///
/// # Errors
/// The first field that is malformed, unknown or not supported. Unknown kinds of the groups that configure a mesh are
/// refused as well: a VirtualService that nobody reads must not look as if it worked.
pub fn decode(object: &Object, settings: &MeshSettings) -> Result<Option<Decoded>, Refusal> {
    let key = object.key();
    let (group, version) = object.api_version.rsplit_once('/').unwrap_or(("", &object.api_version));
    let require = |supported: &[&str]| {
        if supported.contains(&version) {
            return Ok(());
        }
        let reason = format!(
            "version {version} of {} is not supported; supported: {}",
            key.kind,
            supported.join(", ")
        );
        Err(Refusal::new("apiVersion", reason))
    };
    Ok(Some(match (group, key.kind.as_str()) {
        ("", "Service") => match core::service(object)? {
            Some(service) => Decoded::Service(service),
            None => return Ok(None),
        },
        ("", "Pod") => Decoded::Workload(core::pod(object, settings)?),
        ("", "Node") => Decoded::Node(core::node(object)?),
        ("discovery.k8s.io", "EndpointSlice") => {
            require(&["v1"])?;
            match core::endpoint_slice(object)? {
                Some(slice) => Decoded::EndpointSlice(slice),
                None => return Ok(None),
            }
        }
        ("gateway.networking.k8s.io", "HTTPRoute") => {
            require(&["v1", "v1beta1"])?;
            Decoded::HttpRoute(gateway_api::http_route(object)?)
        }
        ("gateway.networking.k8s.io", "GRPCRoute") => {
            require(&["v1"])?;
            Decoded::HttpRoute(gateway_api::grpc_route(object)?)
        }
        ("gateway.networking.k8s.io", "ReferenceGrant") => {
            require(&["v1", "v1beta1"])?;
            Decoded::Grant(gateway_api::reference_grant(object)?)
        }
        ("networking.istio.io", "VirtualService") => {
            require(&ISTIO_NETWORKING)?;
            Decoded::VirtualService(istio::virtual_service(object, settings)?)
        }
        ("networking.istio.io", "ServiceEntry") => {
            require(&ISTIO_NETWORKING)?;
            Decoded::ServiceEntry(istio::service_entry(object, settings)?)
        }
        ("networking.istio.io", "WorkloadEntry") => {
            require(&ISTIO_NETWORKING)?;
            Decoded::WorkloadEntry(istio::workload_entry(object)?)
        }
        ("networking.istio.io", "WorkloadGroup") => {
            require(&ISTIO_NETWORKING)?;
            Decoded::WorkloadGroup(istio::workload_group(object)?)
        }
        ("networking.istio.io", "DestinationRule") => {
            require(&ISTIO_NETWORKING)?;
            Decoded::DestinationPolicy(Box::new(istio::destination_rule(object, settings)?))
        }
        ("security.istio.io", "PeerAuthentication") => {
            require(&["v1", "v1beta1"])?;
            Decoded::PeerAuthn(istio::peer_authentication(object)?)
        }
        (outrigger::GROUP, outrigger::TRAFFIC_POLICY) => {
            require(&[outrigger::VERSION])?;
            Decoded::TrafficPolicy(Box::new(outrigger::traffic_policy(object)?))
        }
        ("gateway.networking.k8s.io" | outrigger::GROUP, kind) => return Err(unsupported_kind(kind)),
        (group, kind) if group.ends_with(".istio.io") => return Err(unsupported_kind(kind)),
        _ => return Ok(None),
    }))
}

/// Versions of `networking.istio.io`.
const ISTIO_NETWORKING: [&str; 3] = ["v1", "v1beta1", "v1alpha3"];

fn unsupported_kind(kind: &str) -> Refusal {
    let why = match kind {
        "Gateway" | "GatewayClass" | "ListenerSet" => "this mesh has no gateways, only sidecars",
        "EnvoyFilter" | "WasmPlugin" => {
            "what proxies run is made of rules, never of foreign configuration or code"
        }
        _ => "it has no effect",
    };
    Refusal::new("kind", format!("kind {kind} is not supported; {why}"))
}

/// `metadata`, as far as the mesh reads it. Kubernetes owns the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    labels: std::collections::BTreeMap<String, String>,
    annotations: std::collections::BTreeMap<String, String>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    owner_references: Vec<OwnerReference>,
}

#[derive(Debug, Deserialize)]
struct OwnerReference {
    kind: String,
    name: String,
    #[serde(default)]
    controller: bool,
}

/// An object of a kind that is read leniently.
#[derive(Debug, Deserialize)]
struct Lenient<S, T> {
    #[serde(default)]
    metadata: Metadata,
    spec: S,
    #[serde(default)]
    status: T,
}

/// An object of a kind that is read strictly. Its status is what controllers say about it, never input.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Strict<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: S,
    #[serde(rename = "status", default)]
    _status: IgnoredAny,
}

/// Checks an object's names and reads its document into `T`, with the path of the field that does not fit.
fn read<T: DeserializeOwned>(object: &Object) -> Result<T, Refusal> {
    names::check(object.key())?;
    serde_path_to_error::deserialize(&*object.document).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let reason = error.into_inner().to_string();
        // serde says `unknown field`, also of fields that the API has and this mesh does not support.
        let reason = match reason.strip_prefix("unknown field ") {
            Some(rest) => {
                format!("unknown or unsupported field {}", rest.replacen("expected", "supported are", 1))
            }
            None => reason,
        };
        Refusal::new(path, reason)
    })
}

fn name_of(object: &Object) -> Name {
    Name::new(&object.key().namespace, &object.key().name)
}

#[cfg(test)]
mod tests;
