//! Headers that routes, virtual hosts and route configurations add and remove.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

fn set(key: &str, value: &str) -> Value {
    json!({"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
}

fn add(key: &str, value: &str) -> Value {
    json!({"header": {"key": key, "value": value}})
}

fn action(key: &str, action: &str) -> Value {
    json!({"header": {"key": key, "value": "new"}, "append_action": action})
}

/// A route for everything to `up` with these members.
fn route(name: &'static str, more: Value) -> Case {
    let mut route = json!({"match": {"prefix": "/"}, "route": {"cluster": "up"}});
    outrigger_tests::bootstrap::overlay(&mut route, more);
    Case::routes(name, json!([route]))
}

/// Three places that change headers, each with `most_specific_header_mutations_wins` or without.
fn three_places(name: &'static str, field: &str, most_specific_wins: bool) -> Case {
    let of = |place: &str| json!([set("x-set", place), add("x-add", place), {"header": {"key": "x-once", "value": place}, "append_action": "ADD_IF_ABSENT"}]);
    let mut virtual_hosts = json!([{"name": "v", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}]);
    virtual_hosts[0][field] = of("host");
    virtual_hosts[0]["routes"][0][field] = of("route");
    let mut config = json!({"name": "r", "virtual_hosts": virtual_hosts.clone(),
        "most_specific_header_mutations_wins": most_specific_wins});
    config[field] = of("config");
    Case::hosts(name, virtual_hosts).hcm(json!({ "route_config": config }))
}

#[test]
fn append_actions() {
    let lines = ["", "x-a: old\r\n", "x-a: 1\r\nx-a: 2\r\n", "x-a:\r\n"];
    let case = |name: &'static str, word: &str| {
        route(
            name,
            json!({"request_headers_to_add": [action("x-a", word)],
                "response_headers_to_add": [action("x-from", word), action("x-absent", word)]}),
        )
        .header_lines(&lines)
    };
    compare_cases(&[
        case("append", "APPEND_IF_EXISTS_OR_ADD"),
        case("if absent", "ADD_IF_ABSENT"),
        case("overwrite or add", "OVERWRITE_IF_EXISTS_OR_ADD"),
        case("overwrite", "OVERWRITE_IF_EXISTS"),
        route(
            "older field",
            json!({"request_headers_to_add": [
                {"header": {"key": "x-a", "value": "no"}, "append": false},
                {"header": {"key": "x-b", "value": "yes"}, "append": true}]}),
        )
        .header_lines(&["x-a: 1\r\nx-b: 2\r\n"]),
        route(
            "several of one name",
            json!({"request_headers_to_add": [add("x-a", "1"), set("x-a", "2"), add("X-A", "3")]}),
        )
        .header_lines(&lines),
        route(
            "empty values",
            json!({"request_headers_to_add": [add("x-a", ""), add("x-b", "%REQ(x-none)%"),
                {"header": {"key": "x-c", "value": ""}, "keep_empty_value": true}]}),
        )
        .header_lines(&lines),
        route(
            "removed and added",
            json!({"request_headers_to_remove": ["x-a", "x-b", "user-agent"],
                "request_headers_to_add": [add("x-a", "again")],
                "response_headers_to_remove": ["x-from", "x-envoy-upstream-service-time"]}),
        )
        .header_lines(&["x-a: 1\r\nx-b: 2\r\nuser-agent: u\r\n"]),
    ]);
}

#[test]
fn places() {
    let weighted = json!({"weighted_clusters": {"clusters": [{"name": "up", "weight": 1,
        "request_headers_to_add": [add("x-add", "weighted"), set("x-set", "weighted")],
        "request_headers_to_remove": ["x-gone"],
        "response_headers_to_add": [add("x-add", "weighted"), set("x-set", "weighted")],
        "response_headers_to_remove": ["x-from"],
    }]}});
    compare_cases(&[
        three_places("request", "request_headers_to_add", false).paths(&["/"]),
        three_places("request, most specific", "request_headers_to_add", true).paths(&["/"]),
        three_places("response", "response_headers_to_add", false).paths(&["/", "/404"]),
        three_places("response, most specific", "response_headers_to_add", true).paths(&["/", "/404"]),
        route("weighted cluster", json!({ "route": weighted.clone() })).header_lines(&["x-gone: 1\r\n"]),
        route(
            "weighted cluster and route",
            json!({"route": weighted, "request_headers_to_add": [set("x-set", "route"), add("x-add", "route")],
                "response_headers_to_add": [set("x-set", "route"), add("x-add", "route")]}),
        )
        .header_lines(&["x-gone: 1\r\nx-add: client\r\n"]),
    ]);
}

#[test]
fn answers_of_our_own() {
    let headers = json!([add("x-added", "by the route"), add("x-path", "%REQ(:PATH)%")]);
    let with = |action: Value| {
        let mut route = json!({"match": {"prefix": "/"}, "response_headers_to_add": headers,
            "response_headers_to_remove": ["content-type"]});
        outrigger_tests::bootstrap::overlay(&mut route, action);
        json!([route])
    };
    let case = |name: &'static str, action: Value| Case::routes(name, with(action)).paths(&["/a?b"]);
    compare_cases(&[
        case(
            "direct response",
            json!({"direct_response": {"status": 200, "body": {"inline_string": "hello"}}}),
        ),
        case("redirect", json!({"redirect": {"https_redirect": true}})),
        case("no healthy upstream", json!({"route": {"cluster": "empty"}})),
        case("refused", json!({"route": {"cluster": "refusing"}})),
        case("timeout", json!({"route": {"cluster": "up", "timeout": "0.1s"}})).paths(&["/stall"]),
    ]);
}

#[test]
fn values() {
    let lines = ["", "x-a: one\r\nuser-agent: u/1\r\n", "x-b: two\r\n"];
    let request = |name: &'static str, values: &[&str]| {
        let to_add: Vec<Value> = values.iter().enumerate().map(|(i, v)| add(&format!("x-{i}"), v)).collect();
        route(name, json!({ "request_headers_to_add": to_add })).header_lines(&lines)
    };
    let response = |name: &'static str, values: &[&str]| {
        let to_add: Vec<Value> = values.iter().enumerate().map(|(i, v)| add(&format!("x-{i}"), v)).collect();
        route(name, json!({ "response_headers_to_add": to_add })).header_lines(&lines)
    };
    compare_cases(&[
        request("percent", &["100%%", "%%%PROTOCOL%%%"]),
        request(
            "request",
            &[
                "%REQ(x-a)%",
                "%REQ(x-a?x-b)%",
                "%REQ(x-a):2%",
                "<%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)%>",
            ],
        ),
        request(
            "stream",
            &[
                "%PROTOCOL%",
                "%DOWNSTREAM_LOCAL_ADDRESS%",
                "%DOWNSTREAM_LOCAL_PORT%",
                "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                "%RESPONSE_FLAGS%",
            ],
        ),
        request("route", &["%ROUTE_NAME%", "%REQUESTED_SERVER_NAME%", "%UPSTREAM_CLUSTER%"]),
        response(
            "response",
            &[
                "%RESP(x-from)%",
                "%RESPONSE_CODE%",
                "%RESP(x-none?x-from)%",
                "%RESPONSE_FLAGS%",
                "%RESPONSE_CODE_DETAILS%",
            ],
        ),
        response("request in the response", &["%REQ(x-a)%", "%REQ(:path)%", "%REQ(user-agent?x-b)%"]),
        response("upstream", &["%UPSTREAM_CLUSTER%", "%UPSTREAM_HOST%", "%UPSTREAM_REMOTE_ADDRESS%"]),
    ]);
}
