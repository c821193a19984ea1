//! What neither API of routing rules can say: limits of requests, changes of queries, budgets of retries and when they come, and
//! how endpoints are treated (a TrafficPolicy).
//!
//! A policy is attached to Services or routes of its own namespace, as a whole or by a section: a port of the Service, a rule of
//! the route. For one and the same target and section the oldest policy counts alone, then the first by name. What the policy
//! of a section does not say, that of the whole does (GEP-713, GEP-2648).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    DestinationSettings, FailurePercentage, HealthCheck, LoadBalancing, Name, OutlierDetection, RouteKind,
    StatusRange, SuccessRate,
};
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
    /// The part that counts for a section of an object, which may have no name: of its policy, else of that of the object as a whole.
    /// `policies` are those of the object, oldest first.
    pub fn said<'a, T>(
        policies: &[&'a Arc<Self>],
        object: &TargetKey,
        section: &str,
        part: impl Fn(&'a TrafficSettings) -> Option<&'a T>,
    ) -> Option<(&'a T, &'a Self)> {
        let section = Some(section).filter(|section| !section.is_empty());
        let sections = section.map(Some).into_iter().chain([None]);
        let mut in_force = sections.filter_map(|section| Self::in_force(policies, object, section));
        in_force.find_map(|policy| Some((part(&policy.settings)?, policy.as_ref())))
    }

    /// Changes how the endpoints of a Service's port are treated, as far as a policy says so. `policies` are the Service's, oldest first.
    pub(super) fn shape(
        policies: &[&Arc<Self>],
        service: &TargetKey,
        port: &str,
        settings: &mut DestinationSettings,
    ) {
        if let Some((ejection, _)) = Self::said(policies, service, port, |said| said.ejection.as_ref()) {
            settings.outlier_detection = Some(ejection.over(settings.outlier_detection.as_ref()));
        }
        if let Some((balancing, _)) = Self::said(policies, service, port, |said| said.load_balancing.as_ref())
        {
            settings.load_balancing = Some(balancing.clone());
        }
        if let Some((percent, _)) = Self::said(policies, service, port, |said| said.panic_percent.as_ref()) {
            settings.panic_percent = Some(*percent);
        }
        if let Some((check, _)) = Self::said(policies, service, port, |said| said.health_check.as_ref()) {
            settings.health_check = Some(check.clone());
        }
        if let Some((limit, _)) =
            Self::said(policies, service, port, |said| said.connections_per_endpoint.as_ref())
        {
            settings.connection_pool.max_connections_per_endpoint = Some(*limit);
        }
    }

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
    /// When endpoints are taken out.
    pub ejection: Option<Ejection>,
    /// How endpoints that were taken out come back.
    pub readmission: Option<Readmission>,
    /// How an endpoint is chosen.
    pub load_balancing: Option<LoadBalancing>,
    /// With less than this share of healthy endpoints all are used, in percent; 0: never.
    pub panic_percent: Option<u32>,
    /// How endpoints are asked whether they are well.
    pub health_check: Option<HealthCheck>,
    /// Connections of one client to each endpoint at a time.
    pub connections_per_endpoint: Option<u32>,
}

impl TrafficSettings {
    /// Whether it says something of requests, not of endpoints alone.
    pub fn is_about_requests(&self) -> bool {
        self.rate_limit.is_some()
            || self.query_parameters.is_some()
            || self.retry_budget.is_some()
            || self.retry_after.is_some()
    }
}

/// When endpoints are taken out; what is not said is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ejection {
    /// So many failures in a row; 0: none do.
    pub consecutive_errors: Option<u32>,
    /// How often rates are looked at and endpoints may come back.
    pub interval: Option<Duration>,
    /// How long the first time out lasts; the n-th lasts n times as long.
    pub base_ejection_time: Option<Duration>,
    /// At most this share of the endpoints is out, in percent.
    pub max_ejection_percent: Option<u32>,
    /// The responses that are failures.
    pub failures: Option<Vec<StatusRange>>,
    /// Those whose rate is far below that of the others are taken out.
    pub success_rate: Option<SuccessRate>,
    /// Those of whose requests too many fail are taken out.
    pub failure_percentage: Option<FailurePercentage>,
}

impl Ejection {
    /// What destination policies say together with this. Where they say nothing, this alone takes endpoints out, up to half of them.
    pub fn over(&self, rule: Option<&OutlierDetection>) -> OutlierDetection {
        let alone = || OutlierDetection { max_ejection_percent: 50, ..OutlierDetection::default() };
        let mut together = rule.cloned().unwrap_or_else(alone);
        let Self {
            consecutive_errors,
            interval,
            base_ejection_time,
            max_ejection_percent,
            failures,
            success_rate,
            failure_percentage,
        } = self;
        set(&mut together.consecutive_5xx, consecutive_errors);
        set(&mut together.interval, interval);
        set(&mut together.base_ejection_time, base_ejection_time);
        set(&mut together.max_ejection_percent, max_ejection_percent);
        set(&mut together.failures, failures);
        together.success_rate = *success_rate;
        together.failure_percentage = *failure_percentage;
        together
    }
}

fn set<T: Clone>(value: &mut T, said: &Option<T>) {
    if let Some(said) = said {
        value.clone_from(said);
    }
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
    /// Its active health check, which runs only while it is out.
    Check,
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
