//! What a client does wrong, and what a server has to say to that.

use std::time::Duration;

use super::*;

/// How long an answer is waited for that has to come at once.
const SOON: Duration = Duration::from_secs(3);

/// What came of a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// GOAWAY with this code.
    Goaway(u32),
    /// The connection was closed.
    Closed,
    /// The stream was reset with this code.
    Reset(u32),
    /// The stream got a response.
    Answered,
    /// The connection goes on.
    Alive,
    /// Nothing.
    Silence,
}

/// What has to come of it.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// The connection ends; the code, where there is one, is one of these.
    Connection(&'static [u32]),
    /// The stream, or else its connection, ends, with one of these codes.
    Stream(&'static [u32]),
    /// The same, or an answer by the proxy itself (RFC 9113 section 8.1.1): nothing of it goes on.
    Malformed,
    /// A whole response.
    Served,
    /// Nothing: the connection goes on.
    Ignored,
}

impl Expect {
    fn allows(self, outcome: Outcome) -> bool {
        match (self, outcome) {
            (Self::Connection(_) | Self::Stream(_) | Self::Malformed, Outcome::Closed) => true,
            (Self::Connection(codes) | Self::Stream(codes), Outcome::Goaway(code)) => codes.contains(&code),
            (Self::Stream(codes), Outcome::Reset(code)) => codes.contains(&code),
            (Self::Malformed, Outcome::Goaway(code) | Outcome::Reset(code)) => code == code::PROTOCOL,
            (Self::Malformed | Self::Served, Outcome::Answered) => true,
            (Self::Ignored, Outcome::Alive) => true,
            _ => false,
        }
    }
}

/// A mistake of a client.
struct Case {
    section: &'static str,
    what: &'static str,
    /// After preface and settings.
    frames: Vec<Frame>,
    expect: Expect,
}

fn case(section: &'static str, what: &'static str, frames: Vec<Frame>, expect: Expect) -> Case {
    Case { section, what, frames, expect }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(kind, flags, stream, payload)
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Frame {
    frame(kind::DATA, flags, stream, payload)
}

fn settings(number: u16, value: u32) -> Frame {
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend(value.to_be_bytes());
    frame(kind::SETTINGS, 0, 0, payload)
}

fn window(stream: u32, increment: u32) -> Frame {
    frame(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

fn reset(stream: u32) -> Frame {
    frame(kind::RESET, 0, stream, 8_u32.to_be_bytes())
}

/// The fields of a GET and these in front of or behind them, without those of these names.
fn changed(before: &[(&str, &str)], without: &[&str], behind: &[(&str, &str)]) -> Vec<Frame> {
    let kept = GET.iter().filter(|(name, _)| !without.contains(name));
    let fields: Vec<_> = before.iter().chain(kept).chain(behind).copied().collect();
    vec![request(1, &fields)]
}

const PROTOCOL: &[u32] = &[code::PROTOCOL];
const SIZE: &[u32] = &[code::FRAME_SIZE];
const CLOSED: &[u32] = &[code::STREAM_CLOSED];

fn framing() -> Vec<Case> {
    let large = vec![0; 16_385];
    let open_head = || frame(kind::HEADERS, flag::END_STREAM, 1, block(&GET));
    vec![
        case("4.1", "unknown type", vec![frame(22, 0, 0, *b"unknown")], Expect::Ignored),
        case("4.1", "unknown flags", vec![frame(kind::PING, 22, 0, [0; 8])], Expect::Ignored),
        case("4.1", "reserved bit", vec![frame(kind::HEADERS, 5, 1 | 1 << 31, block(&GET))], Expect::Served),
        case("4.2", "large DATA", vec![post(1, &[]), data(1, 1, &large)], Expect::Stream(SIZE)),
        case(
            "4.2",
            "large HEADERS",
            vec![frame(kind::HEADERS, 5, 1, large.clone())],
            Expect::Connection(SIZE),
        ),
        case("4.2", "large unknown", vec![frame(22, 0, 0, large)], Expect::Connection(SIZE)),
        case(
            "4.3",
            "no HPACK",
            vec![frame(kind::HEADERS, 5, 1, [0x80])],
            Expect::Connection(&[code::COMPRESSION]),
        ),
        case(
            "4.3",
            "HPACK index that is not there",
            vec![frame(kind::HEADERS, 5, 1, [0xff, 0x7f])],
            Expect::Connection(&[code::COMPRESSION]),
        ),
        case("4.3", "HEADERS in a header block", vec![open_head(), get(3)], Expect::Connection(PROTOCOL)),
        case(
            "4.3",
            "another stream in a header block",
            vec![open_head(), frame(kind::CONTINUATION, 4, 3, [])],
            Expect::Connection(PROTOCOL),
        ),
        case(
            "5.5",
            "unknown type in a header block",
            vec![open_head(), frame(22, 0, 1, [])],
            Expect::Connection(PROTOCOL),
        ),
        case(
            "6.10",
            "a block in three parts",
            vec![
                frame(kind::HEADERS, 1, 1, block(&GET[..1])),
                frame(kind::CONTINUATION, 0, 1, block(&GET[1..3])),
                frame(kind::CONTINUATION, 4, 1, block(&GET[3..])),
            ],
            Expect::Served,
        ),
        case(
            "6.10",
            "CONTINUATION of nothing",
            vec![frame(kind::CONTINUATION, 4, 1, [])],
            Expect::Connection(PROTOCOL),
        ),
        case(
            "6.10",
            "CONTINUATION after the end",
            vec![post(1, &[]), frame(kind::CONTINUATION, 4, 1, [])],
            Expect::Connection(PROTOCOL),
        ),
        case(
            "6.10",
            "CONTINUATION on 0",
            vec![open_head(), frame(kind::CONTINUATION, 4, 0, [])],
            Expect::Connection(PROTOCOL),
        ),
    ]
}

fn streams() -> Vec<Case> {
    vec![
        case("5.1", "DATA on an idle stream", vec![data(1, 1, b"x")], Expect::Connection(PROTOCOL)),
        case("5.1", "RST_STREAM on an idle stream", vec![reset(1)], Expect::Connection(PROTOCOL)),
        case("5.1", "WINDOW_UPDATE on an idle stream", vec![window(1, 1)], Expect::Connection(PROTOCOL)),
        case("5.1", "DATA after END_STREAM", vec![post_whole(1), data(1, 1, b"x")], Expect::Stream(CLOSED)),
        case("5.1", "HEADERS after END_STREAM", vec![post_whole(1), get(1)], Expect::Stream(CLOSED)),
        case(
            "5.1",
            "DATA after RST_STREAM",
            vec![post(1, &[]), reset(1), data(1, 1, b"x")],
            Expect::Stream(CLOSED),
        ),
        case("5.1", "WINDOW_UPDATE after END_STREAM", vec![get(1), window(1, 1)], Expect::Served),
        case("5.1.1", "an even number", vec![get(2)], Expect::Connection(PROTOCOL)),
        case(
            "5.1.1",
            "a lower number",
            vec![get(5), get(3)],
            Expect::Connection(&[code::PROTOCOL, code::STREAM_CLOSED]),
        ),
        case("6.1", "DATA on 0", vec![data(0, 1, b"x")], Expect::Connection(PROTOCOL)),
        case(
            "6.1",
            "padding over the end of DATA",
            vec![post(1, &[]), data(1, flag::PADDED | 1, &[6, 1, 2, 3])],
            Expect::Connection(PROTOCOL),
        ),
        case(
            "6.1",
            "padded DATA",
            vec![post(1, &[]), data(1, flag::PADDED | 1, &[3, b'a', 0, 0, 0])],
            Expect::Served,
        ),
        case("6.2", "HEADERS on 0", vec![get(0)], Expect::Connection(PROTOCOL)),
        case(
            "6.2",
            "padding over the end of HEADERS",
            vec![frame(kind::HEADERS, 5 | flag::PADDED, 1, [200, 1, 2])],
            Expect::Connection(PROTOCOL),
        ),
        case("6.3", "PRIORITY on 0", vec![frame(kind::PRIORITY, 0, 0, [0; 5])], Expect::Connection(PROTOCOL)),
        case("6.3", "a short PRIORITY", vec![frame(kind::PRIORITY, 0, 1, [0; 4])], Expect::Stream(SIZE)),
        case("6.3", "PRIORITY of an idle stream", vec![frame(kind::PRIORITY, 0, 5, [0; 5])], Expect::Ignored),
        case("6.4", "RST_STREAM on 0", vec![reset(0)], Expect::Connection(PROTOCOL)),
        case(
            "6.4",
            "a short RST_STREAM",
            vec![post(1, &[]), frame(kind::RESET, 0, 1, [0; 3])],
            Expect::Connection(SIZE),
        ),
        case(
            "8.4",
            "PUSH_PROMISE of a client",
            vec![frame(kind::PUSH_PROMISE, 4, 1, [0, 0, 0, 2])],
            Expect::Connection(PROTOCOL),
        ),
    ]
}

/// A whole POST without a body.
fn post_whole(stream: u32) -> Frame {
    let mut post = post(stream, &[]);
    post.flags |= flag::END_STREAM;
    post
}

fn connection() -> Vec<Case> {
    let max = 0x7fff_ffff;
    let flow = &[code::FLOW_CONTROL];
    vec![
        case(
            "6.5",
            "an acknowledgement that says something",
            vec![frame(kind::SETTINGS, 1, 0, [0])],
            Expect::Connection(SIZE),
        ),
        case(
            "6.5",
            "SETTINGS of a stream",
            vec![frame(kind::SETTINGS, 0, 1, [])],
            Expect::Connection(PROTOCOL),
        ),
        case("6.5", "half a setting", vec![frame(kind::SETTINGS, 0, 0, [0; 5])], Expect::Connection(SIZE)),
        case("6.5.2", "ENABLE_PUSH 2", vec![settings(2, 2)], Expect::Connection(PROTOCOL)),
        case("6.5.2", "a window of 2^31", vec![settings(4, 1 << 31)], Expect::Connection(flow)),
        case("6.5.2", "frames too small", vec![settings(5, 16_383)], Expect::Connection(PROTOCOL)),
        case("6.5.2", "frames too large", vec![settings(5, 1 << 24)], Expect::Connection(PROTOCOL)),
        case("6.5.2", "an unknown setting", vec![settings(99, 1)], Expect::Ignored),
        case("6.7", "PING of a stream", vec![frame(kind::PING, 0, 1, [0; 8])], Expect::Connection(PROTOCOL)),
        case("6.7", "a short PING", vec![frame(kind::PING, 0, 0, [0; 6])], Expect::Connection(SIZE)),
        case("6.7", "an answer to no PING", vec![frame(kind::PING, 1, 0, [0; 8])], Expect::Ignored),
        case(
            "6.8",
            "GOAWAY of a stream",
            vec![frame(kind::GOAWAY, 0, 1, [0; 8])],
            Expect::Connection(PROTOCOL),
        ),
        case("6.9", "no increment", vec![window(0, 0)], Expect::Connection(PROTOCOL)),
        case("6.9", "no increment of a stream", vec![post(1, &[]), window(1, 0)], Expect::Stream(PROTOCOL)),
        case(
            "6.9",
            "a short WINDOW_UPDATE",
            vec![frame(kind::WINDOW_UPDATE, 0, 0, [0; 3])],
            Expect::Connection(SIZE),
        ),
        case(
            "6.9.1",
            "a connection window over 2^31-1",
            vec![window(0, max), window(0, max)],
            Expect::Connection(flow),
        ),
        case(
            "6.9.1",
            "a stream window over 2^31-1",
            vec![post(1, &[]), window(1, max), window(1, max)],
            Expect::Stream(flow),
        ),
        case(
            "6.9.2",
            "a setting that takes a stream's window over 2^31-1",
            vec![post(1, &[]), window(1, max - 65_535), settings(4, 65_536)],
            Expect::Connection(flow),
        ),
    ]
}

fn messages() -> Vec<Case> {
    let malformed = |section, what, frames| case(section, what, frames, Expect::Malformed);
    let with_length = |length: &'static str| post(1, &[("content-length", length)]);
    let trailers =
        |fields: &[(&str, &str)], flags| frame(kind::HEADERS, flag::END_HEADERS | flags, 1, block(fields));
    vec![
        malformed("8.1", "a second head that ends nothing", vec![post(1, &[]), trailers(&[("x", "1")], 0)]),
        malformed("8.1", "a pseudo-header in trailers", vec![post(1, &[]), trailers(&[(":path", "/")], 1)]),
        case(
            "8.1",
            "trailers",
            vec![post(1, &[]), data(1, 0, b"x"), trailers(&[("x", "1")], 1)],
            Expect::Served,
        ),
        malformed("8.1.1", "less than announced", vec![with_length("3"), data(1, 1, b"x")]),
        malformed("8.1.1", "more than announced", vec![with_length("1"), data(1, 1, b"xyz")]),
        malformed("8.1.1", "no body, but announced", changed(&[], &[], &[("content-length", "3")])),
        malformed("8.2.1", "an upper-case name", changed(&[], &[], &[("X-A", "1")])),
        malformed("8.2.1", "a space in a name", changed(&[], &[], &[("x a", "1")])),
        malformed("8.2.1", "an empty name", changed(&[], &[], &[("", "1")])),
        malformed("8.2.1", "a line break in a value", changed(&[], &[], &[("x-a", "1\r\nx-b: 2")])),
        malformed("8.2.1", "a zero in a value", changed(&[], &[], &[("x-a", "1\0")])),
        malformed("8.2.2", "connection", changed(&[], &[], &[("connection", "keep-alive")])),
        malformed("8.2.2", "transfer-encoding", changed(&[], &[], &[("transfer-encoding", "chunked")])),
        malformed("8.2.2", "te that is not trailers", changed(&[], &[], &[("te", "trailers, deflate")])),
        case("8.2.2", "te: trailers", changed(&[], &[], &[("te", "trailers")]), Expect::Served),
        malformed("8.3", "an unknown pseudo-header", changed(&[], &[], &[(":test", "1")])),
        malformed("8.3", "a pseudo-header of responses", changed(&[], &[], &[(":status", "200")])),
        malformed("8.3", "a pseudo-header behind a field", changed(&[("x-a", "1")], &[], &[])),
        malformed("8.3.1", "no method", changed(&[], &[":method"], &[])),
        malformed("8.3.1", "no scheme", changed(&[], &[":scheme"], &[])),
        malformed("8.3.1", "no path", changed(&[], &[":path"], &[])),
        malformed("8.3.1", "an empty path", changed(&[(":path", "")], &[":path"], &[])),
        malformed("8.3.1", "two methods", changed(&[(":method", "GET")], &[], &[])),
        malformed("8.3.1", "two paths", changed(&[(":path", "/")], &[], &[])),
        malformed("8.3.1", "two schemes", changed(&[(":scheme", "http")], &[], &[])),
        malformed("8.3.1", "two authorities", changed(&[(":authority", "h")], &[], &[])),
        malformed("8.3.1", "no authority and no host", changed(&[], &[":authority"], &[])),
        malformed("8.5", "CONNECT with a path", changed(&[(":method", "CONNECT")], &[":method"], &[])),
        malformed("8.5", "a protocol without CONNECT", changed(&[(":protocol", "websocket")], &[], &[])),
    ]
}

/// What comes of it.
fn outcome(fixture: &Fixture, case: &Case) -> Outcome {
    let mut client = FrameClient::connect(fixture.addr);
    let stream = case.frames.iter().rev().map(|frame| frame.stream & 0x7fff_ffff).find(|s| *s != 0);
    // At once: an answer to the first is not to come before the last.
    client.send_bytes(&case.frames.iter().flat_map(Frame::encode).collect::<Vec<u8>>());
    let mark = *b"the mark";
    if matches!(case.expect, Expect::Ignored) {
        client.send(&frame(kind::PING, 0, 0, mark));
    }
    loop {
        let frame = match client.next_within(SOON) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Outcome::Closed,
            Err(_) => return Outcome::Silence,
        };
        match frame.kind {
            // A server that closes for another reason says so without an error.
            kind::GOAWAY if frame.code() != code::NONE => return Outcome::Goaway(frame.code()),
            kind::RESET => return Outcome::Reset(frame.code()),
            kind::PING if frame.flags & flag::ACK != 0 && frame.payload == mark => return Outcome::Alive,
            kind::HEADERS | kind::DATA if Some(frame.stream) == stream && frame.is_last() => {
                return Outcome::Answered;
            }
            _ => {}
        }
    }
}

/// Runs the cases against a proxy, and tells which went otherwise than the rules say.
fn deviations(engine: Engine, cases: &[Case]) -> Option<Vec<String>> {
    let fixture = Fixture::start(engine, json!({}))?;
    let mut wrong = Vec::new();
    for case in cases {
        fixture.take_requests();
        let outcome = outcome(&fixture, case);
        let passed_on = matches!(case.expect, Expect::Malformed)
            && outcome == Outcome::Answered
            && fixture.take_requests() > 0;
        if !case.expect.allows(outcome) || passed_on {
            let what = if passed_on { "passed on".to_owned() } else { format!("{outcome:?}") };
            wrong.push(format!("{} {}: {what}", case.section, case.what));
        }
    }
    assert!(fixture.serves(), "nobody is served any more");
    Some(wrong)
}

/// Where ours and a real Envoy are known to go another way than the rules.
#[track_caller]
fn follows(cases: &[Case], known_of_ours: &[&str], known_of_envoy: &[&str]) {
    assert_eq!(deviations(Engine::Outrigger, cases).unwrap(), known_of_ours, "ours");
    if let Some(wrong) = deviations(Engine::Envoy, cases) {
        assert_eq!(wrong, known_of_envoy, "Envoy");
    }
}

// Where ours says PROTOCOL_ERROR (1) for want of a better word, the engine (h2) has none of its own for that frame; the connection ends
// all the same.

#[test]
fn section_4_frames_and_header_blocks() {
    let ours = ["4.3 no HPACK: Goaway(1)", "4.3 HPACK index that is not there: Goaway(1)"];
    follows(&framing(), &ours, &[]);
}

#[test]
fn sections_5_and_6_streams() {
    let ours = [
        "5.1 DATA after END_STREAM: Goaway(1)",
        "5.1 HEADERS after END_STREAM: Goaway(1)",
        "6.3 a short PRIORITY: Goaway(1)",
        "6.4 a short RST_STREAM: Goaway(1)",
    ];
    let envoy =
        ["5.1 DATA after RST_STREAM: Silence", "5.1.1 a lower number: Silence", "6.3 PRIORITY on 0: Silence"];
    follows(&streams(), &ours, &envoy);
}

#[test]
fn section_6_the_connection() {
    let ours = [
        "6.5 an acknowledgement that says something: Goaway(1)",
        "6.5 half a setting: Goaway(1)",
        "6.5.2 a window of 2^31: Goaway(1)",
        "6.7 a short PING: Goaway(1)",
        "6.9 a short WINDOW_UPDATE: Goaway(1)",
    ];
    let envoy = ["6.9.2 a setting that takes a stream's window over 2^31-1: Reset(3)"];
    follows(&connection(), &ours, &envoy);
}

#[test]
fn section_8_messages() {
    // The engine drops the pseudo-header before anybody sees it.
    follows(&messages(), &["8.1 a pseudo-header in trailers: passed on"], &[]);
}

/// What comes of these first bytes.
fn opening(fixture: &Fixture, bytes: &[u8]) -> Outcome {
    let mut client = FrameClient::silent(fixture.addr);
    client.send_bytes(bytes);
    loop {
        match client.next_within(SOON) {
            Ok(Some(frame)) if frame.kind == kind::GOAWAY => return Outcome::Goaway(frame.code()),
            Ok(Some(frame)) if frame.kind == kind::PING => return Outcome::Alive,
            Ok(Some(_)) => {}
            Ok(None) => return Outcome::Closed,
            Err(_) => return Outcome::Silence,
        }
    }
}

#[test]
fn section_3_the_preface() {
    let settings_second = [PREFACE, &frame(kind::PING, 0, 0, [0; 8]).encode()].concat();
    for (engine, of_settings) in
        [(Engine::Outrigger, Outcome::Closed), (Engine::Envoy, Outcome::Goaway(code::PROTOCOL))]
    {
        let Some(fixture) = Fixture::start(engine, json!({})) else { continue };
        let openings = [
            b"INVALID CONNECTION PREFACE\r\n\r\n",
            &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
            &settings_second,
        ];
        let outcomes = openings.map(|bytes| opening(&fixture, bytes));
        assert_eq!(outcomes, [Outcome::Closed, Outcome::Closed, of_settings], "{engine}");
        assert!(fixture.serves());
    }
}
