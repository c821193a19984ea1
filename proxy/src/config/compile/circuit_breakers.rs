//! `CircuitBreakers`.

use outrigger_xds_api::wire::cluster::v3 as wire;
use outrigger_xds_api::wire::core::v3::RoutingPriority;

use super::cx::{CompileCx, Compiled, ignored, unsupported};
use super::values::{self, uint32};
use crate::cluster::{RetryBudget, Thresholds};

/// Compiles the thresholds of the two priorities: (default, high).
pub(crate) fn compile_circuit_breakers(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::CircuitBreakers>,
) -> Compiled<(Thresholds, Thresholds)> {
    let (mut default, mut high) = (Thresholds::default(), Thresholds::default());
    let Some(wire::CircuitBreakers { thresholds, per_host_thresholds }) = value else {
        return Ok((default, high));
    };
    let thresholds = cx.each("thresholds", thresholds, compile_thresholds);
    let per_host = cx.each("per_host_thresholds", per_host_thresholds, compile_per_host);
    let (thresholds, per_host) = (thresholds?, per_host?);
    // The first entry of a priority counts, as in Envoy.
    for (priority, thresholds) in thresholds.into_iter().rev() {
        match priority {
            RoutingPriority::Default => default = thresholds,
            RoutingPriority::High => high = thresholds,
        }
    }
    for (priority, max_connections) in per_host.into_iter().rev() {
        match priority {
            RoutingPriority::Default => default.max_connections_per_host = max_connections,
            RoutingPriority::High => high.max_connections_per_host = max_connections,
        }
    }
    Ok((default, high))
}

/// Limits of each host: as in Envoy of its connections only.
fn compile_per_host(
    value: &wire::circuit_breakers::Thresholds,
    cx: &mut CompileCx<'_>,
) -> Compiled<(RoutingPriority, u32)> {
    let wire::circuit_breakers::Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = value;
    unsupported!(cx; max_pending_requests, max_requests, max_retries, retry_budget, max_connection_pools);
    // As in Envoy, which has no such gauges for hosts.
    ignored!(cx; track_remaining);
    Ok((values::enumeration(cx, "priority", *priority)?, uint32(max_connections, u32::MAX)))
}

fn compile_thresholds(
    value: &wire::circuit_breakers::Thresholds,
    cx: &mut CompileCx<'_>,
) -> Compiled<(RoutingPriority, Thresholds)> {
    let wire::circuit_breakers::Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = value;
    // Pools are counted per worker.
    ignored!(cx; max_connection_pools);
    let retry_budget = match retry_budget {
        Some(budget) => cx.field("retry_budget", |cx| compile_retry_budget(cx, budget)).map(Some),
        None => Ok(None),
    };
    let defaults = Thresholds::default();
    let priority = values::enumeration(cx, "priority", *priority)?;
    Ok((
        priority,
        Thresholds {
            max_connections: uint32(max_connections, defaults.max_connections),
            max_pending_requests: uint32(max_pending_requests, defaults.max_pending_requests),
            max_requests: uint32(max_requests, defaults.max_requests),
            max_retries: uint32(max_retries, defaults.max_retries),
            retry_budget: retry_budget?,
            max_connections_per_host: defaults.max_connections_per_host,
            track_remaining: *track_remaining,
        },
    ))
}

/// Envoy's defaults of a retry budget.
const BUDGET_PERCENT: f64 = 20.0;
const MIN_RETRY_CONCURRENCY: u32 = 3;

fn compile_retry_budget(
    cx: &mut CompileCx<'_>,
    value: &wire::circuit_breakers::thresholds::RetryBudget,
) -> Compiled<RetryBudget> {
    let wire::circuit_breakers::thresholds::RetryBudget {
        budget_percent,
        min_retry_concurrency,
        budget_interval,
    } = value;
    // Requests that ended a while ago do not count for the share here.
    unsupported!(cx; budget_interval);
    let percent = budget_percent.as_ref().map_or(BUDGET_PERCENT, |percent| percent.value);
    if !(0.0..=100.0).contains(&percent) {
        return Err(cx.refuse("budget_percent.value", "value must be inside range [0, 100]"));
    }
    Ok(RetryBudget {
        share_ppm: (percent * 10_000.0) as u32,
        min: uint32(min_retry_concurrency, MIN_RETRY_CONCURRENCY),
    })
}
