//! Listeners (`envoy.config.listener.v3.Listener`), with all that is in them: filter chains, connection managers, TLS contexts, access logs.

use outrigger_xds_api::ResourceType;

/// See [`crate::resources::compile`].
pub(crate) fn fuzz(bytes: &[u8]) {
    crate::resources::compile(ResourceType::Listener, bytes);
}
