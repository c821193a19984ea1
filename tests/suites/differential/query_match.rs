//! Which route a request's query and content type pick.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

fn case(name: &'static str, condition: Value) -> Case {
    let answer = |text: &str| json!({"status": 200, "body": {"inline_string": text}});
    let mut matcher = json!({"prefix": "/"});
    outrigger_tests::bootstrap::overlay(&mut matcher, condition);
    Case::routes(
        name,
        json!([
            {"match": matcher, "direct_response": answer("yes")},
            {"match": {"prefix": "/"}, "direct_response": answer("no")},
        ]),
    )
}

fn query(name: &'static str, matchers: Value) -> Case {
    case(name, json!({ "query_parameters": matchers })).paths(&[
        "/",
        "/?a",
        "/?a=1",
        "/?a=1&b=2",
        "/?b=2&a=x%31",
        "/?A=1",
        "/?ab=1",
        "/?a=2&a=1",
        "/?a=",
        "/?=1",
    ])
}

#[test]
fn query_parameters() {
    compare_cases(&[
        query("present", json!([{"name": "a", "present_match": true}])),
        query("no condition is present", json!([{"name": "a"}])),
        query("absent", json!([{"name": "a", "present_match": false}])),
        query("exact", json!([{"name": "a", "string_match": {"exact": "1"}}])),
        query("empty", json!([{"name": "a", "string_match": {"exact": ""}}])),
        query("prefix", json!([{"name": "a", "string_match": {"prefix": "x"}}])),
        query("regex", json!([{"name": "a", "string_match": {"safe_regex": {"regex": "\\d"}}}])),
        query("two", json!([{"name": "a"}, {"name": "b", "string_match": {"exact": "2"}}])),
        query("decoded", json!([{"name": "a", "string_match": {"exact": "x1"}}])),
        query("not decoded", json!([{"name": "a", "string_match": {"exact": "x%31"}}])),
    ]);
}

#[test]
fn grpc() {
    compare_cases(&[case("grpc", json!({"grpc": {}})).header_lines(&[
        "",
        "content-type: application/grpc\r\n",
        "content-type: application/grpc+proto\r\n",
        "content-type: application/grpc-web\r\n",
        "content-type: application/json\r\n",
    ])]);
}
