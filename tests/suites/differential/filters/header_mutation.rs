//! The header mutation filter: headers and query parameters.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

use super::{chain, filter, says, typed};

const ENCODED: &str =
    "parameters stay encoded as they came; Envoy writes them decoded, which breaks the request line";

fn append(key: &str, value: &str, action: &str) -> Value {
    json!({"append": {"header": {"key": key, "value": value}, "append_action": action}})
}

fn add(key: &str, value: &str) -> Value {
    append(key, value, "APPEND_IF_EXISTS_OR_ADD")
}

fn set(key: &str, value: &str) -> Value {
    append(key, value, "OVERWRITE_IF_EXISTS_OR_ADD")
}

fn mutation(mutations: Value) -> Value {
    filter("header_mutation", "header_mutation.v3.HeaderMutation", json!({ "mutations": mutations }))
}

fn case(name: &'static str, mutations: Value) -> Case {
    Case::plain(name).hcm(chain(&[mutation(mutations)]))
}

#[test]
fn requests_and_responses() {
    let lines = ["", "x-a: 1\r\nx-b: 2\r\n", "x-a: 1\r\nx-a: 2\r\nx-ab: 3\r\n"];
    let request = |mutations: Value| json!({ "request_mutations": mutations });
    compare_cases(&[
        case("removed", request(json!([{"remove": "x-a"}]))).header_lines(&lines),
        case("removed, then added", request(json!([{"remove": "x-a"}, add("x-a", "new")]))).header_lines(&lines),
        case("added, then removed", request(json!([add("x-a", "new"), {"remove": "x-a"}]))).header_lines(&lines),
        case("set", request(json!([set("x-a", "new")]))).header_lines(&lines),
        case("if absent", request(json!([append("x-a", "new", "ADD_IF_ABSENT")]))).header_lines(&lines),
        case("if there", request(json!([append("x-a", "new", "OVERWRITE_IF_EXISTS")]))).header_lines(&lines),
        case("formats", request(json!([set("x-c", "%REQ(x-a)% %REQ(:PATH)% %PROTOCOL%"), set("x-d", "%REQ(x-c)%")])))
            .header_lines(&lines),
        case(
            "removed by match",
            request(json!([{"remove_on_match": {"key_matcher": {"prefix": "x-a"}}}])),
        )
        .header_lines(&lines),
        case(
            "response",
            json!({"response_mutations": [{"remove": "x-from"}, add("x-new", "%RESPONSE_CODE% %RESP(content-length)%"),
                add("x-request", "%REQ(x-a)%")]}),
        )
        .header_lines(&lines)
        .paths(&["/404", "/503"]),
    ]);
}

#[test]
fn queries() {
    let paths = ["/", "/p?a=1", "/p?a=1&b=2&a=3", "/p?a"];
    let query = |mutations: Value| json!({ "query_parameter_mutations": mutations });
    let to =
        |action: &str| query(json!([{"append": {"record": {"key": "a", "value": "new"}, "action": action}}]));
    compare_cases(&[
        case("removed", query(json!([{"remove": "a"}]))).paths(&paths),
        case("encoded", query(json!([{"remove": "a"}])))
            .paths(&["/p?c=%20x"])
            .deviates("GET /p?c=%20x: upstream", ENCODED)
            .deviates("default log 1", ENCODED)
            .deviates("istio log 1", ENCODED),
        case("appended", to("APPEND_IF_EXISTS_OR_ADD")).paths(&paths),
        case("if absent", to("ADD_IF_ABSENT")).paths(&paths),
        case("set", to("OVERWRITE_IF_EXISTS_OR_ADD")).paths(&paths),
        case("if there", to("OVERWRITE_IF_EXISTS")).paths(&paths),
    ]);
}

#[test]
fn places() {
    let per_route = |value: &str| {
        says(
            "header_mutation",
            typed(
                "header_mutation.v3.HeaderMutationPerRoute",
                json!({"mutations": {
            "request_mutations": [set("x-set", value), add("x-add", value)],
            "response_mutations": [set("x-set", value), add("x-add", value)]}}),
            ),
        )
    };
    let case = |name: &'static str, wins: bool| {
        let own = json!({"mutations": {"request_mutations": [set("x-set", "chain"), add("x-add", "chain")]},
            "most_specific_header_mutations_wins": wins});
        Case::hosts(
            name,
            json!([{"name": "v", "domains": ["*"], "typed_per_filter_config": per_route("host"), "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "up"}, "typed_per_filter_config": per_route("route")}]}]),
        )
        .hcm(chain(&[filter("header_mutation", "header_mutation.v3.HeaderMutation", own)]))
        .paths(&["/"])
    };
    compare_cases(&[case("least specific last", false), case("most specific last", true)]);
}
