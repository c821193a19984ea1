//! Heads and bodies of requests that begin and do not end, and connections on which nothing begins.

use std::time::Duration;

use outrigger_tests::client::frames::{Frame, FrameClient, PREFACE, block, flag, kind};
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use serde_json::json;

/// Nothing behind a head that does not end can be read.
const LAST: &str = "the connection ends with the answer, where Envoy waits for the rest of the head";

const COUNTED: &str =
    "^http.ingress.downstream_rq_(header_timeout|idle_timeout|timeout|total|4xx|http1_total)";

#[test]
fn http1() {
    let slow = |case: Case| {
        case.send_and_look("nothing but a method", "GET")
            .send_and_look("in the line", "GET / HT")
            .send_and_look("in the fields", "GET / HTTP/1.1\r\nhost: h\r\nx-a")
            .send_and_look("before the end", "GET / HTTP/1.1\r\nhost: h\r\n")
            .send_for(2, "the second one", "GET /ok HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HT")
            .send("in time", "GET /ok HTTP/1.1\r\nhost: h\r\n\r\n")
    };
    let body = "POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc";
    compare_cases(&[
        slow(Case::plain("head").hcm(json!({"request_headers_timeout": "0.3s"})).statistics(COUNTED)),
        slow(Case::plain("idle stream").hcm(json!({"stream_idle_timeout": "0.3s"})).statistics(COUNTED)),
        slow(Case::plain("whole request").hcm(json!({"request_timeout": "0.3s"})).statistics(COUNTED)),
        slow(
            Case::plain("duration")
                .hcm(json!({"common_http_protocol_options": {"max_stream_duration": "0.3s"}}))
                .statistics(COUNTED),
        ),
        Case::plain("the first of two")
            .hcm(json!({"request_headers_timeout": "0.3s", "stream_idle_timeout": "0.6s"}))
            .send("head", "GET / HT"),
        Case::plain("no codec said").hcm(json!({"codec_type": "AUTO", "stream_idle_timeout": "0.3s"})).send_and_look("head", "GET / HT"),
        Case::plain("other words")
            .hcm(json!({
                "request_headers_timeout": "0.3s",
                "server_name": "other",
                "via": "me",
                "local_reply_config": {"mappers": [{
                    "filter": {"status_code_filter": {"comparison": {"value": {"default_value": 408, "runtime_key": "a"}}}},
                    "status_code": 418,
                    "body": {"inline_string": "too slow"},
                    "headers_to_add": [{"header": {"key": "x-a", "value": "1"}}],
                }]},
            }))
            .send("head", "GET / HT"),
        // The wait is for the client, so it is the one to blame.
        Case::plain("body, idle").hcm(json!({"stream_idle_timeout": "0.3s"})).send_and_look("body", body),
        Case::plain("body, duration")
            .hcm(json!({"common_http_protocol_options": {"max_stream_duration": "0.3s"}}))
            .send_and_look("body", body),
        Case::plain("answer, idle")
            .hcm(json!({"stream_idle_timeout": "0.3s"}))
            .send("whole", "POST /stall HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc"),
        Case::plain("idle connection")
            .hcm(json!({"common_http_protocol_options": {"idle_timeout": "1s"}}))
            .send_and_look("nothing", "")
            .send_and_look("after an answer", "GET /ok HTTP/1.1\r\nhost: h\r\n\r\n"),
    ]);
}

#[test]
fn http2() {
    let of = |name, settings: serde_json::Value| {
        let mut hcm = json!({"codec_type": "HTTP2"});
        outrigger_tests::bootstrap::overlay(&mut hcm, settings);
        Case::plain(name).hcm(hcm)
    };
    compare_cases(&[
        of("head", json!({"request_headers_timeout": "0.3s"})).drive(unfinished).deviates("a head", LAST),
        of("idle stream", json!({"stream_idle_timeout": "0.3s"})).drive(unfinished).deviates("a head", LAST),
        of("whole request", json!({"request_timeout": "0.3s"})).drive(unfinished).deviates("a head", LAST),
        of("idle connection", json!({"common_http_protocol_options": {"idle_timeout": "1s"}})).drive(silent),
    ]);
}

/// `connection_keepalive`: a client that answers PINGs stays, one that does not goes.
#[test]
fn pings() {
    let keeps = json!({
        "codec_type": "HTTP2",
        "http2_protocol_options": {"connection_keepalive": {"interval": "0.2s", "timeout": "0.4s"}},
    });
    compare_cases(&[Case::plain("pings")
        .hcm(keeps)
        .drive(answers_pings)
        .statistics("^http2.keepalive_timeout")]);
}

/// Answers two PINGs and no more.
fn answers_pings(target: &Target<'_>, view: &mut View) {
    let mut client = FrameClient::connect(target.addr);
    let mut pings = 0;
    while let Ok(Some(frame)) = client.next_within(Duration::from_secs(5)) {
        if frame.kind == kind::PING && frame.flags & flag::ACK == 0 {
            pings += 1;
            if pings <= 2 {
                client.send(&Frame::new(kind::PING, flag::ACK, 0, frame.payload));
            }
        }
    }
    view.add("until it is closed", format!("  {pings} PINGs\n"));
}

/// What comes for a head without its end: frames and whether the connection ends.
fn unfinished(target: &Target<'_>, view: &mut View) {
    let mut client = FrameClient::connect(target.addr);
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/ok"), (":authority", "h")];
    client.send(&Frame::new(kind::HEADERS, 1, 1, block(&fields)));
    let mut text = String::new();
    loop {
        match client.next_within(Duration::from_secs(2)) {
            Ok(Some(frame)) if frame.kind == kind::WINDOW_UPDATE => {}
            Ok(Some(frame)) => text += &format!("  frame {} of {}\n", frame.kind, frame.stream),
            Ok(None) => break text += "  closed\n",
            Err(_) => break text += "  silence\n",
        }
    }
    view.add("a head", text);
}

/// A client that says nothing, not even that it has heard of the end.
fn silent(target: &Target<'_>, view: &mut View) {
    for opening in [&b""[..], &PREFACE[..10]] {
        let mut client = FrameClient::silent(target.addr);
        client.send_bytes(opening);
        let ended = std::iter::from_fn(|| client.next_within(Duration::from_secs(15)).ok())
            .any(|frame| frame.is_none());
        view.add(format!("{} bytes", opening.len()), format!("  closed: {ended}\n"));
    }
}
