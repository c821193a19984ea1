//! Istio's kinds, unchanged, as far as they are supported.

mod destination_rule;
mod peer_authentication;

pub(super) use destination_rule::destination_rule;
pub(super) use peer_authentication::peer_authentication;
