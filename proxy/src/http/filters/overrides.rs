//! `typed_per_filter_config`: what route configurations, virtual hosts, routes and weighted clusters say to filters.

use std::sync::Arc;

use super::{Buffer, CorsPolicy, Fault, LocalRateLimit, Mutations, OnDemand};

/// By the name of the filter in its chain. Few, and only routes that say something have them.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<(Arc<str>, Override)>);

/// What is said to one filter.
#[derive(Debug, Clone)]
pub enum Override {
    /// `FilterConfig.disabled`, or the filter's own way to say it.
    Disabled,
    /// `Buffer`.
    Buffer(Buffer),
    /// `CorsPolicy`.
    Cors(Arc<CorsPolicy>),
    /// `HTTPFault`.
    Fault(Arc<Fault>),
    /// `HeaderMutationPerRoute` of every place that has one, the least specific first.
    HeaderMutation(Vec<Arc<Mutations>>),
    /// `LocalRateLimit`.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `on_demand.v3.PerRouteConfig`.
    OnDemand(Arc<OnDemand>),
}

impl Overrides {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is said to the filter of this name.
    pub fn get(&self, name: &str) -> Option<&Override> {
        self.0.iter().find(|(n, _)| **n == *name).map(|(_, said)| said)
    }

    /// Whether a filter is told to ask for clusters that are not known.
    pub fn ask_for_clusters(&self) -> bool {
        self.0.iter().any(|(_, said)| matches!(said, Override::OnDemand(said) if said.clusters.is_some()))
    }

    /// Adds what a more specific place says: it wins, but for filters that take what all places say.
    pub fn add(&mut self, name: Arc<str>, said: Override) {
        let Some((_, before)) = self.0.iter_mut().find(|(n, _)| *n == name) else {
            self.0.push((name, said));
            return;
        };
        *before = match (&*before, said) {
            (Override::Cors(less), Override::Cors(more)) => Override::Cors(Arc::new(more.or(less))),
            (Override::HeaderMutation(less), Override::HeaderMutation(more)) => {
                Override::HeaderMutation(less.iter().cloned().chain(more).collect())
            }
            (_, said) => said,
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_more_specific_place_wins() {
        let mut overrides = Overrides::default();
        overrides.add("a".into(), Override::Disabled);
        overrides.add("a".into(), Override::Buffer(Buffer { max_bytes: 1 }));
        assert!(matches!(overrides.get("a").unwrap(), Override::Buffer(_)));
        assert!(overrides.get("b").is_none());
        let mutations = || Override::HeaderMutation(vec![Arc::default()]);
        overrides.add("m".into(), mutations());
        overrides.add("m".into(), mutations());
        assert!(matches!(overrides.get("m").unwrap(), Override::HeaderMutation(all) if all.len() == 2));
    }
}
