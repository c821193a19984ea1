//! Which endpoints are well: found by what they answer (outlier detection), and by asking them (health checks), in Envoy's words.

use outrigger_xds_api::wire::cluster::v3 as cluster;
use outrigger_xds_api::wire::common::matcher::v3::match_predicate::{MatchSet, Rule};
use outrigger_xds_api::wire::common::matcher::v3::{HttpHeadersMatch, MatchPredicate};
use outrigger_xds_api::wire::core::v3::HealthCheck as WireHealthCheck;
use outrigger_xds_api::wire::core::v3::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck, TcpHealthCheck,
};
use outrigger_xds_api::wire::http_protocol_options::v3::http_protocol_options::OutlierDetection as Errors;
use outrigger_xds_api::wire::route::v3::HeaderMatcher;
use outrigger_xds_api::wire::route::v3::header_matcher::HeaderMatchSpecifier;
use outrigger_xds_api::wire::r#type::matcher::v3::string_matcher::MatchPattern;
use outrigger_xds_api::wire::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use outrigger_xds_api::wire::r#type::v3::{CodecClientType, Int64Range};

use crate::model::{HealthCheck, HealthCheckKind, OutlierDetection, Protocol, StatusRange};
use crate::translate::cluster::Upstream;
use crate::translate::wire::{duration, number};

pub(super) fn outlier_detection(outlier: &OutlierDetection) -> cluster::OutlierDetection {
    // Zero switches a detector off; Envoy wants at least one and has the enforcement for it.
    let in_a_row = |count: u32| (number(count.max(1)), number(if count == 0 { 0 } else { 100 }));
    let (consecutive_5xx, enforcing_consecutive_5xx) = in_a_row(outlier.consecutive_5xx);
    let (consecutive_gateway_failure, enforcing_consecutive_gateway_failure) =
        in_a_row(outlier.consecutive_gateway_errors);
    cluster::OutlierDetection {
        consecutive_5xx,
        enforcing_consecutive_5xx,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors: outlier.local_origin_failures.is_some(),
        consecutive_local_origin_failure: outlier.local_origin_failures.and_then(number),
        interval: duration(outlier.interval),
        base_ejection_time: duration(outlier.base_ejection_time),
        max_ejection_percent: number(outlier.max_ejection_percent),
        ..rates(outlier)
    }
}

/// Detectors of rates. Istio has no field for them, and switches off the one that Envoy has on.
fn rates(outlier: &OutlierDetection) -> cluster::OutlierDetection {
    let mut wire = cluster::OutlierDetection {
        enforcing_success_rate: number(0),
        enforcing_local_origin_success_rate: number(0),
        ..Default::default()
    };
    if let Some(rate) = outlier.success_rate {
        wire.enforcing_success_rate = number(100);
        wire.success_rate_stdev_factor = number(rate.deviation_thousandths);
        wire.success_rate_request_volume = number(rate.requests);
        wire.success_rate_minimum_hosts = number(rate.endpoints);
    }
    if let Some(percentage) = outlier.failure_percentage {
        wire.enforcing_failure_percentage = number(100);
        wire.failure_percentage_threshold = number(percentage.threshold);
        wire.failure_percentage_request_volume = number(percentage.requests);
        wire.failure_percentage_minimum_hosts = number(percentage.endpoints);
    }
    wire
}

/// Each gRPC status but OK with the HTTP status that stands for it.
const GRPC_STATUSES: [(u8, u16); 16] = [
    (1, 499),
    (2, 500),
    (3, 400),
    (4, 504),
    (5, 404),
    (6, 409),
    (7, 403),
    (8, 429),
    (9, 400),
    (10, 409),
    (11, 400),
    (12, 501),
    (13, 500),
    (14, 503),
    (15, 500),
    (16, 401),
];

/// Which answers are failures, where that is not 5xx. A gRPC status is one when the HTTP status is that stands for it.
pub(super) fn error_matcher(outlier: &OutlierDetection) -> Option<Errors> {
    if outlier.failures.is_empty() {
        return None;
    }
    let is_failure =
        |status: u16| outlier.failures.iter().any(|range| (range.start..range.end).contains(&status));
    let grpc =
        GRPC_STATUSES.iter().filter(|(_, status)| is_failure(*status)).map(|(grpc, _)| grpc.to_string());
    let grpc: Vec<String> = grpc.collect();
    let of_grpc = (!grpc.is_empty()).then(|| HeaderMatcher {
        name: "grpc-status".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(MatchPattern::SafeRegex(RegexMatcher {
                regex: grpc.join("|"),
                ..RegexMatcher::default()
            })),
            ..StringMatcher::default()
        })),
        ..HeaderMatcher::default()
    });
    let matchers = outlier.failures.iter().copied().map(of_status).chain(of_grpc);
    let rule = |matcher: HeaderMatcher| MatchPredicate {
        rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch { headers: vec![matcher] })),
    };
    let mut rules: Vec<MatchPredicate> = matchers.map(rule).collect();
    let matcher = match rules.len() {
        1 => rules.pop(),
        _ => Some(MatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) }),
    };
    Some(Errors { error_matcher: matcher })
}

fn of_status(range: StatusRange) -> HeaderMatcher {
    HeaderMatcher {
        name: ":status".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::RangeMatch(statuses(range))),
        ..HeaderMatcher::default()
    }
}

fn statuses(range: StatusRange) -> Int64Range {
    Int64Range { start: range.start.into(), end: range.end.into() }
}

/// Whether endpoints of a port of this protocol can be asked that.
pub(super) fn can_ask(kind: &HealthCheckKind, protocol: Protocol) -> bool {
    match kind {
        HealthCheckKind::Http { .. } => protocol.may_be_http(),
        HealthCheckKind::Grpc { .. } => protocol == Protocol::Http2,
        HealthCheckKind::Tcp => true,
    }
}

/// What endpoints of a port are asked that is spoken to like that, by the Service's name `host`. Clusters without traffic are checked as often
/// as others.
pub(super) fn health_check(
    check: &HealthCheck,
    protocol: Protocol,
    upstream: Upstream,
    host: &str,
) -> Option<WireHealthCheck> {
    if !can_ask(&check.kind, protocol) {
        return None;
    }
    let checker = match &check.kind {
        HealthCheckKind::Http { path, statuses: expected } => {
            let codec = match upstream {
                Upstream::Http2 => CodecClientType::Http2,
                Upstream::Http1 | Upstream::SameAsDownstream => CodecClientType::Http1,
            };
            HealthChecker::HttpHealthCheck(HttpHealthCheck {
                host: host.to_owned(),
                path: path.clone(),
                expected_statuses: expected.iter().copied().map(statuses).collect(),
                codec_client_type: codec as i32,
                ..HttpHealthCheck::default()
            })
        }
        HealthCheckKind::Grpc { service } => HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
            service_name: service.clone(),
            authority: host.to_owned(),
            ..GrpcHealthCheck::default()
        }),
        HealthCheckKind::Tcp => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
    };
    Some(WireHealthCheck {
        timeout: duration(check.timeout),
        interval: duration(check.interval),
        no_traffic_interval: duration(check.interval),
        healthy_threshold: number(check.success_threshold),
        unhealthy_threshold: number(check.failure_threshold),
        health_checker: Some(checker),
        ..WireHealthCheck::default()
    })
}
