//! VirtualServices: matches, actions and what is done on the way; hosts, visibility, callers and delegates.

use outrigger_xds_api::wire::extensions::filters::http::cors::v3::CorsPolicy;
use outrigger_xds_api::wire::extensions::filters::http::fault::v3::HttpFault;
use outrigger_xds_api::wire::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use outrigger_xds_api::wire::route::v3::RouteAction;
use outrigger_xds_api::wire::route::v3::header_matcher::HeaderMatchSpecifier;
use outrigger_xds_api::wire::route::v3::redirect_action::PathRewriteSpecifier;
use outrigger_xds_api::wire::route::v3::route_action::HostRewriteSpecifier;
use outrigger_xds_api::wire::route::v3::weighted_cluster::cluster_weight;

use super::http_route::headers;
use super::*;

/// A VirtualService in YAML's flow form: its name and namespace, and its specification.
pub(super) fn virtual_service(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{{spec}}}\n"
    )
}

const TO_V1: &str = "route: [{destination: {host: reviews-v1}}]";
const V1: &str = "outbound|9080||reviews-v1.default.svc.cluster.local";
const V2: &str = "outbound|9080||reviews-v2.default.svc.cluster.local";

/// The routes of `reviews` by the rules of one VirtualService.
fn of_rules(rules: &str) -> Vec<Route> {
    let snapshot = snapshot_of(&[MESH, &virtual_service("v", &format!("hosts: [reviews], http: [{rules}]"))]);
    assert_eq!(snapshot.rejections(), []);
    assert_valid(&snapshot);
    routes(&snapshot, REVIEWS_HOST)
}

fn of_rule(rule: &str) -> Route {
    let [route] = of_rules(&format!("{{{rule}}}")).try_into().unwrap();
    route
}

fn forwarded(rule: &str) -> RouteAction {
    let Some(Action::Route(action)) = of_rule(rule).action else { panic!() };
    action
}

fn names(routes: &[Route]) -> Vec<&str> {
    routes.iter().map(|route| route.name.as_str()).collect()
}

/// The cluster of each route.
fn clusters(routes: &[Route]) -> Vec<String> {
    let cluster = |route: &Route| match &route.action {
        Some(Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(name)), ..
        })) => name.clone(),
        other => panic!("{other:?}"),
    };
    routes.iter().map(cluster).collect()
}

#[test]
fn rules_are_tried_in_the_order_written() {
    let routes = of_rules(&format!(
        "{{name: first, match: [{{uri: {{prefix: /a}}}}, {{name: exact, uri: {{exact: /b}}, ignoreUriCase: true}}], {TO_V1}}}, \
         {{match: [{{uri: {{regex: '/c[0-9]'}}}}], route: [{{destination: {{host: reviews-v2}}}}]}}, {{{TO_V1}}}"
    ));
    assert_eq!(names(&routes), ["first", "first.exact", "default.v.1", "default.v.2"]);
    let found: Vec<_> = routes.iter().map(|route| route.r#match.clone().unwrap()).collect();
    assert_eq!(found[0].path_specifier, Some(PathSpecifier::Prefix("/a".into())), "a prefix of characters");
    assert_eq!(found[1].path_specifier, Some(PathSpecifier::Path("/b".into())));
    assert!(!found[1].case_sensitive.unwrap().value && found[0].case_sensitive.is_none());
    assert!(
        matches!(&found[2].path_specifier, Some(PathSpecifier::SafeRegex(regex)) if regex.regex == "/c[0-9]")
    );
    assert_eq!(clusters(&routes), [V1, V1, V2, V1]);
}

#[test]
fn every_condition_on_a_request() {
    let found = of_rule(&format!(
        "match: [{{method: {{exact: PUT}}, scheme: {{exact: http}}, authority: {{prefix: re}}, headers: {{x-a: {{regex: 'a+'}}, \
         x-there: {{}}}}, withoutHeaders: {{x-b: {{exact: b}}, x-gone: {{}}}}, queryParams: {{q: {{exact: '1'}}}}, statPrefix: s}}], \
         {TO_V1}"
    ));
    assert_eq!(found.stat_prefix, "s");
    let found = found.r#match.unwrap();
    let shown: Vec<_> = found
        .headers
        .iter()
        .map(|header| {
            let is_present =
                matches!(header.header_match_specifier, Some(HeaderMatchSpecifier::PresentMatch(true)));
            (header.name.as_str(), is_present, header.invert_match, header.treat_missing_header_as_empty)
        })
        .collect();
    assert_eq!(
        shown,
        [
            (":method", false, false, false),
            ("x-a", false, false, false),
            ("x-there", true, false, false),
            // A header that is missing does not have the value.
            ("x-b", false, true, true),
            ("x-gone", true, true, false),
            (":authority", false, false, false),
            (":scheme", false, false, false),
        ]
    );
    assert_eq!(found.query_parameters[0].name, "q");
}

#[test]
fn redirects_rewrites_and_answers() {
    let Some(Action::Redirect(redirect)) = of_rule(
        "redirect: {uri: /n, authority: h, scheme: https, derivePort: FROM_REQUEST_PORT, redirectCode: 308}",
    )
    .action
    else {
        panic!()
    };
    assert_eq!((redirect.host_redirect.as_str(), redirect.port_redirect), ("h", 9080));
    assert_eq!(redirect.path_rewrite_specifier, Some(PathRewriteSpecifier::PathRedirect("/n".into())));
    let Some(Action::DirectResponse(answer)) =
        of_rule("directResponse: {status: 418, body: {string: tea}}").action
    else {
        panic!()
    };
    assert_eq!(answer.status, 418);
    assert!(answer.body.is_some());
    let action =
        forwarded(&format!("match: [{{uri: {{prefix: /a}}}}], rewrite: {{uri: /b, authority: h}}, {TO_V1}"));
    assert_eq!(action.prefix_rewrite, "/b");
    assert_eq!(action.host_rewrite_specifier, Some(HostRewriteSpecifier::HostRewriteLiteral("h".into())));
    let action = forwarded(&format!(
        r"rewrite: {{uriRegexRewrite: {{match: '^/x/([^/]+)', rewrite: '/\1'}}}}, {TO_V1}"
    ));
    let rewrite = action.regex_rewrite.unwrap();
    assert_eq!(
        (rewrite.pattern.unwrap().regex.as_str(), rewrite.substitution.as_str()),
        ("^/x/([^/]+)", r"/\1")
    );
}

#[test]
fn weights_headers_and_mirrors() {
    let action = forwarded(
        "route: [{destination: {host: reviews-v1, port: {number: 9080}}, weight: 80, headers: {request: {set: {x-to: v1, Host: h1}}}}, \
         {destination: {host: reviews-v2.default.svc.cluster.local}, weight: 20, headers: {response: {remove: [x-r]}}}], mirrors: \
         [{destination: {host: reviews}, percentage: {value: 0.5}}, {destination: {host: reviews-v2}, percentage: {value: 0}}]",
    );
    let Some(ClusterSpecifier::WeightedClusters(weighted)) = action.cluster_specifier else { panic!() };
    let [v1, v2] = weighted.clusters.try_into().unwrap();
    assert_eq!((v1.name.as_str(), v1.weight.unwrap().value), (V1, 80));
    assert_eq!(headers(&v1.request_headers_to_add), [("x-to".to_owned(), "v1".to_owned(), false)]);
    assert_eq!(
        v1.host_rewrite_specifier,
        Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral("h1".into()))
    );
    assert_eq!((v2.weight.unwrap().value, v2.response_headers_to_remove), (20, vec!["x-r".to_owned()]));
    let [mirror] = action.request_mirror_policies.try_into().unwrap();
    assert_eq!(mirror.cluster, REVIEWS);
    assert_eq!(mirror.runtime_fraction.unwrap().default_value.unwrap().numerator, 5000);

    let route = of_rule(&format!(
        "headers: {{request: {{add: {{x-path: '%REQ(:path)%'}}, remove: [x-q]}}, response: {{set: {{x-s: s}}}}}}, {TO_V1}"
    ));
    assert_eq!(
        headers(&route.request_headers_to_add),
        [("x-path".to_owned(), "%REQ(:path)%".to_owned(), true)]
    );
    assert_eq!(route.request_headers_to_remove, ["x-q"]);
    assert_eq!(headers(&route.response_headers_to_add), [("x-s".to_owned(), "s".to_owned(), false)]);
}

#[test]
fn times_attempts_faults_and_origins() {
    let route = of_rule(&format!(
        "timeout: 2s, retries: {{attempts: 3, perTryTimeout: 500ms, retryOn: 'gateway-error,reset,429', retryRemoteLocalities: true, \
         retryIgnorePreviousHosts: false}}, fault: {{delay: {{fixedDelay: 7s, percentage: {{value: 0.1}}}}, abort: {{grpcStatus: \
         UNAVAILABLE, percentage: {{value: 100}}}}}}, corsPolicy: {{allowOrigins: [{{prefix: 'https://'}}], allowMethods: [POST], \
         maxAge: 24h, unmatchedPreflights: IGNORE}}, {TO_V1}"
    ));
    let fault: HttpFault = unpack(&route.typed_per_filter_config["envoy.filters.http.fault"]).unwrap();
    assert_eq!(fault.delay.unwrap().percentage.unwrap().numerator, 1000);
    let abort = fault.abort.unwrap();
    assert_eq!(
        (abort.error_type, abort.percentage.unwrap().numerator),
        (Some(ErrorType::GrpcStatus(14)), 1_000_000)
    );
    let cors: CorsPolicy = unpack(&route.typed_per_filter_config["envoy.filters.http.cors"]).unwrap();
    assert_eq!((cors.allow_methods.as_str(), cors.max_age.as_str()), ("POST", "86400"));
    assert!(!cors.forward_not_matching_preflights.unwrap().value);
    let Some(Action::Route(action)) = route.action else { panic!() };
    assert_eq!(action.timeout.unwrap().seconds, 2);
    let retry = action.retry_policy.unwrap();
    assert_eq!(retry.retry_on, "gateway-error,reset,retriable-status-codes");
    assert_eq!((retry.retriable_status_codes, retry.num_retries.unwrap().value), (vec![429], 3));
    assert!(retry.retry_host_predicate.is_empty() && retry.retry_priority.is_some());
    // What Istio tries again when nothing is said of it.
    let retry = forwarded(&format!("retries: {{attempts: 2}}, {TO_V1}")).retry_policy.unwrap();
    assert_eq!(retry.retry_on, "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes");
    assert!(
        forwarded(TO_V1).retry_policy.is_none()
            && forwarded(&format!("retries: {{attempts: 0}}, {TO_V1}")).retry_policy.is_none()
    );
}

/// The names of the routes of `reviews` for a client.
fn seen(texts: &[&str], namespace: &str, pod: &str) -> Vec<String> {
    let snapshot = snapshot_of(texts);
    assert_eq!(snapshot.rejections(), []);
    let scope = scope(&snapshot, namespace, pod, if pod == "web" { "web" } else { "cache" });
    names(&virtual_host(&snapshot, &scope, REVIEWS_HOST).routes).into_iter().map(str::to_owned).collect()
}

#[test]
fn callers_are_told_apart_by_labels_and_namespace() {
    let service = virtual_service(
        "v",
        &format!(
            "hosts: [reviews], http: [{{name: web, match: [{{sourceLabels: {{app: web}}}}], {TO_V1}}}, {{name: data, match: \
             [{{sourceNamespace: data}}], {TO_V1}}}, {{name: port, match: [{{port: 1}}], {TO_V1}}}, {{name: all, {TO_V1}}}]"
        ),
    );
    assert_eq!(seen(&[MESH, &service], "default", "web"), ["web", "all"]);
    assert_eq!(seen(&[MESH, &service], "data", "cache-0"), ["data", "all"]);
    // Workloads that no rule tells apart share what they get.
    let snapshot = snapshot_of(&[MESH, &service]);
    let of = |pod: &str, account: &str| {
        snapshot.resources(&scope(&snapshot, "default", pod, account), ResourceType::RouteConfiguration)
    };
    assert!(of("reviews-v1-a", "reviews").same_as(&of("reviews-v2-a", "reviews-two")));
    assert!(!of("web", "web").same_as(&of("reviews-v1-a", "reviews")));
}

#[test]
fn who_speaks_for_a_host() {
    let named = |name: &str, hosts: &str, more: &str| {
        virtual_service(name, &format!("hosts: [{hosts}], {more}http: [{{{TO_V1}}}]"))
    };
    let whole = named("b", "reviews", "");
    let wildcard = named("a", "'*.default.svc.cluster.local'", "");
    assert_eq!(seen(&[MESH, &wildcard], "default", "web"), ["default.a.0"]);
    assert_eq!(
        seen(&[MESH, &wildcard, &whole], "default", "web"),
        ["default.b.0"],
        "a whole name comes first"
    );
    let wide = named("c", "'*.cluster.local'", "");
    assert_eq!(seen(&[MESH, &wide, &wildcard], "default", "web"), ["default.a.0"], "then a longer end");

    // One and the same host: the older one, then the first by name; the other is told.
    let older =
        named("z", "reviews", "").replace("name: z,", "name: z, creationTimestamp: '2020-01-01T00:00:00Z',");
    let younger = whole.replace("name: b,", "name: b, creationTimestamp: '2021-01-01T00:00:00Z',");
    assert_eq!(seen(&[MESH, &older, &younger], "default", "web"), ["default.z.0"]);
    let problem = snapshot_of(&[MESH, &older, &younger]).problems()[0].clone();
    assert_eq!(
        (problem.field.as_str(), problem.reason.as_str()),
        ("spec.hosts[0]", "has no effect: VirtualService default/z is for the same host, and older")
    );

    // Only those who see it follow it; what is for the own namespace alone comes first there.
    let private = named("data/p", "reviews.default.svc.cluster.local", "exportTo: ['.'], ")
        .replace("host: reviews-v1", "host: cache");
    assert_eq!(seen(&[MESH, &whole, &private], "data", "cache-0"), ["data.p.0"]);
    assert_eq!(seen(&[MESH, &whole, &private], "default", "web"), ["default.b.0"]);
    // Also before an older one that is exported to it by name.
    let exported = named("b", "reviews", "exportTo: [data, default], ")
        .replace("name: b,", "name: b, creationTimestamp: '2020-01-01T00:00:00Z',");
    let young = private.replace("name: p,", "name: p, creationTimestamp: '2021-01-01T00:00:00Z',");
    assert_eq!(seen(&[MESH, &exported, &young], "data", "cache-0"), ["data.p.0"]);
    let told = snapshot_of(&[MESH, &exported, &young]);
    assert!(
        told.problems().iter().all(|found| !found.reason.contains("has no effect")),
        "{:?}",
        told.problems()
    );
    let exported = named("b", "reviews", "exportTo: [data], ");
    assert_eq!(seen(&[MESH, &exported], "default", "web"), ["default"]);
    assert_eq!(seen(&[MESH, &exported], "data", "cache-0"), ["default.b.0"]);
}

#[test]
fn a_host_without_a_service_is_for_clients_that_name_it() {
    let snapshot = snapshot_of(&[
        MESH,
        &virtual_service("v", &format!("hosts: [shop.example, '*.shop.example'], http: [{{{TO_V1}}}]")),
    ]);
    assert_valid(&snapshot);
    let domains = |host: &str| virtual_host(&snapshot, &web(&snapshot), host).domains;
    assert_eq!(domains("shop.example:80"), ["shop.example:80", "shop.example"]);
    assert_eq!(domains("*.shop.example:80"), ["*.shop.example:80", "*.shop.example"]);
    assert!(snapshot.problems()[0].reason.starts_with("no Service or ServiceEntry has host shop.example"));
}

#[test]
fn rules_for_gateways_are_not_for_sidecars() {
    let rule = format!(
        "{{match: [{{gateways: [ingress]}}], {TO_V1}}}, {{name: mine, match: [{{gateways: [mesh]}}], {TO_V1}}}"
    );
    let both = virtual_service("v", &format!("hosts: [reviews], gateways: [ingress, mesh], http: [{rule}]"));
    assert_eq!(seen(&[MESH, &both], "default", "web"), ["mine"]);
    let fields: Vec<_> =
        snapshot_of(&[MESH, &both]).problems().iter().map(|found| found.field.clone()).collect();
    assert_eq!(fields, ["spec.gateways[0]", "spec.http[0].match[0].gateways[0]"]);
    let other = virtual_service("v", &format!("hosts: ['*'], gateways: [ingress], http: [{{{TO_V1}}}]"));
    let snapshot = snapshot_of(&[MESH, &other]);
    assert_eq!(names(&routes(&snapshot, REVIEWS_HOST)), ["default"]);
    let [problem] = snapshot.problems() else { panic!() };
    assert_eq!(problem.reason, "gateway ingress is no sidecar: rules for it have no effect in this mesh");
}

#[test]
fn delegates_rule_what_both_match() {
    let root = virtual_service(
        "root",
        "hosts: [reviews], http: [{name: r, match: [{uri: {prefix: /a}, headers: {x: {exact: '1'}}}], delegate: {name: leaf}, \
         timeout: 3s, headers: {request: {set: {x-by: root}}}}]",
    );
    let leaf = virtual_service(
        "leaf",
        &format!(
            "http: [{{name: l, match: [{{uri: {{exact: /a/b}}, method: {{exact: GET}}}}, {{uri: {{prefix: /c}}}}], {TO_V1}}}, \
             {{{TO_V1}, timeout: 1s, headers: {{request: {{set: {{x-by: leaf}}}}}}}}]"
        ),
    );
    let snapshot = snapshot_of(&[MESH, &root, &leaf]);
    assert_valid(&snapshot);
    let routes = routes(&snapshot, REVIEWS_HOST);
    assert_eq!(names(&routes), ["r-l", "r"], "what begins with /c is not for it");
    let first = routes[0].r#match.clone().unwrap();
    assert_eq!(first.path_specifier, Some(PathSpecifier::Path("/a/b".into())));
    let conditions: Vec<_> = first.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!(conditions, [":method", "x"]);
    let timeouts: Vec<_> = routes
        .iter()
        .map(|route| match &route.action {
            Some(Action::Route(action)) => action.timeout.unwrap().seconds,
            _ => panic!(),
        })
        .collect();
    assert_eq!(timeouts, [3, 1], "what the other one does not say, the first one does");
    let set = |route: &Route| headers(&route.request_headers_to_add)[0].1.clone();
    assert_eq!((set(&routes[0]), set(&routes[1])), ("root".to_owned(), "leaf".to_owned()));
    // The rule points at the object that it is written in.
    let maker = crate::translate::metadata::maker(routes[0].metadata.as_ref()).unwrap();
    assert_eq!((maker.0.name.as_str(), maker.1.as_str()), ("leaf", "spec.http[0]"));

    let problem = |texts: &[&str]| snapshot_of(texts).problems().last().unwrap().to_string();
    assert!(
        problem(&[MESH, &root]).contains("spec.http[0].delegate: VirtualService default/leaf does not exist")
    );
    let hosted = leaf.replace("http:", "hosts: [other.example], http:");
    assert!(problem(&[MESH, &root, &hosted]).contains("has hosts of its own"));
}

#[test]
fn destinations_that_are_missing_are_told() {
    let service = virtual_service(
        "v",
        "hosts: [reviews], http: [{route: [{destination: {host: gone}}]}, {route: [{destination: {host: reviews, subset: v9}}]}, {route: \
         [{destination: {host: reviews, port: {number: 1}}}]}]",
    );
    let snapshot = snapshot_of(&[MESH, &service]);
    let reasons: Vec<_> = snapshot.problems().iter().map(|found| found.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "Service default/gone does not exist: its share of requests fails",
            "no DestinationRule for Service default/reviews has a subset v9: its share of requests fails",
            "Service default/reviews has no port 1: its share of requests fails",
        ]
    );
    assert_eq!(clusters(&routes(&snapshot, REVIEWS_HOST)), ["BlackHoleCluster"; 3]);
}

#[test]
fn the_gateway_api_comes_first_and_both_say_so() {
    let service = virtual_service("v", &format!("hosts: [reviews], http: [{{{TO_V1}}}]"));
    let snapshot = snapshot_of(&[MESH, &split(), &service]);
    assert_eq!(names(&routes(&snapshot, REVIEWS_HOST)), ["default.split.0"]);
    let told: Vec<_> = snapshot
        .problems()
        .iter()
        .map(|found| (found.object.as_ref().unwrap().kind.as_str(), found.field.as_str()))
        .collect();
    assert_eq!(told, [("HTTPRoute", "spec.parentRefs[0]"), ("VirtualService", "spec.hosts[0]")]);
    assert!(
        snapshot.problems()[1].reason.contains("clients in namespace default follow HTTPRoute default/split"),
        "{}",
        snapshot.problems()[1]
    );
    // Where the route is not for the port, the VirtualService rules it.
    let other = split().replace("name: reviews}", "name: reviews, port: 1}");
    assert_eq!(names(&routes(&snapshot_of(&[MESH, &other, &service]), REVIEWS_HOST)), ["default.v.0"]);
}

#[test]
fn two_virtual_hosts_never_have_one_domain() {
    let at_80 =
        "{apiVersion: v1, kind: Service, metadata: {name: plain}, spec: {ports: [{name: http, port: 80}]}}";
    let service = virtual_service(
        "v",
        &format!("hosts: [plain.default, plain.default.svc, other.example], http: [{{{TO_V1}}}]"),
    );
    let entry = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, spec: {hosts: [plain.default], ports: [{number: \
                 80, name: http}], resolution: STATIC, endpoints: [{address: 10.9.0.1}]}}";
    for texts in [&[MESH, at_80, &service][..], &[MESH, at_80, entry]] {
        let snapshot = snapshot_of(texts);
        assert_eq!(snapshot.rejections(), []);
        assert_valid(&snapshot);
        let plain = virtual_host(&snapshot, &web(&snapshot), "plain.default.svc.cluster.local:80");
        assert!(plain.domains.contains(&"plain.default".to_owned()), "{:?}", plain.domains);
    }
}

#[test]
fn what_no_proxy_could_follow_is_refused() {
    let refused = |http: &str, field: &str, reason: &str| {
        let snapshot =
            snapshot_of(&[MESH, &virtual_service("v", &format!("hosts: [reviews], http: [{{{http}}}]"))]);
        let [found] = snapshot.rejections() else { panic!("{http}: {:?}", snapshot.rejections()) };
        assert_eq!((found.field.as_str(), found.reason.contains(reason)), (field, true), "{found:?}");
    };
    let weights = |weights: [u32; 2]| {
        let [one, two] =
            weights.map(|weight| format!("{{destination: {{host: reviews-v1}}, weight: {weight}}}"));
        format!("route: [{one}, {two}]")
    };
    refused(&weights([0, 0]), "spec.http[0].route", "sum up to 0");
    refused(&weights([u32::MAX, 1]), "spec.http[0].route", "sum up to more than 4294967295");
    let snapshot = snapshot_of(&[
        MESH,
        &virtual_service("v", &format!("hosts: [reviews], http: [{{{}}}]", weights([u32::MAX - 1, 1]))),
    ]);
    assert_eq!(snapshot.rejections(), []);
    for (condition, field, reason) in [
        ("queryParams: {'': {exact: a}}", "queryParams", "must not be empty"),
        ("uri: {regex: '\\pL{1000}'}", "uri.regex", "size limit"),
    ] {
        let rule = format!("match: [{{{condition}}}], directResponse: {{status: 200}}");
        refused(&rule, &format!("spec.http[0].match[0].{field}"), reason);
    }
    for substitution in ["\\2", "\\x", "a\\"] {
        let rule = format!(
            "rewrite: {{uriRegexRewrite: {{match: '/(.*)', rewrite: '{substitution}'}}}}, route: [{{destination: {{host: \
             reviews-v1}}}}]"
        );
        refused(
            &rule,
            "spec.http[0].rewrite.uriRegexRewrite.rewrite",
            "must be followed by a group (0 to 1)",
        );
    }
    for (field, more) in [
        ("timeout", "timeout: 1s"),
        ("retries", "retries: {attempts: 1}"),
        ("rewrite", "rewrite: {uri: /a}"),
        ("mirror", "mirror: {host: reviews-v1}"),
        ("mirrors", "mirrors: [{destination: {host: reviews-v1}}]"),
    ] {
        for way in ["redirect: {uri: /b}", "directResponse: {status: 200}"] {
            refused(&format!("{way}, {more}"), &format!("spec.http[0].{field}"), "nothing is forwarded");
        }
    }
}
