//! Filters, matches, timeouts and retries of HTTPRoutes.

use outrigger_xds_api::wire::core::v3::HeaderValueOption;
use outrigger_xds_api::wire::core::v3::header_value_option::HeaderAppendAction;
use outrigger_xds_api::wire::extensions::filters::http::cors::v3::CorsPolicy;
use outrigger_xds_api::wire::route::v3::header_matcher::HeaderMatchSpecifier;
use outrigger_xds_api::wire::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use outrigger_xds_api::wire::route::v3::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};
use outrigger_xds_api::wire::route::v3::route_action::HostRewriteSpecifier;
use outrigger_xds_api::wire::route::v3::{RedirectAction, RouteAction, RouteMatch};

use super::*;

const TO_V1: &str = "backendRefs: [{name: reviews-v1, port: 9080}]";

/// The routes of an HTTPRoute with one rule, whose fields are given in YAML's flow form.
pub(super) fn of_rule(rule: &str) -> Vec<Route> {
    let snapshot = snapshot_of(&[MESH, &http_route("r", &format!("\n  - {{{rule}}}\n"))]);
    assert_eq!(snapshot.rejections(), []);
    assert_valid(&snapshot);
    routes(&snapshot, REVIEWS_HOST)
}

/// What the only route of such an HTTPRoute does to what it forwards.
fn forwarded(rule: &str) -> (Route, RouteAction) {
    let [route] = of_rule(rule).try_into().unwrap();
    let Some(Action::Route(action)) = route.action.clone() else { panic!("{:?}", route.action) };
    (route, action)
}

fn redirected(redirect: &str) -> RedirectAction {
    let [route] = of_rule(&format!("filters: [{{type: RequestRedirect, requestRedirect: {{{redirect}}}}}]"))
        .try_into()
        .unwrap();
    let Some(Action::Redirect(action)) = route.action else { panic!("{:?}", route.action) };
    action
}

fn matched(condition: &str) -> RouteMatch {
    forwarded(&format!("matches: [{{{condition}}}], {TO_V1}")).0.r#match.unwrap()
}

pub(super) fn headers(options: &[HeaderValueOption]) -> Vec<(String, String, bool)> {
    let shown = |option: &HeaderValueOption| {
        let header = option.header.clone().unwrap();
        let appends = option.append_action == HeaderAppendAction::AppendIfExistsOrAdd as i32;
        (header.key, header.value, appends)
    };
    options.iter().map(shown).collect()
}

fn text(text: &str) -> String {
    text.to_owned()
}

#[test]
fn header_changes_of_rule_and_backend() {
    let changes = "{set: [{name: X-Set, value: 'a%b'}], add: [{name: x-add, value: c}], remove: [x-gone]}";
    let (route, _) = forwarded(&format!(
        "filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {changes}}}, {{type: ResponseHeaderModifier, \
         responseHeaderModifier: {{remove: [server]}}}}], {TO_V1}"
    ));
    // `%` begins a format in Envoy; here it means itself.
    let expected = [(text("x-set"), text("a%%b"), false), (text("x-add"), text("c"), true)];
    assert_eq!(headers(&route.request_headers_to_add), expected);
    assert_eq!(route.request_headers_to_remove, ["x-gone"]);
    assert_eq!(route.response_headers_to_remove, ["server"]);

    let (route, action) = forwarded(&format!(
        "backendRefs: [{{name: reviews-v1, port: 9080, filters: [{{type: RequestHeaderModifier, requestHeaderModifier: \
         {changes}}}]}}]"
    ));
    assert!(route.request_headers_to_add.is_empty());
    let Some(ClusterSpecifier::WeightedClusters(clusters)) = action.cluster_specifier else { panic!() };
    assert_eq!(headers(&clusters.clusters[0].request_headers_to_add), expected);
}

#[test]
fn paths_and_hosts_are_rewritten() {
    let rewritten = |path: &str, to: &str| -> Vec<(PathSpecifier, RouteAction)> {
        let routes = of_rule(&format!(
            "matches: [{{path: {{value: {path}}}}}], filters: [{{type: URLRewrite, urlRewrite: {{hostname: h.example, path: \
             {to}}}}}], {TO_V1}"
        ));
        let one = |route: Route| {
            let Some(Action::Route(action)) = route.action else { panic!() };
            (route.r#match.unwrap().path_specifier.unwrap(), action)
        };
        routes.into_iter().map(one).collect()
    };
    let full = rewritten("/a", r"{type: ReplaceFullPath, replaceFullPath: '/b\1'}");
    let regex = full[0].1.regex_rewrite.clone().unwrap();
    assert_eq!((regex.pattern.unwrap().regex.as_str(), regex.substitution.as_str()), ("^.*$", r"/b\\1"));
    assert_eq!(
        full[0].1.host_rewrite_specifier,
        Some(HostRewriteSpecifier::HostRewriteLiteral("h.example".into()))
    );
    let prefix = |path: &str, to: &str| -> Vec<(PathSpecifier, String)> {
        let all = rewritten(path, &format!("{{type: ReplacePrefixMatch, replacePrefixMatch: {to}}}"));
        all.into_iter().map(|(path, action)| (path, action.prefix_rewrite)).collect()
    };
    assert_eq!(prefix("/a", "/b/"), [(PathSpecifier::PathSeparatedPrefix("/a".into()), text("/b"))]);
    assert_eq!(prefix("/", "/b"), [(PathSpecifier::Prefix("/".into()), text("/b/"))]);
    // `/a/x` becomes `/x`, and `/a` becomes `/`, which takes a second route.
    let to_root = prefix("/a", "/");
    assert_eq!(to_root[0], (PathSpecifier::Prefix("/a/".into()), text("/")));
    assert_eq!(to_root[1].0, PathSpecifier::Path("/a".into()));
}

#[test]
fn redirects_change_what_they_say() {
    let plain = redirected("statusCode: 301");
    assert_eq!((plain.host_redirect.as_str(), plain.port_redirect), ("", 0));
    let https = redirected("scheme: https");
    assert_eq!(https.port_redirect, 443, "a scheme means its port");
    assert_eq!(https.scheme_rewrite_specifier, Some(SchemeRewriteSpecifier::SchemeRedirect("https".into())));
    assert_eq!(redirected("scheme: https, port: 8443").port_redirect, 8443);
    let host = redirected("hostname: h.example");
    assert_eq!((host.host_redirect.as_str(), host.port_redirect), ("h.example", 9080), "the port called");
    let path = redirected("path: {type: ReplaceFullPath, replaceFullPath: /b}");
    assert_eq!(path.path_rewrite_specifier, Some(PathRewriteSpecifier::PathRedirect("/b".into())));
    let prefix = redirected("path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}");
    assert_eq!(prefix.path_rewrite_specifier, Some(PathRewriteSpecifier::PrefixRewrite("/b/".into())));
}

#[test]
fn copies_go_to_mirrors() {
    let (_, action) = forwarded(&format!(
        "filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: reviews-v2, port: 9080}}, percent: 25}}}}, \
         {{type: RequestMirror, requestMirror: {{backendRef: {{name: reviews, port: 9080}}, fraction: {{numerator: 1, \
         denominator: 8}}}}}}, {{type: RequestMirror, requestMirror: {{backendRef: {{name: gone, port: 1}}}}}}], {TO_V1}"
    ));
    let mirrors = action.request_mirror_policies;
    let shares: Vec<_> = mirrors
        .iter()
        .map(|mirror| {
            let share = mirror.runtime_fraction.as_ref().unwrap().default_value.unwrap();
            (mirror.cluster.as_str(), share.numerator)
        })
        .collect();
    let v2 = "outbound|9080||reviews-v2.default.svc.cluster.local";
    assert_eq!(shares, [(v2, 250_000), (REVIEWS, 125_000)]);
}

#[test]
fn headers_and_query_parameters_are_matched() {
    let found = matched(
        "headers: [{name: Host, value: h}, {name: x, type: RegularExpression, value: 'a|b'}], method: PUT, queryParams: \
         [{name: Q, value: '1'}, {name: r, type: RegularExpression, value: '[0-9]+'}]",
    );
    let names: Vec<_> = found.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!(names, [":method", ":authority", "x"]);
    let Some(HeaderMatchSpecifier::StringMatch(matcher)) = &found.headers[2].header_match_specifier else {
        panic!()
    };
    let Some(MatchPattern::SafeRegex(regex)) = &matcher.match_pattern else { panic!() };
    assert_eq!(regex.regex, "a|b");
    let [exact, regex] = found.query_parameters.try_into().unwrap();
    assert_eq!(exact.name, "Q");
    let Some(QueryParameterMatchSpecifier::StringMatch(matcher)) = exact.query_parameter_match_specifier
    else {
        panic!()
    };
    assert_eq!(matcher.match_pattern, Some(MatchPattern::Exact("1".into())));
    let Some(QueryParameterMatchSpecifier::StringMatch(matcher)) = regex.query_parameter_match_specifier
    else {
        panic!()
    };
    assert!(matches!(matcher.match_pattern, Some(MatchPattern::SafeRegex(_))));
}

#[test]
fn more_query_parameters_come_first() {
    let rules = format!(
        "
  - {{name: one, matches: [{{queryParams: [{{name: a, value: b}}]}}], {TO_V1}}}
  - {{name: two, matches: [{{queryParams: [{{name: a, value: b}}, {{name: c, value: d}}]}}], {TO_V1}}}
  - {{name: header, matches: [{{headers: [{{name: a, value: b}}]}}], {TO_V1}}}
"
    );
    let routes = routes(&snapshot_of(&[MESH, &http_route("r", &rules)]), REVIEWS_HOST);
    let names: Vec<_> = routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["default.r.header", "default.r.two", "default.r.one"]);
}

#[test]
fn times_and_attempts_are_limited() {
    let milliseconds = |duration: Option<outrigger_xds_api::wire::protobuf::Duration>| {
        duration.map(|duration| duration.seconds * 1000 + i64::from(duration.nanos) / 1_000_000)
    };
    let (_, action) = forwarded(&format!(
        "timeouts: {{request: 2s, backendRequest: 500ms}}, retry: {{attempts: 3, backoff: 100ms, codes: [500, 503]}}, {TO_V1}"
    ));
    assert_eq!(milliseconds(action.timeout), Some(2000));
    let retry = action.retry_policy.unwrap();
    assert_eq!(retry.num_retries.unwrap().value, 3);
    assert_eq!(retry.retry_on, "connect-failure,refused-stream,reset,retriable-status-codes");
    assert_eq!(retry.retriable_status_codes, [500, 503]);
    assert_eq!(milliseconds(retry.per_try_timeout), Some(500));
    let backoff = retry.retry_back_off.unwrap();
    assert_eq!(
        (milliseconds(backoff.base_interval), milliseconds(backoff.max_interval)),
        (Some(100), Some(1000))
    );
    assert_eq!(retry.retry_host_predicate[0].name, "envoy.retry_host_predicates.previous_hosts");

    // Without a retry there is one attempt, so its limit is that of the request. Zero is no limit.
    let (_, action) = forwarded(&format!("timeouts: {{backendRequest: 500ms}}, {TO_V1}"));
    assert_eq!((milliseconds(action.timeout), action.retry_policy), (Some(500), None));
    let (_, action) = forwarded(&format!("timeouts: {{request: 0s}}, {TO_V1}"));
    assert_eq!(milliseconds(action.timeout), Some(0));
}

#[test]
fn browsers_of_other_origins_may_call() {
    let (route, _) = forwarded(&format!(
        "filters: [{{type: CORS, cors: {{allowOrigins: ['https://*.example', 'http://a'], allowMethods: [GET, PUT], \
         allowCredentials: true, maxAge: 60}}}}], {TO_V1}"
    ));
    let policy: CorsPolicy = unpack(&route.typed_per_filter_config["envoy.filters.http.cors"]).unwrap();
    let [pattern, exact] = policy.allow_origin_string_match.try_into().unwrap();
    let Some(MatchPattern::SafeRegex(regex)) = pattern.match_pattern else { panic!() };
    assert_eq!(regex.regex, r"https://.*\.example");
    assert_eq!(exact.match_pattern, Some(MatchPattern::Exact("http://a".into())));
    assert_eq!((policy.allow_methods.as_str(), policy.max_age.as_str()), ("GET,PUT", "60"));
    assert!(policy.allow_credentials.unwrap().value);
    assert!(!policy.forward_not_matching_preflights.unwrap().value);
}

#[test]
fn a_route_is_for_the_ports_that_its_parents_name() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: two}, spec: {ports: [{name: http-a, port: 80}, {name: \
                   http-b, port: 81}]}}";
    let route = |parent: &str| {
        http_route("r", &format!("\n  - {TO_V1}\n"))
            .replace("name: reviews}]", &format!("name: two, {parent}}}]"))
    };
    let ruled = |parent: &str| -> Vec<bool> {
        let snapshot = snapshot_of(&[MESH, service, &route(parent)]);
        let is_ruled = |port| {
            routes(&snapshot, &format!("two.default.svc.cluster.local:{port}"))[0].name == "default.r.0"
        };
        [80, 81].map(is_ruled).into()
    };
    assert_eq!(ruled("port: 81"), [false, true]);
    assert_eq!(ruled("sectionName: http-a"), [true, false]);
    assert_eq!(ruled("namespace: default"), [true, true]);
    let snapshot = snapshot_of(&[MESH, service, &route("sectionName: http-c")]);
    assert_eq!(snapshot.problems()[0].reason, "Service default/two has no port named http-c");
}

#[test]
fn where_connections_are_captured_the_address_says_what_is_meant() {
    let mesh = MESH.replace(
        "spec: {selector: {app: reviews}, ports",
        "spec: {clusterIP: 10.0.0.1, selector: {app: reviews}, ports",
    );
    let snapshot = snapshot_of(&[&mesh, &split()]);
    let routes: RouteConfiguration =
        get(&snapshot, &web(&snapshot), ResourceType::RouteConfiguration, REVIEWS_HOST);
    let [host] = routes.virtual_hosts.as_slice() else { panic!() };
    assert_eq!(host.domains, ["*"]);
    assert_eq!(host.routes, self::routes(&snapshot, REVIEWS_HOST));
}

#[test]
fn a_parent_of_another_kind_is_for_others() {
    let route = http_route("r", "\n  - {unknown: field}\n");
    let gateway = route.replace("{group: '', kind: Service, name: reviews}", "{name: gw}");
    let snapshot = snapshot_of(&[MESH, &gateway]);
    assert_eq!(snapshot.rejections(), []);
    let [problem] = snapshot.problems() else { panic!() };
    assert_eq!(problem.field, "spec.parentRefs[0]");
    assert!(problem.reason.starts_with("Gateway gw is no Service"), "{problem}");
    let both = route.replace(
        "{group: '', kind: Service, name: reviews}",
        "{name: gw}, {group: '', kind: Service, name: reviews}",
    );
    assert_eq!(snapshot_of(&[MESH, &both]).rejections()[0].field, "spec.rules[0].unknown");
}
