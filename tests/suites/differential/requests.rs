//! Requests at and over the edge of HTTP/1.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::json;

const FOLDED: &str = "RFC 9112 5.2: a folded field may be refused; Envoy joins it";
const NO_VERSION: &str =
    "a request line without a version that we know is 400; Envoy takes it for an old version";
const TWO_HOSTS: &str = "RFC 9112 3.2: two host fields are refused; Envoy joins them";
const ON_ITS_WAY: &str =
    "the request was on its way when its chunk broke, so our end of that connection is known";
const EXTENSION_METHOD: &str = "RFC 9110 16.1: methods that we do not know are the upstream's business";

#[test]
fn request_lines() {
    compare_cases(&[
        Case::plain("lines")
            .send("absolute form", "GET http://a.example.com:81/p?q=1 HTTP/1.1\r\nhost: h\r\n\r\n")
            .send("absolute form without a path", "GET http://a.example.com HTTP/1.1\r\nhost: h\r\n\r\n")
            .send("asterisk", "OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n")
            .send("empty line before", "\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .send_for(
                2,
                "two at once",
                "GET /1 HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HTTP/1.1\r\nhost: h\r\n\r\n",
            )
            .send_and_look("close asked", "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            .send_and_look("HTTP/1.0", "GET / HTTP/1.0\r\nhost: h\r\n\r\n")
            .send_and_look("no host", "GET / HTTP/1.1\r\n\r\n")
            .send_and_look("garbage", "this is not HTTP\r\n\r\n")
            .send_and_look("no version", "GET /\r\nhost: h\r\n\r\n")
            .send_and_look("unknown version", "GET / HTTP/3.7\r\nhost: h\r\n\r\n")
            .send_and_look("relative path", "GET path HTTP/1.1\r\nhost: h\r\n\r\n")
            .send_and_look("connect", "CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\n\r\n")
            .send_and_look("nul in the path", "GET /\0 HTTP/1.1\r\nhost: h\r\n\r\n")
            .send_cut_off("cut in the line", "GET / HT")
            .send_cut_off("cut in the head", "GET / HTTP/1.1\r\nhost: h\r\n")
            .send_cut_off("cut in the body", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc")
            .deviates("no version: client", NO_VERSION)
            .deviates("unknown version: client", NO_VERSION)
            .deviates("default log 11", NO_VERSION)
            .deviates("default log 12", NO_VERSION)
            .deviates("istio log 11", NO_VERSION)
            .deviates("istio log 12", NO_VERSION),
        Case::plain("extension methods")
            .send("unknown method", "FROB / HTTP/1.1\r\nhost: h\r\n\r\n")
            .deviates("unknown method: client", EXTENSION_METHOD)
            .deviates("unknown method: upstream", EXTENSION_METHOD)
            .deviates("default log 1", EXTENSION_METHOD)
            .deviates("istio log 1", EXTENSION_METHOD),
    ]);
}

#[test]
fn header_fields() {
    let field =
        |name: &str, lines: &str| (name.to_owned(), format!("GET / HTTP/1.1\r\nhost: h\r\n{lines}\r\n"));
    let large = |bytes: usize| format!("x-large: {}\r\n", "a".repeat(bytes));
    let rows = [
        field("no colon", "x-a 1\r\n"),
        field("space before the colon", "x-a : 1\r\n"),
        field("empty name", ": 1\r\n"),
        field("bad character in a name", "x(a: 1\r\n"),
        field("nul in a value", "x-a: a\0b\r\n"),
        field("folded", "x-a: 1\r\n 2\r\n"),
        field("bare line feed", "x-a: 1\nx-b: 2\r\n"),
        field("latin-1 as utf-8", "x-a: \u{e9}\r\n"),
        field("tab in a value", "x-a: a\tb\r\n"),
        field("two hosts", "host: i\r\n"),
        field("underscore", "x_a: 1\r\n"),
        field("59 KiB", &large(59 * 1024)),
        field("61 KiB", &large(61 * 1024)),
        field("99 fields", &"x-a: 1\r\n".repeat(99)),
        field("101 fields", &"x-a: 1\r\n".repeat(101)),
    ];
    let case = |case: Case| rows.iter().fold(case, |case, (name, bytes)| case.send_and_look(name, bytes));
    compare_cases(&[
        case(Case::plain("fields"))
            .deviates("folded: client", FOLDED)
            .deviates("folded: closed", FOLDED)
            .deviates("folded: upstream", FOLDED)
            .deviates("default log 6", FOLDED)
            .deviates("istio log 6", FOLDED)
            .deviates("two hosts: client", TWO_HOSTS)
            .deviates("two hosts: closed", TWO_HOSTS)
            .deviates("two hosts: upstream", TWO_HOSTS)
            .deviates("default log 10", TWO_HOSTS)
            .deviates("istio log 10", TWO_HOSTS),
        Case::plain("smaller limit")
            .hcm(json!({"max_request_headers_kb": 8}))
            .send_and_look("7 KiB", &format!("GET / HTTP/1.1\r\nhost: h\r\n{}\r\n", large(7 * 1024)))
            .send_and_look("9 KiB", &format!("GET / HTTP/1.1\r\nhost: h\r\n{}\r\n", large(9 * 1024))),
    ]);
}

#[test]
fn body_framing() {
    compare_cases(&[Case::plain("framing")
        .send_and_look(
            "both framings",
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        .send_and_look(
            "two lengths",
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        )
        .send_and_look(
            "the same length twice",
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        )
        .send_and_look("negative length", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: -5\r\n\r\n")
        .send_and_look("no number", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: five\r\n\r\n")
        .send_and_look("other coding", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip\r\n\r\n")
        .send_and_look(
            "two codings",
            "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        )
        .send_and_look(
            "bad chunk size",
            "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        )
        .send_and_look(
            "HTTP/1.0 chunked",
            "POST / HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        .deviates("istio log 8", ON_ITS_WAY)]);
}
