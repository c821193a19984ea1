//! Upgrades: who may have one, and what goes over it, in all pairs of HTTP versions. As to logs see `connect`.

use outrigger_tests::bootstrap::http2_upstream;
use outrigger_tests::client::frames::{Frame, FrameClient, block, flag, kind};
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Http2Client, Response};
use serde_json::{Value, json};

use super::conversation::Conversation;

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n";
/// What is said then: to the fake upstream it is another request, to the proxy nothing but bytes.
const SAID: &str = "GET /said HTTP/1.1\r\nx-said: yes\r\n\r\n";

fn to(cluster: &str, upgrades: Value) -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": cluster, "upgrade_configs": upgrades}}])
}

fn on() -> Value {
    json!({"upgrade_configs": [{"upgrade_type": "websocket"}]})
}

fn http2(more: Value) -> Value {
    let mut settings = json!({"codec_type": "HTTP2", "http2_protocol_options": {"allow_connect": true}});
    outrigger_tests::bootstrap::overlay(&mut settings, more);
    settings
}

fn accept(target: &Target<'_>) {
    target.world.up.answer_with(|request| match request.headers.get("upgrade") {
        Some(protocol) => Reply::Raw(
            format!("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\nsec-websocket-accept: a\r\n\r\n")
                .into(),
        ),
        None => Reply::status(200, "said"),
    });
}

#[test]
fn http1() {
    let off = json!([{"upgrade_type": "websocket", "enabled": false}]);
    let own = json!([{"upgrade_type": "websocket"}]);
    compare_cases(&[
        Case::routes("manager on", to("up", json!([]))).hcm(on()).drive(talk).without_logs(),
        Case::routes("manager on, route off", to("up", off.clone())).hcm(on()).send_and_look("ask", ASK),
        Case::routes("route on", to("up", own.clone())).drive(talk).without_logs(),
        Case::routes("route on, manager off", to("up", own))
            .hcm(json!({"upgrade_configs": off}))
            .drive(talk)
            .without_logs(),
        Case::routes("nothing said", to("up", json!([])))
            .send_and_look("ask", ASK)
            .send("plain", "GET /ok HTTP/1.1\r\nhost: h\r\n\r\n"),
        Case::routes("other protocols", to("up", json!([])))
            .hcm(on())
            .send_and_look("other", &ASK.replace("upgrade: websocket", "upgrade: other"))
            .send_and_look("two", &ASK.replace("upgrade: websocket", "upgrade: websocket, other")),
        Case::routes("letter case", to("up", json!([]))).hcm(on()).drive(talk_loudly).without_logs(),
        Case::routes("not agreed", to("up", json!([]))).hcm(on()).drive(not_agreed),
        Case::routes("nobody there", to("refusing", json!([]))).hcm(on()).send_and_look("ask", ASK),
        Case::routes("early", to("up", json!([]))).hcm(on()).drive(early).without_logs(),
    ]);
}

#[test]
fn over_http2() {
    let clusters = |world: &outrigger_tests::differential::World| {
        let mut more = http2_upstream();
        let options = &mut more["typed_extension_protocol_options"];
        let options = &mut options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
        options["explicit_http_config"]["http2_protocol_options"] = json!({"allow_connect": true});
        vec![outrigger_tests::bootstrap::cluster("extended", &[world.h2.addr()], more)]
    };
    compare_cases(&[
        Case::routes("http1 to http2", to("extended", json!([])))
            .clusters(clusters)
            .hcm(on())
            .drive(echo)
            .without_logs(),
        Case::routes("http2 to http1", to("up", json!([]))).hcm(http2(on())).drive(http2_talk).without_logs(),
        Case::routes("http2, not allowed", to("up", json!([]))).hcm(http2(json!({}))).drive(http2_refused),
    ]);
}

fn talk(target: &Target<'_>, view: &mut View) {
    accept(target);
    talk_by(target, view, ASK);
}

fn talk_loudly(target: &Target<'_>, view: &mut View) {
    accept(target);
    talk_by(target, view, &ASK.replace("websocket\r\n", "WebSocket\r\n"));
}

fn talk_by(target: &Target<'_>, view: &mut View, ask: &str) {
    let mut client = Conversation::open(target.addr);
    client.say(ask);
    client.see_head("answer", view);
    for name in ["said", "said again"] {
        client.say(SAID);
        client.see(name, view, "said");
    }
    view.add_requests("upstream", &target.world.take_requests());
}

fn early(target: &Target<'_>, view: &mut View) {
    accept(target);
    let mut client = Conversation::open(target.addr);
    client.say(format!("{ASK}{SAID}"));
    client.see_head("answer", view);
    client.see("said", view, "said");
    view.add_requests("upstream", &target.world.take_requests());
}

fn not_agreed(target: &Target<'_>, view: &mut View) {
    target.world.up.answer_with(|_| Reply::Respond(Response::new(426, "no").header("x-from", "upstream")));
    let mut client = Conversation::open(target.addr);
    client.say(ASK);
    client.see_head("answer", view);
    client.see("body", view, "no");
    view.add_requests("upstream", &target.world.take_requests());
}

fn echo(target: &Target<'_>, view: &mut View) {
    target.world.h2.answer_with(|_| Reply::Respond(Response::new(200, "").header("x-from", "upstream")));
    let mut client = Conversation::open(target.addr);
    client.say(ASK);
    client.see_head("answer", view);
    client.say("hello");
    client.see("said", view, "hello");
    view.add_requests("upstream", &target.world.take_requests());
}

const EXTENDED: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":path", "/chat"),
    (":authority", "h"),
];

fn http2_talk(target: &Target<'_>, view: &mut View) {
    accept(target);
    let mut client = FrameClient::connect(target.addr);
    client.send(&Frame::new(kind::HEADERS, flag::END_HEADERS, 1, block(&EXTENDED)));
    client.send(&Frame::new(kind::DATA, 0, 1, SAID));
    let mut said = Vec::new();
    while !said.ends_with(b"said") {
        let frame = client.frame().unwrap();
        assert!(!frame.is_last(), "{frame:?}");
        if frame.kind == kind::DATA {
            said.extend(frame.payload);
        }
    }
    view.add("said", format!("  {:?}\n", String::from_utf8_lossy(&said)));
    view.add_requests("upstream", &target.world.take_requests());
}

fn http2_refused(target: &Target<'_>, view: &mut View) {
    let client = Http2Client::connect(target.addr).unwrap();
    let mut ask = http::Request::connect("http://h/chat").body("".into()).unwrap();
    ask.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    view.add_answer("answer", &client.send(ask).map_err(std::io::Error::other));
}
