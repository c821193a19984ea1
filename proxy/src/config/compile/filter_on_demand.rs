//! `OnDemand` and its `PerRouteConfig`.

use std::time::Duration;

use outrigger_xds_api::wire::extensions::filters::http::on_demand::v3 as wire;

use super::cx::{CompileCx, Compiled, unsupported};
use super::source::{compile_config_source, is_incremental};
use super::values;
use crate::http::filters::{OnDemand, OnDemandClusters};
use crate::on_demand::Kind;

/// Envoy's default of `OnDemandCds.timeout`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Compiles what either message says, at the context's present path.
pub(crate) fn compile_on_demand(
    cx: &mut CompileCx<'_>,
    odcds: &Option<wire::OnDemandCds>,
) -> Compiled<OnDemand> {
    let clusters = match odcds {
        Some(odcds) => Some(cx.field("odcds", |cx| compile_clusters(cx, odcds))?),
        None => None,
    };
    Ok(OnDemand { clusters })
}

fn compile_clusters(cx: &mut CompileCx<'_>, value: &wire::OnDemandCds) -> Compiled<OnDemandClusters> {
    let wire::OnDemandCds { source, resources_locator, timeout } = value;
    // Collections of xDS federation.
    unsupported!(cx; resources_locator);
    let timeout = values::duration(cx, "timeout", timeout).unwrap_or(TIMEOUT);
    let fetch = compile_config_source(cx, "source", source)?;
    if !is_incremental(cx, fetch) {
        return Err(cx.refuse("source", "only a source of incremental xDS can be asked on demand"));
    }
    Ok(OnDemandClusters { asker: cx.inputs.on_demand.of(Kind::Cluster, fetch.source), timeout })
}
