//! Objects that are valid in themselves but point at something that is not there, or that others leave without effect. They
//! make no resources.

mod destinations;
mod policy;
mod precedence;
mod route;
mod service_entry;
mod traffic_policy;
mod virtual_service;
mod workload_entry;

use crate::model::Finding;
use crate::translate::{InputView, Output};

pub(crate) use policy::check_policy;
pub(crate) use route::check_route;
pub(crate) use service_entry::check_service_entry;
pub(crate) use traffic_policy::check_traffic_policy;
pub(crate) use virtual_service::check_virtual_service;
pub(crate) use workload_entry::{check_workload_entry, check_workload_group};

/// Whether the policies of a namespace are in force.
pub(crate) fn check_peer_authentications(view: &InputView<'_>, namespace: &str) -> Output {
    let mut output = Output::default();
    let policies = view.peer_authentications_in(namespace);
    for (number, policy) in policies.iter().enumerate() {
        // Oldest first: of equally specific ones the first decides alone.
        let Some(first) = policies[..number].iter().find(|first| first.selector == policy.selector) else {
            continue;
        };
        let field = if policy.selector.is_empty() { "spec" } else { "spec.selector" };
        let reason = format!("has no effect: PeerAuthentication {} is for the same workloads", first.name);
        output.problems.push(Finding::at(&policy.origin, field, reason));
    }
    output
}
