//! Header rules of the codecs: underscores, letter case, trailers, expectations, informational responses.

use outrigger_tests::bootstrap::{cluster, to, type_url};
use outrigger_tests::client::frames::{Frame, FrameClient, block, flag, kind};
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Http2Client, Response};
use serde_json::{Value, json};

/// `http_protocol_options` of a cluster.
fn http1_upstream(options: &Value) -> Value {
    json!({"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": type_url("extensions.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": {"http_protocol_options": options},
    }}})
}

fn underscores(action: &str) -> Value {
    json!({"common_http_protocol_options": {"headers_with_underscores_action": action}})
}

#[test]
fn names_with_underscores() {
    let sets = [
        "",
        "x_a: 1\r\n",
        "x-a: 1\r\nX_A: 2\r\nx_a: 3\r\nx_b: 4\r\n",
        "connection: x_a\r\nx_a: 1\r\n",
        "_: 1\r\n",
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, action) in [("allow", "ALLOW"), ("drop", "DROP_HEADER"), ("reject", "REJECT_REQUEST")] {
        cases.push(Case::plain(name).hcm(underscores(action)).header_lines(&sets));
    }
    for (name, action) in [("http2 drop", "DROP_HEADER"), ("http2 reject", "REJECT_REQUEST")] {
        cases.push(Case::plain(name).hcm(underscores(action)).drive(underscore_over_http2));
    }
    compare_cases(&cases);
}

fn underscore_over_http2(target: &Target<'_>, view: &mut View) {
    let client = Http2Client::connect(target.addr).unwrap();
    for name in ["x-a", "x_a"] {
        let request = http::Request::get("http://h/ok").header(name, "1").body("".into()).unwrap();
        let answer = client.send(request);
        match answer {
            Ok(answer) => view.add_answer(name, &Ok(answer)),
            Err(_) => view.add(name, "  reset\n"),
        }
        view.add_requests(format!("{name}: upstream"), &target.world.take_requests());
    }
}

fn preserve(more: Value) -> Value {
    let mut config = json!({"@type": type_url("extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig")});
    outrigger_tests::bootstrap::overlay(&mut config, more);
    json!({"header_key_format": {"stateful_formatter": {"name": "preserve_case", "typed_config": config}}})
}

#[test]
fn letter_case() {
    let clusters = |world: &outrigger_tests::differential::World| {
        let keep = preserve(json!({}));
        let proper_keep = preserve(json!({"formatter_type_on_envoy_headers": "PROPER_CASE"}));
        let proper = json!({"header_key_format": {"proper_case_words": {}}});
        [("keep", keep), ("proper keep", proper_keep), ("proper", proper)]
            .map(|(name, options)| cluster(name, &[world.up.addr()], http1_upstream(&options)))
            .into()
    };
    let options = |options: Value| json!({"http_protocol_options": options});
    let proper = || options(json!({"header_key_format": {"proper_case_words": {}}}));
    let ask = |case: Case| {
        case.send("ask", "GET /mixed-case HTTP/1.1\r\nHost: h\r\nX-Own-NAME: 1\r\nUser-agent: t\r\n\r\n")
            .send("local", "GET /ok HTTP/1.1\r\nHOST: h\r\nExpect: nothing\r\n\r\n")
    };
    compare_cases(&[
        ask(Case::plain("lower").clusters(clusters)),
        ask(Case::plain("proper for clients").hcm(proper())),
        ask(Case::routes("proper for hosts", to("proper"))),
        ask(Case::routes("proper for both", to("proper")).hcm(proper())),
        ask(Case::plain("kept from clients").hcm(options(preserve(json!({}))))),
        ask(Case::routes("kept from hosts", to("keep"))),
        ask(Case::routes("kept from both", to("keep")).hcm(options(preserve(json!({}))))),
        ask(Case::routes("kept, the rest proper", to("proper keep"))
            .hcm(options(preserve(json!({"formatter_type_on_envoy_headers": "PROPER_CASE"}))))),
        Case::routes("from http2", to("keep")).hcm(options(preserve(json!({})))).drive(over_http2),
    ]);
}

fn over_http2(target: &Target<'_>, view: &mut View) {
    let client = Http2Client::connect(target.addr).unwrap();
    let request = http::Request::get("http://h/mixed-case").header("X-A", "1").body("".into()).unwrap();
    view.add_answer("client", &client.send(request).map_err(std::io::Error::other));
    view.add_requests("upstream", &target.world.take_requests());
}

/// What the client has to say so that trailers reach it, and what the engine needs to write them.

#[test]
fn trailers() {
    let clusters = |world: &outrigger_tests::differential::World| {
        let on = http1_upstream(&json!({"enable_trailers": true}));
        vec![cluster("with trailers", &[world.up.addr()], on)]
    };
    let on = || json!({"http_protocol_options": {"enable_trailers": true}});
    let body = "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\nx-other: 2\r\n\r\n";
    let announced =
        format!("POST /announced HTTP/1.1\r\nhost: h\r\nte: trailers\r\ntrailer: x-t, x-other\r\n{body}");
    let silent = format!("POST /trailers HTTP/1.1\r\nhost: h\r\n{body}");
    let ask = |case: Case| case.drive(announced_trailers).send("announced", &announced);
    compare_cases(&[
        ask(Case::plain("off").clusters(clusters)).send("silent", &silent),
        ask(Case::plain("on for clients").hcm(on())).send("silent", &silent),
        ask(Case::routes("on for hosts", to("with trailers"))).send("silent", &silent),
        ask(Case::routes("on for both", to("with trailers")).hcm(on())).send("silent", &silent),
        Case::plain("http2, off").drive(trailers_over_http2),
        Case::routes("http2, on", to("with trailers")).drive(trailers_over_http2),
        Case::routes("http1 to http2, off", to("h2")).send("announced", &announced),
        Case::routes("http1 to http2, on", to("h2")).hcm(on()).send("announced", &announced),
        Case::routes("http2 to http2", to("h2")).drive(trailers_over_http2),
    ]);
}

/// The upstream says before which trailers it will send.
fn announced_trailers(target: &Target<'_>, view: &mut View) {
    target.world.up.answer_with(|_| {
        let mut response = Response::new(200, "").header("trailer", "x-trailer");
        response.trailers.0.push(("X-Trailer".into(), "last".into()));
        Reply::Chunks(response, vec![b"body".into()])
    });
    let mut client = outrigger_tests::RawClient::connect(target.addr).unwrap();
    client.send(b"GET / HTTP/1.1\r\nhost: h\r\nte: trailers\r\n\r\n");
    view.add_answer("of the upstream", &client.response());
    target.world.take_requests();
}

fn trailers_over_http2(target: &Target<'_>, view: &mut View) {
    let mut client = FrameClient::connect(target.addr);
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/trailers"),
        (":authority", "h"),
        ("te", "trailers"),
        ("trailer", "x-t"),
    ];
    client.send(&Frame::new(kind::HEADERS, flag::END_HEADERS, 1, block(&head)));
    client.send(&Frame::new(kind::DATA, 0, 1, "abc"));
    client.send(&Frame::new(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, block(&[("x-t", "1")])));
    let last = std::iter::from_fn(|| client.frame()).filter(|frame| frame.stream == 1).find(Frame::is_last);
    let by = if last.unwrap().kind == kind::HEADERS { "trailers" } else { "data" };
    view.add("ends with", format!("  {by}\n"));
    view.add_requests("upstream", &target.world.take_requests());
}

#[test]
fn expectations_and_informational_responses() {
    const NOT_ASKED: &str = "RFC 9110 15.2.2: nobody asked to switch; Envoy passes the 101 on";
    let ask = "PUT /ok HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\nexpect: ";
    compare_cases(&[
        Case::plain("expect")
            .send("continue", &format!("{ask}100-continue\r\n\r\nhi"))
            .send("loud", &format!("{ask}100-CONTINUE\r\n\r\nhi"))
            .send("other", &format!("{ask}other\r\n\r\nhi")),
        Case::plain("asked before the body").drive(waits_for_100),
        Case::plain("informational")
            .drive(informational)
            .deviates("101", NOT_ASKED)
            .deviates("default log 2", NOT_ASKED)
            .deviates("istio log 2", NOT_ASKED),
    ]);
}

/// `proxy_100_continue`.
#[test]
fn informational_responses_that_go_on() {
    const NOT_ASKED: &str = "RFC 9110 15.2.2: nobody asked to switch; Envoy passes the 101 on";
    let on = || json!({"proxy_100_continue": true});
    let retried = json!([{"match": {"prefix": "/"}, "route": {
        "cluster": "up",
        "timeout": "0s",
        "retry_policy": {"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}},
    }}]);
    compare_cases(&[
        Case::plain("informational")
            .hcm(on())
            .drive(informational_and_final)
            .deviates("101", NOT_ASKED)
            .deviates("default log 2", NOT_ASKED)
            .deviates("istio log 2", NOT_ASKED),
        Case::plain("asked by the upstream").hcm(on()).drive(asked_by_upstream),
        Case::plain("not asked by the upstream").hcm(on()).drive(|target, view| {
            target.world.up.answer_with(|_| Reply::Respond(Response::new(200, "ok")));
            let mut client = super::conversation::Conversation::open(target.addr);
            client.say("PUT /ok HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi");
            client.see_head("answer", view);
            view.add_requests("upstream", &target.world.take_requests());
        }),
        Case::routes("no retry after it", retried).hcm(on()).drive(|target, view| {
            for before in ["HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n", ""] {
                let whole = format!("{before}HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
                target.world.up.answer_with(move |_| Reply::Raw(whole.clone().into()));
                let mut client = super::conversation::Conversation::open(target.addr);
                client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
                client.see_head("first", view);
                view.add_requests("upstream", &target.world.take_requests());
            }
        }),
    ]);
}

/// When a client of HTTP/2 sends its body.
#[derive(Clone, Copy, PartialEq)]
enum Body {
    None,
    AtOnce,
    /// When it is asked to.
    Asked,
}

/// What comes for a request of HTTP/2 until its stream ends: types of frames, and whether they end it.
fn frames_for(target: &Target<'_>, fields: &[(&str, &str)], body: Body) -> String {
    let mut client = FrameClient::connect(target.addr);
    let mut all = vec![(":method", "PUT"), (":scheme", "http"), (":path", "/ok"), (":authority", "h")];
    all.extend(fields);
    let ends = if body == Body::None { flag::END_STREAM } else { 0 };
    client.send(&Frame::new(kind::HEADERS, flag::END_HEADERS | ends, 1, block(&all)));
    let hi = Frame::new(kind::DATA, flag::END_STREAM, 1, *b"hi");
    if body == Body::AtOnce {
        client.send(&hi);
    }
    let mut seen = String::new();
    while let Some(frame) = client.frame() {
        if frame.stream != 1 || frame.kind == kind::WINDOW_UPDATE {
            continue;
        }
        let ends = frame.kind == kind::RESET || frame.flags & flag::END_STREAM != 0;
        // In how many pieces a body comes is nobody's business.
        if ends || frame.kind != kind::DATA {
            seen += &format!("  {} ends: {ends}\n", frame.kind);
        }
        if ends {
            break;
        }
        if body == Body::Asked && frame.kind == kind::HEADERS {
            client.send(&hi);
        }
    }
    seen
}

/// A client of HTTP/2 that waits to be asked for its body, and one that is told of hints.
#[test]
fn informational_responses_over_http2() {
    fn waits(target: &Target<'_>, view: &mut View, body: Body) {
        target.world.up.answer_with(|_| {
            Reply::Raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into())
        });
        let fields = [("expect", "100-continue"), ("content-length", "2")];
        view.add("frames", frames_for(target, &fields, body));
        view.add_requests("upstream", &target.world.take_requests());
    }
    let hinted = |target: &Target<'_>, view: &mut View| {
        for status in [102, 103, 199] {
            let head = format!("HTTP/1.1 {status} Something\r\nlink: a\r\nconnection: x-own\r\n\r\n");
            let whole = format!("{head}{head}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            target.world.up.answer_with(move |_| Reply::Raw(whole.clone().into()));
            view.add(format!("{status}"), frames_for(target, &[], Body::None));
        }
        target.world.take_requests();
    };
    let on = || json!({"codec_type": "HTTP2", "proxy_100_continue": true});
    compare_cases(&[
        Case::plain("asked by us")
            .hcm(json!({"codec_type": "HTTP2"}))
            .drive(|target, view| waits(target, view, Body::Asked)),
        Case::plain("asked by the upstream")
            .hcm(on())
            .drive(|target, view| waits(target, view, Body::AtOnce)),
        Case::plain("hints stay here").hcm(json!({"codec_type": "HTTP2"})).drive(hinted),
        Case::plain("hints go on").hcm(on()).drive(hinted),
    ]);
}

fn informational_and_final(target: &Target<'_>, view: &mut View) {
    for status in [100, 101, 102, 103, 199] {
        let head = format!("HTTP/1.1 {status} Something\r\nlink: a\r\nconnection: x-own\r\n\r\n");
        let whole = format!("{head}{head}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        target.world.up.answer_with(move |_| Reply::Raw(whole.clone().into()));
        let mut client = super::conversation::Conversation::open(target.addr);
        client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        for _ in 0..if status == 101 { 1 } else { 3 } {
            client.see_head(&status.to_string(), view);
        }
    }
    target.world.take_requests();
}

fn asked_by_upstream(target: &Target<'_>, view: &mut View) {
    target.world.up.answer_with(|_| {
        Reply::Raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into())
    });
    let mut client = super::conversation::Conversation::open(target.addr);
    client.say("PUT /ok HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi");
    client.see_head("first", view);
    client.see_head("then", view);
    view.add_requests("upstream", &target.world.take_requests());
}

fn waits_for_100(target: &Target<'_>, view: &mut View) {
    let mut client = super::conversation::Conversation::open(target.addr);
    client.say("PUT /ok HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    client.see_head("first", view);
    client.say("hi");
    client.see_head("then", view);
    view.add_requests("upstream", &target.world.take_requests());
}

fn informational(target: &Target<'_>, view: &mut View) {
    for status in [100, 101, 102, 103, 199] {
        let head = format!("HTTP/1.1 {status} Something\r\nlink: a\r\n\r\n");
        let whole = format!("{head}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        target.world.up.answer_with(move |_| Reply::Raw(whole.clone().into()));
        let mut client = super::conversation::Conversation::open(target.addr);
        client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        client.see_head(&status.to_string(), view);
    }
    target.world.take_requests();
}
