//! Routes that change the path or the host of a request.

use outrigger_tests::differential::{Case, World, compare_cases};
use serde_json::{Value, json};

const NO_HOST: &str =
    "what is made of the path is no host (RFC 3986 3.2.2), so the old one stays; Envoy sends it";
const ENCODED: &str = "RFC 3986 3.3: what a path must not have is percent-encoded; Envoy sends it";

fn rewrite(name: &'static str, condition: Value, more: Value) -> Case {
    let mut action = json!({"cluster": "up"});
    outrigger_tests::bootstrap::overlay(&mut action, more);
    Case::routes(name, json!([{"match": condition, "route": action}]))
}

fn any() -> Value {
    json!({"prefix": "/"})
}

#[test]
fn prefixes() {
    let paths = ["/old", "/old/x?q=/old", "/older", "/old/"];
    let to = |prefix: &str| json!({ "prefix_rewrite": prefix });
    compare_cases(&[
        rewrite("prefix", json!({"prefix": "/old"}), to("/new")).paths(&paths),
        rewrite("to the root", json!({"prefix": "/old"}), to("/")).paths(&paths),
        rewrite("with a slash", json!({"prefix": "/old/"}), to("/")).paths(&paths),
        rewrite("path", json!({"path": "/old"}), to("/new")).paths(&paths),
        rewrite("separated", json!({"path_separated_prefix": "/old"}), to("/new")).paths(&paths),
        rewrite("regex", json!({"safe_regex": {"regex": "/o.*"}}), to("/new")).paths(&paths),
        rewrite("letter case", json!({"prefix": "/OLD", "case_sensitive": false}), to("/new")).paths(&paths),
        rewrite("to HTTP/2", json!({"prefix": "/old"}), json!({"cluster": "h2", "prefix_rewrite": "/new"}))
            .paths(&paths),
        rewrite("client's original path", json!({"prefix": "/old"}), to("/new"))
            .send("header", "GET /old HTTP/1.1\r\nhost: h\r\nx-envoy-original-path: /mine\r\n\r\n"),
    ]);
}

#[test]
fn regexes() {
    let regex = |pattern: &str, substitution: &str| json!({"regex_rewrite": {"pattern": {"regex": pattern}, "substitution": substitution}});
    let paths = ["/service/foo/v1/api", "/xxx/one/yyy/one/zzz?one", "/aaa/XxX/bbb"];
    compare_cases(&[
        rewrite("groups", any(), regex("^/service/([^/]+)(/.*)$", "\\2/instance/\\1")).paths(&paths),
        rewrite("all matches", any(), regex("one", "two")).paths(&paths),
        rewrite("first match", any(), regex("^(.*?)one(.*)$", "\\1two\\2")).paths(&paths),
        rewrite("letter case", any(), regex("(?i)/xxx/", "/yyy/")).paths(&paths),
        rewrite("whole match", any(), regex("v1", "(\\0)")).paths(&paths),
        rewrite("not for a path", any(), regex("v1", "<\\0>"))
            .paths(&["/service/foo/v1/api"])
            .deviates("GET /service/foo/v1/api: upstream", ENCODED),
        rewrite("backslash and dollar", any(), regex("foo", "\\\\$1")).paths(&paths),
        rewrite("no match", any(), regex("nothing", "x")).paths(&paths),
    ]);
}

fn named(world: &World) -> Vec<Value> {
    let mut cluster = outrigger_tests::bootstrap::cluster("named", &[world.up.addr()], Value::Null);
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["hostname"] =
        json!("named.example.com");
    vec![cluster]
}

#[test]
fn hosts() {
    let lines = ["", "x-host: other.example.com\r\n", "x-forwarded-host: before\r\n"];
    compare_cases(&[
        rewrite("literal", any(), json!({"host_rewrite_literal": "new.example.com"})).header_lines(&lines),
        rewrite("literal with a port", any(), json!({"host_rewrite_literal": "new:81"})).header_lines(&lines),
        rewrite("to HTTP/2", any(), json!({"cluster": "h2", "host_rewrite_literal": "new"})).header_lines(&lines),
        rewrite("header", any(), json!({"host_rewrite_header": "x-host"})).header_lines(&lines),
        rewrite(
            "path",
            any(),
            json!({"host_rewrite_path_regex": {"pattern": {"regex": "^/(.+)/.+$"}, "substitution": "\\1"}}),
        )
        .paths(&["/bootstrap.example.com/x?y=/z/a", "/x"])
        .deviates("GET /x: upstream", NO_HOST)
        .deviates("default log 2", NO_HOST)
        .deviates("istio log 2", NO_HOST),
        rewrite("auto without a name", any(), json!({"auto_host_rewrite": true})).header_lines(&lines),
        rewrite("auto", any(), json!({"cluster": "named", "auto_host_rewrite": true}))
            .clusters(named)
            .header_lines(&lines),
        rewrite(
            "forwarded host",
            any(),
            json!({"host_rewrite_literal": "new", "append_x_forwarded_host": true}),
        )
        .header_lines(&["", "x-forwarded-host: before\r\n", "x-forwarded-host: h\r\n", "x-forwarded-host: a,h\r\n"]),
        rewrite("nothing to forward", any(), json!({"append_x_forwarded_host": true})).header_lines(&lines),
        Case::routes(
            "weighted cluster",
            json!([{"match": {"prefix": "/"}, "route": {"host_rewrite_literal": "route", "weighted_clusters": {
                "clusters": [{"name": "up", "weight": 1, "host_rewrite_literal": "weighted"}]}}}]),
        )
        .paths(&["/"]),
    ]);
}

#[test]
fn logs_and_headers_have_the_new_path() {
    compare_cases(&[
        Case::routes(
            "path and host",
            json!([{"match": {"prefix": "/old"}, "name": "moved",
                "request_headers_to_add": [{"header": {"key": "x-path", "value": "%REQ(:PATH)%"}}],
                "response_headers_to_add": [{"header": {"key": "x-path", "value": "%REQ(:PATH)% %REQ(:AUTHORITY)% %REQ(x-envoy-original-path)%"}}],
                "route": {"cluster": "up", "prefix_rewrite": "/new", "host_rewrite_literal": "elsewhere"}}]),
        )
        .paths(&["/old/a?b"]),
        Case::routes(
            "no headers of ours",
            json!([{"match": {"prefix": "/old"},
                "route": {"cluster": "up", "prefix_rewrite": "/new", "host_rewrite_literal": "elsewhere"}}]),
        )
        .hcm(json!({"http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true}}]}))
        .paths(&["/old/a?b"]),
    ]);
}

#[test]
fn formats() {
    let lines = ["", "x-a: one\r\n", "x-a: one\r\nx-b: b.example.com:81\r\n", "x-a: a b\r\n"];
    let case = |name, more: Value| {
        rewrite(name, any(), more)
            .header_lines(&lines)
            .send("query", "GET /x/y?q=%2F HTTP/1.1\r\nhost: h:80\r\nx-a: one\r\nx-b: b\r\n\r\n")
    };
    let redirect = |name, more: Value| {
        let mut action = json!({});
        outrigger_tests::bootstrap::overlay(&mut action, more);
        Case::routes(name, json!([{"match": {"prefix": "/"}, "redirect": action}]))
            .header_lines(&lines[..3])
            .send("query", "GET /x/y?q=%2F HTTP/1.1\r\nhost: h:80\r\nx-a: one\r\n\r\n")
    };
    compare_cases(&[
        case("path", json!({"path_rewrite": "/new/%REQ(x-a)%"})).deviates("x-a: a b: upstream", ENCODED),
        case("path, or nothing", json!({"path_rewrite": "%REQ(x-c)%"})),
        case("path by more", json!({"path_rewrite": "/%REQ(:method)%/%PROTOCOL%/%REQ(:authority)%"})),
        case("path and its query", json!({"path_rewrite": "/n%REQ(:path)%"})),
        case("host", json!({"host_rewrite": "%REQ(x-b)%"})),
        case(
            "host with a name",
            json!({"host_rewrite": "p-%REQ(x-c)%.example.com", "append_x_forwarded_host": true}),
        ),
        case("both", json!({"host_rewrite": "p-%REQ(:authority)%", "path_rewrite": "/%REQ(:authority)%"})),
        redirect("redirect", json!({"path_rewrite": "/new/%REQ(x-a)%"})),
        redirect("redirect to nothing", json!({"path_rewrite": "%REQ(x-c)%"})),
        redirect("redirect without query", json!({"path_rewrite": "/%REQ(x-a)%?own", "strip_query": true})),
        redirect("redirect with a query of its own", json!({"path_rewrite": "/%REQ(x-a)%?own"})),
    ]);
}
