//! CONNECT: tunnels that end at the proxy, tunnels that go on, and what is refused.
//!
//! The logs of tunnels that were opened are left out: to Envoy each one whose client ends first is broken off (`DC`), as it closes both
//! ways then.

use outrigger_tests::bootstrap::cluster;
use outrigger_tests::client::frames::{Frame, FrameClient, block, flag, kind};
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Http2Client, wait};
use serde_json::{Value, json};

use super::conversation::Conversation;

const ASK: &str = "CONNECT t.example:80 HTTP/1.1\r\nhost: t.example:80\r\n\r\n";
const INSIDE: &str = "GET /ok HTTP/1.1\r\nhost: inside\r\n\r\n";

/// Envoy closes both sides of an HTTP/1 connection whose client has sent its last byte.
const HALF_CLOSED: &str = "RFC 9110 9.3.6: what the other side still has to say arrives";

fn routes(cluster: &str, upgrades: Value) -> Value {
    json!([
        {"match": {"connect_matcher": {}}, "route": {"cluster": cluster, "upgrade_configs": upgrades}},
        {"match": {"prefix": "/"}, "route": {"cluster": "up"}},
    ])
}

fn ends_here() -> Value {
    json!([{"upgrade_type": "CONNECT", "connect_config": {}}])
}

fn goes_on() -> Value {
    json!([{"upgrade_type": "CONNECT"}])
}

/// An upstream that is a proxy itself.
fn accept(target: &Target<'_>) {
    target.world.up.answer_with(|request| match request.method.as_str() {
        "CONNECT" => Reply::Raw(b"HTTP/1.1 200 Connected\r\nx-from: upstream\r\n\r\n".into()),
        _ => Reply::status(200, "inside"),
    });
}

#[test]
fn http1() {
    let on = json!({"upgrade_configs": [{"upgrade_type": "CONNECT"}]});
    compare_cases(&[
        Case::routes("ends here", routes("up", ends_here())).drive(tunnel).without_logs(),
        Case::routes("ends here, early", routes("up", ends_here())).drive(early).without_logs(),
        Case::routes("ends here, half closed", routes("up", ends_here()))
            .drive(half_closed)
            .without_logs()
            .deviates("inside", HALF_CLOSED),
        Case::routes("goes on", routes("up", goes_on())).drive(tunnel).without_logs(),
        Case::routes("goes on, early", routes("up", goes_on())).drive(early).without_logs(),
        Case::routes("goes on by the manager's word", routes("up", json!([])))
            .hcm(on.clone())
            .drive(tunnel)
            .without_logs(),
        Case::routes("nobody there", routes("refusing", ends_here())).send_and_look("connect", ASK),
        Case::routes("nobody there to go on to", routes("refusing", goes_on())).send_and_look("connect", ASK),
        Case::routes("no host", routes("empty", ends_here())).send_and_look("connect", ASK),
        Case::routes("not allowed", routes("up", json!([])))
            .send_and_look("connect", ASK)
            .send("another", "GET /ok HTTP/1.1\r\nhost: h\r\n\r\n"),
        Case::routes("switched off", routes("up", json!([{"upgrade_type": "CONNECT", "enabled": false}])))
            .hcm(on.clone())
            .send_and_look("connect", ASK),
        Case::plain("no route").hcm(on).send_and_look("connect", ASK),
        Case::routes("a body", routes("up", ends_here()))
            .send_and_look("length", &ASK.replace("\r\n\r\n", "\r\ncontent-length: 5\r\n\r\nhello"))
            .send("no length", &ASK.replace("\r\n\r\n", "\r\ncontent-length: 0\r\n\r\n"))
            .without_logs(),
        Case::routes("refused upstream", routes("up", goes_on())).drive(refused_upstream),
    ]);
}

#[test]
fn http2() {
    let http2 = |name, routes| Case::routes(name, routes).hcm(json!({"codec_type": "HTTP2"}));
    compare_cases(&[
        http2("ends here", routes("up", ends_here())).drive(http2_tunnel).without_logs(),
        http2("goes on", routes("up", goes_on())).drive(http2_tunnel).without_logs(),
        http2("not allowed", routes("up", json!([]))).drive(http2_refused),
        http2("no route", json!([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]))
            .drive(http2_refused),
        http2("nobody there", routes("refusing", ends_here())).drive(http2_refused),
    ]);
}

/// Over HTTP/2 in between: one proxy sends CONNECT on, the next one ends the tunnel.
#[test]
fn two_proxies() {
    compare_cases(&[
        Case::routes("last", routes("up", ends_here())).hcm(json!({"codec_type": "HTTP2"})).without_logs(),
        Case::routes("first", routes("next", goes_on()))
            .clusters(|world| {
                let mut next = outrigger_tests::bootstrap::http2_upstream();
                next["connect_timeout"] = json!("1s");
                vec![cluster("next", &[world.listener_addr(0)], next)]
            })
            .drive(tunnel)
            .without_logs(),
    ]);
}

fn tunnel(target: &Target<'_>, view: &mut View) {
    accept(target);
    let mut client = Conversation::open(target.addr);
    client.say(ASK);
    client.see_head("connect", view);
    client.say(INSIDE);
    client.see("inside", view, "inside");
    client.say(INSIDE);
    client.see("inside again", view, "inside");
    view.add_requests("upstream", &target.world.take_requests());
}

fn early(target: &Target<'_>, view: &mut View) {
    accept(target);
    let mut client = Conversation::open(target.addr);
    client.say(format!("{ASK}{INSIDE}"));
    client.see_head("connect", view);
    client.see("inside", view, "inside");
    view.add_requests("upstream", &target.world.take_requests());
}

fn half_closed(target: &Target<'_>, view: &mut View) {
    let mut client = Conversation::open(target.addr);
    client.say(ASK);
    client.see_head("connect", view);
    client.say(INSIDE);
    client.finish();
    client.see("inside", view, "");
    wait::until("what was said arrives", || target.world.up.recorded() == 1);
    target.world.take_requests();
}

fn refused_upstream(target: &Target<'_>, view: &mut View) {
    target.world.up.answer_with(|_| Reply::status(403, "no"));
    let mut client = Conversation::open(target.addr);
    client.say(ASK);
    client.see_head("connect", view);
    client.see("body", view, "no");
    client.say(INSIDE);
    let after = client.hear("");
    view.add("no request follows", format!("  {}\n", !after.contains("HTTP/1.1 200")));
    view.add_requests("upstream", &target.world.take_requests());
}

fn http2_ask(client: &mut FrameClient) {
    client.send(&Frame::new(
        kind::HEADERS,
        flag::END_HEADERS,
        1,
        block(&[(":method", "CONNECT"), (":authority", "t.example:80")]),
    ));
}

fn http2_tunnel(target: &Target<'_>, view: &mut View) {
    accept(target);
    let mut client = FrameClient::connect(target.addr);
    http2_ask(&mut client);
    client.send(&Frame::new(kind::DATA, 0, 1, INSIDE));
    let mut inside = Vec::new();
    while !inside.ends_with(b"inside") && !inside.ends_with(b"ok") {
        let frame = client.frame().unwrap();
        assert!(!frame.is_last(), "{frame:?}");
        if frame.kind == kind::DATA {
            inside.extend(frame.payload);
        }
    }
    view.add("inside", format!("  {:?}\n", String::from_utf8_lossy(&inside)));
    client.send(&Frame::new(kind::DATA, flag::END_STREAM, 1, []));
    view.add_requests("upstream", &target.world.take_requests());
}

fn http2_refused(target: &Target<'_>, view: &mut View) {
    let client = Http2Client::connect(target.addr).unwrap();
    let connect = http::Request::connect("t.example:80").body("".into()).unwrap();
    view.add_answer("connect", &client.send(connect).map_err(std::io::Error::other));
}
