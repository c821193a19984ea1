//! `loadBalancer.localityLbSetting` of a DestinationRule.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::api::Refusal;
use crate::api::values::number;
use crate::model::{Distribution, Failover, LocalityBalancing, LocalityPattern, PreferredLabel};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    enabled: Option<bool>,
    #[serde(default)]
    distribute: Vec<DistributeSpec>,
    #[serde(default)]
    failover: Vec<FailoverSpec>,
    #[serde(default)]
    failover_priority: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DistributeSpec {
    from: String,
    to: BTreeMap<String, i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FailoverSpec {
    from: String,
    to: String,
}

/// Reads it.
pub(super) fn locality_balancing(spec: Spec, field: &str) -> Result<LocalityBalancing, Refusal> {
    let Spec { enabled, distribute, failover, failover_priority } = spec;
    let is_failover = !failover.is_empty() || !failover_priority.is_empty();
    if is_failover && !distribute.is_empty() {
        let reason = "distribute says where all traffic goes: failover and failoverPriority cannot apply too";
        return Err(Refusal::new(format!("{field}.distribute"), reason));
    }
    let distributions = distributions(distribute, field)?;
    let regions = regions(failover, field)?;
    let labels = labels(failover_priority, field)?;
    Ok(match (enabled, distributions.is_empty()) {
        (Some(false), _) => LocalityBalancing::Off,
        (_, false) => LocalityBalancing::Distribute(distributions),
        (_, true) => LocalityBalancing::Failover(Failover { labels, regions }),
    })
}

fn distributions(specs: Vec<DistributeSpec>, field: &str) -> Result<Vec<Distribution>, Refusal> {
    let mut all: Vec<Distribution> = Vec::new();
    for (index, DistributeSpec { from: text, to: shares }) in specs.into_iter().enumerate() {
        let field = format!("{field}.distribute[{index}]");
        let from = pattern(&text, format!("{field}.from"))?;
        if all.iter().any(|other| other.from.overlaps(&from)) {
            let reason = format!("{text} is also meant by an earlier one");
            return Err(Refusal::new(format!("{field}.from"), reason));
        }
        let mut to: Vec<(LocalityPattern, u32)> = Vec::new();
        for (text, share) in shares {
            let field = format!("{field}.to[{text}]");
            let place = pattern(&text, field.clone())?;
            if to.iter().any(|(other, _)| other.overlaps(&place)) {
                return Err(Refusal::new(field, "overlaps with another one"));
            }
            to.push((place, number(share, 1, 100, field)?));
        }
        let sum: u32 = to.iter().map(|(_, share)| share).sum();
        if sum != 100 {
            return Err(Refusal::new(format!("{field}.to"), format!("sums up to {sum}, not to 100")));
        }
        all.push(Distribution { from, to });
    }
    Ok(all)
}

/// `REGION/ZONE/SUBZONE`; the later parts may be left out, and the last one that is there may be `*`.
fn pattern(text: &str, field: String) -> Result<LocalityPattern, Refusal> {
    let parts: Vec<&str> = text.split('/').collect();
    let (last, first) = parts.split_last().unwrap_or((&"", &[]));
    if parts.len() > 3
        || parts.contains(&"")
        || last.len() > 1 && last.contains('*')
        || first.iter().any(|part| part.contains('*'))
    {
        let reason = format!(
            "{text:?} is not REGION, REGION/ZONE or REGION/ZONE/SUBZONE, the last part of which may be *"
        );
        return Err(Refusal::new(field, reason));
    }
    let part = |index: usize| parts.get(index).filter(|part| **part != "*").map(|part| (*part).to_owned());
    Ok(LocalityPattern { region: part(0), zone: part(1), sub_zone: part(2) })
}

fn regions(specs: Vec<FailoverSpec>, field: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let mut regions = BTreeMap::new();
    for (index, FailoverSpec { from, to }) in specs.into_iter().enumerate() {
        let field = format!("{field}.failover[{index}]");
        for (name, region) in [("from", &from), ("to", &to)] {
            if region.is_empty() || region.contains(['/', '*']) {
                let reason = format!("{region:?} must be the name of a region, without / and *");
                return Err(Refusal::new(format!("{field}.{name}"), reason));
            }
        }
        if from == to {
            return Err(Refusal::new(format!("{field}.to"), "is the region that it is from"));
        }
        if regions.insert(from.clone(), to).is_some() {
            return Err(Refusal::new(format!("{field}.from"), format!("{from} is there twice")));
        }
    }
    Ok(regions)
}

/// `KEY`, or `KEY=VALUE`.
fn labels(texts: Vec<String>, field: &str) -> Result<Vec<PreferredLabel>, Refusal> {
    let mut labels: Vec<PreferredLabel> = Vec::new();
    for (index, text) in texts.into_iter().enumerate() {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text.as_str(), None),
        };
        let problem = match key {
            "" => Some("must have the key of a label".to_owned()),
            key if labels.iter().any(|other| other.key == key) => Some(format!("{key} is there twice")),
            _ => None,
        };
        if let Some(reason) = problem {
            return Err(Refusal::new(format!("{field}.failoverPriority[{index}]"), reason));
        }
        labels.push(PreferredLabel { key: key.to_owned(), value });
    }
    Ok(labels)
}
