//! `local_reply_config`: other statuses, bodies and headers for replies that the proxy makes itself.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

fn routes() -> Value {
    json!([
        {"match": {"prefix": "/away"}, "route": {"cluster": "refusing"}},
        {"match": {"path": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "tea"}},
            "response_headers_to_add": [{"header": {"key": "x-route", "value": "its own"}}]},
        {"match": {"path": "/silent"}, "direct_response": {"status": 403}},
        {"match": {"path": "/elsewhere"}, "redirect": {"path_redirect": "/there"}},
        {"match": {"path": "/typed"}, "direct_response": {"status": 200, "body": {"inline_string": "{}"}},
            "response_headers_to_add": [{"header": {"key": "content-type", "value": "application/x-own"}}]},
        {"match": {"prefix": "/up"}, "route": {"cluster": "up"}},
    ])
}

/// Every kind of reply, also to gRPC and HEAD, and one that is none of ours.
fn case(name: &'static str, config: Value) -> Case {
    Case::routes(name, routes())
        .hcm(json!({"local_reply_config": config}))
        .paths(&["/nowhere", "/away", "/direct", "/silent", "/elsewhere", "/typed", "/up/404", "/up/503"])
        .send("gRPC", "GET /nowhere HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\n\r\n")
        .send("gRPC away", "GET /away HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\n\r\n")
        .send("wanted", "GET /nowhere HTTP/1.1\r\nhost: h\r\nx-wanted: yes\r\n\r\n")
        .send("HEAD", "HEAD /direct HTTP/1.1\r\nhost: h\r\n\r\n")
}

fn status(op: &str, value: u32) -> Value {
    json!({"status_code_filter": {"comparison": {"op": op, "value": {"default_value": value, "runtime_key": "k"}}}})
}

fn text(format: &str) -> Value {
    json!({"text_format_source": {"inline_string": format}})
}

#[test]
fn mappers() {
    let header = json!({"header_filter": {"header": {"name": "x-wanted", "present_match": true}}});
    let flag = json!({"response_flag_filter": {"flags": ["UF"]}});
    compare_cases(&[
        case("status", json!({"mappers": [{"filter": status("EQ", 404), "status_code": 410}]})),
        case("body", json!({"mappers": [{"filter": status("GE", 400), "body": {"inline_string": "sorry"}}]})),
        case(
            "empty body",
            json!({"mappers": [{"filter": status("GE", 400), "body": {"inline_string": ""}}]}),
        )
        .deviates("HEAD: client", "Envoy announces a chunked body that a HEAD never has"),
        case(
            "the first one",
            json!({"mappers": [
                {"filter": header, "status_code": 401, "body": {"inline_string": "who"}},
                {"filter": flag, "status_code": 502},
                {"filter": status("GE", 400), "status_code": 500},
            ]}),
        ),
        case(
            "headers",
            json!({"mappers": [{"filter": status("GE", 200), "headers_to_add": [
                {"header": {"key": "x-code", "value": "%RESPONSE_CODE% %REQ(:PATH)%"}},
                {"header": {"key": "x-route", "value": "another"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                {"header": {"key": "x-both", "value": "%RESP(x-route)%"}},
            ]}]}),
        ),
        case(
            "a type",
            json!({"mappers": [{"filter": status("GE", 400), "body": {"inline_string": "<p>"}, "headers_to_add": [
                {"header": {"key": "content-type", "value": "text/html"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
            ]}]}),
        ),
    ]);
}

#[test]
fn formats() {
    let format = "%RESPONSE_CODE% %RESP(:STATUS)% %REQ(:PATH)% %REQ(x-wanted)% %RESPONSE_FLAGS% %PROTOCOL% [%LOCAL_REPLY_BODY%]\n";
    let typed = json!({"text_format_source": {"inline_string": "<b>%LOCAL_REPLY_BODY%</b>"}, "content_type": "text/html; charset=UTF-8"});
    let object = json!({"json_format": {
        "status": "%RESPONSE_CODE%", "message": "%LOCAL_REPLY_BODY%", "nested": {"path": "%REQ(:PATH)%", "none": "%REQ(x-no)%"}}});
    compare_cases(&[
        case("text", json!({"body_format": text(format)})),
        case("another type", json!({"body_format": typed})),
        case("JSON", json!({"body_format": object})),
        case("nothing", json!({})),
        case(
            "of a mapper",
            json!({
                "mappers": [
                    {"filter": status("EQ", 404), "status_code": 410, "body": {"inline_string": "gone"}, "body_format_override": object},
                    {"filter": status("EQ", 503), "body": {"inline_string": "later"}},
                ],
                "body_format": text("common: %LOCAL_REPLY_BODY% %RESPONSE_CODE%"),
            }),
        ),
    ]);
}
