//! Paths that are brought to one form.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

const PATHS: &[&str] = &[
    "/",
    "/a/b",
    "/a/./b",
    "/a/../b?c=/../d",
    "/../../etc",
    "/a/..",
    "/a/b/..",
    "/a/.",
    "/a/%2e%2e/b",
    "/a/%2E./b",
    "/a//b///c?d=//",
    "/a/b%2Fc",
    "/a%2f..%2Fb",
    "/a%5Cb",
    "/a\\b\\..\\c",
    "/%41%62%7e%2D",
    "/%20%25%3f",
    "/%zz/%",
    "/%4%44%%34%31",
    "/%25%34%31",
    "/a;b=c/d,e",
    "/...",
    "/a/.../b",
];

fn case(name: &'static str, hcm: Value) -> Case {
    Case::plain(name).hcm(hcm).paths(PATHS)
}

#[test]
fn forms() {
    let action = |action: &str| json!({ "path_with_escaped_slashes_action": action });
    compare_cases(&[
        case("as they are", json!({})),
        case("normalized", json!({"normalize_path": true})),
        case("slashes merged", json!({"merge_slashes": true})),
        case("both", json!({"normalize_path": true, "merge_slashes": true})),
        case("escaped slashes kept", action("KEEP_UNCHANGED")),
        case("escaped slashes rejected", action("REJECT_REQUEST")),
        case("escaped slashes redirected", action("UNESCAPE_AND_REDIRECT")).send(
            "gRPC",
            "POST /a%2Fb HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n",
        ),
        case("escaped slashes forwarded", action("UNESCAPE_AND_FORWARD")),
        case(
            "everything",
            json!({"normalize_path": true, "merge_slashes": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"}),
        ),
    ]);
}

#[test]
fn routes_see_the_form() {
    let answer = |text: &str| json!({"status": 200, "body": {"inline_string": text}});
    compare_cases(&[Case::routes(
        "a guarded prefix",
        json!([
            {"match": {"prefix": "/admin"}, "direct_response": answer("guarded")},
            {"match": {"prefix": "/"}, "direct_response": answer("open")},
        ]),
    )
    .hcm(json!({"normalize_path": true, "merge_slashes": true}))
    .paths(&[
        "/admin",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/x/%2e%2e/admin",
        "/administrator",
        "/x",
    ])]);
}
