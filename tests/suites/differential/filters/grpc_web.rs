//! gRPC-Web: what the upstream gets, and what the browser gets back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use outrigger_tests::bootstrap::to;
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::message::Response;
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Http2Client, RawClient};
use serde_json::{Value, json};

use super::{chain, filter, filter_config, route, says};

const HI: &str = "\0\0\0\0\u{2}hi";

fn web() -> Value {
    filter("grpc_web", "grpc_web.v3.GrpcWeb", json!({}))
}

fn case(name: &'static str, cluster: &str) -> Case {
    Case::routes(name, to(cluster)).hcm(chain(&[web()]))
}

fn call(path: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: h\r\n{lines}content-length: {length}\r\n\r\n{body}")
}

fn binary(path: &str) -> String {
    call(path, "content-type: application/grpc-web\r\n", HI)
}

fn text(path: &str, body: &str) -> String {
    call(path, "content-type: application/grpc-web-text\r\naccept: application/grpc-web-text\r\n", body)
}

fn grpc(body: &str, trailers: &[(&str, &str)]) -> Response {
    let mut response = Response::new(200, body).header("content-type", "application/grpc");
    response.trailers.0 = trailers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    response
}

/// Sends it while the upstream answers this.
fn answered(target: &Target<'_>, view: &mut View, name: &str, request: &str, answer: Response) {
    target.world.h2.answer(Reply::Respond(answer.clone()));
    target.world.up.answer(Reply::Respond(answer));
    let mut client = RawClient::connect(target.addr).unwrap();
    client.send(request.as_bytes());
    view.add_answer(format!("{name}: client"), &client.response());
    view.add_requests(format!("{name}: upstream"), &target.world.take_requests());
}

#[test]
fn requests() {
    let hi = BASE64.encode(HI);
    let two = BASE64.encode([HI, HI].concat());
    let chunked = format!(
        "POST /a.S/M HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc-web-text\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        two.as_bytes()
            .chunks(3)
            .map(|c| format!("{:x}\r\n{}\r\n", c.len(), String::from_utf8_lossy(c)))
            .collect::<String>()
    );
    let mut cases = Vec::new();
    for cluster in ["h2", "up"] {
        let mut one = case(if cluster == "h2" { "h2 upstream" } else { "h1 upstream" }, cluster)
            .send("binary", &binary("/a.S/M"))
            .send("proto", &call("/a.S/M", "content-type: application/grpc-web+proto\r\n", HI))
            .send("text", &text("/a.S/M", &hi))
            .send(
                "text in, binary out",
                &call("/a.S/M", "content-type: application/grpc-web-text+proto\r\n", &hi),
            )
            .send(
                "binary in, text out",
                &call(
                    "/a.S/M",
                    "content-type: application/grpc-web\r\naccept: application/grpc-web-text\r\n",
                    HI,
                ),
            )
            .send("chunked text", &chunked)
            .send("no body", &call("/a.S/M", "content-type: application/grpc-web\r\n", ""))
            .send(
                "encodings of its own",
                &call("/a.S/M", "content-type: application/grpc-web\r\ngrpc-accept-encoding: gzip\r\n", HI),
            )
            .send("json", &call("/a.S/M", "content-type: application/grpc-web+json\r\n", HI))
            .send(
                "with a parameter",
                &call("/a.S/M", "content-type: application/grpc-web; charset=utf-8\r\n", HI),
            )
            .send("gRPC", &call("/a.S/M", "content-type: application/grpc\r\n", HI))
            .send("GET", "GET /a.S/M HTTP/1.1\r\nhost: h\r\n\r\n");
        one = one.statistics(if cluster == "h2" { "^cluster.h2.grpc" } else { "^cluster.up.grpc" });
        cases.push(one);
    }
    compare_cases(&cases);
}

#[test]
fn bad_text() {
    let bad = |name: &'static str, body: &str| {
        case(name, "h2")
            .send("good, for a connection to the upstream", &binary("/a.S/M"))
            .send("text", &text("/a.S/M", body))
            .drive(|target, _| {
                // Whether the upstream saw its beginning is chance.
                target.world.take_requests();
            })
    };
    compare_cases(&[
        bad("not in fours", "AAAAAA"),
        bad("less than four", "AA"),
        bad("no base64", "!!!!"),
        bad("padding before the end of four", "A=AA"),
    ]);
}

#[test]
fn text_in_parts() {
    const PARTS: &str = "PROTOCOL-WEB: a client may flush base64 in parts, each with its padding; Envoy takes them only when each \
                         comes by itself";
    let blocks = ["parts: client", "parts: upstream", "default log 1", "istio log 1"];
    let parts = case("padding inside", "h2").send("parts", &text("/a.S/M", "AA==AAAA"));
    compare_cases(&[blocks.into_iter().fold(parts, |case, block| case.deviates(block, PARTS))]);
}

#[test]
fn responses() {
    compare_cases(&[
        case("binary", "h2").drive(|target, view| {
            let mut ask = |name: &str, answer| answered(target, view, name, &binary("/b.S/M"), answer);
            ask("trailers", grpc(HI, &[("grpc-status", "0"), ("x-more", "a b"), ("grpc-message", "fine")]));
            ask("no message", grpc("", &[("grpc-status", "5")]));
            ask("head only", grpc("", &[]).header("grpc-status", "7").header("grpc-message", "no"));
            ask("gRPC-Web by itself", Response::new(200, HI).header("content-type", "application/grpc-web+proto"));
            ask("gRPC-Web with a parameter", Response::new(200, HI).header("content-type", "Application/gRPC-Web; x=y"));
        })
        .statistics("^cluster.h2.grpc-web.b"),
        case("text", "h2").drive(|target, view| {
            let hi = BASE64.encode(HI);
            let mut ask = |name: &str, answer| answered(target, view, name, &text("/t.S/M", &hi), answer);
            ask("trailers", grpc(HI, &[("grpc-status", "0")]));
            ask("two messages", grpc(&[HI, "\0\0\0\0\0"].concat(), &[("grpc-status", "0")]));
            ask("half a message", grpc("\0\0\0\0\u{5}hi", &[("grpc-status", "13")]));
            ask("no message", grpc("", &[("grpc-status", "5")]));
            ask("head only", grpc("", &[]).header("grpc-status", "7"));
        }),
        case("no gRPC", "up").drive(|target, view| {
            let mut ask = |name: &str, answer| answered(target, view, name, &binary("/n.S/M"), answer);
            for status in [200, 400, 401, 403, 404, 418, 429, 500, 503, 504] {
                ask(&status.to_string(), Response::new(status, "it's ~100% \u{e9}\n"));
            }
            ask("empty", Response::new(503, ""));
            ask("gRPC of another status", Response { status: 500, ..grpc(HI, &[]) });
            ask("long", Response::new(500, "x".repeat(2_000)));
        }),
        case("no gRPC, in chunks", "up")
            .send("chunks", &binary("/chunked"))
            .send("text", &text("/chunked", &BASE64.encode(HI))),
        case("no host", "empty").send("none", &call("/a.S/M", "content-type: application/grpc-web\r\n", "")),
        Case::hosts("no route", json!([])).hcm(chain(&[web()])).send("none", &call("/a.S/M", "content-type: application/grpc-web\r\n", "")),
        Case::routes("direct", json!([{"match": {"prefix": "/"}, "direct_response": {"status": 403, "body": {"inline_string": "not you"}}}]))
            .hcm(chain(&[web()]))
            .send("direct", &call("/a.S/M", "content-type: application/grpc-web\r\n", "")),
        Case::routes(
            "disabled",
            json!([
                route("/off.S", says("grpc_web", filter_config(json!({"disabled": true})))),
                route("/", json!({}))
            ]),
        )
        .hcm(chain(&[web()]))
        .send("off", &binary("/off.S/M"))
        .send("on", &binary("/on.S/M")),
    ]);
}

#[test]
fn http2_clients() {
    compare_cases(&[case("HTTP/2", "h2").drive(|target, view| {
        let client = Http2Client::connect(target.addr).unwrap();
        let requests = [
            ("binary", "application/grpc-web+proto", Bytes::from(HI)),
            ("text", "application/grpc-web-text", BASE64.encode(HI).into()),
        ];
        for (name, content_type, body) in requests {
            target.world.h2.answer(Reply::Respond(grpc(HI, &[("grpc-status", "0"), ("x", "y")])));
            let request = http::Request::post("http://h/a.S/M").header("content-type", content_type);
            let request =
                request.header("accept", content_type).body(http_body_util::Full::new(body)).unwrap();
            view.add_answer(format!("{name}: client"), &Ok(client.send(request).unwrap()));
            view.add_requests(format!("{name}: upstream"), &target.world.take_requests());
        }
    })]);
}

#[test]
fn with_other_filters() {
    let stats = || filter("grpc_stats", "grpc_stats.v3.FilterConfig", json!({"stats_for_all_methods": true}));
    let cors = filter("cors", "cors.v3.Cors", json!({}));
    let policy = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": "https://a"}], "expose_headers": "grpc-status,grpc-message"});
    let hosts = json!([{"name": "v", "domains": ["*"], "typed_per_filter_config": says("cors", policy),
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "h2"}}]}]);
    let drive = |target: &Target<'_>, view: &mut View| {
        answered(target, view, "call", &binary("/w.S/M"), grpc(HI, &[("grpc-status", "3")]));
    };
    compare_cases(&[
        Case::routes("counted as gRPC behind it", to("h2"))
            .hcm(chain(&[web(), stats()]))
            .drive(drive)
            .statistics("^cluster.h2.grpc.w"),
        Case::routes("not before it", to("h2"))
            .hcm(chain(&[stats(), web()]))
            .drive(drive)
            .statistics("^cluster.h2.grpc.w"),
        Case::hosts("CORS", hosts).hcm(chain(&[cors, web()])).drive(|target, view| {
            let request = call("/c.S/M", "content-type: application/grpc-web\r\norigin: https://a\r\n", HI);
            answered(target, view, "call", &request, grpc(HI, &[("grpc-status", "0")]));
            answered(target, view, "preflight",
                "OPTIONS /c.S/M HTTP/1.1\r\nhost: h\r\norigin: https://a\r\naccess-control-request-method: POST\r\n\r\n",
                grpc(HI, &[]));
        }),
    ]);
}
