//! Subsets: `lb_subset_config` of a cluster, the policy of the same content, and `metadata_match` of those who ask for one.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_xds_api::wire::cluster::v3::cluster::{LbSubsetConfig, lb_subset_config as wire};
use outrigger_xds_api::wire::core::v3::Metadata;
use outrigger_xds_api::wire::extensions::load_balancing_policies::subset::v3 as policy;
use outrigger_xds_api::wire::protobuf::Struct;

use super::cx::{CompileCx, Compiled, ignored};
use super::metadata::json_object;
use super::values;
use crate::cluster::lb::{Criteria, Fallback, Selector, SelectorFallback, Subsets, Values};
use crate::metadata::BALANCING;
use crate::stats::ClusterStats;

/// Compiles a field `metadata_match`, laid over what `parent` asks for: the route's, of a weighted cluster. `None`: there is nothing to
/// lay over it.
pub(super) fn compile_metadata_match(
    cx: &mut CompileCx<'_>,
    value: &Option<Metadata>,
    parent: Option<&Arc<Criteria>>,
) -> Option<Arc<Criteria>> {
    let Metadata { filter_metadata, typed_filter_metadata } = value.as_ref()?;
    cx.field("metadata_match", |cx| {
        ignored!(cx; typed_filter_metadata);
        for name in filter_metadata.keys().filter(|name| *name != BALANCING) {
            cx.ignored(&format!("filter_metadata[\"{name}\"]"));
        }
    });
    Criteria::new(values_of(filter_metadata.get(BALANCING)?), parent.map(|parent| &**parent))
}

/// Compiles `lb_subset_config`. As in Envoy, without a selector there are no subsets, whatever else it says.
pub(super) fn compile_subsets(
    cx: &mut CompileCx<'_>,
    value: &LbSubsetConfig,
    stats: &Arc<ClusterStats>,
) -> Compiled<Option<Arc<Subsets>>> {
    use wire::{LbSubsetFallbackPolicy, LbSubsetMetadataFallbackPolicy};
    let LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    } = value;
    let fallback = values::enumeration(cx, "fallback_policy", *fallback_policy);
    let metadata_fallback = values::enumeration::<LbSubsetMetadataFallbackPolicy>(
        cx,
        "metadata_fallback_policy",
        *metadata_fallback_policy,
    );
    let selectors = cx.each("subset_selectors", subset_selectors, compile_selector)?;
    let (fallback, metadata_fallback) = (fallback?, metadata_fallback?);
    if selectors.is_empty() {
        ignored!(cx; fallback_policy, default_subset, locality_weight_aware, scale_locality_weight, panic_mode_any,
            list_as_any, metadata_fallback_policy);
        return Ok(None);
    }
    if !locality_weight_aware {
        ignored!(cx; scale_locality_weight);
    }
    let mut subsets = Subsets {
        fallback: match fallback {
            LbSubsetFallbackPolicy::NoFallback => Fallback::Nothing,
            LbSubsetFallbackPolicy::AnyEndpoint => Fallback::Any,
            LbSubsetFallbackPolicy::DefaultSubset => Fallback::Default,
        },
        default_subset: default_subset.as_ref().map(values_of).unwrap_or_default(),
        selectors: Vec::new(),
        locality_weight_aware: *locality_weight_aware,
        scale_locality_weight: *scale_locality_weight,
        panic_mode_any: *panic_mode_any,
        list_as_any: *list_as_any,
        fallback_list: metadata_fallback == LbSubsetMetadataFallbackPolicy::FallbackList,
        allow_redundant_keys: false,
        stats: stats.clone(),
    };
    for selector in selectors {
        // As in Envoy, of selectors with the same keys the first one counts.
        if subsets.selectors.iter().all(|first| first.keys != selector.keys) {
            subsets.selectors.push(selector);
        }
    }
    Ok(Some(Arc::new(subsets)))
}

/// Compiles the policy `Subset`, but for the policy inside it.
pub(super) fn compile_subset_policy(
    cx: &mut CompileCx<'_>,
    value: policy::Subset,
    stats: &Arc<ClusterStats>,
) -> Compiled<Option<Arc<Subsets>>> {
    let policy::Subset {
        fallback_policy,
        default_subset,
        subset_selectors,
        allow_redundant_keys,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        subset_lb_policy: _,
    } = value;
    let legacy = LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors: subset_selectors.into_iter().map(legacy_selector).collect(),
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    };
    let subsets = compile_subsets(cx, &legacy, stats)?;
    Ok(subsets.map(|subsets| Arc::new(Subsets { allow_redundant_keys, ..Subsets::clone(&subsets) })))
}

/// The same under its older name; the numbers of the policies are the same.
fn legacy_selector(value: policy::subset::LbSubsetSelector) -> wire::LbSubsetSelector {
    let policy::subset::LbSubsetSelector {
        keys,
        single_host_per_subset,
        fallback_policy,
        fallback_keys_subset,
    } = value;
    wire::LbSubsetSelector { keys, single_host_per_subset, fallback_policy, fallback_keys_subset }
}

fn compile_selector(value: &wire::LbSubsetSelector, cx: &mut CompileCx<'_>) -> Compiled<Selector> {
    use wire::lb_subset_selector::LbSubsetSelectorFallbackPolicy as Policy;
    let wire::LbSubsetSelector { keys, single_host_per_subset, fallback_policy, fallback_keys_subset } =
        value;
    let names = |list: &[String]| list.iter().map(|key| Box::from(key.as_str())).collect::<BTreeSet<_>>();
    let (keys, fewer) = (names(keys), names(fallback_keys_subset));
    let policy = values::enumeration(cx, "fallback_policy", *fallback_policy)?;
    if policy != Policy::KeysSubset && !fewer.is_empty() {
        return Err(cx.refuse(
            "fallback_keys_subset",
            "fallback_keys_subset can be set only for KEYS_SUBSET fallback_policy",
        ));
    }
    let fallback = match policy {
        Policy::NotDefined => None,
        Policy::NoFallback => Some(SelectorFallback::To(Fallback::Nothing)),
        Policy::AnyEndpoint => Some(SelectorFallback::To(Fallback::Any)),
        Policy::DefaultSubset => Some(SelectorFallback::To(Fallback::Default)),
        Policy::KeysSubset => {
            let wrong = match () {
                () if fewer.is_empty() => Some("cannot be empty"),
                () if !fewer.is_subset(&keys) => Some("must be a subset of selector keys"),
                () if fewer == keys => Some("cannot be equal to keys"),
                () => None,
            };
            if let Some(wrong) = wrong {
                return Err(cx.refuse("fallback_keys_subset", format!("fallback_keys_subset {wrong}")));
            }
            Some(SelectorFallback::Keys(fewer))
        }
    };
    Ok(Selector { keys, fallback, single_host: *single_host_per_subset })
}

fn values_of(value: &Struct) -> Values {
    json_object(value).into_iter().map(|(key, value)| (key.into_boxed_str(), value)).collect()
}
