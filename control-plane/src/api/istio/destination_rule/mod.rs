//! DestinationRule -> [`DestinationPolicy`]: subsets, and how clients treat the endpoints ([`policy`]).
//!
//! Which clients follow it is said by its namespace, `exportTo` and `workloadSelector`: see `model::registry::destinations`.

mod connection_pool;
mod hash;
mod load_balancer;
mod locality;
mod policy;
mod tls;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::hosts;
use crate::api::{Refusal, Strict, name_of, names, read};
use crate::model::{DestinationPolicy, MeshSettings, Subset};
use crate::source::Object;
use policy::Policy;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    host: String,
    #[serde(default)]
    traffic_policy: policy::Spec,
    #[serde(default)]
    subsets: Vec<SubsetSpec>,
    #[serde(default)]
    export_to: Vec<String>,
    workload_selector: Option<SelectorSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SelectorSpec {
    match_labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SubsetSpec {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    traffic_policy: policy::Spec,
}

/// Decodes a DestinationRule.
pub(in crate::api) fn destination_rule(
    object: &Object,
    settings: &MeshSettings,
) -> Result<DestinationPolicy, Refusal> {
    let Strict { metadata, spec, .. }: Strict<Spec> = read(object)?;
    let name = name_of(object);
    if spec.host.contains('*') && !hosts::is_of_entry(&spec.host, &settings.cluster_domain) {
        return Err(Refusal::new("spec.host", "a DestinationRule for many hosts is not supported"));
    }
    let service = hosts::service_ref(&spec.host, &name.namespace, &settings.cluster_domain, "spec.host")?;
    let visibility = hosts::visibility(&spec.export_to, &name.namespace)?;
    let selector = spec.workload_selector.map(|selector| selector.match_labels).unwrap_or_default();
    let whole = Policy::read(spec.traffic_policy, "spec.trafficPolicy")?;
    let mut subsets: Vec<Subset> = Vec::new();
    for (index, subset) in spec.subsets.into_iter().enumerate() {
        let field = format!("spec.subsets[{index}]");
        names::label(&format!("{field}.name"), &subset.name)?;
        // It stands in the place of a subset in the name of a cluster (see `translate::names`).
        if subset.name == "tcp" {
            return Err(Refusal::new(format!("{field}.name"), "tcp cannot be the name of a subset"));
        }
        if subsets.iter().any(|other| other.name == subset.name) {
            let reason = format!("subset {} is there twice", subset.name);
            return Err(Refusal::new(format!("{field}.name"), reason));
        }
        let own = Policy::read(subset.traffic_policy, &format!("{field}.trafficPolicy"))?;
        let settings = own.settings_within(&whole);
        subsets.push(Subset { name: subset.name, labels: subset.labels, settings, field });
    }
    Ok(DestinationPolicy {
        name,
        service,
        visibility,
        selector,
        settings: whole.settings(),
        subsets,
        created: metadata.creation_timestamp.unwrap_or_default(),
        origin: object.origin.clone(),
    })
}
