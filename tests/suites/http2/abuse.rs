//! What a client sends too much of: it costs the proxy little, that connection alone ends where a limit is reached, and a client who does
//! everything right is served all the while.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use outrigger_tests::wait::PATIENCE;

use super::*;

/// How long the end of a connection is waited for that has to end.
const SOON: Duration = Duration::from_secs(10);

/// Frames of one kind, one after the other.
struct Flood {
    what: &'static str,
    /// Before the first one.
    opening: Vec<u8>,
    /// The one of this number, from 0.
    frame: Box<dyn Fn(u32) -> Vec<u8>>,
    /// No more than so many are taken.
    most: u32,
    /// Codes of the GOAWAY, if the connection ends with one.
    codes: &'static [u32],
    /// What counts it, if something does.
    counter: Option<&'static str>,
}

fn flood(what: &'static str, most: u32, frame: impl Fn(u32) -> Vec<u8> + 'static) -> Flood {
    Flood { what, opening: Vec::new(), frame: Box::new(frame), most, codes: &[code::CALM], counter: None }
}

impl Flood {
    /// On this stream, which is open.
    fn on(self, opening: Frame) -> Self {
        Self { opening: opening.encode(), ..self }
    }

    fn counted(self, counter: &'static str) -> Self {
        Self { counter: Some(counter), ..self }
    }

    fn codes(self, codes: &'static [u32]) -> Self {
        Self { codes, ..self }
    }
}

fn odd(number: u32) -> u32 {
    2 * number + 1
}

fn window(stream: u32, increment: u32) -> Vec<u8> {
    Frame::new(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes()).encode()
}

fn reset(stream: u32) -> Vec<u8> {
    Frame::new(kind::RESET, 0, stream, 8_u32.to_be_bytes()).encode()
}

fn floods() -> Vec<Flood> {
    let head = || Frame::new(kind::HEADERS, 0, 1, block(&GET));
    let empty = |flags, payload: &'static [u8]| Frame::new(kind::DATA, flags, 1, payload).encode();
    vec![
        // CVE-2023-44487.
        flood("rapid reset", 10_000, |n| [get(odd(n)).encode(), reset(odd(n))].concat()),
        // Made you reset: the proxy is brought to reset the stream itself (CVE-2025-8671).
        flood("streams that are at fault", 10_000, |n| {
            [post(odd(n), &[]).encode(), window(odd(n), 0)].concat()
        })
        .codes(&[code::CALM, code::PROTOCOL]),
        flood("malformed requests", 10_000, |n| {
            request(odd(n), &[(":method", "GET"), ("x-a", "1")]).encode()
        }),
        // CVE-2024-27316 and its like.
        flood("a header block without end", 1000, |_| {
            Frame::new(kind::CONTINUATION, 0, 1, block(&[("x-a", &"a".repeat(1000))])).encode()
        })
        .on(head()),
        flood("empty CONTINUATION", 1000, |_| Frame::new(kind::CONTINUATION, 0, 1, []).encode())
            .on(head())
            .counted("envoy_http2_inbound_empty_frames_flood"),
        // CVE-2019-9518.
        flood("empty DATA", 1000, move |_| empty(0, b""))
            .on(post(1, &[]))
            .counted("envoy_http2_inbound_empty_frames_flood"),
        flood("DATA that is only padding", 1000, move |_| empty(flag::PADDED, &[1, 0]))
            .on(post(1, &[]))
            .counted("envoy_http2_inbound_empty_frames_flood"),
        flood("PRIORITY", 1000, |n| Frame::new(kind::PRIORITY, 0, odd(n), [0; 5]).encode())
            .counted("envoy_http2_inbound_priority_frames_flood"),
        flood("WINDOW_UPDATE", 1000, |_| window(0, 1))
            .counted("envoy_http2_inbound_window_update_frames_flood"),
    ]
}

#[test]
fn a_flood_ends_its_connection_and_no_other() {
    let fixture = Fixture::start(Engine::Outrigger, json!({})).unwrap();
    for flood in floods() {
        let what = flood.what;
        let count = |counter: &str| {
            let text = fixture.proxy.admin("/stats/prometheus").text();
            Scrape::parse(&text).unwrap().sum(counter, &[])
        };
        let before = flood.counter.map(count);
        let mut client = FrameClient::connect(fixture.addr);
        client.send_bytes(&flood.opening);
        for number in 0..flood.most {
            if !client.send_bytes(&(flood.frame)(number)) {
                break;
            }
        }
        let end = loop {
            match client.next_within(SOON).unwrap_or_else(|_| panic!("{what}: it goes on")) {
                Some(frame) if frame.kind == kind::GOAWAY && frame.code() != code::NONE => {
                    break Some(frame.code());
                }
                Some(_) => {}
                None => break None,
            }
        };
        assert!(end.is_none_or(|code| flood.codes.contains(&code)), "{what}: {end:?}");
        if let (Some(counter), Some(before)) = (flood.counter, before) {
            assert_eq!(count(counter), before + 1.0, "{what}");
        }
        assert!(fixture.serves(), "{what}");
    }
    // What was reset at once is not worked for.
    assert!(fixture.take_requests() < 5000);
}

/// Answers that nobody reads pile up nowhere: the proxy reads no further until they are gone.
#[test]
fn who_reads_no_answers_is_not_listened_to() {
    for frame in [Frame::new(kind::PING, 0, 0, [0; 8]), Frame::new(kind::SETTINGS, 0, 0, [])] {
        let fixture = Fixture::start(Engine::Outrigger, json!({})).unwrap();
        assert!(fixture.serves());
        let before = fixture.proxy.resident_bytes();
        let mut client = FrameClient::connect(fixture.addr);
        let many = frame.encode().repeat(10_000);
        // Until the kernel's buffers are full on both ways, or 40 MB.
        let taken = (0..400).take_while(|_| client.send_bytes(&many)).count();
        let grown = fixture.proxy.resident_bytes().saturating_sub(before);
        assert!(grown < 4 << 20, "{grown} bytes after {taken} times {}", many.len());
        assert!(fixture.serves());
    }
}

#[test]
fn streams_over_the_limit_are_refused() {
    let limit = json!({"http2_protocol_options": {"max_concurrent_streams": 10}});
    for engine in [Engine::Outrigger, Engine::Envoy] {
        let Some(fixture) = Fixture::start(engine, limit.clone()) else { continue };
        let mut client = FrameClient::connect(fixture.addr);
        for number in 0..11 {
            client.send(&post(odd(number), &[]));
        }
        // Envoy ends the connection.
        let end =
            std::iter::from_fn(|| client.frame()).find(|f| f.kind == kind::RESET || f.kind == kind::GOAWAY);
        if let Some(end) = end.filter(|end| end.kind == kind::RESET) {
            assert_eq!((end.stream, end.code()), (odd(10), code::REFUSED_STREAM), "{engine}");
            // The others go on.
            client.send(&Frame::new(kind::DATA, flag::END_STREAM, 1, *b"x"));
            let answered =
                std::iter::from_fn(|| client.frame()).find(|frame| frame.stream == 1 && frame.is_last());
            assert_ne!(answered.unwrap().kind, kind::RESET, "{engine}");
        } else {
            assert_eq!(engine, Engine::Envoy);
        }
        assert!(fixture.serves());
    }
}

/// Header lists that are too large, or have too many fields, reach no upstream.
#[test]
fn large_heads_are_refused() {
    let fixture = Fixture::start(Engine::Outrigger, json!({})).unwrap();
    let large = "a".repeat(8000);
    let names: Vec<String> = (0..200).map(|number| format!("x-{number}")).collect();
    let many_large: Vec<(&str, &str)> =
        names.iter().take(8).map(|name| (name.as_str(), large.as_str())).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    for (what, more) in [("60 KiB", many_large), ("100 fields", many)] {
        let fields: Vec<_> = GET.iter().chain(&more).copied().collect();
        let whole = block(&fields);
        let mut client = FrameClient::connect(fixture.addr);
        let parts: Vec<&[u8]> = whole.chunks(16_000).collect();
        for (number, part) in parts.iter().enumerate() {
            let last = if number + 1 == parts.len() { flag::END_HEADERS } else { 0 };
            let (kind, flags) =
                if number == 0 { (kind::HEADERS, flag::END_STREAM) } else { (kind::CONTINUATION, 0) };
            client.send(&Frame::new(kind, flags | last, 1, *part));
        }
        let ended = std::iter::from_fn(|| client.frame()).find(|f| f.is_last() || f.kind == kind::GOAWAY);
        assert!(ended.is_some(), "{what}");
        assert!(fixture.take_requests() == 0, "{what}");
        assert!(fixture.serves());
        fixture.take_requests();
    }
}

/// Takes a request on each connection, answers when the body has begun, and tells how what it reads then ends: whether the body came to
/// its end.
fn eager_upstream() -> (SocketAddr, mpsc::Receiver<bool>) {
    let listener = TcpListener::bind((addr::free_addr().ip(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let (ended, ends) = mpsc::channel();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, ended) = (connection.unwrap(), ended.clone());
            thread::spawn(move || {
                let (mut seen, mut part) = (Vec::new(), [0; 4096]);
                let mut answered = false;
                loop {
                    let read = connection.read(&mut part).unwrap_or(0);
                    seen.extend(&part[..read]);
                    let is_whole = seen.ends_with(b"\r\n0\r\n\r\n");
                    if read == 0 || is_whole {
                        // The test may have ended.
                        let _ = ended.send(is_whole);
                        return;
                    }
                    if !answered && seen.windows(10).any(|window| window == b"half of it") {
                        answered = true;
                        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
                        connection.write_all(head).unwrap();
                    }
                }
            });
        }
    });
    (at, ends)
}

/// A client that gives its request up in the middle has not sent it: no upstream may take what came for the whole.
#[test]
fn half_a_body_is_no_request() {
    let (upstream, ends) = eager_upstream();
    let fixture = Fixture::before(Engine::Outrigger, json!({}), upstream).unwrap();
    let mut client = FrameClient::connect(fixture.addr);
    for number in 0..100 {
        let stream = odd(number);
        client.send(&post(stream, &[]));
        client.send(&Frame::new(kind::DATA, 0, stream, *b"half of it"));
        let answer = std::iter::from_fn(|| client.frame()).find(|f| f.kind == kind::DATA);
        assert_eq!(answer.unwrap().stream, stream);
        let code = [code::NONE, code::CANCEL][number as usize % 2];
        client.send(&Frame::new(kind::RESET, 0, stream, code.to_be_bytes()));
        assert!(!ends.recv_timeout(PATIENCE).unwrap(), "request {number} came to an end");
    }
}
