//! The same rules written in both APIs route alike.
//!
//! Istio's way of naming versions is a subset, the Gateway API's a Service for each; the clusters of the one stand for those of
//! the other here, and have the same endpoints. What only one API can say (faults; prefixes of characters) has no twin.

use super::virtual_service::virtual_service;
use super::*;

const SUBSETS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
";

/// All routes of a client, without what tells by whom they were written.
fn routed(snapshot: &Snapshot) -> RouteConfiguration {
    assert_eq!((snapshot.rejections(), snapshot.problems()), (&[][..], &[][..]));
    assert_valid(snapshot);
    let mut routes: RouteConfiguration =
        get(snapshot, &web(snapshot), ResourceType::RouteConfiguration, "15001");
    let service_of = |name: &mut String| {
        *name = name.replace("|v1|reviews.", "||reviews-v1.").replace("|v2|reviews.", "||reviews-v2.");
    };
    for route in routes.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes) {
        route.name.clear();
        route.metadata = None;
        let Some(Action::Route(action)) = &mut route.action else { continue };
        match &mut action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => service_of(name),
            Some(ClusterSpecifier::WeightedClusters(all)) => {
                all.clusters.iter_mut().for_each(|share| service_of(&mut share.name));
            }
            other => panic!("{other:?}"),
        }
        action.request_mirror_policies.iter_mut().for_each(|mirror| service_of(&mut mirror.cluster));
    }
    routes
}

/// Rules of `http` of a VirtualService for `reviews`, and rules of an HTTPRoute.
#[track_caller]
fn twins(istio: &str, gateway_api: &str) {
    let istio = virtual_service("v", &format!("hosts: [reviews], http: [{istio}]"));
    let istio = snapshot_of(&[MESH, SUBSETS, &istio]);
    let route = http_route("r", &format!(" [{gateway_api}]"));
    let gateway_api = snapshot_of(&[MESH, SUBSETS, &route]);
    let plain = routed(&snapshot_of(&[MESH, SUBSETS]));
    assert_ne!(routed(&istio), plain);
    assert_eq!(routed(&istio), routed(&gateway_api));
}

const V1: &str = "route: [{destination: {host: reviews, subset: v1}}]";
const V2: &str = "route: [{destination: {host: reviews, subset: v2}}]";
const TO_V1: &str = "backendRefs: [{name: reviews-v1, port: 9080}]";
const TO_V2: &str = "backendRefs: [{name: reviews-v2, port: 9080}]";

#[test]
fn subsets_are_what_services_for_each_version_are() {
    let snapshot = snapshot_of(&[MESH, SUBSETS]);
    for version in ["v1", "v2"] {
        let subset = format!("outbound|9080|{version}|reviews.default.svc.cluster.local");
        let service = format!("outbound|9080||reviews-{version}.default.svc.cluster.local");
        assert_eq!(endpoints(&snapshot, &subset), endpoints(&snapshot, &service));
    }
}

#[test]
fn everything_to_one_version() {
    twins(&format!("{{{V1}}}"), &format!("{{{TO_V1}}}"));
}

#[test]
fn a_share_to_another_version() {
    for (one, other) in [(50, 50), (80, 20), (90, 10)] {
        twins(
            &format!(
                "{{route: [{{destination: {{host: reviews, subset: v1}}, weight: {one}}}, {{destination: {{host: reviews, subset: v2}}, \
                 weight: {other}}}]}}"
            ),
            &format!(
                "{{backendRefs: [{{name: reviews-v1, port: 9080, weight: {one}}}, {{name: reviews-v2, port: 9080, weight: {other}}}]}}"
            ),
        );
    }
}

#[test]
fn one_user_to_another_version() {
    twins(
        &format!("{{match: [{{headers: {{end-user: {{exact: jason}}}}}}], {V2}}}, {{{V1}}}"),
        &format!("{{matches: [{{headers: [{{name: end-user, value: jason}}]}}], {TO_V2}}}, {{{TO_V1}}}"),
    );
    twins(
        &format!(
            "{{match: [{{headers: {{cookie: {{regex: '.*user=dev.*'}}}}, method: {{exact: GET}}}}], {V2}}}, {{{V1}}}"
        ),
        &format!(
            "{{matches: [{{method: GET, headers: [{{name: cookie, type: RegularExpression, value: '.*user=dev.*'}}]}}], {TO_V2}}}, \
             {{{TO_V1}}}"
        ),
    );
}

#[test]
fn paths_and_parameters_of_the_query() {
    twins(
        &format!(
            "{{match: [{{uri: {{exact: /productpage}}}}, {{uri: {{regex: '/static/.*'}}, queryParams: {{v: {{exact: '2'}}}}}}], {V2}}}, \
             {{{V1}}}"
        ),
        &format!(
            "{{matches: [{{path: {{type: Exact, value: /productpage}}}}, {{path: {{type: RegularExpression, value: '/static/.*'}}, queryParams: \
             [{{name: v, value: '2'}}]}}], {TO_V2}}}, {{{TO_V1}}}"
        ),
    );
}

#[test]
fn times_attempts_and_copies() {
    twins(
        &format!(
            "{{timeout: 3s, retries: {{attempts: 2, perTryTimeout: 1s, retryOn: 'connect-failure,refused-stream,reset,503', backoff: \
             100ms}}, mirrors: [{{destination: {{host: reviews, subset: v2}}, percentage: {{value: 25}}}}], {V1}}}"
        ),
        &format!(
            "{{timeouts: {{request: 3s, backendRequest: 1s}}, retry: {{attempts: 2, codes: [503], backoff: 100ms}}, filters: [{{type: \
             RequestMirror, requestMirror: {{backendRef: {{name: reviews-v2, port: 9080}}, percent: 25}}}}], {TO_V1}}}"
        ),
    );
}

#[test]
fn headers_and_hosts() {
    twins(
        "{headers: {request: {set: {x-a: a}, remove: [x-b]}, response: {add: {x-c: '100%%'}}}, rewrite: {authority: h.example}, route: \
         [{destination: {host: reviews, subset: v1}, headers: {request: {add: {x-d: d}}}}]}",
        "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: a}], remove: [X-B]}}, {type: \
         ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-c, value: '100%'}]}}, {type: URLRewrite, urlRewrite: {hostname: \
         h.example}}], backendRefs: [{name: reviews-v1, port: 9080, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: \
         [{name: x-d, value: d}]}}]}]}",
    );
}

#[test]
fn redirects() {
    twins(
        &format!(
            "{{match: [{{uri: {{exact: /old}}}}], redirect: {{uri: /new, authority: h.example, port: 8080}}}}, {{{V1}}}"
        ),
        &format!(
            "{{matches: [{{path: {{type: Exact, value: /old}}}}], filters: [{{type: RequestRedirect, requestRedirect: {{hostname: h.example, \
             port: 8080, statusCode: 301, path: {{type: ReplaceFullPath, replaceFullPath: /new}}}}}}]}}, {{{TO_V1}}}"
        ),
    );
}

#[test]
fn browsers_of_other_origins() {
    twins(
        &format!(
            "{{corsPolicy: {{allowOrigins: [{{exact: 'https://a.example'}}], allowMethods: [GET, PUT], allowHeaders: [x-a], maxAge: 1m, \
             allowCredentials: true, unmatchedPreflights: IGNORE}}, {V1}}}"
        ),
        &format!(
            "{{filters: [{{type: CORS, cors: {{allowOrigins: ['https://a.example'], allowMethods: [GET, PUT], allowHeaders: [x-a], maxAge: \
             60, allowCredentials: true}}}}], {TO_V1}}}"
        ),
    );
}
