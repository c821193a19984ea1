//! What a rule may do with a request, the same by an HTTPRoute and by a VirtualService where both can say it.

use std::time::Duration;

use outrigger_tests::mesh::APP_PORT;
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, wait};

use crate::world::{World, backend, destination, http_route, virtual_service};

#[test]
fn requests_are_matched_and_rewritten() {
    let world = World::start();
    let rules = [
        http_route(&format!(
            "  - matches: [{{path: {{type: PathPrefix, value: /old}}, headers: [{{name: x-user, value: ann}}]}}]\n    filters:\n    \
             - {{type: URLRewrite, urlRewrite: {{hostname: new.example, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /new}}}}}}\n    \
             - {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-set, value: a}}], remove: [x-gone]}}}}\n    \
             - {{type: ResponseHeaderModifier, responseHeaderModifier: {{add: [{{name: x-more, value: b}}]}}}}\n    \
             backendRefs: [{}]\n  - matches: [{{path: {{type: Exact, value: /there}}}}]\n    filters:\n    \
             - {{type: RequestRedirect, requestRedirect: {{path: {{type: ReplaceFullPath, replaceFullPath: /here}}, statusCode: 301}}}}\n",
            backend("v2")
        )),
        virtual_service(&format!(
            "  - match: [{{uri: {{prefix: /old/}}, headers: {{x-user: {{exact: ann}}}}}}]\n    \
             rewrite: {{uri: /new/, authority: new.example}}\n    headers: {{request: {{set: {{x-set: a}}, remove: [x-gone]}}, \
             response: {{add: {{x-more: b}}}}}}\n    route: [{}]\n  \
             - match: [{{uri: {{exact: /there}}}}]\n    redirect: {{uri: /here, redirectCode: 301}}\n",
            destination("v2")
        )),
    ];
    world.each(&rules, |world| {
        let answer = world.ask("/old/page?q=1", "x-user: ann\r\nx-gone: 1\r\n");
        assert_eq!((answer.status, answer.text().as_str()), (200, "reviews-1"));
        assert_eq!(answer.headers.get("x-more"), Some("b"));
        let [seen] = world.taken("reviews-1").try_into().unwrap();
        assert_eq!(seen.target, "/new/page?q=1");
        assert_eq!(seen.headers.get("host"), Some("new.example"));
        assert_eq!((seen.headers.get("x-set"), seen.headers.get("x-gone")), (Some("a"), None));
        let redirect = world.ask("/there", "");
        let location = redirect.headers.get("location").unwrap();
        assert!(location.ends_with("/here"), "{location}");
        // Nobody is meant.
        assert_eq!(world.ask("/old/page", "x-user: bob\r\n").status, 404);
    });
}

#[test]
fn requests_are_tried_again_and_end_in_time() {
    let world = World::start();
    let rules = [
        http_route(&format!(
            "  - retry: {{codes: [503], attempts: 2, backoff: 10ms}}\n    timeouts: {{request: 2s}}\n    backendRefs: [{}]\n",
            backend("v1")
        )),
        virtual_service(&format!(
            "  - retries: {{attempts: 2, retryOn: '503', backoff: 10ms}}\n    timeout: 2s\n    route: [{}]\n",
            destination("v1")
        )),
    ];
    let upstream = &world.0.workload("reviews-0").upstream;
    world.each(&rules, |world| {
        upstream.answer(Reply::status(503, "not now"));
        assert_eq!(world.ask("/", "").status, 503);
        assert_eq!(world.taken("reviews-0").len(), 3);
        upstream.answer(Reply::Stall);
        let answer = world.ask("/", "");
        assert_eq!((answer.status, answer.text().as_str()), (504, "upstream request timeout"));
        world.answer_as_usual();
    });
}

/// What the application asks of the router by headers is heard by its own sidecar; by the callee's what a caller's certificate
/// stands for, here a header that the route adds, and not what a stranger says.
#[test]
fn what_a_request_asks_for_itself() {
    let world = World::start();
    let patient = "  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-envoy-upstream-rq-timeout-ms, value: '100'}]}}]\n";
    let permissive = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {name: default, namespace: default}\nspec: {mtls: {mode: PERMISSIVE}}\n";
    let rule = http_route(&format!("{patient}    backendRefs: [{}]\n{permissive}", backend("v1")));
    world.each(&[rule], |world| {
        let reviews = world.0.workload("reviews-0");
        let by_stranger = |headers: &str| {
            let mut stranger = RawClient::connect(reviews.inbound()).ok()?;
            stranger.send(format!("GET / HTTP/1.1\r\nhost: reviews:{APP_PORT}\r\n{headers}\r\n").as_bytes());
            stranger.response().ok()
        };
        wait::until("plaintext", || by_stranger("").is_some_and(|answer| answer.status == 200));
        world.taken("reviews-0");
        reviews.upstream.answer(Reply::status(503, "busy"));
        assert_eq!(world.ask("/", "").status, 503);
        assert_eq!(world.taken("reviews-0").len(), 1, "nothing is tried again unless somebody asks for it");
        let asked = "x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 2\r\n";
        assert_eq!(world.ask("/", asked).status, 503);
        let attempts = world.taken("reviews-0");
        assert_eq!(attempts.len(), 3);
        assert!(attempts.iter().all(|attempt| attempt.headers.get("x-envoy-retry-on").is_none()));

        assert_eq!(by_stranger(asked).unwrap().status, 503);
        assert_eq!(world.taken("reviews-0").len(), 1, "without a certificate");

        reviews.upstream.answer(Reply::Stall);
        let late = world.ask("/", "");
        assert_eq!((late.status, late.text().as_str()), (504, "upstream request timeout"));
        world.answer_as_usual();
    });
}

#[test]
fn requests_are_mirrored() {
    let world = World::start();
    let rules = [
        http_route(&format!(
            "  - filters: [{{type: RequestMirror, requestMirror: {{backendRef: {}}}}}]\n    backendRefs: [{}]\n",
            backend("v2"),
            backend("v1")
        )),
        virtual_service(&format!(
            "  - route: [{}]\n    mirrors: [{}]\n",
            destination("v1"),
            destination("v2")
        )),
    ];
    world.each(&rules, |world| {
        assert_eq!(world.ask("/mirrored", "").text(), "reviews-0");
        wait::until("the mirror", || world.taken("reviews-1").iter().any(|seen| seen.target == "/mirrored"));
    });
}

#[test]
fn faults_are_injected_and_origins_checked() {
    let world = World::start();
    let rule = virtual_service(&format!(
        "  - match: [{{uri: {{exact: /there}}}}]\n    fault: {{abort: {{httpStatus: 418, percentage: {{value: 100}}}}}}\n    route: [{0}]\n  \
         - match: [{{uri: {{exact: /slow}}}}]\n    fault: {{delay: {{fixedDelay: 300ms, percentage: {{value: 100}}}}}}\n    route: [{0}]\n  \
         - match: [{{uri: {{prefix: /shared}}}}]\n    corsPolicy: {{allowOrigins: [{{exact: 'https://good.example'}}], \
         allowMethods: [GET, PUT], maxAge: 60s}}\n    route: [{0}]\n",
        destination("v1")
    ));
    world.each(&[rule], |world| {
        assert_eq!(world.ask("/there", "").text(), "fault filter abort");
        let begin = std::time::Instant::now();
        assert_eq!(world.ask("/slow", "").status, 200);
        assert!(begin.elapsed() >= Duration::from_millis(300));
        world.taken("reviews-0");
        let preflight = world.request(
            "OPTIONS",
            "/shared/x",
            "origin: https://good.example\r\naccess-control-request-method: PUT\r\n",
        );
        assert_eq!(preflight.status, 200);
        assert_eq!(preflight.headers.get("access-control-allow-origin"), Some("https://good.example"));
        assert_eq!(preflight.headers.get("access-control-allow-methods"), Some("GET,PUT"));
        assert_eq!(preflight.headers.get("access-control-max-age"), Some("60"));
        assert!(world.taken("reviews-0").is_empty(), "the application is not asked");
        let stranger = world.ask("/shared/x", "origin: https://bad.example\r\n");
        assert_eq!((stranger.status, stranger.headers.get("access-control-allow-origin")), (200, None));
    });
}

#[test]
fn subsets_are_versions_of_a_service() {
    let world = World::start();
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews, namespace: default}\n\
         spec:\n  host: reviews\n  trafficPolicy: {loadBalancer: {simple: RANDOM}}\n  subsets:\n  - {name: one, labels: {version: v1}}\n  \
         - {name: two, labels: {version: v2}, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}\n---\n";
    let rule = rule.to_owned()
        + &virtual_service(
            "  - match: [{headers: {x-version: {exact: '2'}}}]\n    route: [{destination: {host: reviews, subset: two}}]\n  \
             - match: [{uri: {exact: /there}}]\n    directResponse: {status: 299, body: {string: direct}}\n  \
             - route: [{destination: {host: reviews, subset: one}}]\n",
        );
    world.each(&[rule], |world| {
        assert_eq!(world.ask("/there", "").text(), "direct");
        for _ in 0..20 {
            assert_eq!(world.ask("/", "").text(), "reviews-0");
            assert_eq!(world.ask("/", "x-version: 2\r\n").text(), "reviews-1");
        }
    });
}
