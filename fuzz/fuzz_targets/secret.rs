//! Secrets (`envoy.extensions.transport_sockets.tls.v3.Secret`): certificates, keys and roots in PEM.

use outrigger_xds_api::ResourceType;

/// See [`crate::resources::compile`].
pub(crate) fn fuzz(bytes: &[u8]) {
    crate::resources::compile(ResourceType::Secret, bytes);
}
