//! Istio's kinds, unchanged, as far as they are supported.

mod destination_rule;
mod hosts;
mod peer_authentication;
mod service_entry;
mod virtual_service;
mod workload_entry;
mod workload_group;

pub(super) use destination_rule::destination_rule;
pub(super) use peer_authentication::peer_authentication;
pub(super) use service_entry::service_entry;
pub(super) use virtual_service::virtual_service;
pub(super) use workload_entry::workload_entry;
pub(super) use workload_group::workload_group;
