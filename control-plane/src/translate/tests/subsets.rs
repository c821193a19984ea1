//! Subsets of Services, and choice by a hash.

use outrigger_xds_api::wire::cluster::v3::cluster::LbConfig;
use outrigger_xds_api::wire::route::v3::route_action::hash_policy::PolicySpecifier;

use super::virtual_service::virtual_service;
use super::*;

const RULE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {simple: RANDOM}, outlierDetection: {consecutive5xxErrors: 3}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
";

fn subset(name: &str) -> String {
    format!("outbound|9080|{name}|reviews.default.svc.cluster.local")
}

#[test]
fn each_has_a_cluster_and_endpoints() {
    let snapshot = snapshot_of(&[MESH, RULE]);
    assert_valid(&snapshot);
    assert_eq!(endpoints(&snapshot, &subset("v1")), ["127.1.0.2:15006"]);
    assert_eq!(endpoints(&snapshot, &subset("v2")), ["127.1.0.3:15006"]);
    assert_eq!(endpoints(&snapshot, REVIEWS), ["127.1.0.2:15006", "127.1.0.3:15006"]);
    let (v1, v2) = (cluster(&snapshot, &subset("v1")), cluster(&snapshot, &subset("v2")));
    assert_eq!(v1.lb_policy, LbPolicy::Random as i32);
    assert_eq!(v2.lb_policy, LbPolicy::RoundRobin as i32, "its own word counts");
    assert!(v2.outlier_detection.is_some(), "and for the rest that of the Service");
    // Only the identities of its own endpoints may answer; the callee's sidecar does not know subsets.
    let tls: UpstreamTlsContext = socket(&v1.transport_socket);
    assert_eq!(tls.sni, "outbound_.9080_._.reviews.default.svc.cluster.local");
    let Some(ValidationContextType::CombinedValidationContext(combined)) =
        tls.common_tls_context.unwrap().validation_context_type
    else {
        panic!()
    };
    let names = combined.default_validation_context.unwrap().match_typed_subject_alt_names;
    assert_eq!(names.len(), 1);
}

#[test]
fn rules_lead_to_them() {
    let service = virtual_service(
        "v",
        "hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}, {destination: {host: reviews, subset: v2}, weight: \
         0}]}]",
    );
    let weighted = service.replace("subset: v1}}", "subset: v1}, weight: 100}");
    let snapshot = snapshot_of(&[MESH, RULE, &weighted]);
    assert_eq!(snapshot.problems(), []);
    let Some(Action::Route(action)) = &routes(&snapshot, REVIEWS_HOST)[0].action else { panic!() };
    assert_eq!(action.cluster_specifier, Some(ClusterSpecifier::Cluster(subset("v1"))));
}

#[test]
fn several_rules_add_their_subsets() {
    let more = RULE.replace("{name: reviews}", "{name: s}").replace("name: v1,", "name: v3,");
    let snapshot = snapshot_of(&[MESH, RULE, &more]);
    assert_eq!(endpoints(&snapshot, &subset("v3")), ["127.1.0.2:15006"]);
    let reasons: Vec<_> = snapshot.problems().iter().map(|found| found.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "only its subsets have an effect: else Service default/reviews follows DestinationRule default/reviews",
            "has no effect: DestinationRule reviews has it too",
        ]
    );
}

#[test]
fn a_detected_port_has_two_clusters_for_each() {
    let mesh = MESH.replace(
        "ports: [{name: http, port: 9080, targetPort: 8080}]",
        "ports: [{name: any, port: 9080, targetPort: 8080}]",
    );
    let snapshot = snapshot_of(&[&mesh, RULE]);
    let tcp = cluster(&snapshot, &subset("tcp.v1"));
    assert_eq!(tcp.eds_cluster_config.unwrap().service_name, subset("v1"));
    let refused = snapshot_of(&[MESH, &RULE.replace("name: v1,", "name: tcp,")]);
    assert_eq!(refused.rejections()[0].field, "spec.subsets[0].name");
}

#[test]
fn the_same_caller_gets_the_same_endpoint() {
    let hashed = |how: &str| RULE.replace("{simple: RANDOM}", &format!("{{consistentHash: {{{how}}}}}"));
    let specifier = |how: &str| {
        let snapshot = snapshot_of(&[MESH, &hashed(how)]);
        assert_eq!(snapshot.rejections(), []);
        assert_eq!(snapshot.problems(), []);
        assert_valid(&snapshot);
        let Some(Action::Route(action)) = routes(&snapshot, REVIEWS_HOST)[0].action.clone() else { panic!() };
        let [policy] = action.hash_policy.try_into().unwrap();
        policy.policy_specifier.unwrap()
    };
    assert!(
        matches!(specifier("httpHeaderName: X-User"), PolicySpecifier::Header(header) if header.header_name == "x-user")
    );
    assert!(
        matches!(specifier("useSourceIp: true"), PolicySpecifier::ConnectionProperties(of) if of.source_ip)
    );
    assert!(
        matches!(specifier("httpQueryParameterName: q"), PolicySpecifier::QueryParameter(of) if of.name == "q")
    );
    let PolicySpecifier::Cookie(cookie) = specifier("httpCookie: {name: c, ttl: 0s}") else { panic!() };
    assert_eq!((cookie.name.as_str(), cookie.ttl.unwrap().seconds), ("c", 0));

    let ring = cluster(&snapshot_of(&[MESH, &hashed("useSourceIp: true")]), REVIEWS);
    assert_eq!(ring.lb_policy, LbPolicy::RingHash as i32);
    let Some(LbConfig::RingHashLbConfig(config)) = ring.lb_config else { panic!() };
    assert_eq!(config.minimum_ring_size.unwrap().value, 1024);
    let maglev =
        cluster(&snapshot_of(&[MESH, &hashed("useSourceIp: true, maglev: {tableSize: 101}")]), REVIEWS);
    assert_eq!(maglev.lb_policy, LbPolicy::Maglev as i32);
    for (how, field) in [
        ("useSourceIp: true, httpHeaderName: a", ""),
        ("useSourceIp: true, maglev: {tableSize: 100}", ".maglev.tableSize"),
        ("useSourceIp: true, maglev: {}, ringHash: {}", ""),
    ] {
        let refused = snapshot_of(&[MESH, &hashed(how)]);
        let expected = format!("spec.trafficPolicy.loadBalancer.consistentHash{field}");
        assert_eq!(refused.rejections()[0].field, expected, "{how}");
    }
}
