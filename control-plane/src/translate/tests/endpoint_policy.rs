//! TrafficPolicies about endpoints: when they are taken out, how they are chosen and asked, and what limits each of them.

use outrigger_xds_api::peak_ewma::PeakEwma;
use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::common::matcher::v3::MatchPredicate;
use outrigger_xds_api::wire::common::matcher::v3::match_predicate::Rule;
use outrigger_xds_api::wire::core::v3::health_check::HealthChecker;
use outrigger_xds_api::wire::http_protocol_options::v3::HttpProtocolOptions;
use outrigger_xds_api::wire::protobuf::UInt32Value;
use outrigger_xds_api::wire::protobuf::value::Kind;
use outrigger_xds_api::wire::route::v3::header_matcher::HeaderMatchSpecifier;
use outrigger_xds_api::wire::r#type::matcher::v3::string_matcher::MatchPattern;
use outrigger_xds_api::wire::r#type::v3::CodecClientType;

use super::*;

const V1: &str = "outbound|9080|v1|reviews.default.svc.cluster.local";
const RULE: &str = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d}, spec: {host: reviews, trafficPolicy: \
                    {outlierDetection: {consecutive5xxErrors: 2, interval: 3s, maxEjectionPercent: 70}}, subsets: [{name: v1, labels: {version: v1}}]}}";

fn policy(parts: &str) -> String {
    of("Service", "reviews", parts)
}

fn of(kind: &str, name: &str, parts: &str) -> String {
    let group = if kind == "Service" { "''" } else { "gateway.networking.k8s.io" };
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p}}\nspec:\n  targetRefs: [{{group: {group}, kind: {kind}, name: {name}}}]\n  {parts}\n"
    )
}

fn shaped(texts: &[&str], name: &str) -> Cluster {
    let snapshot = snapshot_of(&[&[MESH], texts].concat());
    assert_valid(&snapshot);
    assert_eq!(snapshot.problems(), []);
    super::cluster(&snapshot, name)
}

fn number(value: Option<UInt32Value>) -> Option<u32> {
    value.map(|value| value.value)
}

#[test]
fn ejection_alone_and_over_a_destination_rule() {
    let parts = "ejection: {failurePercentage: {threshold: 40, requests: 20}, successRate: {deviations: 1.2, endpoints: 3}}";
    let outlier = |texts: &[&str], name: &str| shaped(texts, name).outlier_detection.unwrap();
    let alone = outlier(&[&policy(parts)], REVIEWS);
    assert_eq!(number(alone.consecutive_5xx), Some(5));
    assert_eq!(alone.interval.unwrap().seconds, 10);
    assert_eq!(number(alone.max_ejection_percent), Some(50));
    assert_eq!(
        [number(alone.enforcing_failure_percentage), number(alone.enforcing_success_rate)],
        [Some(100); 2]
    );
    assert_eq!(number(alone.failure_percentage_threshold), Some(40));
    assert_eq!(number(alone.failure_percentage_request_volume), Some(20));
    assert_eq!(number(alone.failure_percentage_minimum_hosts), Some(5));
    assert_eq!(number(alone.success_rate_stdev_factor), Some(1_200));
    assert_eq!(number(alone.success_rate_request_volume), Some(100));
    assert_eq!(number(alone.success_rate_minimum_hosts), Some(3));

    // What it does not say is the rule's; subsets too.
    let over = policy("ejection: {consecutiveErrors: 0, baseEjectionTime: 7s}");
    for name in [REVIEWS, V1] {
        let both = outlier(&[RULE, &over], name);
        assert_eq!(number(both.enforcing_consecutive_5xx), Some(0), "{name}");
        assert_eq!([both.interval.unwrap().seconds, both.base_ejection_time.unwrap().seconds], [3, 7]);
        assert_eq!(number(both.max_ejection_percent), Some(70));
        assert_eq!(number(both.enforcing_success_rate), Some(0));
    }
    // The empty object is enough, and what is taken out by it can come back by a probe.
    let probed = shaped(&[&policy("ejection: {}\n  readmission: {by: Probe}")], REVIEWS);
    assert_eq!(number(probed.outlier_detection.unwrap().consecutive_5xx), Some(5));
    assert!(probed.metadata.unwrap().filter_metadata["outrigger.dev"].fields.contains_key("readmission"));
    assert_eq!(
        shaped(&[&policy("ejection: {}")], "outbound|9080||reviews-v1.default.svc.cluster.local")
            .outlier_detection,
        None
    );
}

#[test]
fn which_responses_are_failures() {
    let failures = |failures: &str| -> Vec<String> {
        let cluster = shaped(&[&policy(&format!("ejection: {{failures: {failures}}}"))], REVIEWS);
        let options = &cluster.typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
        let options: HttpProtocolOptions = unpack(options).unwrap();
        let rule = options.outlier_detection.unwrap().error_matcher.unwrap().rule.unwrap();
        let rules = match rule {
            Rule::OrMatch(set) => set.rules,
            rule => vec![MatchPredicate { rule: Some(rule) }],
        };
        let shown = |predicate: MatchPredicate| {
            let Some(Rule::HttpResponseHeadersMatch(heads)) = predicate.rule else { panic!() };
            let [head] = heads.headers.as_slice() else { panic!() };
            match head.header_match_specifier.as_ref().unwrap() {
                HeaderMatchSpecifier::RangeMatch(range) => {
                    format!("{} {}-{}", head.name, range.start, range.end)
                }
                HeaderMatchSpecifier::StringMatch(string) => {
                    let Some(MatchPattern::SafeRegex(regex)) = &string.match_pattern else { panic!() };
                    format!("{} {}", head.name, regex.regex)
                }
                _ => panic!(),
            }
        };
        rules.into_iter().map(shown).collect()
    };
    assert_eq!(failures("['418']"), [":status 418-419"]);
    assert_eq!(failures("['429']"), [":status 429-430", "grpc-status 8"]);
    assert_eq!(
        failures("[5xx, '401']"),
        [":status 500-600", ":status 401-402", "grpc-status 2|4|12|13|14|15|16"]
    );
}

#[test]
fn peak_ewma_with_what_stands_in_for_it() {
    let balanced = |texts: &[&str]| shaped(texts, REVIEWS);
    let cluster = balanced(&[&policy("loadBalancing: {peakEwma: {decay: 4s}}")]);
    let policies = cluster.load_balancing_policy.unwrap().policies;
    let typed: Vec<_> = policies
        .into_iter()
        .map(|policy| policy.typed_extension_config.unwrap().typed_config.unwrap())
        .collect();
    assert_eq!(unpack::<PeakEwma>(&typed[0]).unwrap().decay_time.unwrap().seconds, 4);
    assert!(typed[1].type_url.ends_with("least_request.v3.LeastRequest"));
    // It comes before the rule's, and not where places have shares.
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d}, spec: {host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}}}";
    assert!(balanced(&[rule, &policy("loadBalancing: {peakEwma: {}}")]).load_balancing_policy.is_some());
    let shares = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d}, spec: {host: reviews, trafficPolicy: \
                  {outlierDetection: {}, loadBalancer: {localityLbSetting: {distribute: [{from: '*', to: {'r/*': 100}}]}}}}}";
    let snapshot = snapshot_of(&[MESH, shares, &policy("loadBalancing: {peakEwma: {}}")]);
    assert_valid(&snapshot);
    assert_eq!(super::cluster(&snapshot, REVIEWS).load_balancing_policy, None);
    let told: Vec<_> = snapshot.problems().iter().map(|found| found.reason.clone()).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0]
            .starts_with("loadBalancing.peakEwma has no effect on port 9080: localityLbSetting.distribute"),
        "{told:?}"
    );
}

#[test]
fn panic_and_limits_of_each_endpoint() {
    let panic = |texts: &[&str]| {
        let common = shaped(texts, REVIEWS).common_lb_config?;
        Some(common.healthy_panic_threshold.unwrap().value)
    };
    assert_eq!(panic(&[]), None);
    assert_eq!(panic(&[&policy("panicThreshold: {percent: 30}")]), Some(30.0));
    assert_eq!(panic(&[RULE]), Some(0.0));
    assert_eq!(panic(&[RULE, &policy("panicThreshold: {percent: 30}")]), Some(30.0));
    let limits = |parts: &str| {
        let breakers = shaped(&[&policy(parts)], REVIEWS).circuit_breakers.unwrap();
        breakers.per_host_thresholds.iter().map(|limits| number(limits.max_connections)).collect::<Vec<_>>()
    };
    assert_eq!(limits("endpointLimits: {connections: 12}"), [Some(12)]);
    assert_eq!(limits("ejection: {}"), []);
}

#[test]
fn endpoints_are_asked() {
    let checked = |parts: &str| {
        let mut checks = shaped(&[&policy(&format!("healthCheck: {{{parts}}}"))], REVIEWS).health_checks;
        assert_eq!(checks.len(), 1, "{parts}");
        checks.remove(0)
    };
    let http = checked(
        "http: {path: /ok, statuses: ['204', 3xx]}, interval: 2s, timeout: 500ms, failureThreshold: 4",
    );
    assert_eq!([http.interval.unwrap().seconds, http.no_traffic_interval.unwrap().seconds], [2, 2]);
    assert_eq!(http.timeout.unwrap().nanos, 500_000_000);
    assert_eq!([number(http.healthy_threshold), number(http.unhealthy_threshold)], [Some(1), Some(4)]);
    let Some(HealthChecker::HttpHealthCheck(http)) = http.health_checker else { panic!() };
    assert_eq!((http.host.as_str(), http.path.as_str()), ("reviews.default.svc.cluster.local", "/ok"));
    assert_eq!(
        http.expected_statuses.iter().map(|range| (range.start, range.end)).collect::<Vec<_>>(),
        [(204, 205), (300, 400)]
    );
    // Between sidecars it is HTTP/2.
    assert_eq!(http.codec_client_type, CodecClientType::Http2 as i32);
    assert!(matches!(checked("tcp: {}").health_checker, Some(HealthChecker::TcpHealthCheck(_))));

    // Only those that are out, where the way back is that.
    let by = |texts: &[&str]| {
        let own = shaped(texts, REVIEWS)
            .metadata
            .unwrap()
            .filter_metadata
            .remove("outrigger.dev")
            .unwrap_or_default();
        own.fields.get("readmission").and_then(|by| by.kind.clone())
    };
    let check = policy("ejection: {}\n  healthCheck: {http: {path: /}}\n  readmission: {by: Check}");
    assert_eq!(by(&[&check]), Some(Kind::StringValue("check".to_owned())));
    let without = snapshot_of(&[MESH, &policy("ejection: {}\n  readmission: {by: Check}")]);
    assert_valid(&without);
    let told: Vec<&str> = without.problems().iter().map(|found| found.reason.as_str()).collect();
    let reason = "readmission.by: Check has no effect on port 9080: no healthCheck says what its endpoints are asked, so its time decides";
    assert_eq!(told, [reason]);

    // An HTTP/1 port cannot be asked by gRPC.
    let grpc = policy("healthCheck: {grpc: {}}");
    let snapshot = snapshot_of(&[MESH, &grpc]);
    assert_eq!(super::cluster(&snapshot, REVIEWS).health_checks, []);
    let told =
        "healthCheck.grpc has no effect on port 9080: it is not HTTP/2 or gRPC by its name and appProtocol";
    assert_eq!(snapshot.problems().iter().map(|found| found.reason.as_str()).collect::<Vec<_>>(), [told]);
}

#[test]
fn what_is_refused() {
    let route = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{group: '', kind: Service, name: reviews, port: 9080}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}}";
    for (parts, field) in [
        ("ejection: {failures: []}", "spec.ejection.failures"),
        ("ejection: {failures: [6xx]}", "spec.ejection.failures[0]"),
        ("ejection: {failures: [5xx, '42']}", "spec.ejection.failures[1]"),
        ("ejection: {maxEjectionPercent: 101}", "spec.ejection.maxEjectionPercent"),
        ("ejection: {interval: 1d}", "spec.ejection.interval"),
        ("ejection: {successRate: {deviations: -1}}", "spec.ejection.successRate.deviations"),
        ("ejection: {failurePercentage: {threshold: 0}}", "spec.ejection.failurePercentage.threshold"),
        ("panicThreshold: {percent: 101}", "spec.panicThreshold.percent"),
        ("endpointLimits: {connections: 0}", "spec.endpointLimits.connections"),
        ("healthCheck: {}", "spec.healthCheck"),
        ("healthCheck: {tcp: {}, http: {path: /}}", "spec.healthCheck"),
        ("healthCheck: {http: {path: x}}", "spec.healthCheck.http.path"),
        ("healthCheck: {http: {path: /, statuses: [ok]}}", "spec.healthCheck.http.statuses[0]"),
        ("healthCheck: {tcp: {}, failureThreshold: 0}", "spec.healthCheck.failureThreshold"),
        ("loadBalancing: {peakEwma: {decay: 0s}}", "spec.loadBalancing.peakEwma.decay"),
    ] {
        let snapshot = snapshot_of(&[MESH, &policy(parts)]);
        let fields: Vec<&str> = snapshot.rejections().iter().map(|refused| refused.field.as_str()).collect();
        assert_eq!(fields, [field], "{parts}");
    }
    for part in [
        "ejection: {}",
        "loadBalancing: {peakEwma: {}}",
        "panicThreshold: {percent: 1}",
        "healthCheck: {tcp: {}}",
        "endpointLimits: {connections: 1}",
    ] {
        let snapshot = snapshot_of(&[MESH, route, &of("HTTPRoute", "r", part)]);
        let refused = snapshot.rejections();
        assert_eq!(refused.len(), 1, "{part}");
        assert!(refused[0].reason.contains("is for Services only"), "{part}: {}", refused[0].reason);
    }
}
