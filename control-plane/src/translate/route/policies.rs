//! What is done to requests on their way, in xDS: headers, retries, faults, CORS, hashing.

use std::collections::HashMap;
use std::time::Duration;

use outrigger_xds_api::wire::core::v3::header_value_option::HeaderAppendAction;
use outrigger_xds_api::wire::core::v3::{HeaderValue, HeaderValueOption, RuntimeFractionalPercent};
use outrigger_xds_api::wire::extensions::filters::common::fault::v3::FaultDelay;
use outrigger_xds_api::wire::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use outrigger_xds_api::wire::extensions::filters::http::cors::v3::CorsPolicy;
use outrigger_xds_api::wire::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use outrigger_xds_api::wire::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use outrigger_xds_api::wire::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use outrigger_xds_api::wire::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use outrigger_xds_api::wire::protobuf::{Any, BoolValue};
use outrigger_xds_api::wire::route::v3::RetryPolicy;
use outrigger_xds_api::wire::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use outrigger_xds_api::wire::route::v3::route_action::HashPolicy;
use outrigger_xds_api::wire::route::v3::route_action::hash_policy::{self, PolicySpecifier};
use outrigger_xds_api::wire::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};

use super::matches;
use crate::model::{Abort, AbortStatus, Cors, Delay, Fault, HashOf, HeaderOperations, Ppm, Retry, RouteRule};
use crate::translate::names::{CORS_FILTER, FAULT_FILTER};
use crate::translate::wire::{any, duration, number};

/// How many endpoints are looked at for one that was not tried yet. (Istio's.)
const OTHER_HOST_ATTEMPTS: i64 = 5;

/// Pauses between attempts grow up to so many times the first one (Envoy's default).
const BACKOFF_GROWTH: u32 = 10;

/// Changes of headers: those to add, with how, and those to remove.
pub(super) fn headers(operations: &HeaderOperations) -> (Vec<HeaderValueOption>, Vec<String>) {
    let option = |(name, value): &(String, String), action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue { key: name.clone(), value: value.clone(), ..HeaderValue::default() }),
        append_action: action as i32,
        keep_empty_value: value.is_empty(),
        ..HeaderValueOption::default()
    };
    let set = operations.set.iter().map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = operations.add.iter().map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd));
    (set.chain(add).collect(), operations.remove.clone())
}

/// Configuration of HTTP filters for the requests of a rule, by the names of the filters.
pub(super) fn per_filter(rule: &RouteRule) -> HashMap<String, Any> {
    let fault = rule.fault.as_ref().map(|fault| (FAULT_FILTER.to_owned(), any(&http_fault(fault))));
    let cors = rule.cors.as_ref().map(|cors| (CORS_FILTER.to_owned(), any(&cors_policy(cors))));
    fault.into_iter().chain(cors).collect()
}

fn http_fault(Fault { delay, abort }: &Fault) -> HttpFault {
    HttpFault {
        delay: delay.as_ref().map(|Delay { time, share }| FaultDelay {
            percentage: Some(fraction(*share)),
            fault_delay_secifier: duration(*time).map(FaultDelaySecifier::FixedDelay),
        }),
        abort: abort.as_ref().map(|Abort { status, share }| FaultAbort {
            percentage: Some(fraction(*share)),
            error_type: Some(match *status {
                AbortStatus::Http(status) => ErrorType::HttpStatus(status.into()),
                AbortStatus::Grpc(status) => ErrorType::GrpcStatus(status.into()),
            }),
            ..FaultAbort::default()
        }),
        ..HttpFault::default()
    }
}

fn cors_policy(cors: &Cors) -> CorsPolicy {
    CorsPolicy {
        allow_origin_string_match: cors.origins.iter().map(matches::string_matcher).collect(),
        allow_methods: cors.methods.join(","),
        allow_headers: cors.headers.join(","),
        expose_headers: cors.expose.join(","),
        max_age: cors.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: cors.credentials.map(|value| BoolValue { value }),
        forward_not_matching_preflights: Some(BoolValue { value: cors.forward_unmatched }),
        ..CorsPolicy::default()
    }
}

pub(super) fn retry_policy(retry: &Retry) -> RetryPolicy {
    let elsewhere = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(&PreviousHostsPredicate {}))),
    };
    let other_localities = || RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(any(&PreviousPrioritiesConfig {
            update_frequency: 2,
        }))),
    };
    RetryPolicy {
        retry_on: retry.on.join(","),
        num_retries: number(retry.attempts),
        retriable_status_codes: retry.status_codes.clone(),
        per_try_timeout: retry.per_try_timeout.filter(|limit| !limit.is_zero()).and_then(duration),
        retry_back_off: retry.backoff.map(|base: Duration| RetryBackOff {
            base_interval: duration(base),
            max_interval: duration(base * BACKOFF_GROWTH),
        }),
        retry_host_predicate: retry.elsewhere.then_some(elsewhere).into_iter().collect(),
        host_selection_retry_max_attempts: if retry.elsewhere { OTHER_HOST_ATTEMPTS } else { 0 },
        retry_priority: retry.other_localities.then(other_localities),
        ..RetryPolicy::default()
    }
}

/// What a proxy hashes of a request.
pub(super) fn hash_policy(of: &HashOf) -> HashPolicy {
    let specifier = match of {
        HashOf::Header(name) => {
            PolicySpecifier::Header(hash_policy::Header { header_name: name.clone(), ..Default::default() })
        }
        HashOf::Cookie { name, path, ttl } => PolicySpecifier::Cookie(hash_policy::Cookie {
            name: name.clone(),
            path: path.clone(),
            ttl: ttl.and_then(duration),
            ..Default::default()
        }),
        HashOf::SourceIp => {
            PolicySpecifier::ConnectionProperties(hash_policy::ConnectionProperties { source_ip: true })
        }
        HashOf::QueryParameter(name) => {
            PolicySpecifier::QueryParameter(hash_policy::QueryParameter { name: name.clone() })
        }
    };
    HashPolicy { policy_specifier: Some(specifier), ..HashPolicy::default() }
}

fn fraction(share: Ppm) -> FractionalPercent {
    FractionalPercent { numerator: share, denominator: DenominatorType::Million as i32 }
}

pub(super) fn runtime_fraction(share: Ppm) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent { default_value: Some(fraction(share)), ..RuntimeFractionalPercent::default() }
}
