//! `FilterConfig` of the filter `grpc_stats`.

use outrigger_xds_api::wire::core::v3::{GrpcMethodList, grpc_method_list::Service};
use outrigger_xds_api::wire::extensions::filters::http::grpc_stats::v3 as wire;
use rustc_hash::FxHashMap;

use super::cx::{CompileCx, Compiled, ignored, unsupported};
use crate::http::filters::{CountedMethods, GrpcCounting};
use crate::stats::GrpcMethod;

/// Compiles the `FilterConfig` of `grpc_stats`, at the context's present path.
pub(crate) fn compile_grpc_stats(
    cx: &mut CompileCx<'_>,
    value: &wire::FilterConfig,
) -> Compiled<GrpcCounting> {
    use wire::filter_config::PerMethodStatSpecifier as Specifier;
    let wire::FilterConfig {
        emit_filter_state,
        enable_upstream_stats,
        replace_dots_in_grpc_service_name,
        per_method_stat_specifier,
    } = value;
    // Nothing here reads filter state.
    unsupported!(cx; emit_filter_state);
    let methods = match per_method_stat_specifier {
        Some(Specifier::StatsForAllMethods(all)) if all.value => {
            CountedMethods::All { replace_dots: *replace_dots_in_grpc_service_name }
        }
        other => {
            // Envoy replaces them only for methods that no list names.
            ignored!(cx; replace_dots_in_grpc_service_name);
            match other {
                Some(Specifier::IndividualMethodStatsAllowlist(list)) => {
                    cx.field("individual_method_stats_allowlist", |cx| compile_list(cx, list))?
                }
                _ => CountedMethods::Listed(FxHashMap::default()),
            }
        }
    };
    Ok(GrpcCounting { methods, upstream_stats: *enable_upstream_stats })
}

fn compile_list(cx: &mut CompileCx<'_>, list: &GrpcMethodList) -> Compiled<CountedMethods> {
    let GrpcMethodList { services } = list;
    let mut listed: FxHashMap<Box<str>, FxHashMap<Box<str>, GrpcMethod>> = FxHashMap::default();
    cx.each("services", services, |service, cx| {
        let Service { name, method_names } = service;
        if name.is_empty() {
            return Err(cx.refuse("name", "value length must be at least 1 characters"));
        }
        if method_names.is_empty() {
            return Err(cx.refuse("method_names", "value must contain at least 1 item(s)"));
        }
        let methods = listed.entry(name.as_str().into()).or_default();
        methods.extend(method_names.iter().map(|m| (m.as_str().into(), GrpcMethod::new(name, m))));
        Ok(())
    })?;
    Ok(CountedMethods::Listed(listed))
}
