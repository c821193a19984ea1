//! Redirects of upstreams that the proxy follows itself.

use outrigger_tests::bootstrap::{overlay, type_url};
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, Response};
use serde_json::{Value, json};

/// Routes of their own for `/a`, `/b` and the host `other`, each following redirects by `policy`.
fn hosts(policy: &Value) -> Value {
    let route = |name: &str, prefix: &str, cluster: &str| {
        json!({"name": name, "match": {"prefix": prefix},
            "route": {"cluster": cluster, "internal_redirect_policy": policy}})
    };
    json!([
        {"name": "v", "domains": ["h", "h:80"], "include_request_attempt_count": true,
            "routes": [route("a", "/a", "up"), route("b", "/b", "up2"),
                {"name": "c", "match": {"prefix": "/c"}, "route": {"cluster": "up2"}},
                {"name": "d", "match": {"prefix": "/d"}, "direct_response": {"status": 202, "body": {"inline_string": "d"}}},
                {"name": "e", "match": {"prefix": "/e"}, "redirect": {"path_redirect": "/a"}}]},
        {"name": "other", "domains": ["other"], "routes": [route("other", "/", "up2")]},
    ])
}

fn following(name: &'static str, policy: Value) -> Case {
    Case::hosts(name, hosts(&policy)).without_logs().drive(follow)
}

/// The request's target names the location of the answer, behind `to=`; `~` stands for `#`.
fn answer(request: &outrigger_tests::Request) -> Reply {
    let status = request.headers.get("x-status").and_then(|s| s.parse().ok()).unwrap_or(302);
    match request.target.split_once("to=") {
        Some((_, "nowhere")) => Reply::Respond(Response::new(status, "")),
        Some((_, location)) => Reply::Respond(
            Response::new(status, "moved")
                .header("location", &location.replace('~', "#"))
                .header("x-copied", "from the answer"),
        ),
        None => Reply::Respond(Response::new(200, "here")),
    }
}

const LOCATIONS: [&str; 16] = [
    "http://h/b",
    "http://h:80/b/x?y=1~z",
    "http://other/z",
    "http://other",
    "http://nobody/",
    "http://h/c",
    "http://h/d",
    "http://h/e",
    "http://h/none",
    "https://h/b",
    "/b",
    "ftp://h/b",
    "",
    "nowhere",
    "http://h/b?to=http://h/a",
    "http://h/a?to=http://h/a?to=http://h/a",
];

fn follow(target: &Target<'_>, view: &mut View) {
    target.world.up.answer_with(answer);
    target.world.up2.answer_with(answer);
    for location in LOCATIONS {
        exchange(
            target,
            view,
            location,
            &format!("GET /a?to={location} HTTP/1.1\r\nhost: h\r\nx-copied: mine\r\n\r\n"),
        );
    }
    for status in [301, 302, 303, 304, 307, 308] {
        let head = format!("host: h\r\nx-status: {status}\r\n");
        let location = "http://h/b";
        exchange(
            target,
            view,
            &format!("GET {status}"),
            &format!("GET /a?to={location} HTTP/1.1\r\n{head}\r\n"),
        );
        exchange(
            target,
            view,
            &format!("HEAD {status}"),
            &format!("HEAD /a?to={location} HTTP/1.1\r\n{head}\r\n"),
        );
        exchange(
            target,
            view,
            &format!("POST {status}"),
            &format!("POST /a?to={location} HTTP/1.1\r\n{head}content-length: 5\r\n\r\nhello"),
        );
        exchange(
            target,
            view,
            &format!("chunked PUT {status}"),
            &format!(
                "PUT /a?to={location} HTTP/1.1\r\n{head}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            ),
        );
    }
}

fn exchange(target: &Target<'_>, view: &mut View, name: &str, bytes: &str) {
    let mut client = RawClient::connect(target.addr).unwrap();
    client.send(bytes.as_bytes());
    let method = bytes.split(' ').next().unwrap_or_default();
    view.add_answer(format!("{name}: client"), &client.response_to(method));
    view.add_requests(format!("{name}: upstream"), &target.world.take_requests());
}

fn predicate(name: &str, message: &str, more: Value) -> Value {
    let mut config = json!({"@type": type_url(&format!("extensions.internal_redirect.{message}"))});
    overlay(&mut config, more);
    json!({"name": name, "typed_config": config})
}

#[test]
fn where_to() {
    let statistics = "internal_redirect|cluster\\.up2?\\.upstream_rq_[0-9]|^http\\.ingress\\.downstream_rq_([0-9]|total|completed)";
    let case = |name, policy| following(name, policy).statistics(statistics);
    compare_cases(&[
        case("302 only", json!({})),
        case("all codes", json!({"redirect_response_codes": [301, 302, 303, 307, 308]})),
        case("no redirect code", json!({"redirect_response_codes": [200, 304]})),
        case("several", json!({"max_internal_redirects": 3})),
        case("none", json!({"max_internal_redirects": 0})),
        case("without ports", json!({})).hcm(json!({"strip_any_host_port": true})),
        case("without dots", json!({}))
            .hcm(json!({"strip_trailing_host_dot": true, "strip_matching_host_port": true})),
        case("other schemes", json!({"allow_cross_scheme_redirect": true, "max_internal_redirects": 2})),
        case("copied", json!({"response_headers_to_copy": ["x-copied", "x-absent"]})),
    ]);
}

#[test]
fn predicates() {
    let previous = || predicate("p", "previous_routes.v3.PreviousRoutesConfig", json!({}));
    let listed = |names: &[&str]| {
        predicate(
            "l",
            "allow_listed_routes.v3.AllowListedRoutesConfig",
            json!({"allowed_route_names": names}),
        )
    };
    let safe = || predicate("s", "safe_cross_scheme.v3.SafeCrossSchemeConfig", json!({}));
    compare_cases(&[
        following("each route once", json!({"max_internal_redirects": 5, "predicates": [previous()]})),
        following("only listed", json!({"predicates": [listed(&["b", "other"])]})),
        following("safe ones", json!({"allow_cross_scheme_redirect": true, "predicates": [safe()]})),
        following(
            "all of them",
            json!({"max_internal_redirects": 5, "predicates": [listed(&["b"]), previous(), safe()]}),
        ),
    ]);
}

/// Each stream has its line. (Envoy forgets which route a redirect came from that it does not follow, and counts bodies twice.)
#[test]
fn lines_in_logs() {
    let case = Case::hosts("logs", hosts(&json!({"max_internal_redirects": 2})));
    compare_cases(&[case.drive(|target, view| {
        target.world.up.answer_with(answer);
        target.world.up2.answer_with(answer);
        for location in [
            "http://h/b",
            "http://other/z",
            "http://h/c",
            "http://h/d",
            "/b",
            "nowhere",
            "http://h/a?to=http://h/b",
        ] {
            let request = format!("GET /a?to={location} HTTP/1.1\r\nhost: h\r\n\r\n");
            exchange(target, view, location, &request);
        }
    })]);
}

/// What filters, routes and retries do around it.
#[test]
fn around() {
    let policy = json!({"internal_redirect_policy": {}});
    let route = |more: Value| {
        let mut action = json!({"cluster": "up"});
        overlay(&mut action, policy.clone());
        overlay(&mut action, more);
        json!({"match": {"prefix": "/a"}, "route": action,
            "request_headers_to_add": [{"header": {"key": "x-route", "value": "a"}}],
            "response_headers_to_add": [{"header": {"key": "x-route", "value": "a"}}]})
    };
    let last = json!({"match": {"prefix": "/"}, "route": {"cluster": "up2"}});
    let routes = |name: &'static str, more: Value| {
        Case::routes(name, json!([route(more), last])).without_logs().drive(follow)
    };
    let router = json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": type_url("extensions.filters.http.router.v3.Router")}});
    let mutation = json!({"append": {"header": {"key": "x-filter", "value": "%REQ(:path)%"}}});
    let filter = json!({"name": "m", "typed_config": {
        "@type": type_url("extensions.filters.http.header_mutation.v3.HeaderMutation"),
        "mutations": {"request_mutations": [mutation], "response_mutations": [mutation]}}});
    compare_cases(&[
        routes("a rewrite", json!({"prefix_rewrite": "/a/new", "host_rewrite_literal": "rewritten"})),
        routes("retries", json!({"retry_policy": {"retry_on": "5xx"}})),
        routes("a filter", json!({})).hcm(json!({"http_filters": [filter, router]})),
    ]);
}
