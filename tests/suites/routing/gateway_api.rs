//! HTTPRoute and GRPCRoute: matches, filters and names of rules.

use outrigger_tests::wait;

use crate::world::{World, backend, http_route};

/// Rules of an HTTPRoute: those matches go to version 2, the rest to version 1.
fn second_version(matches: &str) -> String {
    let (v1, v2) = (backend("v1"), backend("v2"));
    http_route(&format!("  - matches: [{matches}]\n    backendRefs: [{v2}]\n  - backendRefs: [{v1}]\n"))
}

#[test]
fn matches_of_an_http_route() {
    let world = World::start();
    let first = |request| (request, "200 reviews-0");
    let second = |request| (request, "200 reviews-1");
    world.table(
        &second_version("{queryParams: [{name: q, value: '1'}, {name: r, value: two}]}"),
        &[second("/?r=two&q=1"), first("/?q=1"), first("/?q=1&r=Two"), first("/?q=2&q=1&r=two"), first("/")],
    );
    world.table(
        &second_version("{queryParams: [{name: q, type: RegularExpression, value: '[0-9]+'}]}"),
        &[second("/?q=12"), first("/?q=1a"), first("/?Q=1")],
    );
    world.table(
        &second_version(
            "{headers: [{name: x-user, value: ann}, {name: X-Team, type: RegularExpression, value: 'a|b'}]}",
        ),
        &[
            second("/ x-user:ann x-team:b"),
            first("/ x-user:ann"),
            first("/ x-user:Ann x-team:b"),
            first("/ x-user:ann x-team:ab"),
        ],
    );
    world.table(
        &second_version("{method: PUT}, {path: {type: Exact, value: /exact}}, {path: {value: /pre/}}"),
        &[
            second("PUT /"),
            first("POST /"),
            second("/exact?q"),
            first("/exact/"),
            second("/pre"),
            second("/pre/x"),
            first("/prefix"),
        ],
    );
    world.table(
        &second_version(
            "{path: {type: RegularExpression, value: '/a/[^/]+'}, headers: [{name: x-a, value: a}]}",
        ),
        &[second("/a/b x-a:a"), first("/a/b"), first("/a/b/c x-a:a")],
    );
}

/// The most specific match counts, whatever the order.
#[test]
fn the_order_of_an_http_route() {
    let world = World::start();
    let to_v2 = |matches: &str| format!("  - matches: [{matches}]\n    backendRefs: [{}]\n", backend("v2"));
    let to_v1 = |matches: &str| format!("  - matches: [{matches}]\n    backendRefs: [{}]\n", backend("v1"));
    let rules = [
        to_v1("{path: {value: /}}"),
        to_v1("{path: {value: /long}}"),
        to_v2("{path: {value: /long/er}}"),
        to_v1("{path: {value: /long/er}, queryParams: [{name: q, value: q}]}"),
        to_v2("{path: {value: /long/er}, headers: [{name: x-a, value: a}]}"),
        to_v1("{path: {value: /long/er}, method: POST}"),
        to_v2("{path: {type: Exact, value: /long}}"),
    ];
    world.table(
        &http_route(&rules.concat()),
        &[
            ("/long", "200 reviews-1"),
            ("/long/x", "200 reviews-0"),
            ("/long/er", "200 reviews-1"),
            ("/long/er?q=q", "200 reviews-0"),
            ("/long/er?q=q x-a:a", "200 reviews-1"),
            ("POST /long/er?q=q x-a:a", "200 reviews-0"),
        ],
    );
}

#[test]
fn redirects_and_rewrites() {
    let world = World::start();
    let rule = |path: &str, redirect: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    filters: [{{type: RequestRedirect, requestRedirect: {{{redirect}}}}}]\n"
        )
    };
    let rewrite = |path: &str, to: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    filters: [{{type: URLRewrite, urlRewrite: {{{to}}}}}]\n    \
             backendRefs: [{}]\n",
            backend("v1")
        )
    };
    let rules = [
        rule("/scheme", "scheme: https"),
        rule("/port", "port: 8443"),
        rule("/both", "scheme: https, port: 8443, statusCode: 308"),
        rule("/host", "hostname: h.example"),
        rule("/well-known", "scheme: https, hostname: h.example, port: 443"),
        rule("/prefix", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 307"),
        rule("/full", "path: {type: ReplaceFullPath, replaceFullPath: /new}, statusCode: 303"),
        rewrite("/one", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /}"),
        rewrite("/two", "path: {type: ReplaceFullPath, replaceFullPath: /new}, hostname: h.example"),
    ];
    world.table(
        &http_route(&rules.concat()),
        &[
            ("/scheme/x?q=1", "302  location=https://reviews:443/scheme/x?q=1"),
            ("/port", "302  location=http://reviews:8443/port"),
            ("/both", "308  location=https://reviews:8443/both"),
            ("/host", "302  location=http://h.example:9080/host"),
            ("/well-known", "302  location=https://h.example/well-known"),
            ("/prefix/x?q=1", "307  location=http://reviews:9080/new/x?q=1"),
            ("/full/x?q=1", "303  location=http://reviews:9080/new?q=1"),
            ("/one echo:target", "200 reviews-0 target=/"),
            ("/one/x?q=1 echo:target", "200 reviews-0 target=/x?q=1"),
            ("/two/x?q=1 echo:target,host", "200 reviews-0 target=/new?q=1 host=h.example"),
        ],
    );
}

/// Of the filters that a backend may have by the API's types, those of headers are honoured; the others are refused with the reason,
/// and what was in force before stays.
#[test]
fn filters_of_a_backend() {
    let world = World::start();
    let with = |filters: &str| {
        let (v1, v2) = (backend("v1"), backend("v2"));
        let v2 = v2.replace('}', &format!(", weight: 0, filters: [{filters}]}}"));
        let v1 = v1.replace('}', &format!(", filters: [{filters}]}}"));
        http_route(&format!(
            "  - matches: [{{path: {{value: /second}}}}]\n    backendRefs: [{}, {}]\n  - backendRefs: [{v1}, {v2}]\n",
            backend("v1").replace('}', ", weight: 0}"),
            backend("v2")
        ))
    };
    let headers = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: a}], add: [{name: x-add, value: b}], \
                   remove: [x-gone]}}, {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-answer, value: c}]}}";
    let rows = [
        (
            "/ x-set:old x-add:old x-gone:old echo:x-set,x-add,x-gone",
            "200 reviews-0 x-set=a x-add=old x-gone=- x-answer=c",
        ),
        ("/second x-gone:old echo:x-set,x-gone", "200 reviews-1 x-set=- x-gone=old"),
    ];
    world.table(&with(headers), &rows);
    for (filter, config) in [
        ("RequestMirror", format!("requestMirror: {{backendRef: {}}}", backend("v2"))),
        ("RequestRedirect", "requestRedirect: {port: 8443}".to_owned()),
        ("URLRewrite", "urlRewrite: {hostname: h.example}".to_owned()),
        ("CORS", "cors: {allowOrigins: ['*']}".to_owned()),
        ("ExtensionRef", "extensionRef: {group: example.com, kind: F, name: f}".to_owned()),
    ] {
        world.table(&with(&format!("{{type: {filter}, {config}}}")), &rows);
        let expected = format!(
            "spec.rules[1].backendRefs[0].filters[0].type: filter {filter} is not supported; supported: \
             RequestHeaderModifier, ResponseHeaderModifier"
        );
        assert_eq!(world.findings("HTTPRoute default/reviews"), [expected]);
    }
}

/// Calls of gRPC are told apart by service, method and headers; one that no rule is for is told in gRPC's own way.
#[test]
fn calls_of_a_grpc_route() {
    let world = World::start();
    let rule = |matches: &str, version: &str| {
        format!("  - matches: [{matches}]\n    backendRefs: [{}]\n", backend(version))
    };
    let rules = [
        rule("{method: {service: shop.Cart}}", "v1"),
        rule("{method: {service: shop.Cart, method: Add}}, {method: {method: Ping}}", "v2"),
        rule("{method: {service: shop.Cart}, headers: [{name: x-tenant, value: a}]}", "v2"),
        rule("{method: {type: RegularExpression, service: 'shop[.](Stock|Price)', method: 'Get.*'}}", "v2"),
        rule("{headers: [{name: x-any, type: RegularExpression, value: 'a+'}]}", "v1"),
    ];
    let route = http_route(&rules.concat()).replace("kind: HTTPRoute", "kind: GRPCRoute");
    let call = |call: &str| format!("POST {call} content-type:application/grpc te:trailers");
    let rows = [
        (call("/shop.Cart/Remove"), "200 reviews-0"),
        (call("/shop.Cart/Add"), "200 reviews-1"),
        (call("/shop.Cart/Remove") + " x-tenant:a", "200 reviews-1"),
        (call("/shop.Cart/Remove") + " x-tenant:b", "200 reviews-0"),
        (call("/any.Thing/Ping"), "200 reviews-1"),
        (call("/shop.Stock/GetAll"), "200 reviews-1"),
        (call("/shop.Stock/SetAll"), "200  grpc-status=12"),
        (call("/shop.Stocks/GetAll"), "200  grpc-status=12"),
        (call("/other.Thing/Do") + " x-any:aa", "200 reviews-0"),
        (call("/other.Thing/Do"), "200  grpc-status=12"),
        (call("/shop.CartX/Add"), "200  grpc-status=12"),
    ];
    world.table(&route, &rows.each_ref().map(|(request, answer)| (request.as_str(), *answer)));
    // A filter and two shares.
    let shares = format!(
        "  - filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-set, value: a}}]}}}}]\n    \
         backendRefs: [{}, {}]\n",
        backend("v1"),
        backend("v2")
    );
    world.apply(&http_route(&shares).replace("kind: HTTPRoute", "kind: GRPCRoute"));
    let answers = world.answers(&(call("/a.B/C") + " echo:x-set"), 60);
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["200 reviews-0 x-set=a", "200 reviews-1 x-set=a"]);
}

/// A GRPCRoute is the more specific kind: beside it an HTTPRoute for the same requests has no effect, and says so.
#[test]
fn a_grpc_route_beside_an_http_route() {
    let world = World::start();
    // It would be the more specific rule.
    let exact = "  - matches: [{path: {type: Exact, value: /}}]\n";
    let http = http_route(&format!("{exact}    backendRefs: [{}]\n", backend("v1")));
    let grpc = http_route(&format!("  - backendRefs: [{}]\n", backend("v2")));
    let grpc = grpc.replace("kind: HTTPRoute", "kind: GRPCRoute");
    world.table(&http, &[("/", "200 reviews-0")]);
    world.table(&format!("{http}---\n{grpc}"), &[("/", "200 reviews-1"), ("POST /a.B/C", "200 reviews-1")]);
    let findings = world.findings("HTTPRoute default/reviews");
    assert!(
        findings[0].starts_with("spec.parentRefs[0]: has no effect: GRPCRoute default/reviews"),
        "{findings:?}"
    );
}

/// Access logs name the rule: by its name, else by its number.
#[test]
fn the_name_of_a_rule() {
    let world = World::start();
    world.table(
        &http_route(&format!(
            "  - name: special\n    matches: [{{path: {{value: /special}}}}]\n    backendRefs: [{0}]\n  - backendRefs: [{0}]\n",
            backend("v1")
        )),
        &[("/special", "200 reviews-0"), ("/other", "200 reviews-0")],
    );
    let sidecar = world.0.workload("web-0").sidecar();
    for (path, route) in [("/special", "default.reviews.special"), ("/other", "default.reviews.1")] {
        wait::until("a line of the log", || {
            let logged = sidecar.stdout();
            logged.lines().any(|line| line.contains(&format!("\"GET {path} ")) && line.ends_with(route))
        });
    }
}
