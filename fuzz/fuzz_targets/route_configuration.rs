//! Route configurations (`envoy.config.route.v3.RouteConfiguration`): virtual hosts, matches, actions, retries, filters' overrides.

use outrigger_xds_api::ResourceType;

/// See [`crate::resources::compile`].
pub(crate) fn fuzz(bytes: &[u8]) {
    crate::resources::compile(ResourceType::RouteConfiguration, bytes);
}
