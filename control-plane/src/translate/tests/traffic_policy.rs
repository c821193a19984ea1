//! TrafficPolicies: where each part of one goes, which of several counts, and what is told.

use outrigger_xds_api::wire::cluster::v3::circuit_breakers::thresholds::RetryBudget;
use outrigger_xds_api::wire::core::v3::key_value_append::KeyValueAppendAction;
use outrigger_xds_api::wire::extensions::filters::http::header_mutation::v3::HeaderMutationPerRoute;
use outrigger_xds_api::wire::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use outrigger_xds_api::wire::protobuf::value::Kind;
use outrigger_xds_api::wire::route::v3::rate_limit::action::ActionSpecifier;

use super::captured::captured;
use super::virtual_service::virtual_service;
use super::*;
use crate::translate::names::{HEADER_MUTATION_FILTER, LOCAL_RATE_LIMIT_FILTER};

const SERVICE: &str = "{group: '', kind: Service, name: reviews}";

fn policy(name: &str, targets: &str, parts: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}}}\nspec:\n  targetRefs: [{targets}]\n  {parts}\n"
    )
}

/// The virtual hosts of each chain of the inbound listener of `reviews-v1-a` that takes HTTP, with the names of the filters before
/// the router.
fn inbound(snapshot: &Snapshot) -> Vec<(String, Vec<String>, Vec<Route>)> {
    let scope = scope(snapshot, "default", "reviews-v1-a", "reviews");
    let listener: Listener = get(snapshot, &scope, ResourceType::Listener, "virtualInbound");
    let http = listener.filter_chains.iter().filter(|chain| chain.filters[0].name.contains("http"));
    http.map(|chain| {
        let manager: HttpConnectionManager = only_filter(chain);
        let mut filters: Vec<String> = manager.http_filters.into_iter().map(|filter| filter.name).collect();
        assert_eq!(filters.pop().as_deref(), Some("envoy.filters.http.router"));
        let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!() };
        let routes = routes.virtual_hosts.into_iter().flat_map(|host| host.routes).collect();
        (chain.name.clone(), filters, routes)
    })
    .collect()
}

fn limit_of(route: &Route) -> Option<LocalRateLimit> {
    route.typed_per_filter_config.get(LOCAL_RATE_LIMIT_FILTER).map(|any| unpack(any).unwrap())
}

/// Tokens of a bucket: how many it holds, how many it gets, in how many seconds.
fn tokens(limit: &LocalRateLimit) -> (u32, u32, i64) {
    let bucket = limit.token_bucket.as_ref().unwrap();
    let interval = bucket.fill_interval.as_ref().unwrap();
    (bucket.max_tokens, bucket.tokens_per_fill.as_ref().unwrap().value, interval.seconds)
}

/// `ACTION NAME=VALUE` of each change of the query.
fn changes_of(route: &Route) -> Vec<String> {
    let Some(any) = route.typed_per_filter_config.get(HEADER_MUTATION_FILTER) else { return Vec::new() };
    let mutations = unpack::<HeaderMutationPerRoute>(any).unwrap().mutations.unwrap();
    let shown = mutations.query_parameter_mutations.into_iter().map(|mutation| {
        let Some(append) = mutation.append else { return format!("remove {}", mutation.remove) };
        let action = KeyValueAppendAction::try_from(append.action).unwrap().as_str_name();
        let record = append.record.unwrap();
        let Some(Kind::StringValue(value)) = record.value.unwrap().kind else { panic!() };
        format!("{action} {}={value}", record.key)
    });
    shown.collect()
}

fn budget(snapshot: &Snapshot, cluster: &str) -> Option<(f64, u32)> {
    let cluster = super::cluster(snapshot, cluster);
    let RetryBudget { budget_percent, min_retry_concurrency, .. } =
        cluster.circuit_breakers.unwrap().thresholds[0].retry_budget?;
    Some((budget_percent.unwrap().value, min_retry_concurrency.unwrap().value))
}

fn routes_to_reviews(snapshot: &Snapshot) -> Vec<Route> {
    routes(snapshot, REVIEWS_HOST)
}

fn problems(texts: &[&str]) -> Vec<String> {
    let found = snapshot_of(texts);
    assert_eq!(found.rejections(), []);
    found.problems().iter().map(|found| format!("{}: {}", found.field, found.reason)).collect()
}

#[test]
fn a_limit_of_a_service_is_kept_where_the_calls_arrive() {
    let limits = policy("p", SERVICE, "rateLimit: {requests: 5, interval: 1m, burst: 9, status: 503}");
    let snapshot = snapshot_of(&[MESH, &limits]);
    assert_valid(&snapshot);
    assert_eq!(snapshot.problems(), []);
    let chains = inbound(&snapshot);
    let limited: Vec<bool> = chains.iter().map(|(_, filters, _)| !filters.is_empty()).collect();
    assert_eq!(limited, [true, false, true], "by name of `reviews`, of `reviews-v1`, and in plaintext");
    let (_, filters, routes) = &chains[0];
    assert_eq!(filters, &[LOCAL_RATE_LIMIT_FILTER]);
    let limit = limit_of(&routes[0]).unwrap();
    assert_eq!(tokens(&limit), (9, 5, 60));
    assert_eq!(limit.status.unwrap().code, 503);
    for share in [limit.filter_enabled, limit.filter_enforced] {
        assert_eq!(share.unwrap().default_value.unwrap().numerator, 100);
    }
    assert_eq!((limit.descriptors.len(), limit.rate_limits.len()), (0, 0));
    // Nothing is limited where the calls begin.
    assert!(limit_of(&routes_to_reviews(&snapshot)[0]).is_none());
    assert!(inbound(&snapshot_of(&[MESH])).iter().all(|(_, filters, _)| filters.is_empty()));

    // A captured Pod has a chain for each way in.
    let chains = inbound(&captured(&[&limits]));
    let names: Vec<&str> =
        chains.iter().filter(|(_, filters, _)| !filters.is_empty()).map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["outbound_.9080_._.reviews.default.svc.cluster.local", "8080-mtls", "8080"]);
}

#[test]
fn each_caller_has_a_bucket_by_its_identity() {
    let limits = policy("p", SERVICE, "rateLimit: {requests: 5, per: Caller}");
    let snapshot = snapshot_of(&[MESH, &limits]);
    assert_valid(&snapshot);
    let limit = limit_of(&inbound(&snapshot)[0].2[0]).unwrap();
    assert_eq!(tokens(&limit), (5, 5, 1), "for callers without a certificate");
    let [descriptor] = limit.descriptors.as_slice() else { panic!() };
    let [entry] = descriptor.entries.as_slice() else { panic!() };
    assert_eq!((entry.key.as_str(), entry.value.as_str()), ("caller", ""));
    assert_eq!(descriptor.token_bucket, limit.token_bucket);
    let Some(ActionSpecifier::GenericKey(key)) = &limit.rate_limits[0].actions[0].action_specifier else {
        panic!()
    };
    assert_eq!(
        (key.descriptor_key.as_str(), key.descriptor_value.as_str()),
        ("caller", "%DOWNSTREAM_PEER_URI_SAN%")
    );
    assert!(!limit.always_consume_default_token_bucket.unwrap().value);
    assert_eq!(limit.max_dynamic_descriptors.unwrap().value, 1024);
}

#[test]
fn the_policy_of_a_port_comes_before_that_of_the_service_part_by_part() {
    let mesh = MESH.replace(
        "ports: [{name: http, port: 9080, targetPort: 8080}]",
        "ports: [{name: http, port: 9080, targetPort: 8080}, {name: http-admin, port: 80, targetPort: 8081}]",
    );
    let whole = policy("whole", SERVICE, "rateLimit: {requests: 5}\n  retryBudget: {percent: 10}");
    let port = "{group: '', kind: Service, name: reviews, sectionName: http-admin}";
    let port = policy("port", port, "rateLimit: {requests: 7}\n  queryParameters: {remove: [a]}");
    let snapshot = snapshot_of(&[&mesh, &whole, &port]);
    assert_eq!(snapshot.problems(), []);
    let requests: Vec<Option<u32>> = inbound(&snapshot)
        .iter()
        .take(2)
        .map(|(.., routes)| limit_of(&routes[0]).map(|limit| tokens(&limit).1))
        .collect();
    assert_eq!(requests, [Some(7), Some(5)], "in the order of ports");
    assert_eq!(budget(&snapshot, REVIEWS), Some((10.0, 3)));
    assert_eq!(budget(&snapshot, "outbound|80||reviews.default.svc.cluster.local"), Some((10.0, 3)));
    let changes = |host: &str| changes_of(&routes(&snapshot, host)[0]);
    assert_eq!(changes(REVIEWS_HOST), [""; 0]);
    assert_eq!(changes("reviews.default.svc.cluster.local:80"), ["remove a"]);
}

#[test]
fn queries_change_along_a_route_else_by_the_service() {
    let service = policy("s", SERVICE, "queryParameters: {remove: [of-service]}");
    let snapshot = snapshot_of(&[MESH, &service]);
    assert_eq!(changes_of(&routes_to_reviews(&snapshot)[0]), ["remove of-service"], "without rules");

    let route = |section: &str, changes: &str| {
        let target = format!("{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r{section}}}");
        policy(if section.is_empty() { "r" } else { "rule" }, &target, changes)
    };
    let rules = http_route(
        "r",
        "\n  - name: first\n    matches: [{path: {type: Exact, value: /a}}]\n    filters: [{type: CORS, cors: {allowOrigins: ['*']}}]\n    \
         backendRefs: [{name: reviews-v1, port: 9080}]\n  - backendRefs: [{name: reviews-v2, port: 9080}]",
    );
    let whole = route("", "queryParameters: {remove: [of-route]}\n  rateLimit: {requests: 3}");
    let first = route(
        ", sectionName: first",
        "queryParameters: {set: [{name: a, value: b}], add: [{name: c, value: d}], remove: [e]}",
    );
    let snapshot = snapshot_of(&[MESH, &service, &rules, &whole, &first]);
    assert_valid(&snapshot);
    assert_eq!(snapshot.problems(), []);
    let routes = routes_to_reviews(&snapshot);
    assert_eq!(
        changes_of(&routes[0]),
        ["OVERWRITE_IF_EXISTS_OR_ADD a=b", "APPEND_IF_EXISTS_OR_ADD c=d", "remove e"]
    );
    assert_eq!(changes_of(&routes[1]), ["remove of-route"]);
    // What the section does not say, the whole does; what the rule itself says stays.
    assert_eq!(limit_of(&routes[0]).map(|limit| tokens(&limit).1), Some(3));
    assert!(routes[0].typed_per_filter_config.contains_key("envoy.filters.http.cors"));
    let without = snapshot_of(&[MESH, &service, &rules, &first]);
    assert_eq!(changes_of(&routes_to_reviews(&without)[1]), ["remove of-service"]);
    assert!(limit_of(&routes_to_reviews(&without)[1]).is_none());
    // Not those of another route or Service.
    let others = http_route("other", "\n  - backendRefs: [{name: reviews-v2, port: 9080}]");
    let snapshot = snapshot_of(&[MESH, &others, &whole]);
    assert_eq!(changes_of(&routes_to_reviews(&snapshot)[0]), [""; 0]);
    assert_eq!(
        problems(&[MESH, &others, &whole]),
        ["spec.targetRefs[0]: HTTPRoute default/r does not exist"]
    );
}

#[test]
fn a_delegate_s_own_policy_comes_before_that_of_the_root() {
    let root = virtual_service(
        "root",
        "hosts: [reviews], http: [{name: to-leaf, delegate: {name: leaf}}, {route: [{destination: {host: reviews}}]}]",
    );
    let leaf = virtual_service(
        "leaf",
        "http: [{name: x, match: [{uri: {exact: /x}}], route: [{destination: {host: reviews}}]}, {match: [{uri: {exact: /y}}], \
         route: [{destination: {host: reviews}}]}]",
    );
    let on = |name: &str, target: &str, removes: &str| {
        let target = format!("{{group: networking.istio.io, kind: VirtualService, {target}}}");
        policy(name, &target, &format!("queryParameters: {{remove: [{removes}]}}"))
    };
    let rule = on("rule", "name: leaf, sectionName: x", "of-rule");
    let delegating = on("delegating", "name: root, sectionName: to-leaf", "of-delegating");
    let whole = on("whole", "name: root", "of-root");
    let snapshot = snapshot_of(&[MESH, &root, &leaf, &rule, &delegating, &whole]);
    assert_eq!(snapshot.problems(), []);
    let found: Vec<_> = routes_to_reviews(&snapshot).iter().flat_map(changes_of).collect();
    assert_eq!(found, ["remove of-rule", "remove of-delegating", "remove of-root"]);
}

#[test]
fn a_budget_is_for_all_clusters_of_the_service() {
    let subsets = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d}, spec: {host: reviews, trafficPolicy: \
                   {connectionPool: {tcp: {maxConnections: 7}}}, subsets: [{name: v1, labels: {version: v1}}]}}";
    let limits = policy("p", SERVICE, "retryBudget: {percent: 0, minRetryConcurrency: 1}");
    let snapshot = snapshot_of(&[MESH, subsets, &limits]);
    assert_valid(&snapshot);
    assert_eq!(budget(&snapshot, REVIEWS), Some((0.0, 1)));
    assert_eq!(budget(&snapshot, "outbound|9080|v1|reviews.default.svc.cluster.local"), Some((0.0, 1)));
    assert_eq!(budget(&snapshot, "outbound|9080||reviews-v1.default.svc.cluster.local"), None);
    let limits = cluster(&snapshot, REVIEWS).circuit_breakers.unwrap().thresholds[0];
    assert_eq!(limits.max_connections.unwrap().value, 7);
}

#[test]
fn retries_come_when_the_response_says() {
    let rules = http_route(
        "r",
        "\n  - name: first\n    matches: [{path: {type: Exact, value: /a}}]\n    retry: {attempts: 2, codes: [503]}\n    backendRefs: \
         [{name: reviews-v1, port: 9080}]\n  - retry: {attempts: 1, codes: [503]}\n    backendRefs: [{name: reviews-v2, port: 9080}]",
    );
    let of = |service: &str| {
        let service = policy("s", SERVICE, service);
        let first = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r, sectionName: first}";
        let snapshot =
            snapshot_of(&[MESH, &rules, &service, &policy("first", first, "retryAfter: {maxInterval: 30s}")]);
        assert_valid(&snapshot);
        let seconds = |route: Route| {
            let Some(Action::Route(action)) = route.action else { panic!() };
            let back_off = action.retry_policy.unwrap().rate_limited_retry_back_off?;
            assert_eq!(back_off.reset_headers[0].name, "retry-after");
            Some(back_off.max_interval.unwrap().seconds)
        };
        routes_to_reviews(&snapshot).into_iter().map(seconds).collect::<Vec<_>>()
    };
    assert_eq!(of("retryAfter: {}"), [Some(30), Some(300)]);
    assert_eq!(of("retryBudget: {}"), [Some(30), None]);
    // What retries nothing stays so.
    let without = snapshot_of(&[MESH, &policy("s", SERVICE, "retryAfter: {}")]);
    let Some(Action::Route(action)) = routes_to_reviews(&without).remove(0).action else { panic!() };
    assert!(action.retry_policy.is_none());
}

#[test]
fn of_several_for_one_target_the_oldest_counts_alone() {
    let first = policy("a", SERVICE, "retryBudget: {percent: 1}");
    let second = policy("b", SERVICE, "retryBudget: {percent: 2}\n  rateLimit: {requests: 5}");
    let snapshot = snapshot_of(&[MESH, &first, &second]);
    assert_eq!(budget(&snapshot, REVIEWS), Some((1.0, 3)));
    assert!(inbound(&snapshot).iter().all(|(_, filters, _)| filters.is_empty()), "not even another part");
    let older = second.replace("name: b", "name: b, creationTimestamp: '2026-01-01T00:00:00Z'");
    let younger = first.replace("name: a", "name: a, creationTimestamp: '2026-02-01T00:00:00Z'");
    assert_eq!(budget(&snapshot_of(&[MESH, &older, &younger]), REVIEWS), Some((2.0, 3)));
    let told = "spec.targetRefs[0]: has no effect: TrafficPolicy default/a is for the same target, and comes first by age or name";
    assert_eq!(problems(&[MESH, &first, &second]), [told]);
    // Another target of the same policy is not concerned.
    let both = second.replace(SERVICE, &format!("{SERVICE}, {{group: '', kind: Service, name: reviews-v1}}"));
    let snapshot = snapshot_of(&[MESH, &first, &both]);
    assert_eq!(budget(&snapshot, "outbound|9080||reviews-v1.default.svc.cluster.local"), Some((2.0, 3)));
}

#[test]
fn what_has_no_effect_is_told() {
    let limit = "rateLimit: {requests: 5}";
    let told = |target: &str| problems(&[MESH, &split(), &policy("p", target, limit)]);
    let at = |text: &str| vec![format!("spec.targetRefs[0]: {text}")];
    assert_eq!(told("{group: '', kind: Service, name: gone}"), at("Service default/gone does not exist"));
    // Policies are for their own namespace.
    assert_eq!(told("{group: '', kind: Service, name: cache}"), at("Service default/cache does not exist"));
    assert_eq!(
        told("{group: '', kind: Service, name: reviews, sectionName: grpc}"),
        at("Service default/reviews has no port named grpc")
    );
    assert_eq!(
        told("{group: gateway.networking.k8s.io, kind: HTTPRoute, name: split, sectionName: x}"),
        at("HTTPRoute default/split has no rule named x")
    );
    assert_eq!(
        told("{group: networking.istio.io, kind: VirtualService, name: v}"),
        at("VirtualService default/v does not exist")
    );
    let of_route = policy(
        "p",
        "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: split}",
        "rateLimit: {requests: 5, per: Caller}",
    );
    assert_eq!(
        problems(&[MESH, &split(), &of_route]),
        at(
            "per: Caller has no effect on a route: each caller's own sidecar counts, for all that it calls for"
        )
    );
    let mesh = MESH.replace("name: cache, namespace: data", "name: cache");
    let tcp = policy("p", "{group: '', kind: Service, name: cache}", limit);
    assert_eq!(
        problems(&[&mesh, &tcp]),
        at("has no effect on port 6379: it is TCP by its name and appProtocol, so there are no requests")
    );
    let settings = MeshSettings { sidecars: crate::model::Sidecars::Injected, ..MeshSettings::default() };
    let snapshot = with_settings(settings, &[MESH, &policy("p", SERVICE, limit)]);
    let reasons: Vec<_> = snapshot.problems().iter().map(|found| found.reason.as_str()).collect();
    assert_eq!(reasons, ["rateLimit has no effect at 2 of the endpoints of port 9080: they have no sidecar"]);
}

#[test]
fn what_was_taken_out_comes_back_by_a_probe() {
    let ejects = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d}, spec: {host: reviews, trafficPolicy: \
                  {outlierDetection: {consecutive5xxErrors: 2}}, subsets: [{name: v1, labels: {version: v1}}]}}";
    let probe = policy("p", SERVICE, "readmission: {by: Probe}");
    let snapshot = snapshot_of(&[MESH, ejects, &probe]);
    assert_valid(&snapshot);
    assert_eq!(snapshot.problems(), []);
    let readmission = |snapshot: &Snapshot, name: &str| {
        let metadata = super::cluster(snapshot, name).metadata.unwrap();
        metadata
            .filter_metadata
            .get("outrigger.dev")
            .and_then(|own| own.fields.get("readmission")?.kind.clone())
    };
    let by_probe = Some(Kind::StringValue("probe".to_owned()));
    assert_eq!(readmission(&snapshot, REVIEWS), by_probe);
    assert_eq!(readmission(&snapshot, "outbound|9080|v1|reviews.default.svc.cluster.local"), by_probe);
    assert_eq!(readmission(&snapshot, "outbound|9080||reviews-v1.default.svc.cluster.local"), None);
    // Little by little, after its time or by a probe.
    let own = |policy: &str| {
        let metadata = super::cluster(&snapshot_of(&[MESH, ejects, policy]), REVIEWS).metadata.unwrap();
        let own = metadata.filter_metadata.get("outrigger.dev").cloned().unwrap_or_default();
        ["readmission", "readmission_ramp_seconds"].map(|key| own.fields.get(key)?.kind.clone())
    };
    let seconds = |seconds| Some(Kind::NumberValue(seconds));
    assert_eq!(own(&policy("p", SERVICE, "readmission: {ramp: 90s}")), [None, seconds(90.0)]);
    assert_eq!(
        own(&policy("p", SERVICE, "readmission: {by: Probe, ramp: 500ms}")),
        [by_probe.clone(), seconds(0.5)]
    );
    // Without ejections there is no way back, and that is told.
    let without = snapshot_of(&[MESH, &probe]);
    assert_eq!(readmission(&without, REVIEWS), None);
    let told = "spec.targetRefs[0]: readmission has no effect on port 9080: neither outlierDetection of a DestinationRule nor ejection takes its endpoints out";
    assert_eq!(problems(&[MESH, &probe]), [told]);
    for refused in ["{by: Hope}", "{}", "{by: Time}", "{ramp: 1d}"] {
        let snapshot = snapshot_of(&[MESH, &policy("p", SERVICE, &format!("readmission: {refused}"))]);
        assert_eq!(snapshot.rejections().len(), 1, "{refused}");
    }
}
