//! The schemas of our own kinds are those of the code that reads them.

use std::sync::Arc;

use outrigger_control_plane::api;
use outrigger_control_plane::model::MeshSettings;
use outrigger_control_plane::source::{Object, ObjectKey, Origin};
use outrigger_kube_api::Collection;
use serde_json::Value;

use crate::world::{OWN_KINDS, documents, server};

const SERVICE: &str = "targetRefs: [{group: '', kind: Service, name: a}]";

/// Policies that are refused: the specification, the field, and whether the schema refuses it too. What it does not say in patterns
/// and ranges is said by its validation rules, which only a real API server looks at.
const REFUSED: &[(&str, &str, bool)] = &[
    ("rateLimit: {requests: 1}", "spec", true),
    ("targetRefs: [], rateLimit: {requests: 1}", "spec.targetRefs", true),
    ("targetRefs: [{group: '', kind: Gateway, name: a}], retryBudget: {}", "spec.targetRefs[0].kind", true),
    ("targetRefs: [{group: x, kind: Service, name: a}], retryBudget: {}", "spec.targetRefs[0].group", true),
    ("targetRefs: [{kind: Service, name: a}], retryBudget: {}", "spec.targetRefs[0]", true),
    ("targetRefs: [{group: '', kind: Service, name: A}], retryBudget: {}", "spec.targetRefs[0].name", true),
    (
        "targetRefs: [{group: '', kind: Service, name: a.b}], retryBudget: {}",
        "spec.targetRefs[0].name",
        false,
    ),
    (
        "targetRefs: [{group: '', kind: Service, name: a, sectionName: '-'}], retryBudget: {}",
        "spec.targetRefs[0].sectionName",
        true,
    ),
    (
        "targetRefs: [{group: '', kind: HTTPRoute, name: a}], rateLimit: {requests: 1}",
        "spec.targetRefs[0].group",
        false,
    ),
    (
        "targetRefs: [{group: '', kind: Service, name: a}, {group: '', kind: Service, name: a}], retryBudget: {}",
        "spec.targetRefs[1]",
        false,
    ),
    (
        "targetRefs: [{group: networking.istio.io, kind: VirtualService, name: a}], retryBudget: {}",
        "spec.retryBudget",
        false,
    ),
    ("SERVICE", "spec", false),
    ("SERVICE, retryBudget: {}, other: 1", "spec.other", false),
    ("SERVICE, rateLimit: {}", "spec.rateLimit", true),
    ("SERVICE, rateLimit: {requests: 0}", "spec.rateLimit.requests", true),
    ("SERVICE, rateLimit: {requests: 100000001}", "spec.rateLimit.requests", true),
    ("SERVICE, rateLimit: {requests: many}", "spec.rateLimit.requests", true),
    ("SERVICE, rateLimit: {requests: 1, burst: 0}", "spec.rateLimit.burst", true),
    ("SERVICE, rateLimit: {requests: 1, interval: 99ms}", "spec.rateLimit.interval", true),
    ("SERVICE, rateLimit: {requests: 1, interval: 1.5s}", "spec.rateLimit.interval", true),
    ("SERVICE, rateLimit: {requests: 1, interval: 1m30s}", "spec.rateLimit.interval", true),
    ("SERVICE, rateLimit: {requests: 1, interval: 10000h}", "spec.rateLimit.interval", true),
    ("SERVICE, rateLimit: {requests: 1, status: 399}", "spec.rateLimit.status", true),
    ("SERVICE, rateLimit: {requests: 1, status: 420}", "spec.rateLimit.status", true),
    ("SERVICE, rateLimit: {requests: 1, per: Pod}", "spec.rateLimit.per", true),
    ("SERVICE, rateLimit: {requests: 1, limit: 2}", "spec.rateLimit.limit", false),
    ("SERVICE, queryParameters: {}", "spec.queryParameters", false),
    ("SERVICE, queryParameters: {set: [{name: a}]}", "spec.queryParameters.set[0]", true),
    ("SERVICE, queryParameters: {set: [{name: '', value: b}]}", "spec.queryParameters.set[0].name", true),
    ("SERVICE, queryParameters: {set: [{name: 'a=', value: b}]}", "spec.queryParameters.set[0].name", true),
    ("SERVICE, queryParameters: {set: [{name: a, value: 'b&c'}]}", "spec.queryParameters.set[0].value", true),
    ("SERVICE, queryParameters: {add: [{name: a, value: '%41'}]}", "spec.queryParameters.add[0].value", true),
    ("SERVICE, queryParameters: {remove: ['a b']}", "spec.queryParameters.remove[0]", true),
    ("SERVICE, queryParameters: {remove: [a, a]}", "spec.queryParameters.remove[1]", true),
    (
        "SERVICE, queryParameters: {set: [{name: a, value: b}], remove: [a]}",
        "spec.queryParameters.remove[0]",
        false,
    ),
    (
        "SERVICE, queryParameters: {remove: [a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r]}",
        "spec.queryParameters.remove",
        true,
    ),
    ("SERVICE, retryBudget: {percent: 101}", "spec.retryBudget.percent", true),
    ("SERVICE, retryBudget: {percent: -1}", "spec.retryBudget.percent", true),
    ("SERVICE, retryBudget: {minRetryConcurrency: -1}", "spec.retryBudget.minRetryConcurrency", true),
];

/// Policies that are taken.
const TAKEN: &[&str] = &[
    "SERVICE, retryBudget: {}",
    "SERVICE, retryBudget: {percent: 0, minRetryConcurrency: 0}",
    "SERVICE, rateLimit: {requests: 1}",
    "SERVICE, rateLimit: {requests: 100000000, interval: 100ms, burst: 1, per: Caller, status: 511}",
    "SERVICE, rateLimit: {requests: 1, interval: 9999h, per: Instance, status: 400}",
    "SERVICE, queryParameters: {set: [{name: a, value: ''}], add: [{name: 'x.0', value: b}]}",
    "SERVICE, queryParameters: {remove: [a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q]}",
    "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: a.b, sectionName: c}, \
      {group: gateway.networking.k8s.io, kind: GRPCRoute, name: a.b}, \
      {group: networking.istio.io, kind: VirtualService, name: a}], \
      rateLimit: {requests: 1}, queryParameters: {remove: [a]}",
];

fn policy(spec: &str) -> Value {
    let spec = spec.replace("SERVICE", SERVICE);
    let text = format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: p, namespace: shop}}, spec: {{{spec}}}}}"
    );
    documents(&text).remove(0)
}

/// The field that the decoder refuses, if it does.
fn refused_by_decoder(document: &Value) -> Option<String> {
    let text = |field: &str| document["metadata"][field].as_str().unwrap().to_owned();
    let object = Object {
        api_version: "outrigger.dev/v1alpha1".into(),
        origin: Arc::new(Origin::in_cluster(ObjectKey {
            group: "outrigger.dev".into(),
            kind: "TrafficPolicy".into(),
            namespace: text("namespace"),
            name: text("name"),
        })),
        document: Arc::new(document.clone()),
    };
    api::decode(&object, &MeshSettings::default()).err().map(|refusal| refusal.field)
}

#[test]
fn the_chart_has_the_definitions_that_the_types_make() {
    assert_eq!(
        OWN_KINDS,
        api::definitions(),
        "write it anew: outrigger-control-plane crds > charts/outrigger/crds/outrigger.dev.yaml"
    );
}

#[tokio::test]
async fn the_schema_refuses_what_the_decoder_does() {
    let server = server();
    let by_schema = |document: &Value| server.put(document.clone()).err();
    let mut wrong = Vec::new();
    for (spec, field, schema_too) in REFUSED {
        let document = policy(spec);
        let found = (refused_by_decoder(&document), by_schema(&document).is_some());
        if found != (Some((*field).to_owned()), *schema_too) {
            wrong.push((spec, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for spec in TAKEN {
        let document = policy(spec);
        assert_eq!(refused_by_decoder(&document), None, "{spec}");
        assert!(by_schema(&document).is_none(), "{spec}: {:?}", by_schema(&document));
    }
}

#[tokio::test]
async fn the_example_is_taken() {
    let server = server();
    for document in documents(include_str!("../../../docs/traffic-policy/reviews.yaml")) {
        assert_eq!(refused_by_decoder(&document), None, "{document}");
        server.put(document).unwrap();
    }
}

#[tokio::test]
async fn defaults_are_those_of_the_decoder() {
    let server = server();
    let decoded = |document: &Value| {
        let origin = Origin::in_cluster(ObjectKey {
            group: "outrigger.dev".into(),
            kind: "TrafficPolicy".into(),
            namespace: "shop".into(),
            name: "p".into(),
        });
        let api_version = "outrigger.dev/v1alpha1".into();
        let document = Arc::new(document.clone());
        let object = Object { api_version, origin: Arc::new(origin), document };
        format!("{:?}", api::decode(&object, &MeshSettings::default()).unwrap())
    };
    let mut written =
        policy("SERVICE, rateLimit: {requests: 7}, queryParameters: {remove: [a]}, retryBudget: {}");
    server.put(written.clone()).unwrap();
    let stored = server.get(&Collection::new("outrigger.dev", "trafficpolicies"), "shop", "p").unwrap();
    assert_eq!(stored["spec"]["rateLimit"]["per"], "Instance", "{stored}");
    assert!(stored["spec"]["queryParameters"].get("set").is_none(), "{stored}");
    written["metadata"] = stored["metadata"].clone();
    assert_eq!(decoded(&written), decoded(&stored));
}
