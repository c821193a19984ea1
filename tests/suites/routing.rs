//! Routing rules as users write them, through two sidecars: from the file to what client and upstream see. What Gateway API's HTTPRoute
//! and Istio's VirtualService both can say is the same by either.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use outrigger_tests::mesh::{APP_PORT, EVERY_RULE, Mesh};
use outrigger_tests::message::{Request, Response};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, wait};

const PODS: [(&str, &str, &str); 3] =
    [("web-0", "web", "v1"), ("reviews-0", "reviews", "v1"), ("reviews-1", "reviews", "v2")];

/// The rules of an HTTPRoute of `reviews`.
fn http_route(rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: reviews}}]\n  rules:\n{rules}"
    )
}

/// The `http` of a VirtualService of `reviews`.
fn virtual_service(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n  http:\n{http}"
    )
}

/// `reviews` of one version, as a backend and as a destination.
fn backend(version: &str) -> String {
    format!("{{name: reviews-{version}, port: {APP_PORT}}}")
}

fn destination(version: &str) -> String {
    format!("{{destination: {{host: reviews-{version}, port: {{number: {APP_PORT}}}}}}}")
}

struct World(Mesh);

impl World {
    fn start() -> Self {
        Self(Mesh::start(&PODS, ""))
    }

    fn ask(&self, path: &str, headers: &str) -> Response {
        self.request("GET", path, headers)
    }

    fn request(&self, method: &str, path: &str, headers: &str) -> Response {
        let mut client = RawClient::connect(self.0.workload("web-0").outbound()).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: reviews:{APP_PORT}\r\nconnection: close\r\n{headers}\r\n"
        );
        client.send(head.as_bytes());
        client.response().unwrap()
    }

    /// Puts rules into force, one after the other, and checks each once a request to `/` has the expected status.
    #[track_caller]
    fn each(&self, rules: &[String], status: u16, check: impl Fn(&Self)) {
        for rule in rules {
            self.0.write("more.yaml", "# no rules\n");
            let both = ["reviews-0", "reviews-1"];
            wait::until("no rules", || {
                both.iter().all(|pod| (0..20).any(|_| self.ask("/", "").text() == *pod))
            });
            self.0.write("more.yaml", rule);
            wait::until("the rules", || (0..8).all(|_| self.ask("/there", "").status == status));
            check(self);
            let page = self.0.control_plane.page("/proxies").text();
            assert!(page.contains("\"synced\"") && !page.contains("\"nacked\""), "{rule}\n{page}");
        }
    }

    fn taken(&self, pod: &str) -> Vec<Request> {
        self.0.workload(pod).upstream.take_requests()
    }
}

/// What the control plane takes of an object, the proxy takes of the control plane.
#[test]
fn every_rule_is_accepted() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: shop}\nspec: {selector: {app: reviews}, ports: \
                   [{name: http, port: 9080}]}\n";
    let mesh = Mesh::start(&[("web-0", "web", "v1")], &format!("{service}---\n{EVERY_RULE}"));
    let sidecar = mesh.workload("web-0").sidecar();
    let names = ["shop.reviews.conditions", "shop.calls.0", "*.shop.example", "query_parameter_mutations"];
    let routes = || sidecar.admin("/config_dump?resource=dynamic_route_configs").text();
    wait::until("all routes", || names.iter().all(|name| routes().contains(name)));
    wait::until("a synced sidecar", || {
        let page = mesh.control_plane.page("/proxies").text();
        assert!(!page.contains("\"nacked\"") && !mesh.control_plane.log().contains("NACK"), "{page}");
        page.contains("\"synced\"")
    });
}

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
    world.each(&rules, 301, |world| {
        world.taken("reviews-1");
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
    world.each(&rules, 200, |world| {
        wait::until("v1 alone", || (0..40).all(|_| world.ask("/", "").text() == "reviews-0"));
        world.taken("reviews-0");
        upstream.answer(Reply::status(503, "not now"));
        assert_eq!(world.ask("/", "").status, 503);
        assert_eq!(world.taken("reviews-0").len(), 3);
        upstream.answer(Reply::Stall);
        let answer = world.ask("/", "");
        assert_eq!((answer.status, answer.text().as_str()), (504, "upstream request timeout"));
        upstream.answer(Reply::status(200, "reviews-0"));
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
    world.each(&[rule], 200, |world| {
        let reviews = world.0.workload("reviews-0");
        let by_stranger = |headers: &str| {
            let mut stranger = RawClient::connect(reviews.inbound()).ok()?;
            stranger.send(format!("GET / HTTP/1.1\r\nhost: reviews:{APP_PORT}\r\n{headers}\r\n").as_bytes());
            stranger.response().ok()
        };
        wait::until("v1 alone", || (0..40).all(|_| world.ask("/", "").text() == "reviews-0"));
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
        reviews.upstream.answer(Reply::status(200, "reviews-0"));
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
    world.each(&rules, 200, |world| {
        wait::until("v1 alone", || (0..40).all(|_| world.ask("/", "").text() == "reviews-0"));
        world.taken("reviews-1");
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
    world.each(&[rule], 418, |world| {
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
    world.each(&[rule], 299, |world| {
        assert_eq!(world.ask("/there", "").text(), "direct");
        for _ in 0..20 {
            assert_eq!(world.ask("/", "").text(), "reviews-0");
            assert_eq!(world.ask("/", "x-version: 2\r\n").text(), "reviews-1");
        }
    });
}

/// One endpoint for each caller, with a ring and with a Maglev table; told by a header, or by a cookie that the sidecar gives out.
#[test]
fn a_caller_stays_at_its_endpoint() {
    let world = World::start();
    let rule = |hash: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\n\
             spec:\n  host: reviews\n  trafficPolicy: {{loadBalancer: {{consistentHash: {{{hash}}}}}}}\n"
        )
    };
    let in_force = |hash: &str, signs: [&str; 2]| {
        world.0.write("more.yaml", &rule(hash));
        let sidecar = world.0.workload("web-0").sidecar();
        wait::until(hash, || {
            let dump = sidecar.admin("/config_dump").text();
            signs.iter().all(|sign| dump.contains(sign))
        });
    };
    let endpoint = |header: &str| world.ask("/", header).text();
    for (hash, table) in
        [("httpHeaderName: X-User", "RING_HASH"), ("httpHeaderName: X-User, maglev: {}", "MAGLEV")]
    {
        in_force(hash, [table, "\"header_name\": \"x-user\""]);
        let mut endpoints = BTreeSet::new();
        for user in 0..24 {
            let header = format!("x-user: user-{user}\r\n");
            let first = endpoint(&header);
            assert!((0..5).all(|_| endpoint(&header) == first), "{table}: user-{user} leaves {first}");
            endpoints.insert(first);
        }
        assert_eq!(endpoints.len(), 2, "{table}: the callers are spread");
        assert_eq!((0..24).map(|_| endpoint("")).collect::<BTreeSet<_>>().len(), 2, "others go anywhere");
    }
    in_force("httpCookie: {name: place, path: /, ttl: 60s}", ["RING_HASH", "\"name\": \"place\""]);
    for _ in 0..8 {
        let response = world.ask("/", "");
        let cookie = response.headers.get("set-cookie").unwrap();
        assert!(cookie.ends_with("; Max-Age=60; Path=/; HttpOnly"), "{cookie}");
        let (cookie, _) = cookie.split_once(';').unwrap();
        let again = world.ask("/", &format!("cookie: {cookie}\r\n"));
        assert_eq!((again.text(), again.headers.get("set-cookie")), (response.text(), None));
    }
}
