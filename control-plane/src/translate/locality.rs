//! Endpoints in the order of their places, as a caller at one place sees them.
//!
//! *Failover* gives nearer endpoints a better priority: a proxy turns to the next one as soon as too few of the first are healthy, and
//! endpoints that are not ready are among those that it counts. *Distribute* gives each locality its share as a weight.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_xds_api::wire::endpoint::v3::{LbEndpoint, LocalityLbEndpoints};

use crate::model::{Distribution, Failover, HOSTNAME_LABEL, Locality, LocalityBalancing, Place};
use crate::translate::endpoints::wire_locality;
use crate::translate::wire::number;

/// An endpoint, and what its place in the order depends on.
pub(super) struct Placed<'a> {
    pub(super) endpoint: LbEndpoint,
    pub(super) locality: &'a Locality,
    pub(super) node: Option<&'a str>,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) weight: u32,
}

/// One locality of one priority.
#[derive(Default)]
struct Group {
    endpoints: Vec<LbEndpoint>,
    /// The sum of those of its endpoints.
    weight: u32,
}

/// The endpoints by priority and locality, and in each as they come. Without a place, or where it does not count, all are equal.
pub(super) fn arrange(
    endpoints: Vec<Placed<'_>>,
    balancing: Option<&LocalityBalancing>,
    place: Option<&Place>,
) -> Vec<LocalityLbEndpoints> {
    let ranks: Vec<Rank> = match (balancing, place) {
        (Some(LocalityBalancing::Failover(failover)), Some(place)) => {
            endpoints.iter().map(|endpoint| rank(endpoint, failover, place)).collect()
        }
        _ => vec![Rank::default(); endpoints.len()],
    };
    // Priorities have no gaps.
    let order: BTreeSet<Rank> = ranks.iter().copied().collect();
    let priorities: BTreeMap<Rank, u32> = order.into_iter().zip(0..).collect();
    let mut groups: BTreeMap<(u32, &Locality), Group> = BTreeMap::new();
    for (placed, rank) in endpoints.into_iter().zip(ranks) {
        let group = groups.entry((priorities[&rank], placed.locality)).or_default();
        group.endpoints.push(placed.endpoint);
        group.weight = group.weight.saturating_add(placed.weight);
    }
    let mut weights = None;
    if let (Some(LocalityBalancing::Distribute(all)), Some(place)) = (balancing, place) {
        let distribution = all.iter().find(|distribution| distribution.from.has(&place.locality));
        weights = Some(shares(&groups, distribution));
    }
    let wire = groups.into_iter().enumerate().filter_map(|(index, ((priority, locality), group))| {
        let weight = match &weights {
            None => None,
            // Nothing is to go there.
            Some(weights) => Some(number(weights[index]?)?),
        };
        Some(LocalityLbEndpoints {
            locality: (!locality.is_empty()).then(|| wire_locality(locality.clone())),
            lb_endpoints: group.endpoints,
            load_balancing_weight: weight,
            priority,
            ..LocalityLbEndpoints::default()
        })
    });
    wire.collect()
}

/// How far away an endpoint is: by labels, then by locality. Fewer is nearer.
type Rank = (usize, u8);

fn rank(endpoint: &Placed<'_>, failover: &Failover, place: &Place) -> Rank {
    // A label counts only when all before it are the same.
    let is_same = |label: &crate::model::PreferredLabel| {
        let wanted = label.value.as_deref().unwrap_or_else(|| place.label(&label.key));
        endpoint.label(&label.key) == wanted
    };
    let same = failover.labels.iter().take_while(|label| is_same(label)).count();
    let by_locality = match failover.is_by_locality() && !place.locality.is_empty() {
        true => distance(endpoint.locality, &place.locality, failover),
        false => 0,
    };
    (failover.labels.len() - same, by_locality)
}

fn distance(of: &Locality, from: &Locality, failover: &Failover) -> u8 {
    if of.region == from.region {
        return match (of.zone == from.zone, of.sub_zone == from.sub_zone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
    }
    match failover.regions.get(&from.region) {
        Some(next) if *next != of.region => 4,
        _ => 3,
    }
}

/// The weight of each locality; `None` for one that gets nothing. Where nothing is said of the caller's place, it is as if localities
/// did not count.
fn shares(
    groups: &BTreeMap<(u32, &Locality), Group>,
    distribution: Option<&Distribution>,
) -> Vec<Option<u32>> {
    let Some(distribution) = distribution else {
        return groups.values().map(|group| Some(group.weight)).collect();
    };
    let share = |(_, locality): &(u32, &Locality), group: &Group| {
        let (pattern, share) = distribution.to.iter().find(|(pattern, _)| pattern.has(locality))?;
        // Localities that share a word divide it by their own weights.
        let together: u64 = groups
            .iter()
            .filter(|((_, other), _)| pattern.has(other))
            .map(|(_, group)| u64::from(group.weight))
            .sum();
        let share = (u64::from(*share) * u64::from(group.weight)).div_ceil(together.max(1));
        u32::try_from(share).ok().filter(|share| *share > 0)
    };
    groups.iter().map(|(key, group)| share(key, group)).collect()
}

impl Placed<'_> {
    /// The value of one of its labels, or of what stands for one; empty when it has none.
    fn label(&self, key: &str) -> &str {
        let part = self.locality.label(key);
        let of_node = || self.node.filter(|_| key == HOSTNAME_LABEL);
        let own = || self.labels.get(key).map(String::as_str);
        part.or_else(of_node).or_else(own).unwrap_or_default()
    }
}
