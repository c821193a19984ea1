//! Subsets of a cluster's hosts by their metadata (`lb_subset_config`), for routes that ask for some of it (`metadata_match`).
//!
//! `criteria`: what a route asks for. `index`: which hosts are in which subset; made when the hosts are others. `plan`: what a pick
//! does for these criteria. The tables of a subset are like those of a whole cluster, and made with them whenever the health of a host
//! changes. What is to be done for a route's criteria is worked out once for each index and kept with the criteria: a pick reads it.

mod criteria;
mod index;
mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use criteria::{Criteria, Values};
pub(in crate::cluster) use index::SubsetIndex;
use plan::Step;

use super::tables::{Tables, Tier};
use super::{Context, Pool, pick_in};
use crate::cluster::{Cluster, EndpointSet, Host};
use crate::stats::ClusterStats;

/// `Cluster.lb_subset_config`, or the policy `envoy.extensions.load_balancing_policies.subset.v3.Subset`; at least one selector.
#[derive(Debug, Clone)]
pub struct Subsets {
    /// `fallback_policy`: for requests that ask for no subset that there is.
    pub fallback: Fallback,
    /// `default_subset`.
    pub default_subset: Values,
    /// `subset_selectors`, in order; each set of keys once.
    pub selectors: Vec<Selector>,
    /// `locality_weight_aware`: a subset's localities have the weights of the cluster's; else they have none.
    pub locality_weight_aware: bool,
    /// `scale_locality_weight`: less so the fewer of the locality's hosts are in the subset.
    pub scale_locality_weight: bool,
    /// `panic_mode_any`: when what `fallback` says has no host, any will do.
    pub panic_mode_any: bool,
    /// `list_as_any`: a host whose value is a list has each of its elements as value.
    pub list_as_any: bool,
    /// `metadata_fallback_policy: FALLBACK_LIST`.
    pub fallback_list: bool,
    /// `allow_redundant_keys` of the policy: keys of no selector do not keep a request from its subset.
    pub allow_redundant_keys: bool,
    /// `lb_subsets_*` of the cluster.
    pub stats: Arc<ClusterStats>,
}

impl PartialEq for Subsets {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            fallback,
            default_subset,
            selectors,
            locality_weight_aware,
            scale_locality_weight,
            panic_mode_any,
            list_as_any,
            fallback_list,
            allow_redundant_keys,
            stats: _,
        } = self;
        *fallback == other.fallback
            && *default_subset == other.default_subset
            && *selectors == other.selectors
            && *locality_weight_aware == other.locality_weight_aware
            && *scale_locality_weight == other.scale_locality_weight
            && *panic_mode_any == other.panic_mode_any
            && *list_as_any == other.list_as_any
            && *fallback_list == other.fallback_list
            && *allow_redundant_keys == other.allow_redundant_keys
    }
}

/// `LbSubsetFallbackPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fallback {
    /// `NO_FALLBACK`: there is no host.
    #[default]
    Nothing,
    /// `ANY_ENDPOINT`.
    Any,
    /// `DEFAULT_SUBSET`.
    Default,
}

/// `LbSubsetSelector`: there is a subset for all values of these keys together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// `keys`.
    pub keys: BTreeSet<Box<str>>,
    /// `fallback_policy`; `None`: that of the cluster.
    pub fallback: Option<SelectorFallback>,
    /// `single_host_per_subset`: the first host alone, however it is.
    pub single_host: bool,
}

/// `LbSubsetSelectorFallbackPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorFallback {
    /// The same as for the cluster.
    To(Fallback),
    /// `KEYS_SUBSET`: as if the request had asked for these keys only, which are fewer.
    Keys(BTreeSet<Box<str>>),
}

/// The subsets with what picks read.
#[derive(Debug)]
pub(in crate::cluster) struct SubsetTables {
    pub(in crate::cluster) index: Arc<SubsetIndex>,
    /// In the order of the index.
    pub(super) tiers: Vec<Vec<Tier>>,
}

/// A host for what the context asks for: of its subset, else of what is said for requests without one.
pub(super) fn pick(
    cluster: &Cluster,
    set: &EndpointSet,
    tables: &Tables,
    subsets: &SubsetTables,
    context: Context<'_>,
) -> Option<Arc<Host>> {
    let pool_of = |fallback| subsets.fallback(set, tables, fallback);
    let stats = cluster.stats.subsets.counted();
    (0..).map_while(|at| subsets.step(context.criteria, at)).find_map(|step| match step {
        Step::Subset(number) => {
            stats.lb_subsets_selected.inc();
            match subsets.index.groups[number].is_single {
                true => subsets.index.groups[number].hosts().next().cloned(),
                false => pick_in(cluster, &subsets.pool(tables, number), context),
            }
        }
        Step::Selector(fallback) => pick_in(cluster, &pool_of(fallback)?, context),
        Step::Cluster => {
            let config = &subsets.index.subsets;
            let picked = pick_in(cluster, &pool_of(config.fallback)?, context);
            if picked.is_some() {
                stats.lb_subsets_fallback.inc();
            }
            picked.or_else(|| {
                let any = config.panic_mode_any.then(|| Pool::all(set, tables))?;
                let host = pick_in(cluster, &any, context)?;
                stats.lb_subsets_fallback_panic.inc();
                Some(host)
            })
        }
    })
}

/// The hosts that are tried first for these criteria.
pub(super) fn first_pool<'a>(
    set: &'a EndpointSet,
    tables: &'a Tables,
    subsets: &'a SubsetTables,
    criteria: Option<&Criteria>,
) -> Option<Pool<'a>> {
    match subsets.step(criteria, 0)? {
        Step::Subset(number) => Some(subsets.pool(tables, number)),
        Step::Selector(fallback) => subsets.fallback(set, tables, fallback),
        Step::Cluster => subsets.fallback(set, tables, subsets.index.subsets.fallback),
    }
}

impl SubsetTables {
    fn step(&self, criteria: Option<&Criteria>, at: usize) -> Option<Step> {
        match criteria {
            Some(criteria) => criteria.step(&self.index, at),
            None => (at == 0).then_some(Step::Cluster),
        }
    }

    fn pool<'a>(&'a self, tables: &'a Tables, number: usize) -> Pool<'a> {
        Pool {
            tiers: &self.tiers[number],
            priorities: &self.index.groups[number].priorities,
            balancing: &tables.balancing,
        }
    }

    /// `None`: there are no hosts for such requests.
    fn fallback<'a>(
        &'a self,
        set: &'a EndpointSet,
        tables: &'a Tables,
        fallback: Fallback,
    ) -> Option<Pool<'a>> {
        match fallback {
            Fallback::Nothing => None,
            Fallback::Any => Some(Pool::all(set, tables)),
            Fallback::Default => self.index.default.map(|number| self.pool(tables, number)),
        }
    }
}

#[cfg(test)]
mod tests;
