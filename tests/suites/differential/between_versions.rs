//! HTTP/1 that goes over HTTP/2 between two proxies and is HTTP/1 again behind them; and upstreams that are spoken to as the client speaks.

use outrigger_tests::bootstrap::{cluster, http2_upstream, overlay, to, type_url};
use outrigger_tests::differential::{Case, Target, View, World, compare_cases};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Http2Client, RawClient};
use serde_json::{Value, json};

use super::conversation::Conversation;

/// The second proxy of every pair: it takes HTTP/2 from the first one and passes HTTP/1 on.
fn second() -> Case {
    let settings = json!({
        "codec_type": "HTTP2",
        "http2_protocol_options": {"allow_connect": true},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    });
    Case::routes("second", to("trailing")).clusters(trailing).hcm(settings).without_logs()
}

/// An HTTP/1 upstream whose trailers are passed on.
fn trailing(world: &World) -> Vec<Value> {
    let explicit = json!({"explicit_http_config": {"http_protocol_options": {"enable_trailers": true}}});
    vec![cluster("trailing", &[world.up.addr()], protocol(explicit))]
}

/// The first proxy of a pair: its upstream is the second one, which is the first case.
fn first(name: &'static str) -> Case {
    Case::routes(name, to("next"))
        .hcm(json!({
            "http_protocol_options": {"enable_trailers": true},
            "upgrade_configs": [{"upgrade_type": "websocket"}],
        }))
        .without_logs()
}

fn next(world: &World) -> Vec<Value> {
    let mut more = http2_upstream();
    let options = &mut more["typed_extension_protocol_options"];
    let options = &mut options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    options["explicit_http_config"]["http2_protocol_options"] = json!({"allow_connect": true});
    vec![cluster("next", &[world.listener_addr(0)], more)]
}

fn protocol(options: Value) -> Value {
    let mut typed = json!({"@type": type_url("extensions.upstreams.http.v3.HttpProtocolOptions")});
    overlay(&mut typed, options);
    json!({"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed}})
}

#[test]
fn there_and_back() {
    let post = "POST /ok HTTP/1.1\r\nhost: h\r\n";
    compare_cases(&[
        second(),
        first("statuses and bodies")
            .clusters(next)
            .paths(&["/ok", "/404", "/503", "/204", "/304", "/chunked", "/large"]),
        first("trailers").paths(&["/trailers"]).send(
            "of a request",
            &format!("{post}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-trailer: last\r\n\r\n"),
        ),
        first("HEAD").send("HEAD", "HEAD /ok HTTP/1.1\r\nhost: h\r\n\r\n"),
        first("requests with bodies")
            .send("length", &format!("{post}content-length: 5\r\n\r\nhello"))
            .send("chunked", &format!("{post}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
            .send("expect", &format!("{post}expect: 100-continue\r\ncontent-length: 2\r\n\r\nhi")),
        first("fields of one connection").header_lines(&[
            "connection: close\r\n",
            "te: trailers\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n",
            "X-Mixed: Case\r\ncookie: a=1\r\ncookie: b=2\r\n",
        ]),
        first("an upstream that fails").paths(&["/reset", "/close", "/garbage", "/reset-after-head"]),
        first("an upgrade").drive(upgrade),
        first("an upgrade that is not agreed to").drive(not_agreed),
    ]);
}

fn upgrade(target: &Target<'_>, view: &mut View) {
    target.world.up.answer_with(|request| match request.headers.get("upgrade") {
        Some(_) => Reply::Raw(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n".into(),
        ),
        None => Reply::status(200, "said"),
    });
    let mut client = Conversation::open(target.addr);
    client.say("GET /chat HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    client.see_head("answer", view);
    for name in ["said", "said again"] {
        client.say("GET /said HTTP/1.1\r\n\r\n");
        client.see(name, view, "said");
    }
    view.add_requests("upstream", &target.world.take_requests());
}

fn not_agreed(target: &Target<'_>, view: &mut View) {
    let mut client = Conversation::open(target.addr);
    client.say("GET /404 HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    client.see_head("answer", view);
    client.see("body", view, "here");
    view.add_requests("upstream", &target.world.take_requests());
}

/// `use_downstream_protocol_config`.
#[test]
fn as_the_client_speaks() {
    let as_downstream = |world: &World| {
        let options = || protocol(json!({"use_downstream_protocol_config": {"http2_protocol_options": {}}}));
        vec![cluster("as-1", &[world.up.addr()], options()), cluster("as-2", &[world.h2.addr()], options())]
    };
    fn http1(target: &Target<'_>, view: &mut View) {
        view.add_answer(
            "client",
            &RawClient::connect(target.addr).and_then(|mut client| client.get("h", "/ok")),
        );
        view.add_requests("upstream", &target.world.take_requests());
    }
    fn http2(target: &Target<'_>, view: &mut View) {
        let client = Http2Client::connect(target.addr).unwrap();
        view.add_answer("client", &client.get("h", "/ok").map_err(std::io::Error::other));
        view.add_requests("upstream", &target.world.take_requests());
    }
    compare_cases(&[
        Case::routes("HTTP/1", to("as-1")).clusters(as_downstream).drive(http1),
        Case::routes("HTTP/2", to("as-2")).drive(http2),
    ]);
}
