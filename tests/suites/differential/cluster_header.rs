//! Requests that name their cluster themselves.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

/// All requests go where this header says.
fn by(name: &'static str, header: &str, more: Value) -> Case {
    let mut action = json!({"cluster_header": header});
    outrigger_tests::bootstrap::overlay(&mut action, more);
    Case::routes(name, json!([{"match": {"prefix": "/"}, "route": action}]))
}

#[test]
fn named_by_the_request() {
    let lines = [
        "x-cluster: up\r\n",
        "X-Cluster: up2\r\n",
        "x-cluster: up\r\nx-cluster: up2\r\n",
        "x-cluster: empty\r\n",
        "x-cluster: missing\r\n",
        "x-cluster: UP\r\n",
        "x-cluster: up,up2\r\n",
        "x-cluster:\r\n",
        "",
    ];
    compare_cases(&[
        by("a header", "x-cluster", json!({})).header_lines(&lines),
        by("404", "x-cluster", json!({"cluster_not_found_response_code": "NOT_FOUND"})).header_lines(&lines),
        by("500", "x-cluster", json!({"cluster_not_found_response_code": "INTERNAL_SERVER_ERROR"}))
            .header_lines(&["x-cluster: missing\r\n", ""]),
        by("the authority", ":authority", json!({}))
            .send("up", "GET / HTTP/1.1\r\nhost: up\r\n\r\n")
            .send("missing", "GET / HTTP/1.1\r\nhost: missing\r\n\r\n"),
        by("rewritten", "x-cluster", json!({"prefix_rewrite": "/new", "host_rewrite_header": "x-cluster"}))
            .header_lines(&["x-cluster: up\r\n"]),
        by("retried", "x-cluster", json!({"retry_policy": {"retry_on": "5xx", "num_retries": 2}}))
            .header_lines(&["x-cluster: refusing\r\n", "x-cluster: missing\r\n"]),
    ]);
}

/// The cluster is that of the request as it came, whatever the route makes of its headers.
#[test]
fn the_route_changes_the_header_too_late() {
    let routes = json!([{
        "match": {"prefix": "/"},
        "route": {"cluster_header": "x-cluster"},
        "request_headers_to_add": [{"header": {"key": "x-cluster", "value": "missing"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }]);
    compare_cases(&[Case::routes("late", routes).header_lines(&["x-cluster: up\r\n"])]);
}

/// One of several clusters may be the one that the request names.
#[test]
fn of_weighted_clusters() {
    let weighted = |name: &'static str, more: Value| {
        let named = json!({"cluster_header": "x-cluster", "weight": 1,
            "request_headers_to_add": [{"header": {"key": "x-weighted", "value": "named"}}],
            "response_headers_to_add": [{"header": {"key": "x-weighted", "value": "named"}}]});
        let mut action = json!({"weighted_clusters": {"clusters": [{"name": "up2", "weight": 0}, named]}});
        outrigger_tests::bootstrap::overlay(&mut action, more);
        Case::routes(name, json!([{"match": {"prefix": "/"}, "route": action}]))
    };
    let lines = ["x-cluster: up\r\n", "x-cluster: up2\r\n", "x-cluster: missing\r\n", "x-cluster:\r\n", ""];
    compare_cases(&[
        weighted("one of two", json!({})).header_lines(&lines),
        weighted("404", json!({"cluster_not_found_response_code": "NOT_FOUND"})).header_lines(&lines),
    ]);
}
