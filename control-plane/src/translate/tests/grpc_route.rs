//! GRPCRoutes, and references to other namespaces.

use super::*;

fn grpc_route(name: &str, rules: &str) -> String {
    http_route(name, rules).replace("kind: HTTPRoute", "kind: GRPCRoute")
}

const TO_V1: &str = "backendRefs: [{name: reviews-v1, port: 9080}]";

#[test]
fn calls_are_matched_by_service_and_method() {
    let rule = |name: &str, method: &str| {
        format!("\n  - {{name: {name}, matches: [{{method: {{{method}}}}}], {TO_V1}}}")
    };
    let rules = [
        rule("any-method", "service: a.B"),
        rule("call", "service: a.B, method: C"),
        rule("any-service", "method: C"),
        rule("regex", "type: RegularExpression, service: 'a|b', method: '[A-Z].*'"),
    ];
    let all = format!("{}\n  - {{name: all, {TO_V1}}}\n", rules.concat());
    let snapshot = snapshot_of(&[MESH, &grpc_route("r", &all)]);
    assert_eq!(snapshot.rejections(), []);
    assert_valid(&snapshot);
    let found: Vec<_> = routes(&snapshot, REVIEWS_HOST)
        .into_iter()
        .map(|route| {
            let path = match route.r#match.unwrap().path_specifier.unwrap() {
                PathSpecifier::Path(path) => path,
                PathSpecifier::Prefix(path) => format!("{path}*"),
                PathSpecifier::SafeRegex(regex) => regex.regex,
                other => panic!("{other:?}"),
            };
            (route.name, path)
        })
        .collect();
    let found: Vec<_> = found.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect();
    assert_eq!(
        found,
        [
            ("default.r.call", "/a.B/C"),
            ("default.r.any-method", "/a.B/*"),
            ("default.r.regex", "/(?:a|b)/(?:[A-Z].*)"),
            ("default.r.any-service", "/[^/]+/C"),
            ("default.r.all", "/*"),
        ]
    );
}

#[test]
fn of_two_kinds_the_more_specific_one_counts() {
    let grpc = grpc_route("g", &format!("\n  - {TO_V1}\n"));
    let snapshot = snapshot_of(&[MESH, &split(), &grpc]);
    let [route] = routes(&snapshot, REVIEWS_HOST).try_into().unwrap();
    assert_eq!(route.name, "default.g.0");
    let [problem] = snapshot.problems() else { panic!("{:?}", snapshot.problems()) };
    assert_eq!(
        problem.reason,
        "has no effect: GRPCRoute default/g is for the same requests, and more specific"
    );
}

#[test]
fn filters_of_http_only_are_refused() {
    let refused = |rule: &str| {
        snapshot_of(&[MESH, &grpc_route("r", &format!("\n  - {{{rule}}}\n"))]).rejections()[0].clone()
    };
    let redirect = refused("filters: [{type: RequestRedirect, requestRedirect: {}}]");
    assert_eq!(redirect.field, "spec.rules[0].filters[0].type");
    assert_eq!(refused("matches: [{method: {}}]").reason, "must name a service or a method");
    assert_eq!(
        refused("matches: [{method: {service: a/b}}]").field,
        "spec.rules[0].matches[0].method.service"
    );
    assert_eq!(refused("timeouts: {request: 1s}").field, "spec.rules[0].timeouts");
}

const GRANT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: g, namespace: data}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}], to: [{group: '', kind: Service}]}
";

#[test]
fn another_namespace_must_grant_it() {
    let route = http_route("r", "\n  - backendRefs: [{name: cache, namespace: data, port: 6379}]\n");
    let status = |texts: &[&str]| match &routes(&snapshot_of(texts), REVIEWS_HOST)[0].action {
        Some(Action::DirectResponse(answer)) => answer.status,
        Some(Action::Route(_)) => 0,
        other => panic!("{other:?}"),
    };
    assert_eq!(status(&[MESH, &route]), 500);
    let snapshot = snapshot_of(&[MESH, &route]);
    assert_eq!(
        snapshot.problems()[0].reason,
        "Service data/cache is in another namespace, which has no ReferenceGrant for HTTPRoutes of namespace default: its share \
         of requests fails"
    );
    assert_eq!(status(&[MESH, &route, GRANT]), 0);
    assert_eq!(snapshot_of(&[MESH, &route, GRANT]).problems(), []);
    for (from, to) in [
        ("kind: HTTPRoute, namespace: default", "kind: GRPCRoute, namespace: default"),
        ("kind: HTTPRoute, namespace: default", "kind: HTTPRoute, namespace: other"),
        ("kind: Service}", "kind: Service, name: other}"),
        ("kind: Service}", "kind: Secret}"),
        ("namespace: data", "namespace: other"),
    ] {
        assert_eq!(status(&[MESH, &route, &GRANT.replace(from, to)]), 500, "{to}");
    }
}

#[test]
fn clients_may_lead_requests_to_the_service_that_they_call() {
    let consumer =
        http_route("mine", "\n  - backendRefs: [{name: reviews, namespace: default, port: 9080}]\n")
            .replace("name: mine", "name: mine, namespace: data")
            .replace("name: reviews}]\n  rules", "namespace: default, name: reviews}]\n  rules");
    let snapshot = snapshot_of(&[MESH, &consumer]);
    assert_eq!(snapshot.problems(), []);
    let cache = scope(&snapshot, "data", "cache-0", "cache");
    assert_eq!(virtual_host(&snapshot, &cache, REVIEWS_HOST).routes[0].name, "data.mine.0");
    assert_eq!(routes(&snapshot, REVIEWS_HOST)[0].name, "default");
}
