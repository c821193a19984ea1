//! What a proxy does to messages on their way: framing, hop-by-hop fields, the fields that it adds.

use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::{Http2Client, bootstrap};
use serde_json::json;

const RESPONSES: [&str; 14] = [
    "/ok",
    "/404",
    "/503",
    "/204",
    "/304",
    "/chunked",
    "/trailers",
    "/large",
    "/until-close",
    "/close-header",
    "/hop-by-hop",
    "/headers",
    "/http10",
    "/ok?again",
];

const HOP_BY_HOP: &str = "RFC 9110 7.6.1: fields that Connection names end here; Envoy passes them on";

const HEAD_HAS_NO_BODY: &str = "Envoy announces a chunked body that a HEAD never has";

#[test]
fn responses() {
    let http2_paths = ["/ok", "/404", "/503", "/204", "/304", "/large", "/headers"];
    compare_cases(&[
        Case::plain("http1")
            .paths(&RESPONSES)
            .send("HEAD", "HEAD /ok HTTP/1.1\r\nhost: h\r\n\r\n")
            .deviates("GET /hop-by-hop: client", HOP_BY_HOP),
        Case::routes("http2", bootstrap::to("h2"))
            .paths(&http2_paths)
            .send("HEAD", "HEAD /ok HTTP/1.1\r\nhost: h\r\n\r\n")
            .deviates("HEAD: client", HEAD_HAS_NO_BODY),
    ]);
}

#[test]
fn requests_with_bodies() {
    let bodies = |case: Case| {
        case.send("length", "POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello")
            .send("empty", "POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n")
            .send("no length", "POST /p HTTP/1.1\r\nhost: h\r\n\r\n")
            .send("chunked", "PUT /p HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            .send("chunk extension", "PUT /p HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n")
            .send("expect", "PUT /p HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi")
            .send("get with a body", "GET /p HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi")
            .send("delete", "DELETE /p HTTP/1.1\r\nhost: h\r\n\r\n")
            .send("options", "OPTIONS /p HTTP/1.1\r\nhost: h\r\n\r\n")
            .send("patch", "PATCH /p HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\nx")
            .send("large", &format!("POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 300000\r\n\r\n{}", "y".repeat(300_000)))
    };
    compare_cases(&[bodies(Case::plain("http1")), bodies(Case::routes("http2", bootstrap::to("h2")))]);
}

#[test]
fn headers_on_the_way() {
    let sets = [
        "",
        "X-Mixed: Case\r\nx-twice: 1\r\nX-Twice: 2\r\nx-empty:\r\n",
        "connection: keep-alive, x-drop\r\nx-drop: 1\r\nkeep-alive: timeout=5\r\n",
        "connection: close\r\n",
        "proxy-connection: keep-alive\r\nte: trailers\r\ntrailer: x\r\n",
        "te: gzip, trailers\r\n",
        "upgrade: websocket\r\nconnection: upgrade\r\n",
        "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        "x-request-id: 0a1b2c3d-0a1b-4a1b-8a1b-0a1b2c3d4e5f\r\n",
        "x-request-id: mine\r\n",
        "x-forwarded-for: 1.2.3.4, 10.0.0.1\r\n",
        "x-forwarded-proto: https\r\n",
        "x-forwarded-host: other\r\n",
        "x-envoy-internal: true\r\nx-envoy-external-address: 1.2.3.4\r\nx-envoy-attempt-count: 9\r\n",
        "x-envoy-max-retries: 0\r\nx-envoy-decorator-operation: x\r\nx-envoy-expected-rq-timeout-ms: 7\r\n",
        "x-envoy-downstream-service-cluster: me\r\nx-envoy-original-path: /p\r\nx-envoy-original-host: p\r\n",
        "x-forwarded-client-cert: By=spiffe://a/b;Hash=00\r\n",
        "user-agent: test/1\r\naccept: */*\r\n",
        "cookie: a=1\r\ncookie: b=2\r\n",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
        "content-type: text/plain\r\n",
    ];
    compare_cases(&[
        Case::plain("defaults").header_lines(&sets),
        Case::routes("http2 upstream", bootstrap::to("h2")).header_lines(&sets),
        Case::plain("use_remote_address").hcm(json!({"use_remote_address": true})).header_lines(&sets),
        Case::plain("no request id").hcm(json!({"generate_request_id": false})).header_lines(&sets[..10]),
        Case::plain("keep request id")
            .hcm(json!({"use_remote_address": true, "preserve_external_request_id": true}))
            .header_lines(&sets[8..11]),
        Case::plain("server name").hcm(json!({"server_name": "other"})).paths(&["/ok", "/headers"]),
        Case::plain("server header is passed")
            .hcm(json!({"server_header_transformation": "PASS_THROUGH"}))
            .paths(&["/ok", "/headers"]),
        Case::plain("server header if absent")
            .hcm(json!({"server_header_transformation": "APPEND_IF_ABSENT"}))
            .paths(&["/ok", "/headers"]),
    ]);
}

/// Fields on several lines: some become one on their way, the others keep their lines.
#[test]
fn repeated_fields() {
    let requests = [
        "accept: a\r\nx-own: 1\r\naccept: b\r\nx-own: 2\r\naccept-language: de\r\naccept-language: en\r\n",
        "authorization: one\r\nauthorization: two\r\nrange: bytes=1-2\r\nrange: bytes=3-4\r\n",
        "cache-control: no-cache\r\ncache-control: no-store\r\nif-none-match: 1\r\nif-none-match: 2\r\nvary: a\r\nvary: b\r\n",
        "via: 1.1 a\r\nvia: 1.1 b\r\nforwarded: for=a\r\nforwarded: for=b\r\n",
        "x-request-id: a\r\nx-request-id: b\r\ntraceparent: a\r\ntraceparent: b\r\n",
        "x-forwarded-host: a\r\nx-forwarded-host: b\r\nx-real-ip: a\r\nx-real-ip: b\r\n",
        "user-agent: a\r\nuser-agent: b\r\ncookie: a=1\r\ncookie: b=2\r\n",
        "x-envoy-original-path: a\r\nx-envoy-original-path: b\r\nx-envoy-attempt-count: 1\r\nx-envoy-attempt-count: 2\r\n",
    ];
    compare_cases(&[
        Case::plain("http1").header_lines(&requests).paths(&["/repeated"]),
        Case::plain("passed on")
            .hcm(json!({"server_header_transformation": "PASS_THROUGH"}))
            .paths(&["/repeated"]),
        Case::routes("http2", bootstrap::to("h2")).header_lines(&requests).paths(&["/repeated"]),
        Case::plain("from http2").drive(repeated_over_http2),
    ]);
}

fn repeated_over_http2(target: &Target<'_>, view: &mut View) {
    let client = Http2Client::connect(target.addr).unwrap();
    let mut request = http::Request::get("http://h/repeated");
    for name in ["accept", "accept-language", "cookie", "origin", "referer", "x-own"] {
        request = request.header(name, "a").header(name, "b");
    }
    let answer = client.send(request.body("".into()).unwrap()).map_err(std::io::Error::other);
    view.add_answer("client", &answer);
    view.add_requests("upstream", &target.world.take_requests());
}

#[test]
fn http2_clients() {
    compare_cases(&[
        Case::plain("to http1").drive(http2_exchanges).deviates("/hop-by-hop: client", HOP_BY_HOP),
        Case::routes("to http2", bootstrap::to("h2")).drive(http2_exchanges),
    ]);
}

fn http2_exchanges(target: &Target<'_>, view: &mut View) {
    let client = Http2Client::connect(target.addr).unwrap();
    let mut exchange = |name: &str, request: http::Request<&'static str>| {
        let answer = client.send(request.map(Into::into)).map_err(std::io::Error::other);
        view.add_answer(format!("{name}: client"), &answer);
        view.add_requests(format!("{name}: upstream"), &target.world.take_requests());
    };
    for path in ["/ok", "/404", "/204", "/304", "/large", "/headers", "/hop-by-hop", "/ok?q=1"] {
        exchange(path, http::Request::get(format!("http://h{path}")).body("").unwrap());
    }
    exchange("POST", http::Request::post("http://h:81/p").body("hello").unwrap());
    exchange("HEAD", http::Request::head("http://h/ok").body("").unwrap());
    exchange(
        "headers",
        http::Request::get("http://h/ok")
            .header("x-a", "1")
            .header("te", "trailers")
            .header("cookie", "a=1")
            .body("")
            .unwrap(),
    );
}
