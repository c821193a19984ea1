//! `HealthCheck`, the filter.

use std::time::{Duration, Instant};

use outrigger_xds_api::wire::extensions::filters::http::health_check::v3 as wire;

use super::cx::{CompileCx, Compiled};
use super::route_match::compile_header_matcher;
use super::values;
use crate::http::filters::{AnswerCache, HealthCheck};

/// Compiles a `HealthCheck`, at the context's present path.
pub(crate) fn compile_health_check(
    cx: &mut CompileCx<'_>,
    value: &wire::HealthCheck,
) -> Compiled<HealthCheck> {
    let wire::HealthCheck { pass_through_mode, cache_time, cluster_min_healthy_percentages, headers } = value;
    let Some(pass_through) = pass_through_mode.as_ref().map(|mode| mode.value) else {
        return Err(cx.refuse("pass_through_mode", "value is required"));
    };
    let cache_time =
        values::duration(cx, "cache_time", cache_time).filter(|t| *t >= Duration::from_millis(1));
    if !pass_through && cache_time.is_some() {
        cx.refuse("cache_time", "cache_time_ms must not be set when path_through_mode is disabled");
    }
    let headers = cx.each("headers", headers, compile_header_matcher)?;
    let mut clusters: Vec<_> = cluster_min_healthy_percentages.iter().collect();
    clusters.sort_by_key(|(name, _)| *name);
    let clusters = match pass_through {
        // The upstream is asked, not its cluster.
        true => Vec::new(),
        // A cluster that does not exist fails the health check rather than the configuration.
        false => clusters
            .into_iter()
            .map(|(name, percent)| {
                let field = format!("cluster_min_healthy_percentages[\"{name}\"]");
                let percent = values::percent(cx, &field, percent.value)?;
                Ok((cx.inputs.registry.judged_cluster(name), percent.into()))
            })
            .collect::<Compiled<_>>()?,
    };
    let service_cluster = cx.inputs.service_cluster.clone();
    Ok(HealthCheck {
        headers: headers.into(),
        pass_through,
        cache: cache_time.map(|interval| AnswerCache::new(interval, Instant::now())),
        clusters: clusters.into(),
        service_cluster: values::header_value(cx, "", &service_cluster)?,
    })
}
