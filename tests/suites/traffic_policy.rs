//! TrafficPolicies through a whole mesh: requests beyond a limit are refused where the policy says, queries change, retries are kept
//! within their budget; and none of it costs a request when it changes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use outrigger_tests::certs::spiffe;
use outrigger_tests::cli::outrigger;
use outrigger_tests::envoy_sidecar::{EnvoySidecar, Variant};
use outrigger_tests::load::Load;
use outrigger_tests::mesh::{APP_PORT, Mesh, Workload};
use outrigger_tests::message::Response;
use outrigger_tests::proxy::Proxy;
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, wait};

const PODS: [(&str, &str, &str); 3] =
    [("web-0", "web", "v1"), ("other-0", "other", "v1"), ("reviews-0", "reviews", "v1")];

const SERVICE: &str = "{group: '', kind: Service, name: reviews}";
const ROUTE: &str = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: reviews}";

fn policy(target: &str, parts: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  targetRefs: [{target}]\n  {parts}\n"
    )
}

/// A route of `reviews` that tries twice more, with a rule of its own for `/special`.
fn route() -> String {
    let backends = format!("backendRefs: [{{name: reviews, port: {APP_PORT}}}]");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: reviews}}]\n  rules:\n  \
         - name: special\n    matches: [{{path: {{value: /special}}}}]\n    {backends}\n  \
         - retry: {{codes: [503], attempts: 2, backoff: 10ms}}\n    {backends}\n---\n"
    )
}

fn ask(from: &Workload, path: &str) -> Response {
    RawClient::connect(from.outbound())
        .and_then(|mut client| client.get(&format!("reviews:{APP_PORT}"), path))
        .unwrap()
}

/// The statuses of so many requests, one after the other.
fn statuses(from: &Workload, count: usize) -> Vec<u16> {
    (0..count).map(|_| ask(from, "/").status).collect()
}

/// Waits until a proxy's active configuration has something.
#[track_caller]
fn until_in_force(proxy: &Proxy, what: &str) {
    wait::until(what, || proxy.admin("/config_dump").text().contains(what));
}

/// Waits until these callers are answered, and forgets what the application has seen of it.
#[track_caller]
fn until_answered(mesh: &Mesh, callers: &[&str]) {
    for caller in callers {
        wait::until("an answer", || ask(mesh.workload(caller), "/").status == 200);
    }
    mesh.workload("reviews-0").upstream.take_requests();
}

/// The sum of a counter of the local rate limit, whatever its prefix.
fn counted(proxy: &Proxy, counter: &str) -> u64 {
    let text = proxy.admin("/stats").text();
    let end = format!("http_local_rate_limit.{counter}");
    let counters =
        text.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| name.ends_with(&end));
    counters.map(|(_, value)| value.trim().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_service_is_called_no_more_often_than_its_limit() {
    let limit = policy(SERVICE, "rateLimit: {requests: 3, interval: 1h, status: 503}");
    let mesh = Mesh::start(&PODS, "");
    let (web, other, reviews) =
        (mesh.workload("web-0"), mesh.workload("other-0"), mesh.workload("reviews-0"));
    until_answered(&mesh, &["web-0", "other-0"]);
    mesh.write("more.yaml", &limit);
    until_in_force(reviews.sidecar(), "\"max_tokens\": 3");
    assert_eq!(statuses(web, 5), [200, 200, 200, 503, 503], "all callers share it");
    let refused = ask(other, "/");
    assert_eq!((refused.status, refused.text().as_str()), (503, "local_rate_limited"));
    assert_eq!(reviews.upstream.take_requests().len(), 3, "the application sees no more");
    assert_eq!((counted(reviews.sidecar(), "enforced"), counted(reviews.sidecar(), "ok")), (3, 3));
    assert_eq!(counted(web.sidecar(), "enforced"), 0);
    // Each end says what happened.
    let refused = [("response_code", "503"), ("source_principal", &spiffe("web"))];
    let at = |end: &Workload, reporter: &str, flags: &str| {
        let labels = [&refused[..], &[("reporter", reporter), ("response_flags", flags)]].concat();
        end.scrape().sum("istio_requests_total", &labels)
    };
    assert_eq!((at(reviews, "destination", "RL"), at(web, "source", "-")), (2.0, 2.0));

    // A larger one is a new one, at once and without a new connection.
    mesh.write("more.yaml", &limit.replace("requests: 3", "requests: 1000"));
    wait::until("the new limit", || ask(web, "/").status == 200);
    mesh.write("more.yaml", "# no limit\n");
    wait::until("no limit", || !reviews.sidecar().admin("/config_dump").text().contains("\"max_tokens\""));
}

#[test]
fn a_limit_of_a_route_is_each_caller_s_own() {
    let target = ROUTE.replace("name: reviews", "name: reviews, sectionName: special");
    let limit = policy(&target, "rateLimit: {requests: 2, interval: 1h}");
    let mesh = Mesh::start(&PODS, &(route() + &limit));
    let (web, other) = (mesh.workload("web-0"), mesh.workload("other-0"));
    until_answered(&mesh, &["web-0", "other-0"]);
    for caller in [web, other] {
        until_in_force(caller.sidecar(), "\"max_tokens\": 2");
        let special: Vec<u16> = (0..4).map(|_| ask(caller, "/special").status).collect();
        assert_eq!(special, [200, 200, 429, 429], "{}", caller.pod);
        assert_eq!(counted(caller.sidecar(), "enforced"), 2);
    }
    assert_eq!(statuses(web, 10), [200; 10], "another rule");
    assert_eq!(counted(mesh.workload("reviews-0").sidecar(), "enabled"), 0);
}

#[test]
fn queries_change_on_the_way() {
    let service = policy(SERVICE, "queryParameters: {set: [{name: a, value: new}], remove: [secret]}");
    let mesh = Mesh::start(&PODS, &service);
    let (web, upstream) = (mesh.workload("web-0"), &mesh.workload("reviews-0").upstream);
    until_answered(&mesh, &["web-0"]);
    let seen = |path: &str| {
        upstream.take_requests();
        assert_eq!(ask(web, path).status, 200);
        let [request] = upstream.take_requests().try_into().unwrap();
        request.target
    };
    wait::until("the change", || seen("/") == "/?a=new");
    assert_eq!(seen("/x?secret=1&a=old&b=2&secret=3"), "/x?a=new&b=2");

    // A route's own word comes before that of the Service, and only for its requests.
    let target = ROUTE.replace("name: reviews", "name: reviews, sectionName: special");
    let rule = policy(&target, "queryParameters: {add: [{name: a, value: more}]}")
        .replace("{name: reviews, namespace", "{name: rule, namespace");
    mesh.write("more.yaml", &format!("{service}---\n{}{rule}", route()));
    wait::until("the rule", || seen("/special") == "/special?a=more");
    assert_eq!(seen("/special?secret=1&a=old"), "/special?a=old&a=more&secret=1");
    assert_eq!(seen("/x?secret=1"), "/x?a=new");
}

#[test]
fn retries_are_kept_within_their_budget() {
    let mesh = Mesh::start(&PODS, &route());
    let (web, upstream) = (mesh.workload("web-0"), &mesh.workload("reviews-0").upstream);
    until_answered(&mesh, &["web-0"]);
    upstream.answer(Reply::status(503, "not now"));
    let attempts = || {
        upstream.take_requests();
        assert_eq!(ask(web, "/").status, 503);
        upstream.take_requests().len()
    };
    assert_eq!(attempts(), 3, "without a budget");
    let none = policy(SERVICE, "retryBudget: {percent: 0, minRetryConcurrency: 0}");
    mesh.write("more.yaml", &(route() + &none));
    wait::until("the budget", || attempts() == 1);
    let overflow =
        format!("cluster.outbound|{APP_PORT}||reviews.default.svc.cluster.local.upstream_rq_retry_overflow");
    assert!(web.sidecar().stat(&overflow).unwrap() >= 1);
    mesh.write("more.yaml", &(route() + &none.replace("minRetryConcurrency: 0", "minRetryConcurrency: 3")));
    wait::until("a larger budget", || attempts() == 3);
}

#[test]
fn retries_come_when_the_application_says() {
    let mesh = Mesh::start(&PODS, &route());
    let (web, upstream) = (mesh.workload("web-0"), &mesh.workload("reviews-0").upstream);
    until_answered(&mesh, &["web-0"]);
    let counters = ["exponential", "ratelimited"].map(|kind| {
        format!(
            "cluster.outbound|{APP_PORT}||reviews.default.svc.cluster.local.upstream_rq_retry_backoff_{kind}"
        )
    });
    let counted = || counters.each_ref().map(|name| web.sidecar().stat(name).unwrap_or(0));
    // One request whose first attempt is told to come again in a second: what was counted of its retry.
    let retry = || {
        let before = counted();
        let first = AtomicBool::new(true);
        upstream.answer_with(move |_| match first.swap(false, Ordering::AcqRel) {
            true => Reply::Respond(Response::new(503, "busy").header("retry-after", "1")),
            false => Reply::status(200, "ok"),
        });
        let begin = Instant::now();
        assert_eq!(ask(web, "/").status, 200);
        let after = counted();
        (after[0] - before[0], after[1] - before[1], begin.elapsed().as_secs() >= 1)
    };
    assert_eq!(retry(), (1, 0, false), "without a policy");
    mesh.write("more.yaml", &(route() + &policy(SERVICE, "retryAfter: {maxInterval: 500ms}")));
    until_in_force(web.sidecar(), "rate_limited_retry_back_off");
    assert_eq!(retry(), (1, 0, false), "more than the policy allows");
    mesh.write("more.yaml", &(route() + &policy(SERVICE, "retryAfter: {maxInterval: 2s}")));
    wait::until("a larger maximum", || retry() == (0, 1, true));
}

#[test]
fn changes_lose_no_request() {
    let mesh = Mesh::start(&PODS, &route());
    let (web, reviews) = (mesh.workload("web-0"), mesh.workload("reviews-0"));
    until_answered(&mesh, &["web-0"]);
    let load = Load::start(web.outbound(), &format!("reviews:{APP_PORT}"), 4);
    for number in 1..=8_u32 {
        let requests = 10_000_000 + number;
        let service = policy(
            SERVICE,
            &format!("rateLimit: {{requests: {requests}}}\n  retryBudget: {{percent: {number}}}"),
        );
        let of_route = policy(ROUTE, &format!("queryParameters: {{set: [{{name: a, value: v{number}}}]}}"))
            .replace("{name: reviews, namespace", "{name: route, namespace");
        mesh.write("more.yaml", &format!("{}{service}---\n{of_route}", route()));
        until_in_force(reviews.sidecar(), &requests.to_string());
        until_in_force(web.sidecar(), &format!("\"v{number}\""));
        load.more(200);
        let seen = reviews.upstream.take_requests();
        assert!(seen.iter().any(|request| request.target == format!("/?a=v{number}")));
        mesh.write("more.yaml", &route());
        load.more(200);
    }
    assert!(load.finish() > 3_000);
    let page = mesh.control_plane.page("/proxies").text();
    assert!(!page.contains("\"nacked\""), "{page}");
}

/// Callers are known apart by their certificates.
#[test]
fn each_caller_is_counted_by_itself() {
    let mesh = Mesh::start(&PODS, "");
    let reviews = mesh.workload("reviews-0");
    until_answered(&mesh, &["web-0", "other-0"]);
    mesh.write("more.yaml", &policy(SERVICE, "rateLimit: {requests: 3, interval: 1h, per: Caller}"));
    until_in_force(reviews.sidecar(), "\"max_tokens\": 3");
    for caller in ["web-0", "other-0"] {
        assert_eq!(statuses(mesh.workload(caller), 5), [200, 200, 200, 429, 429], "{caller}");
    }
    assert_eq!(reviews.upstream.take_requests().len(), 6);
    let log = mesh.control_plane.log();
    assert!(!log.contains("NACK"), "{log}");
}

/// The same of a real Envoy in front of the application.
#[test]
fn an_envoy_counts_each_caller_by_itself() {
    let limit = policy(SERVICE, "rateLimit: {requests: 3, interval: 1h, per: Caller}");
    let mesh = Mesh::start_around(&PODS, &limit, &["reviews-0"], &[]);
    let reviews = mesh.workload("reviews-0");
    let Some(envoy) = EnvoySidecar::start(&mesh, reviews, Variant::Delta) else { return };
    until_in_force(&envoy.envoy, "\"max_tokens\": 3");
    // An answer is a token.
    until_answered(&mesh, &["web-0", "other-0"]);
    for caller in ["web-0", "other-0"] {
        assert_eq!(statuses(mesh.workload(caller), 4), [200, 200, 429, 429], "{caller}");
    }
    assert_eq!(reviews.upstream.take_requests().len(), 4);
    let log = mesh.control_plane.log();
    assert!(!log.contains("NACK"), "{log}");
}

/// An endpoint that was taken out is asked once when its time has passed, and comes back when it answers well. Callers notice nothing
/// of that: their requests are tried again.
#[test]
fn an_endpoint_comes_back_by_one_request() {
    let pods = [("web-0", "web", "v1"), ("reviews-0", "reviews", "v1"), ("reviews-1", "reviews", "v1")];
    let ejects = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews, namespace: default}\n\
                  spec:\n  host: reviews\n  trafficPolicy:\n    outlierDetection: {consecutive5xxErrors: 2, interval: 50ms, \
                  baseEjectionTime: 100ms, maxEjectionPercent: 100}\n---\n";
    let probe = policy(SERVICE, "readmission: {by: Probe}");
    let mesh = Mesh::start(&pods, &format!("{}{ejects}{probe}", route()));
    let (web, bad) = (mesh.workload("web-0"), &mesh.workload("reviews-1").upstream);
    wait::until("an answer", || ask(web, "/").status == 200);
    until_in_force(web.sidecar(), "readmission");
    let counted = |name: &str| of_cluster(&mesh, &format!("outlier_detection.ejections_{name}"));
    bad.answer(Reply::status(503, ""));
    wait::until("an ejection", || {
        assert_eq!(ask(web, "/").status, 200, "it is tried again");
        counted("active") == 1
    });
    // Who asks is told what is out, and why; unless its probe is just on its way.
    let [control_plane, admin] =
        [mesh.control_plane.admin(), web.sidecar().admin_addr()].map(|addr| addr.to_string());
    wait::until("its reason", || {
        let told =
            outrigger(&["status", "--control-plane", &control_plane, "--ejections", "--proxy-admin", &admin]);
        assert_eq!(told.code, Some(0), "{told:?}");
        told.stdout.contains("Ejected:\n  web-0.default ")
            && told.stdout.contains(": 2 consecutive 5xx, until ")
    });
    bad.take_requests();
    let before = counted("enforced_total");
    wait::until("three probes that fail", || {
        assert_eq!(ask(web, "/").status, 200);
        counted("enforced_total") >= before + 3
    });
    let probes = counted("enforced_total") - before;
    assert_eq!(u64::try_from(bad.take_requests().len()).unwrap(), probes, "no other request goes there");
    assert_eq!(counted("active"), 1);
    bad.answer(Reply::status(200, "well"));
    wait::until("its return", || {
        assert_eq!(ask(web, "/").status, 200);
        counted("active") == 0
    });
    wait::until("its share", || ask(web, "/").text() == "well");
}

/// Two endpoints of reviews, and a caller that follows the policy `parts`.
fn two_endpoints(parts: &str) -> Mesh {
    let pods = [("web-0", "web", "v1"), ("reviews-0", "reviews", "v1"), ("reviews-1", "reviews", "v1")];
    let mesh = Mesh::start(&pods, &policy(SERVICE, parts));
    wait::until("an answer", || ask(mesh.workload("web-0"), "/").status == 200);
    mesh
}

/// A counter of the caller's cluster.
fn of_cluster(mesh: &Mesh, name: &str) -> u64 {
    let cluster = format!("cluster.outbound|{APP_PORT}||reviews.default.svc.cluster.local");
    mesh.workload("web-0").sidecar().stat(&format!("{cluster}.{name}")).unwrap_or(0)
}

#[test]
fn an_endpoint_that_says_too_many_is_taken_out() {
    let mesh = two_endpoints("ejection: {consecutiveErrors: 2, failures: [5xx, '429'], interval: 100ms}");
    let (web, bad) = (mesh.workload("web-0"), &mesh.workload("reviews-1").upstream);
    until_in_force(web.sidecar(), "error_matcher");
    bad.answer(Reply::status(404, ""));
    wait::until("many that are no failures", || (0..10).filter(|_| ask(web, "/").status == 404).count() > 3);
    bad.answer(Reply::status(429, ""));
    wait::until("an ejection", || {
        ask(web, "/");
        of_cluster(&mesh, "outlier_detection.ejections_active") == 1
    });
    assert_eq!(statuses(web, 20), [200; 20]);
}

#[test]
fn endpoints_that_are_not_well_are_left_out() {
    let mesh = two_endpoints(
        "healthCheck: {http: {path: /well}, interval: 100ms, failureThreshold: 1}\n  panicThreshold: {percent: 0}",
    );
    let (web, first, second) =
        (mesh.workload("web-0"), mesh.workload("reviews-0"), mesh.workload("reviews-1"));
    let until_healthy = |count: u64| {
        wait::until(&format!("{count} that are well"), || of_cluster(&mesh, "membership_healthy") == count);
    };
    // Asked through the sidecar of each, over mutual TLS.
    wait::until("checks", || of_cluster(&mesh, "health_check.success") >= 2);
    until_healthy(2);
    second.upstream.answer(Reply::status(503, ""));
    until_healthy(1);
    assert_eq!(statuses(web, 20), [200; 20]);
    first.upstream.answer(Reply::status(503, ""));
    until_healthy(0);
    let none = ask(web, "/");
    assert_eq!((none.status, none.text().as_str()), (503, "no healthy upstream"));
    first.upstream.answer(Reply::status(200, "well"));
    until_healthy(1);
    assert_eq!(ask(web, "/").text(), "well");
    let asked = second.upstream.take_requests();
    assert!(asked.iter().any(|request| request.target == "/well"), "{asked:?}");
}

#[test]
fn an_endpoint_that_is_out_is_asked_whether_it_is_well() {
    let mesh = two_endpoints(
        "ejection: {consecutiveErrors: 2, interval: 100ms, baseEjectionTime: 100ms}\n  \
         healthCheck: {http: {path: /well}, interval: 100ms, failureThreshold: 1}\n  readmission: {by: Check}",
    );
    let (web, bad) = (mesh.workload("web-0"), &mesh.workload("reviews-1").upstream);
    until_in_force(web.sidecar(), "readmission");
    assert_eq!(statuses(web, 20), [200; 20]);
    assert_eq!(of_cluster(&mesh, "health_check.attempt"), 0, "nobody is out");
    bad.answer(Reply::status(503, ""));
    let active = || of_cluster(&mesh, "outlier_detection.ejections_active");
    wait::until("an ejection", || {
        ask(web, "/");
        active() == 1
    });
    bad.take_requests();
    let checks = || of_cluster(&mesh, "health_check.failure");
    let before = checks();
    wait::until("checks that fail, beyond its time", || checks() > before + 4);
    assert_eq!(active(), 1);
    assert_eq!(statuses(web, 20), [200; 20]);
    assert!(bad.take_requests().iter().all(|request| request.target == "/well"), "no request decides");
    bad.answer(Reply::status(200, "well"));
    wait::until("its return", || active() == 0);
    wait::until("its share", || ask(web, "/").text() == "well");
}

#[test]
fn who_fails_fast_is_asked_seldom() {
    let mesh = two_endpoints("loadBalancing: {peakEwma: {decay: 10s}}");
    let web = mesh.workload("web-0");
    until_in_force(web.sidecar(), "PeakEwma");
    statuses(web, 20);
    // One that was well until now, and fast.
    let endpoints = ["reviews-0", "reviews-1"].map(|name| &mesh.workload(name).upstream);
    let bad = endpoints.into_iter().max_by_key(|endpoint| endpoint.recorded()).unwrap();
    bad.answer(Reply::status(429, ""));
    let failed = statuses(web, 200).iter().filter(|status| **status == 429).count();
    // By least requests it is every second one.
    assert!((1..20).contains(&failed), "{failed} of 200");
}
