//! Which hosts are in which subset. Made on main, when the hosts or what the cluster says of subsets are others; health has no part in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value};

use super::criteria::Values;
use super::{Fallback, Selector, SelectorFallback, Subsets};
use crate::cluster::Host;
use crate::cluster::endpoint_set::{LocalityHosts, Priority};
use crate::metadata::BALANCING;
use crate::stats::SubsetStats;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// All subsets of one endpoint set.
#[derive(Debug)]
pub(in crate::cluster) struct SubsetIndex {
    /// Unique in the process.
    pub(super) id: u64,
    pub(super) subsets: Arc<Subsets>,
    /// The numbers of subsets by the values that make them, as `key` writes them.
    pub(super) by_values: FxHashMap<Box<str>, usize>,
    /// The number of the default subset, where it is used; no value leads there.
    pub(in crate::cluster::lb) default: Option<usize>,
    pub(in crate::cluster::lb) groups: Vec<Group>,
    /// Hosts left out of subsets of a single host.
    duplicates: usize,
}

/// The hosts of one subset.
#[derive(Debug)]
pub(in crate::cluster::lb) struct Group {
    /// As many as the cluster has; some without hosts.
    pub(in crate::cluster::lb) priorities: Vec<Priority>,
    /// The first host alone, however it is.
    pub(in crate::cluster::lb) is_single: bool,
}

/// Some values as one text: the same for the same values only.
pub(super) fn key(values: &Values) -> String {
    let fields: Map<String, Value> =
        values.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
    Value::Object(fields).to_string()
}

/// Hosts of each priority.
type Chosen = Vec<Vec<Arc<Host>>>;

impl SubsetIndex {
    pub(in crate::cluster) fn build(priorities: &[Priority], subsets: &Arc<Subsets>) -> Self {
        let mut by_values = FxHashMap::default();
        let mut chosen: Vec<(Chosen, bool)> = Vec::new();
        let mut duplicates = 0;
        for (number, host) in each(priorities) {
            let metadata = host.metadata.load();
            let Some(fields) = metadata.as_ref().and_then(|m| m.find(BALANCING, &[])?.as_object()) else {
                continue;
            };
            for selector in &subsets.selectors {
                for values in values_of(fields, selector, subsets.list_as_any) {
                    let next = chosen.len();
                    let index = *by_values.entry(key(&values).into_boxed_str()).or_insert(next);
                    if index == next {
                        chosen.push((vec![Vec::new(); priorities.len()], selector.single_host));
                    }
                    let (chosen, is_single) = &mut chosen[index];
                    let hosts = &mut chosen[number];
                    match hosts.last() {
                        // The same value twice in a list.
                        Some(last) if Arc::ptr_eq(last, host) => {}
                        Some(_) if *is_single => duplicates += 1,
                        _ => hosts.push(host.clone()),
                    }
                }
            }
        }
        let default = subsets.uses_default().then_some(chosen.len());
        if default.is_some() {
            let mut hosts: Chosen = vec![Vec::new(); priorities.len()];
            each(priorities)
                .filter(|(_, host)| subsets.is_default(host))
                .for_each(|(number, host)| hosts[number].push(host.clone()));
            chosen.push((hosts, false));
        }
        let group = |(hosts, is_single)| Group { priorities: parts(priorities, hosts, subsets), is_single };
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            subsets: subsets.clone(),
            by_values,
            default,
            groups: chosen.into_iter().map(group).collect(),
            duplicates,
        }
    }

    /// Counts which subsets are new and which are gone, when `new` comes after `old`.
    pub(in crate::cluster) fn count(old: Option<&Self>, new: Option<&Self>) {
        let Some(stats) = new.or(old).map(|index| &index.subsets.stats) else { return };
        let stats: &SubsetStats = stats.subsets.counted();
        let more = |one: Option<&Self>, other: Option<&Self>| {
            let is_there = |key: &str| other.is_some_and(|other| other.by_values.contains_key(key));
            one.map_or(0, |one| one.by_values.keys().filter(|key| !is_there(key)).count())
        };
        let (created, removed) = (more(new, old), more(old, new));
        stats.lb_subsets_created.inc_by(created as u64);
        stats.lb_subsets_removed.inc_by(removed as u64);
        stats.lb_subsets_active.add(created as i64 - removed as i64);
        let duplicates = new.map_or(0, |new| new.duplicates);
        stats.lb_subsets_single_host_per_subset_duplicate.set(duplicates as i64);
    }
}

impl Group {
    pub(in crate::cluster::lb) fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.priorities.iter().flat_map(|priority| &priority.hosts)
    }
}

impl Subsets {
    fn uses_default(&self) -> bool {
        let to_default =
            |selector: &Selector| matches!(selector.fallback, Some(SelectorFallback::To(Fallback::Default)));
        self.fallback == Fallback::Default || self.selectors.iter().any(to_default)
    }

    /// Whether the host has all that the default subset asks for.
    fn is_default(&self, host: &Host) -> bool {
        let metadata = host.metadata.load();
        self.default_subset.iter().all(|(key, wanted)| {
            let value = metadata.as_ref().and_then(|m| m.find(BALANCING, std::slice::from_ref(key)));
            value.is_some_and(|value| match value.as_array() {
                Some(list) if self.list_as_any => list.contains(wanted),
                _ => value == wanted,
            })
        })
    }
}

/// Every host, with the number of its priority.
fn each(priorities: &[Priority]) -> impl Iterator<Item = (usize, &Arc<Host>)> {
    let priorities = priorities.iter().enumerate();
    priorities.flat_map(|(number, priority)| priority.hosts.iter().map(move |host| (number, host)))
}

/// All that a host has for the keys of a selector: nothing when it lacks one; more than one when a list counts as any of its elements.
fn values_of(fields: &Map<String, Value>, selector: &Selector, list_as_any: bool) -> Vec<Values> {
    let mut all = vec![Values::new()];
    for key in &selector.keys {
        let Some(value) = fields.get(&**key) else { return Vec::new() };
        let elements = match value.as_array() {
            Some(list) if list_as_any => list.as_slice(),
            _ => std::slice::from_ref(value),
        };
        let with = |values: &Values, element: &Value| {
            let mut values = values.clone();
            values.insert(key.clone(), element.clone());
            values
        };
        all = all.iter().flat_map(|values| elements.iter().map(move |one| with(values, one))).collect();
    }
    all.retain(|values| !values.is_empty());
    all
}

/// The priorities of a cluster with these hosts only.
fn parts(priorities: &[Priority], hosts: Chosen, subsets: &Subsets) -> Vec<Priority> {
    let part = |(priority, hosts): (&Priority, Vec<Arc<Host>>)| {
        let ids: FxHashSet<u64> = hosts.iter().map(|host| host.id).collect();
        let localities = priority.localities.iter().map(|locality| {
            let all = locality.hosts.len();
            let hosts: Vec<Arc<Host>> =
                locality.hosts.iter().filter(|host| ids.contains(&host.id)).cloned().collect();
            let weight = match subsets.scale_locality_weight {
                true => scaled(locality.weight, hosts.len(), all),
                false => locality.weight,
            };
            LocalityHosts { locality: locality.locality.clone(), weight, hosts }
        });
        Priority { localities: localities.collect(), hosts }
    };
    priorities.iter().zip(hosts).map(part).collect()
}

fn scaled(weight: u32, some: usize, all: usize) -> u32 {
    (f64::from(weight) * some as f64 / all.max(1) as f64).round() as u32
}
