//! Which route a request's headers pick.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

/// `yes` when the matcher holds, `no` otherwise.
fn case(name: &'static str, matcher: Value) -> Case {
    let answer = |text: &str| json!({"status": 200, "body": {"inline_string": text}});
    Case::routes(
        name,
        json!([
            {"match": {"prefix": "/", "headers": [matcher]}, "direct_response": answer("yes")},
            {"match": {"prefix": "/"}, "direct_response": answer("no")},
        ]),
    )
}

fn string_case(name: &'static str, matcher: Value) -> Case {
    case(name, json!({"name": "x-a", "string_match": matcher}))
}

#[test]
fn string_matchers() {
    let values = [
        "",
        "x-a: one\r\n",
        "x-a: ONE\r\n",
        "x-a: onetwo\r\n",
        "x-a: zero one\r\n",
        "x-a:\r\n",
        "X-A:  one \r\n",
    ];
    compare_cases(&[
        string_case("exact", json!({"exact": "one"})).header_lines(&values),
        string_case("exact without case", json!({"exact": "one", "ignore_case": true})).header_lines(&values),
        string_case("prefix", json!({"prefix": "one"})).header_lines(&values),
        string_case("prefix without case", json!({"prefix": "One", "ignore_case": true}))
            .header_lines(&values),
        string_case("suffix", json!({"suffix": "two"})).header_lines(&values),
        string_case("contains", json!({"contains": "net"})).header_lines(&values),
        string_case("contains without case", json!({"contains": "ONE", "ignore_case": true}))
            .header_lines(&values),
        string_case("regex", json!({"safe_regex": {"regex": "on[d-f](two)?"}})).header_lines(&values),
        case("exact_match", json!({"name": "x-a", "exact_match": "one"})).header_lines(&values),
        case("prefix_match", json!({"name": "x-a", "prefix_match": "one"})).header_lines(&values),
        case("suffix_match", json!({"name": "x-a", "suffix_match": "two"})).header_lines(&values),
        case("contains_match", json!({"name": "x-a", "contains_match": "e"})).header_lines(&values),
        case("safe_regex_match", json!({"name": "x-a", "safe_regex_match": {"regex": "o.*"}}))
            .header_lines(&values),
        case("upper case in the file", json!({"name": "X-A", "string_match": {"exact": "one"}}))
            .header_lines(&values),
    ]);
}

#[test]
fn other_matchers() {
    let values =
        ["", "x-a: 1\r\n", "x-a:\r\n", "x-a: 10\r\n", "x-a: -5\r\n", "x-a: 1x\r\n", "x-a: 1\r\nx-a: 2\r\n"];
    compare_cases(&[
        case("present", json!({"name": "x-a", "present_match": true})).header_lines(&values),
        case("absent", json!({"name": "x-a", "present_match": false})).header_lines(&values),
        case("no condition is present", json!({"name": "x-a"})).header_lines(&values),
        case("range", json!({"name": "x-a", "range_match": {"start": -5, "end": 10}})).header_lines(&values),
        case("inverted", json!({"name": "x-a", "string_match": {"exact": "1"}, "invert_match": true}))
            .header_lines(&values),
        case("inverted presence", json!({"name": "x-a", "present_match": true, "invert_match": true}))
            .header_lines(&values),
        case("inverted range", json!({"name": "x-a", "range_match": {"start": 0, "end": 2}, "invert_match": true}))
            .header_lines(&values),
        case(
            "missing is empty",
            json!({"name": "x-a", "string_match": {"safe_regex": {"regex": ".{0,1}"}}, "treat_missing_header_as_empty": true}),
        )
        .header_lines(&values),
        case(
            "missing is empty, inverted",
            json!({"name": "x-a", "string_match": {"exact": "1"}, "treat_missing_header_as_empty": true, "invert_match": true}),
        )
        .header_lines(&values),
        case("several values are one list", json!({"name": "x-a", "string_match": {"exact": "1,2"}})).header_lines(&values),
        case("method", json!({"name": ":method", "string_match": {"exact": "POST"}}))
            .send("POST", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n")
            .paths(&["/"]),
        case("authority", json!({"name": ":authority", "string_match": {"prefix": "h:"}})).authorities(&["h", "h:80"]),
        case("host is the authority", json!({"name": "host", "string_match": {"exact": "h"}})).authorities(&["h", "i"]),
        case("path", json!({"name": ":path", "string_match": {"suffix": "?x=1"}})).paths(&["/a?x=1", "/a"]),
        case("scheme", json!({"name": ":scheme", "string_match": {"exact": "http"}})).paths(&["/"]),
    ]);
}

#[test]
fn all_of_several_matchers() {
    let route = |headers: Value| json!([{"match": {"prefix": "/", "headers": headers}, "direct_response": {"status": 200, "body": {"inline_string": "both"}}}]);
    compare_cases(&[Case::routes(
        "two headers",
        route(json!([
            {"name": "x-a", "string_match": {"exact": "1"}},
            {"name": "x-b", "present_match": true},
        ])),
    )
    .header_lines(&["x-a: 1\r\nx-b: 2\r\n", "x-a: 1\r\n", "x-b: 1\r\n", ""])]);
}
