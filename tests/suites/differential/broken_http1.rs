//! HTTP/1 upstreams whose answers are not what they should be: which are refused, which are taken and as what, and whether the connection
//! serves another request.

use outrigger_tests::RawClient;
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::upstream::Reply;

const CODING_OF_OLD: &str = "RFC 9112 6.1: a coding in an HTTP/1.0 message is faulty framing; Envoy takes it";
const CHUNK_ENDS: &str = "RFC 9112 7.1: a chunk ends with a line end; Envoy passes over what stands there";
const STATUS_LINE: &str =
    "RFC 9112 4: a status line has HTTP/1 and three digits; Envoy takes it, even if it cannot be passed on";
const HOP_BY_HOP: &str = "RFC 9110 7.6.1: fields that Connection names end here; Envoy passes them on";

/// An upstream that answers the first request of a method with these bytes and the next one as it should.
macro_rules! case {
    ($name:literal, $method:literal, $answer:literal $(,)?) => {
        Case::plain($name).drive(|target, view| ask(target, view, $method, $answer))
    };
}

macro_rules! get {
    ($name:literal, $answer:literal $(,)?) => {
        case!($name, "GET", $answer)
    };
}

fn ask(target: &Target<'_>, view: &mut View, method: &str, answer: &'static str) {
    target.world.up.answer_with(move |request| match request.target.as_str() {
        "/first" => Reply::Raw(answer.into()),
        _ => Reply::status(200, "right"),
    });
    for name in ["first", "next"] {
        let mut client = RawClient::connect(target.addr).unwrap();
        client.send(format!("{method} /{name} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
        view.add_answer(name, &client.response_to(method));
    }
    let mut connections: Vec<u64> =
        target.world.take_requests().iter().map(|request| request.connection as u64).collect();
    connections.dedup();
    view.add("connections", format!("  {}\n", connections.len()));
}

#[test]
fn lengths() {
    compare_cases(&[
        get!(
            "both framings",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        get!("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc"),
        get!("the same length twice", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc"),
        get!("the same length in one field", "HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc"),
        get!("a negative length", "HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabc"),
        get!("a length with a sign", "HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc"),
        get!("no length", "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n"),
        get!("more than the length", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef"),
        case!("HEAD with a body", "HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"),
        case!("HEAD with a length", "HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"),
        get!("204 with a body", "HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc"),
        get!("304 with a length", "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n"),
    ]);
}

#[test]
fn codings() {
    compare_cases(&[
        get!("gzip", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc"),
        get!(
            "gzip, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        get!(
            "twice chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        get!("loud", "HTTP/1.1 200 OK\r\ntransfer-encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        get!("of HTTP/1.0", "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            .deviates("first", CODING_OF_OLD)
            .deviates("default log 1", CODING_OF_OLD)
            .deviates("istio log 1", CODING_OF_OLD),
        get!(
            "an extension",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n"
        ),
        get!("no size", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\nabc\r\n0\r\n\r\n"),
        get!(
            "too much in a chunk",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        )
        .deviates("first", CHUNK_ENDS)
        .deviates("default log 1", CHUNK_ENDS)
        .deviates("istio log 1", CHUNK_ENDS)
        .deviates("connections", CHUNK_ENDS),
        get!(
            "a huge size",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        ),
        get!(
            "trailers",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
        ),
    ]);
}

#[test]
fn heads() {
    compare_cases(&[
        get!("no reason", "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n"),
        get!("an empty reason", "HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n"),
        get!("HTTP/1.0", "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        get!(
            "HTTP/1.0 that stays",
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        ),
        get!("another version", "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n")
            .deviates("first", STATUS_LINE)
            .deviates("default log 1", STATUS_LINE)
            .deviates("istio log 1", STATUS_LINE),
        get!("an unknown status", "HTTP/1.1 799 What\r\ncontent-length: 0\r\n\r\n"),
        get!("a short status", "HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n")
            .deviates("first", STATUS_LINE)
            .deviates("default log 1", STATUS_LINE)
            .deviates("istio log 1", STATUS_LINE)
            .deviates("connections", STATUS_LINE),
        get!("no status", "HTTP/1.1 OK\r\ncontent-length: 0\r\n\r\n"),
        get!("a name with a space", "HTTP/1.1 200 OK\r\nx y: 1\r\ncontent-length: 0\r\n\r\n"),
        get!("a space before the colon", "HTTP/1.1 200 OK\r\nx : 1\r\ncontent-length: 0\r\n\r\n"),
        get!("a nul", "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n"),
        get!("bytes above ASCII", "HTTP/1.1 200 OK\r\nx: \u{e9}\r\ncontent-length: 0\r\n\r\n"),
        get!("line feeds alone", "HTTP/1.1 200 OK\ncontent-length: 0\n\n"),
        get!("a request", "GET / HTTP/1.1\r\nhost: h\r\n\r\n"),
        get!("closes", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"),
        get!(
            "many connection options",
            "HTTP/1.1 200 OK\r\nconnection: x, Close\r\nx: 1\r\ncontent-length: 2\r\n\r\nok",
        )
        .deviates("first", HOP_BY_HOP),
        get!(
            "keeps alive for HTTP/1.1",
            "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nkeep-alive: timeout=5\r\ncontent-length: 2\r\n\r\nok",
        ),
    ]);
}
