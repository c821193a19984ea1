//! What VirtualServices alone can say: conditions on callers and hosts, who sees a rule, rules that are left to another object.

use outrigger_tests::upstream::{Reply, Upstream};
use outrigger_tests::wait;

use crate::world::{World, destination, virtual_service};

/// `reviews`, as callers in another namespace name it.
const GUEST: &str = "guest-0> //reviews.default:9080/";

/// A VirtualService of `reviews` that answers by itself.
fn answering(name: &str, namespace: &str, more: &str, body: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         hosts: [reviews.default.svc.cluster.local]\n  {more}\n  http: [{{directResponse: {{status: 200, body: {{string: {body}}}}}}}]\n---\n"
    )
}

/// Rules of `reviews`: what is for `condition` goes to version 2, the rest to version 1.
fn second_version(condition: &str) -> String {
    let (v1, v2) = (destination("v1"), destination("v2"));
    virtual_service(&format!("  - match: [{{{condition}}}]\n    route: [{v2}]\n  - route: [{v1}]\n"))
}

#[test]
fn conditions_on_a_request() {
    let world = World::start();
    let first = |request| (request, "200 reviews-0");
    let second = |request| (request, "200 reviews-1");
    let (inside, other) = ("//reviews.default:9080/", "//reviews.default.svc.cluster.local:9080/");
    for (condition, rows) in [
        ("uri: {prefix: /a}", &[second("/a"), second("/ab"), second("/a/b"), first("/A")][..]),
        ("uri: {prefix: /a}, ignoreUriCase: true", &[second("/A"), second("/aB"), first("/b")]),
        ("uri: {exact: /a}, ignoreUriCase: true", &[second("/A?q"), first("/a/")]),
        ("uri: {regex: '/a/[0-9]+'}", &[second("/a/12"), first("/a/12/"), first("/x/a/1")]),
        ("withoutHeaders: {x-in: {exact: a}}", &[second("/"), second("/ x-in:b"), first("/ x-in:a")]),
        ("withoutHeaders: {x-in: {}}", &[second("/"), first("/ x-in:b")]),
        (
            "withoutHeaders: {x-in: {regex: 'a+'}}, headers: {x-out: {}}",
            &[second("/ x-out:1"), first("/"), first("/ x-out:1 x-in:aa")],
        ),
        ("headers: {x-out: {prefix: a}}", &[second("/ x-out:ab"), first("/ x-out:ba"), first("/")]),
        ("method: {regex: 'P.*'}", &[second("PUT /"), first("GET /")]),
        ("authority: {prefix: reviews.default}", &[second(inside), second(other), first("/")]),
        ("authority: {exact: 'reviews:9080'}", &[second("/"), first(inside)]),
        ("scheme: {exact: http}", &[second("/")]),
        ("scheme: {exact: https}", &[first("/")]),
        ("port: 9080", &[second("/")]),
        ("port: 9081", &[first("/")]),
        ("queryParams: {q: {prefix: a}, r: {}}", &[second("/?q=ab&r"), first("/?q=ab"), first("/?q=b&r")]),
    ] {
        world.table(&second_version(condition), rows);
    }
}

#[test]
fn conditions_on_callers() {
    let world = World::with_callers();
    let labels = second_version("sourceLabels: {app: web, version: v2}");
    world.table(&labels, &[("/", "200 reviews-0"), ("web-1> /", "200 reviews-1"), (GUEST, "200 reviews-0")]);
    let namespace = second_version("sourceNamespace: client");
    world.table(
        &namespace,
        &[("/", "200 reviews-0"), ("web-1> /", "200 reviews-0"), (GUEST, "200 reviews-1")],
    );
    let both = second_version("sourceNamespace: client, sourceLabels: {app: web}");
    world.table(&both, &[("web-1> /", "200 reviews-0"), (GUEST, "200 reviews-0")]);
}

/// What does not see a rule is balanced over both versions.
#[test]
fn who_sees_a_rule() {
    let world = World::with_callers();
    let sees = |request: &str| world.answer(request) == "200 seen";
    for (export_to, own, guest) in [
        ("['*']", true, true),
        ("['.']", true, false),
        ("[client]", false, true),
        ("[other]", false, false),
        ("['.', client]", true, true),
    ] {
        world.apply(&answering("r", "default", &format!("exportTo: {export_to}"), "seen"));
        assert_eq!((sees("/"), sees("web-1> /"), sees(GUEST)), (own, own, guest), "{export_to}");
    }
    // One that only its own namespace sees comes first there, however young; a second one for all comes after the first.
    world.table(
        &(answering("all", "default", "", "all")
            + &answering("later", "default", "", "later")
            + &answering("own", "client", "exportTo: ['.']", "own")),
        &[("/", "200 all"), (GUEST, "200 own")],
    );
    let findings = world.findings("VirtualService default/later");
    assert!(findings[0].contains("VirtualService default/all is for the same host"), "{findings:?}");
}

#[test]
fn rules_that_are_left_to_another_object() {
    let world = World::start();
    let root = virtual_service(&format!(
        "  - match: [{{uri: {{prefix: /team}}, headers: {{x-team: {{}}}}}}]\n    delegate: {{name: team, namespace: client}}\n    \
         headers: {{request: {{set: {{x-set: root, x-root: root}}}}}}\n  - route: [{}]\n",
        destination("v1")
    )) + "---\n";
    let team = |more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: team, namespace: client}}\nspec:\n  {more}\n  \
             http:\n  - match: [{{uri: {{prefix: /team/a}}}}]\n    route: [{{destination: {{host: reviews-v2.default.svc.cluster.local}}}}]\n  \
             - match: [{{uri: {{exact: /team/b}}}}]\n    headers: {{request: {{set: {{x-set: leaf}}}}}}\n    \
             route: [{{destination: {{host: reviews-v2.default.svc.cluster.local}}}}]\n  \
             - match: [{{uri: {{prefix: /else}}}}]\n    directResponse: {{status: 200}}\n"
        )
    };
    world.table(
        &(root.clone() + &team("")),
        &[
            ("/team/a/x x-team:1 echo:x-set,x-root", "200 reviews-1 x-set=root x-root=root"),
            ("/team/b x-team:1 echo:x-set,x-root", "200 reviews-1 x-set=leaf x-root=root"),
            // Not matched by both: the next rule counts.
            ("/team/a echo:x-set", "200 reviews-0 x-set=-"),
            ("/team/c x-team:1", "200 reviews-0"),
            ("/else x-team:1", "200 reviews-0"),
        ],
    );
    assert_eq!(world.findings("VirtualService default/reviews"), [""; 0]);
    let unseen = "VirtualService client/team is not exported to this namespace, so it cannot be delegated to";
    for (team, reason) in [
        (String::new(), "VirtualService client/team does not exist"),
        (team("exportTo: ['.']"), unseen),
        (
            team("hosts: [other.example]"),
            "VirtualService client/team has hosts of its own, so it cannot be delegated to",
        ),
        (
            team("").replace("/team/", "/group/"),
            "VirtualService client/team has no rule for what is matched here",
        ),
    ] {
        world.table(&(root.clone() + &team), &[("/team/a x-team:1", "200 reviews-0")]);
        let expected = format!("spec.http[0].delegate: {reason}");
        assert_eq!(world.findings("VirtualService default/reviews"), [expected]);
    }
}

/// A ServiceEntry of a host with one server, which answers `outside`.
fn service_entry(host: &str, server: &Upstream) -> String {
    let (ip, port) = (server.addr().ip(), server.addr().port());
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {host}, namespace: default}}\nspec:\n  \
         hosts: [{host}]\n  resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]\n  \
         endpoints: [{{address: {ip}}}]\n---\n"
    )
}

#[test]
fn hosts() {
    let world = World::with_callers();
    let server = Upstream::start();
    server.answer(Reply::status(200, "outside"));
    let outside = "route: [{destination: {host: api.example.com}}]";
    let rule = |name: &str, namespace: &str, hosts: &str, http: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec:\n  hosts: [{hosts}]\n  http: [{{{http}}}]\n---\n"
        )
    };
    let answer = |body: &str| format!("directResponse: {{status: 200, body: {{string: {body}}}}}");
    let rules = [
        service_entry("api.example.com", &server),
        rule("any", "default", "'*.example.com'", outside),
        rule("more", "default", "'*.com'", &answer("more")),
        rule("some", "default", "'*.some.example.com'", &answer("some")),
        rule("one", "default", "one.example.com", &answer("one")),
        // A ServiceEntry's host, by a rule for a whole name.
        rule("other", "default", "other.example", outside),
        // Short names are those of the rule's own namespace.
        rule("short", "default", "reviews-v1", &answer("short")),
        rule("foreign", "client", "reviews-v2", &answer("foreign")),
        rule("guest", "client", "guest", "route: [{destination: {host: reviews-v2}}]"),
    ];
    world.table(
        &rules.concat(),
        &[
            ("//api.example.com/", "200 outside"),
            ("//b.example.com/", "200 outside"),
            ("//b.c.example.com:80/", "200 outside"),
            ("//example.com/", "200 more"),
            ("//b.some.example.com/", "200 some"),
            ("//one.example.com/", "200 one"),
            ("//other.example/", "200 outside"),
            ("//unknown.example/", "404"),
            ("//reviews-v1:9080/", "200 short"),
            ("//reviews-v1.default.svc:9080/", "200 short"),
            ("//reviews-v2:9080/", "200 reviews-1"),
            ("guest-0> //reviews-v1.default:9080/", "200 short"),
            ("guest-0> //guest:9080/", "503 no healthy upstream"),
        ],
    );
    let reason = "spec.http[0].route[0].destination: Service client/reviews-v2 does not exist: its share of requests fails";
    assert_eq!(world.findings("VirtualService client/guest"), [reason]);
}

#[test]
fn paths_and_headers_on_the_way() {
    let world = World::start();
    let rules = virtual_service(
        "  - match: [{uri: {prefix: /regex}}]\n    rewrite: {uriRegexRewrite: {match: '^/regex/([^/]+)/(.*)$', rewrite: '/\\2/\\1'}}\n    \
         route: [{destination: {host: reviews-v1}}]\n  \
         - match: [{uri: {prefix: /prefix}}]\n    rewrite: {uri: /new}\n    route: [{destination: {host: reviews-v1}}]\n  \
         - match: [{uri: {exact: /derived}}]\n    redirect: {authority: h.example, derivePort: FROM_REQUEST_PORT, redirectCode: 307}\n  \
         - match: [{uri: {exact: /default}}]\n    redirect: {scheme: https, authority: h.example, derivePort: FROM_PROTOCOL_DEFAULT}\n  \
         - match: [{uri: {exact: /format}}]\n    headers: {request: {set: {x-path: 'at %REQ(:path)% 100%%', x-from: '%REQ(x-user)%'}}}\n    \
         route: [{destination: {host: reviews-v1}}]\n  \
         - match: [{uri: {exact: /both}}]\n    headers: {request: {add: {x-a: rule}}}\n    \
         route:\n    - destination: {host: reviews-v1}\n      weight: 100\n      headers: {request: {add: {x-a: backend}, set: {Host: h.example}, remove: \
         [x-gone]}, response: {set: {x-by: v1}}}\n    - {destination: {host: reviews-v2}, weight: 0}\n",
    );
    world.table(
        &rules,
        &[
            ("/regex/a/b/c?q echo:target", "200 reviews-0 target=/b/c/a?q"),
            ("/regex/a echo:target", "200 reviews-0 target=/regex/a"),
            ("/prefixed/x echo:target", "200 reviews-0 target=/newed/x"),
            ("/derived?q", "307  location=http://h.example:9080/derived?q"),
            ("/default", "301  location=https://h.example/default"),
            ("/format x-user:ann echo:x-path,x-from", "200 reviews-0 x-path=at /format 100% x-from=ann"),
            (
                "/both x-gone:1 echo:host,x-gone,x-a",
                "200 reviews-0 host=h.example x-gone=- x-a=backend x-by=v1",
            ),
            ("/unmatched", "404"),
        ],
    );
    let seen = world.taken("reviews-0").pop().unwrap();
    let added: Vec<_> = seen.headers.0.iter().filter(|(name, _)| name == "x-a").collect();
    assert_eq!(added.len(), 2, "{added:?}");
}

/// Copies by shares: all, about half, none.
#[test]
fn several_mirrors() {
    let world = World::start();
    let server = Upstream::start();
    server.answer(Reply::status(200, "outside"));
    let rules = virtual_service(&format!(
        "  - route: [{}]\n    mirrors:\n    - {}\n    - {{destination: {{host: api.example.com}}, percentage: {{value: 50}}}}\n    \
         - {{destination: {{host: gone}}}}\n    - {{destination: {{host: reviews}}, percentage: {{value: 0}}}}\n",
        destination("v1"),
        destination("v2")
    ));
    world.table(&(service_entry("api.example.com", &server) + &rules), &[("/", "200 reviews-0")]);
    wait::until("a copy", || !world.taken("reviews-1").is_empty());
    server.take_requests();
    world.taken("reviews-0");
    for _ in 0..100 {
        assert_eq!(world.answer("/copied"), "200 reviews-0");
    }
    let mut copies = 0;
    wait::until("all copies", || {
        copies += world.taken("reviews-1").len();
        copies == 100
    });
    assert_eq!(world.taken("reviews-0").len(), 100, "the application itself sees each once");
    wait::until("about half of the copies", || (25..75).contains(&server.recorded()));
    let findings = world.findings("VirtualService default/reviews");
    assert_eq!(
        findings,
        ["spec.http[0].mirrors[2].destination: Service default/gone does not exist: it gets no copies"]
    );
}
