//! Endpoints (`envoy.config.endpoint.v3.ClusterLoadAssignment`).

use outrigger_xds_api::ResourceType;

/// See [`crate::resources::compile`].
pub(crate) fn fuzz(bytes: &[u8]) {
    crate::resources::compile(ResourceType::ClusterLoadAssignment, bytes);
}
