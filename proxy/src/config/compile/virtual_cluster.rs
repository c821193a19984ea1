//! `virtual_clusters`.

use std::sync::Arc;

use outrigger_xds_api::wire::route::v3 as wire;

use super::cx::{CompileCx, Compiled};
use super::route_match::compile_header_matcher;
use crate::route::{VirtualCluster, VirtualClusters};

/// What Envoy calls the rest.
const OTHER: &str = "other";

/// Compiles those of the virtual host `host`; `None`: nothing is counted.
pub(crate) fn compile_virtual_clusters(
    cx: &mut CompileCx<'_>,
    host: &str,
    values: &[wire::VirtualCluster],
) -> Compiled<Option<Arc<VirtualClusters>>> {
    if values.is_empty() {
        return Ok(None);
    }
    let list = cx.each("virtual_clusters", values, |value, cx| {
        let wire::VirtualCluster { headers, name } = value;
        if name.is_empty() {
            cx.refuse("name", "value length must be at least 1 characters");
        }
        if headers.is_empty() {
            cx.refuse("headers", "virtual clusters must define 'headers'");
        }
        Ok(VirtualCluster {
            name: Some(name.as_str().into()),
            headers: cx.each("headers", headers, compile_header_matcher)?,
            stats: cx.inputs.stats.virtual_cluster(host, name),
        })
    })?;
    let stats = cx.inputs.stats.virtual_cluster(host, OTHER);
    Ok(Some(Arc::new(VirtualClusters {
        list,
        other: VirtualCluster { name: None, headers: Vec::new(), stats },
    })))
}
