//! The bootstrap of `outrigger-proxy sidecar`.
