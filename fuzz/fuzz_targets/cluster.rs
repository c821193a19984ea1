//! Clusters (`envoy.config.cluster.v3.Cluster`), with circuit breakers, outlier detection, protocol options and TLS contexts.

use outrigger_xds_api::ResourceType;

/// See [`crate::resources::compile`].
pub(crate) fn fuzz(bytes: &[u8]) {
    crate::resources::compile(ResourceType::Cluster, bytes);
}
