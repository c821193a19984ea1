//! What traffic policies say, in Envoy's own messages: the local rate limit, the header mutation filter, the retry budget of circuit
//! breakers, the back-off of retries that a response asks for.
//!
//! Each part is looked for by itself, from the nearest place to the farthest: the section of an object, the object, and for
//! requests along a route then the Service that was called ([`said_of`], [`said_first`]).

use outrigger_xds_api::wire::cluster::v3::circuit_breakers::thresholds;
use outrigger_xds_api::wire::core::v3::key_value_append::KeyValueAppendAction;
use outrigger_xds_api::wire::core::v3::{
    KeyValueAppend, KeyValueMutation, KeyValuePair, RuntimeFractionalPercent,
};
use outrigger_xds_api::wire::extensions::common::ratelimit::v3::LocalRateLimitDescriptor;
use outrigger_xds_api::wire::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use outrigger_xds_api::wire::extensions::filters::http::header_mutation::v3::{
    HeaderMutationPerRoute, Mutations,
};
use outrigger_xds_api::wire::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use outrigger_xds_api::wire::protobuf::value::Kind;
use outrigger_xds_api::wire::protobuf::{BoolValue, Value};
use outrigger_xds_api::wire::route::v3::rate_limit::Action as LimitAction;
use outrigger_xds_api::wire::route::v3::rate_limit::action::{ActionSpecifier, GenericKey};
use outrigger_xds_api::wire::route::v3::retry_policy::{
    RateLimitedRetryBackOff, ResetHeader, ResetHeaderFormat,
};
use outrigger_xds_api::wire::route::v3::route::Action;
use outrigger_xds_api::wire::route::v3::{RateLimit as WireRateLimit, Route, RouteAction};
use outrigger_xds_api::wire::r#type::v3::{FractionalPercent, HttpStatus, Percent, TokenBucket};

use crate::model::{
    LimitPer, QueryParameters, RateLimit, Readmission, RetryAfter, RetryBudget, Service, ServicePort,
    TargetKey, TrafficPolicy, TrafficSettings,
};
use crate::source::Origin;
use crate::translate::names::{HEADER_MUTATION_FILTER, LOCAL_RATE_LIMIT_FILTER};
use crate::translate::wire::{any, duration, number};
use crate::translate::{InputView, metadata};

/// Fields of a policy, as what is made of them is blamed on them.
pub(super) const RATE_LIMIT: &str = "spec.rateLimit";
pub(super) const QUERY_PARAMETERS: &str = "spec.queryParameters";
pub(super) const RETRY_AFTER: &str = "spec.retryAfter";

/// First part of the names of the limit's counters. (That of Istio's examples.)
pub(super) const STAT_PREFIX: &str = "http_local_rate_limiter";

/// Key of the descriptor of a caller.
const CALLER: &str = "caller";

/// The identity that a caller's certificate proves. An Envoy reads a format here only with the runtime flag
/// `envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value`.
const CALLERS_IDENTITY: &str = "%DOWNSTREAM_PEER_URI_SAN%";

/// Callers that have a bucket at a time; beyond, the one that was used least recently begins anew. (Envoy's default is 20.)
const MOST_CALLERS: u32 = 1024;

/// Part of a policy that counts, and whose it is.
pub(super) type Said<'a, T> = (&'a T, &'a TrafficPolicy);

/// What is said of an object, or of a section of it, which may have no name.
fn said_of<'a, T>(
    view: &InputView<'a>,
    object: &TargetKey,
    section: &str,
    part: impl Fn(&'a TrafficSettings) -> Option<&'a T>,
) -> Option<Said<'a, T>> {
    TrafficPolicy::said(&view.traffic_policies_of(object), object, section, part)
}

/// What is said first of one of these, each an object and a section of it.
fn said_first<'a, T>(
    view: &InputView<'a>,
    places: &[(TargetKey, String)],
    part: impl Fn(&'a TrafficSettings) -> Option<&'a T>,
) -> Option<Said<'a, T>> {
    places.iter().find_map(|(object, section)| said_of(view, object, section, &part))
}

/// The limit where the calls of a Service's port arrive.
pub(super) fn inbound_limit<'a>(
    view: &InputView<'a>,
    service: &Service,
    port: &ServicePort,
) -> Option<Said<'a, RateLimit>> {
    let service = TargetKey::service(&service.name);
    said_of(view, &service, &port.name, |settings| settings.rate_limit.as_ref())
}

/// The budget of a Service's port.
pub(super) fn retry_budget<'a>(
    view: &InputView<'a>,
    service: &Service,
    port: &ServicePort,
) -> Option<&'a RetryBudget> {
    let service = TargetKey::service(&service.name);
    Some(said_of(view, &service, &port.name, |settings| settings.retry_budget.as_ref())?.0)
}

/// How endpoints of a Service's port come back that were taken out.
pub(super) fn readmission(
    view: &InputView<'_>,
    service: &Service,
    port: &ServicePort,
) -> Option<Readmission> {
    let service = TargetKey::service(&service.name);
    Some(*said_of(view, &service, &port.name, |settings| settings.readmission.as_ref())?.0)
}

/// Lets retries of a route that has these `places` come when the response says, by the word for the route, else for the Service that is
/// called. A route that retries nothing stays as it is.
pub(super) fn heed_retry_after(
    view: &InputView<'_>,
    places: &[(TargetKey, String)],
    called: Option<(&Service, &ServicePort)>,
    route: &mut Route,
) {
    let Some(Action::Route(RouteAction { retry_policy: Some(retry), .. })) = &mut route.action else {
        return;
    };
    let called = called.map(|(service, port)| (TargetKey::service(&service.name), port.name.clone()));
    let places = [places, called.as_slice()].concat();
    let said = said_first(view, &places, |settings| settings.retry_after.as_ref());
    let Some((RetryAfter { max_interval }, policy)) = said else { return };
    let header = ResetHeader { name: "retry-after".to_owned(), format: ResetHeaderFormat::Seconds as i32 };
    retry.rate_limited_retry_back_off =
        Some(RateLimitedRetryBackOff { reset_headers: vec![header], max_interval: duration(*max_interval) });
    metadata::add_policies(&mut route.metadata, &[(&policy.origin, RETRY_AFTER)]);
}

/// Adds the configuration of HTTP filters for the requests of a route that has these `places`. The changes of the query are the
/// route's own, else those of the Service that is called.
pub(super) fn add_filters(
    view: &InputView<'_>,
    places: &[(TargetKey, String)],
    called: Option<(&Service, &ServicePort)>,
    route: &mut Route,
) {
    let limit = said_first(view, places, |settings| settings.rate_limit.as_ref());
    let called = called.map(|(service, port)| (TargetKey::service(&service.name), port.name.clone()));
    let places = [places, called.as_slice()].concat();
    let changes = said_first(view, &places, |settings| settings.query_parameters.as_ref());
    let mut policies: Vec<(&Origin, &str)> = Vec::new();
    let configs = &mut route.typed_per_filter_config;
    if let Some((limit, policy)) = limit {
        configs.insert(LOCAL_RATE_LIMIT_FILTER.to_owned(), any(&local_rate_limit(limit)));
        policies.push((&policy.origin, RATE_LIMIT));
    }
    if let Some((changes, policy)) = changes {
        configs.insert(HEADER_MUTATION_FILTER.to_owned(), any(&query_mutations(changes)));
        policies.push((&policy.origin, QUERY_PARAMETERS));
    }
    metadata::add_policies(&mut route.metadata, &policies);
}

pub(super) fn local_rate_limit(limit: &RateLimit) -> LocalRateLimit {
    let always = || {
        let all = FractionalPercent { numerator: 100, ..FractionalPercent::default() };
        Some(RuntimeFractionalPercent { default_value: Some(all), ..RuntimeFractionalPercent::default() })
    };
    let bucket = || {
        Some(TokenBucket {
            max_tokens: limit.burst,
            tokens_per_fill: number(limit.requests),
            fill_interval: duration(limit.interval),
        })
    };
    let common = LocalRateLimit {
        stat_prefix: STAT_PREFIX.to_owned(),
        status: Some(HttpStatus { code: limit.status.into() }),
        token_bucket: bucket(),
        filter_enabled: always(),
        filter_enforced: always(),
        ..LocalRateLimit::default()
    };
    if limit.per == LimitPer::Instance {
        return common;
    }
    let identity = GenericKey {
        descriptor_key: CALLER.to_owned(),
        descriptor_value: CALLERS_IDENTITY.to_owned(),
        ..GenericKey::default()
    };
    LocalRateLimit {
        // Each value has a bucket of its own where none is written.
        descriptors: vec![LocalRateLimitDescriptor {
            entries: vec![Entry { key: CALLER.to_owned(), ..Entry::default() }],
            token_bucket: bucket(),
            ..LocalRateLimitDescriptor::default()
        }],
        rate_limits: vec![WireRateLimit {
            actions: vec![LimitAction { action_specifier: Some(ActionSpecifier::GenericKey(identity)) }],
            ..WireRateLimit::default()
        }],
        // The bucket without a caller is for those without a certificate.
        always_consume_default_token_bucket: Some(BoolValue { value: false }),
        max_dynamic_descriptors: number(MOST_CALLERS),
        ..common
    }
}

fn query_mutations(changes: &QueryParameters) -> HeaderMutationPerRoute {
    let put = |(name, value): &(String, String), action: KeyValueAppendAction| KeyValueMutation {
        append: Some(KeyValueAppend {
            record: Some(KeyValuePair {
                key: name.clone(),
                value: Some(Value { kind: Some(Kind::StringValue(value.clone())) }),
            }),
            action: action as i32,
            ..KeyValueAppend::default()
        }),
        ..KeyValueMutation::default()
    };
    let set = changes.set.iter().map(|set| put(set, KeyValueAppendAction::OverwriteIfExistsOrAdd));
    let add = changes.add.iter().map(|add| put(add, KeyValueAppendAction::AppendIfExistsOrAdd));
    let remove = changes.remove.iter();
    let remove = remove.map(|name| KeyValueMutation { remove: name.clone(), ..KeyValueMutation::default() });
    let query_parameter_mutations = set.chain(add).chain(remove).collect();
    let mutations = Mutations { query_parameter_mutations, ..Mutations::default() };
    HeaderMutationPerRoute { mutations: Some(mutations) }
}

pub(super) fn wire_budget(budget: &RetryBudget) -> thresholds::RetryBudget {
    thresholds::RetryBudget {
        budget_percent: Some(Percent { value: budget.percent.into() }),
        min_retry_concurrency: number(budget.min_retry_concurrency),
        ..thresholds::RetryBudget::default()
    }
}
