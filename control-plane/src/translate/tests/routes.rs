//! Route configurations.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use outrigger_xds_api::wire::r#type::v3::fractional_percent::DenominatorType;

use super::*;

#[test]
fn virtual_hosts_and_their_domains() {
    let snapshot = snapshot_of(&[
        MESH,
        "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: x}, spec: {ports: [{name: http, port: 80}]}}",
    ]);
    let own = virtual_host(&snapshot, &web(&snapshot), REVIEWS_HOST);
    assert_eq!(
        own.domains,
        [
            "reviews.default.svc.cluster.local:9080",
            "reviews.default.svc:9080",
            "reviews.default:9080",
            "reviews:9080"
        ]
    );
    let Some(Action::Route(action)) = &own.routes[0].action else { panic!() };
    assert_eq!(action.cluster_specifier, Some(ClusterSpecifier::Cluster(REVIEWS.into())));
    assert_eq!(action.timeout.unwrap().seconds, 0);
    let foreign = virtual_host(&snapshot, &web(&snapshot), "a.x.svc.cluster.local:80");
    assert_eq!(
        foreign.domains,
        ["a.x.svc.cluster.local:80", "a.x.svc:80", "a.x:80", "a.x.svc.cluster.local", "a.x.svc", "a.x"]
    );
    // From another namespace there is no short name. TCP ports have no virtual host.
    let cache = scope(&snapshot, "data", "cache-0", "cache");
    let from_data = virtual_host(&snapshot, &cache, REVIEWS_HOST);
    assert!(!from_data.domains.contains(&"reviews:9080".to_owned()));
    let all: RouteConfiguration = get(&snapshot, &cache, ResourceType::RouteConfiguration, "15001");
    assert!(all.virtual_hosts.iter().all(|host| !host.name.starts_with("cache.")));
}

#[test]
fn weights() {
    let snapshot = snapshot_of(&[MESH, &split()]);
    let routes = routes(&snapshot, REVIEWS_HOST);
    let Some(Action::Route(action)) = &routes[0].action else { panic!() };
    let Some(ClusterSpecifier::WeightedClusters(weighted)) = &action.cluster_specifier else { panic!() };
    let shares: Vec<_> =
        weighted.clusters.iter().map(|share| (share.name.as_str(), share.weight.unwrap().value)).collect();
    assert_eq!(
        shares,
        [
            ("outbound|9080||reviews-v1.default.svc.cluster.local", 90),
            ("outbound|9080||reviews-v2.default.svc.cluster.local", 10)
        ]
    );
    assert_eq!(routes[0].name, "default.split.0");
}

#[test]
fn missing_backends() {
    let missing = split().replace("reviews-v2", "reviews-v9");
    let snapshot = snapshot_of(&[MESH, &missing]);
    assert_valid(&snapshot);
    let [refused, rest] = routes(&snapshot, REVIEWS_HOST).try_into().unwrap();
    let share = refused.r#match.unwrap().runtime_fraction.unwrap().default_value.unwrap();
    assert_eq!((share.numerator, share.denominator()), (100_000, DenominatorType::Million));
    assert!(matches!(&refused.action, Some(Action::DirectResponse(answer)) if answer.status == 500));
    assert_eq!(rest.r#match.unwrap().runtime_fraction, None);
    let Some(Action::Route(action)) = rest.action else { panic!() };
    let v1 = "outbound|9080||reviews-v1.default.svc.cluster.local".to_owned();
    assert_eq!(action.cluster_specifier, Some(ClusterSpecifier::Cluster(v1)));
    let [problem] = snapshot.problems() else { panic!("{:?}", snapshot.problems()) };
    assert_eq!(problem.field, "spec.rules[0].backendRefs[1]");
    assert_eq!(problem.position.unwrap().line, 8);

    let none = missing.replace("reviews-v1", "reviews-v8");
    let snapshot = snapshot_of(&[MESH, &none]);
    let Some(Action::DirectResponse(answer)) = &routes(&snapshot, REVIEWS_HOST)[0].action else { panic!() };
    assert_eq!(answer.status, 500);
}

#[test]
fn precedence_of_matches() {
    let rules = "
  - {name: any, backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: long, matches: [{path: {value: /a/b}}], backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: regex, matches: [{path: {type: RegularExpression, value: '/x.*'}}], backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: short, matches: [{path: {value: /a}}], backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: header, matches: [{path: {value: /a}, headers: [{name: h, value: v}]}], backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: method, matches: [{path: {value: /a}, method: GET}], backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: exact, matches: [{path: {type: Exact, value: /}}], backendRefs: [{name: reviews-v1, port: 9080}]}
";
    let routes = routes(&snapshot_of(&[MESH, &http_route("r", rules)]), REVIEWS_HOST);
    let names: Vec<_> = routes.iter().map(|route| route.name.rsplit('.').next().unwrap()).collect();
    assert_eq!(names, ["exact", "regex", "long", "method", "header", "short", "any"]);
    let path = |index: usize| routes[index].r#match.as_ref().unwrap().path_specifier.clone().unwrap();
    assert_eq!(path(2), PathSpecifier::PathSeparatedPrefix("/a/b".into()));
    assert_eq!(path(6), PathSpecifier::Prefix("/".into()));
    assert_eq!(routes[3].r#match.as_ref().unwrap().headers[0].name, ":method");
}

#[test]
fn consumer_routes_replace_producer_routes() {
    let consumer = split()
        .replace("name: split", "name: mine, namespace: data")
        .replace("kind: Service, name: reviews", "kind: Service, namespace: default, name: reviews")
        .replace("name: reviews-v1, port: 9080", "name: cache, port: 6379");
    let snapshot = snapshot_of(&[MESH, &split(), &consumer]);
    let cache = scope(&snapshot, "data", "cache-0", "cache");
    assert_eq!(virtual_host(&snapshot, &cache, REVIEWS_HOST).routes[0].name, "data.mine.0");
    assert_eq!(routes(&snapshot, REVIEWS_HOST)[0].name, "default.split.0");
}

#[test]
fn redirects() {
    let rules = "
  - matches: [{path: {value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 308, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
";
    let routes = routes(&snapshot_of(&[MESH, &http_route("r", rules)]), REVIEWS_HOST);
    assert_eq!(routes.len(), 2);
    let Some(Action::Redirect(redirect)) = &routes[0].action else { panic!() };
    assert_eq!(redirect.port_redirect, 443);
    assert_eq!(
        redirect.response_code,
        outrigger_xds_api::wire::route::v3::redirect_action::RedirectResponseCode::PermanentRedirect as i32
    );
    assert_eq!(
        routes[0].r#match.as_ref().unwrap().path_specifier,
        Some(PathSpecifier::Prefix("/old/".into()))
    );
    assert_eq!(routes[1].r#match.as_ref().unwrap().path_specifier, Some(PathSpecifier::Path("/old".into())));
}
