//! Which route a request's path picks.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

const FRAGMENT: &str = "the codec has cut the fragment off, so the log of the refused request lacks it";

/// A route that answers with its own name.
fn route(name: &str, condition: Value) -> Value {
    json!({"name": name, "match": condition, "direct_response": {"status": 200, "body": {"inline_string": name}}})
}

#[test]
fn paths() {
    compare_cases(&[
        Case::routes(
            "prefix",
            json!([
                route("a slash", json!({"prefix": "/a/"})),
                route("a", json!({"prefix": "/a"})),
                route("case", json!({"prefix": "/MiXed", "case_sensitive": false})),
                route("query", json!({"prefix": "/q?x=1"})),
            ]),
        )
        .paths(&[
            "/a", "/a/", "/a/b", "/ab", "/A", "/mixed/1", "/MIXED", "/q?x=1", "/q?x=12", "/", "/a?b=c",
            "/a#f",
        ])
        .deviates("default log 12", FRAGMENT)
        .deviates("istio log 12", FRAGMENT),
        Case::routes(
            "path",
            json!([
                route("exact", json!({"path": "/exact"})),
                route("case", json!({"path": "/Case", "case_sensitive": false})),
                route("root", json!({"path": "/"})),
            ]),
        )
        .paths(&[
            "/exact",
            "/exact?q=1",
            "/exact/",
            "/Exact",
            "/case",
            "/CASE?x",
            "/",
            "/?",
            "/other",
            "//exact",
        ]),
        Case::routes(
            "regex",
            json!([
                route("digits", json!({"safe_regex": {"regex": "/d/\\d+"}})),
                route("either", json!({"safe_regex": {"regex": "/x|/y.*"}})),
                route("letters", json!({"safe_regex": {"google_re2": {}, "regex": "/[a-c]{2}"}})),
            ]),
        )
        .paths(&[
            "/d/1",
            "/d/12?x=y",
            "/d/",
            "/d/1x",
            "/x",
            "/xx",
            "/y",
            "/y/z",
            "/ab",
            "/abc",
            "/AB",
        ]),
        Case::routes(
            "separated prefix",
            json!([
                route("api", json!({"path_separated_prefix": "/api"})),
                route("case", json!({"path_separated_prefix": "/Low", "case_sensitive": false})),
            ]),
        )
        .paths(&["/api", "/api/", "/api/v1", "/apis", "/api?x=1", "/api#f", "/API", "/low/1", "/lower"])
        .deviates("default log 6", FRAGMENT)
        .deviates("istio log 6", FRAGMENT),
        Case::routes(
            "first match",
            json!([
                route("one", json!({"prefix": "/one"})),
                route("never", json!({"path": "/one/two"})),
                route("rest", json!({"prefix": "/"})),
            ]),
        )
        .paths(&["/one/two", "/two"]),
        Case::routes(
            "paths are not touched",
            json!([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]),
        )
        .paths(&[
            "/a/../b",
            "/a//b",
            "/a/./b",
            "/%2e%2e/b",
            "/a%2Fb",
            "/a%5cb",
            "/sp%20ace?q=a+b&c=%26",
            "/a;b=c",
            "/?",
            "/\u{e9}",
        ]),
    ]);
}
