//! What neither API of routing rules can say: limits of requests, changes of queries, budgets of retries and when they come, and
//! how endpoints come back that were taken out (a TrafficPolicy).
//!
//! A policy is attached to Services or routes of its own namespace, as a whole or by a section: a port of the Service, a rule of
//! the route. For one and the same target and section the oldest policy counts alone, then the first by name. What the policy
//! of a section does not say, that of the whole does (GEP-713, GEP-2648).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Name, RouteKind};
use crate::source::Origin;

/// A TrafficPolicy.
#[derive(Debug)]
pub struct TrafficPolicy {
    /// Its name.
    pub name: Name,
    /// What it is attached to.
    pub targets: Vec<PolicyTarget>,
    /// What it says.
    pub settings: TrafficSettings,
    /// `metadata.creationTimestamp`, or empty. The oldest policy for a target counts.
    pub created: String,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

impl TrafficPolicy {
    /// The one of `policies`, oldest first, that counts for a target, or for a section of it.
    pub fn in_force<'a>(
        policies: &[&'a Arc<Self>],
        object: &TargetKey,
        section: Option<&str>,
    ) -> Option<&'a Arc<Self>> {
        let is_for = |target: &PolicyTarget| target.object == *object && target.section.as_deref() == section;
        policies.iter().find(|policy| policy.targets.iter().any(is_for)).copied()
    }
}

/// What a policy is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTarget {
    /// The object.
    pub object: TargetKey,
    /// Only the port of this name, or the rule.
    pub section: Option<String>,
    /// Path of the field, for findings.
    pub field: String,
}

/// An object that policies can be attached to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKey {
    /// Its kind.
    pub kind: TargetKind,
    /// Its name.
    pub name: Name,
}

impl TargetKey {
    /// A Service.
    pub fn service(name: &Name) -> Self {
        Self { kind: TargetKind::Service, name: name.clone() }
    }

    /// A route of the Gateway API.
    pub fn route(kind: RouteKind, name: &Name) -> Self {
        Self { kind: TargetKind::Route(kind), name: name.clone() }
    }

    /// A VirtualService.
    pub fn virtual_service(name: &Name) -> Self {
        Self { kind: TargetKind::VirtualService, name: name.clone() }
    }
}

impl fmt::Display for TargetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            TargetKind::Service => "Service",
            TargetKind::Route(kind) => kind.name(),
            TargetKind::VirtualService => "VirtualService",
        };
        write!(f, "{kind} {}", self.name)
    }
}

/// A kind of objects that policies can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetKind {
    /// Service: all its callers.
    Service,
    /// HTTPRoute or GRPCRoute: the callers that follow it.
    Route(RouteKind),
    /// VirtualService, likewise.
    VirtualService,
}

/// What a policy says. To grow: one field for each part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficSettings {
    /// How many requests are let through.
    pub rate_limit: Option<RateLimit>,
    /// Changes of the query.
    pub query_parameters: Option<QueryParameters>,
    /// How many requests may be retries.
    pub retry_budget: Option<RetryBudget>,
    /// That responses say when to try again.
    pub retry_after: Option<RetryAfter>,
    /// How endpoints that were taken out come back.
    pub readmission: Option<Readmission>,
}

/// How an endpoint comes back that was taken out; at least one part is other than usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readmission {
    /// What decides.
    pub by: ReadmissionBy,
    /// For so long it gets more and more requests, instead of all at once.
    pub ramp: Option<Duration>,
}

/// What decides that an endpoint is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadmissionBy {
    /// Its time.
    Time,
    /// A request that is let to it.
    Probe,
}

/// A bucket of tokens, one for each request, that fills evenly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// So many requests ...
    pub requests: u32,
    /// ... in so long.
    pub interval: Duration,
    /// Requests that may come at once after a pause.
    pub burst: u32,
    /// Who shares a bucket.
    pub per: LimitPer,
    /// Status of the answer to the others, 400 to 511.
    pub status: u16,
}

/// Who shares a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitPer {
    /// All requests through one sidecar.
    Instance,
    /// Those of one caller, by the identity that its certificate proves.
    Caller,
}

/// Changes of the query, in this order. A name is in one of the lists only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryParameters {
    /// They get this value, whatever they had.
    pub set: Vec<(String, String)>,
    /// They get this value too.
    pub add: Vec<(String, String)>,
    /// They are taken away.
    pub remove: Vec<String>,
}

/// How many of the requests in flight may be retries, in each client for each port of the Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// This share, in percent.
    pub percent: u32,
    /// So many always.
    pub min_retry_concurrency: u32,
}

/// A response that is tried again says when, by its header Retry-After.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter {
    /// What asks for more is passed over.
    pub max_interval: Duration,
}
