//! `spec.targetRefs`: what a policy is attached to (GEP-713, `LocalPolicyTargetReferenceWithSectionName`).

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::{Refusal, names};
use crate::model::{Name, PolicyTarget, RouteKind, TargetKey, TargetKind};

/// The most targets of one policy (Gateway API).
pub(super) const MOST: usize = 16;

/// A name as the Gateway API writes that of an object or a section.
const NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// An object that the policy is attached to, as a whole or by a section.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.group == (self.kind == 'Service' ? '' : self.kind == 'VirtualService' ? 'networking.istio.io' : 'gateway.networking.k8s.io')",
    "message": "group must be that of the kind",
}]))]
pub(super) struct Spec {
    group: Group,
    kind: Kind,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    name: String,
    /// Name of a port of the Service, or of a rule of the route. Without it the whole of the object is meant; what the policy of a
    /// section does not say, that of the whole does.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    section_name: Option<String>,
}

/// Group of the kind; the empty one is that of Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
enum Group {
    #[serde(rename = "")]
    Core,
    #[serde(rename = "gateway.networking.k8s.io")]
    GatewayApi,
    #[serde(rename = "networking.istio.io")]
    Istio,
}

/// Kind of the object. A Service stands for all its callers, a route for those that follow it.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum Kind {
    Service,
    HTTPRoute,
    GRPCRoute,
    VirtualService,
}

impl Kind {
    /// Its group, as it is and as it is written.
    fn group(self) -> (Group, &'static str) {
        match self {
            Self::Service => (Group::Core, ""),
            Self::HTTPRoute | Self::GRPCRoute => (Group::GatewayApi, "gateway.networking.k8s.io"),
            Self::VirtualService => (Group::Istio, "networking.istio.io"),
        }
    }
}

pub(super) fn read(specs: Vec<Spec>, namespace: &str) -> Result<Vec<PolicyTarget>, Refusal> {
    if specs.is_empty() || specs.len() > MOST {
        let reason = format!("must hold 1 to {MOST} targets, not {}", specs.len());
        return Err(Refusal::new("spec.targetRefs", reason));
    }
    let mut targets: Vec<PolicyTarget> = Vec::new();
    for (index, spec) in specs.into_iter().enumerate() {
        let field = format!("spec.targetRefs[{index}]");
        let (group, written) = spec.kind.group();
        if spec.group != group {
            let reason = format!("must be {written:?} for a {:?}", spec.kind);
            return Err(Refusal::new(format!("{field}.group"), reason));
        }
        let name_field = format!("{field}.name");
        match spec.kind {
            Kind::Service => names::label(&name_field, &spec.name)?,
            _ => names::subdomain(&name_field, &spec.name)?,
        }
        if let Some(section) = &spec.section_name {
            names::subdomain(&format!("{field}.sectionName"), section)?;
        }
        let kind = match spec.kind {
            Kind::Service => TargetKind::Service,
            Kind::HTTPRoute => TargetKind::Route(RouteKind::Http),
            Kind::GRPCRoute => TargetKind::Route(RouteKind::Grpc),
            Kind::VirtualService => TargetKind::VirtualService,
        };
        let object = TargetKey { kind, name: Name::new(namespace, spec.name) };
        let target = PolicyTarget { object, section: spec.section_name, field };
        let twin = |other: &&PolicyTarget| other.object == target.object && other.section == target.section;
        if let Some(twin) = targets.iter().find(twin) {
            return Err(Refusal::new(target.field.as_str(), format!("is the same as {}", twin.field)));
        }
        targets.push(target);
    }
    Ok(targets)
}
