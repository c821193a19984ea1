//! What HTTP/2 upstreams do wrong, frame by frame: what the client sees of it, and whether the connection is used again.

use outrigger_tests::RawClient;
use outrigger_tests::bootstrap::to;
use outrigger_tests::client::frames::{Frame, block, flag, kind};
use outrigger_tests::differential::{Case, Target, View, compare_cases};

/// Error codes (RFC 9113 section 7).
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const CALM: u32 = 11;

/// A malformed message is an error of its stream (RFC 9113 section 8.1.1).
const OF_STREAM: &str =
    "Envoy closes the connection for a malformed message; ours ends its stream, and others go on";
const PSEUDO: &str = "the engine passes over pseudo-headers that do not belong where they are";
const NOT_SEEN: &str = "what its host has not seen is sent again at once, without a retry policy, when its connection had carried others";
const CUT_BY_GOAWAY: &str = "the engine calls it the end of the stream, as it does a reset without an error";

/// An upstream that answers the first request with these frames and the next one as it should.
fn case(name: &'static str, drive: fn(&Target<'_>, &mut View)) -> Case {
    Case::routes(name, to("frames")).drive(drive)
}

fn sent_again(case: Case) -> Case {
    let blocks = ["first", "connections", "default log 1", "istio log 1"];
    blocks.into_iter().fold(case, |case, block| case.deviates(block, NOT_SEEN))
}

fn ask(target: &Target<'_>, view: &mut View, wrong: fn(u32) -> Vec<Frame>) {
    let upstream = &target.world.frames;
    upstream.answer_with(move |number, stream| match number {
        1 => wrong(stream),
        _ => vec![head(stream, &[]), data(stream, b"right", true)],
    });
    for name in ["first", "next"] {
        let mut client = RawClient::connect(target.addr).unwrap();
        view.add_answer(name, &client.get("h", "/"));
    }
    view.add("connections", format!("  {:?}\n", upstream.take_requests()));
}

fn head(stream: u32, fields: &[(&str, &str)]) -> Frame {
    Frame::head(stream, 200, fields, false)
}

fn data(stream: u32, data: &[u8], ends: bool) -> Frame {
    Frame::new(kind::DATA, if ends { flag::END_STREAM } else { 0 }, stream, data)
}

fn reset(stream: u32, code: u32) -> Frame {
    Frame::new(kind::RESET, 0, stream, code.to_be_bytes())
}

fn go_away(last: u32, code: u32) -> Frame {
    Frame::new(kind::GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

#[test]
fn heads() {
    compare_cases(&[
        case("a request's field", |target, view| {
            ask(target, view, |stream| vec![Frame::head(stream, 200, &[(":method", "GET")], true)]);
        })
        .deviates("first", PSEUDO)
        .deviates("connections", PSEUDO)
        .deviates("default log 1", PSEUDO)
        .deviates("istio log 1", PSEUDO),
        case("no status", |target, view| {
            ask(target, view, |stream| vec![Frame::head(stream, None, &[("x-a", "b")], true)]);
        })
        .deviates("connections", OF_STREAM),
        case("no status, body follows", |target, view| {
            ask(target, view, |stream| {
                vec![Frame::head(stream, None, &[("x-a", "b")], false), data(stream, b"a", true)]
            });
        })
        .deviates("connections", OF_STREAM),
        case("two statuses", |target, view| {
            ask(target, view, |stream| vec![Frame::head(stream, 200, &[(":status", "201")], true)]);
        })
        .deviates("connections", OF_STREAM),
        case("a status that is none", |target, view| {
            ask(target, view, |stream| vec![Frame::head(stream, None, &[(":status", "20x")], true)]);
        }),
        case("status after a field", |target, view| {
            ask(target, view, |stream| {
                vec![Frame::head(stream, None, &[("x-a", "b"), (":status", "200")], true)]
            });
        })
        .deviates("connections", OF_STREAM),
        case("upper case", |target, view| {
            ask(target, view, |stream| vec![Frame::head(stream, 200, &[("X-A", "b")], true)]);
        }),
        case("a field of HTTP/1", |target, view| {
            ask(target, view, |stream| vec![Frame::head(stream, 200, &[("connection", "close")], true)]);
        })
        .deviates("connections", OF_STREAM),
        case("transfer-encoding", |target, view| {
            ask(target, view, |stream| {
                vec![Frame::head(stream, 200, &[("transfer-encoding", "chunked")], true)]
            });
        })
        .deviates("connections", OF_STREAM),
        case("a line break in a value", |target, view| {
            ask(target, view, |stream| vec![Frame::head(stream, 200, &[("x-a", "b\nc")], true)]);
        }),
        case("no compression", |target, view| {
            ask(target, view, |stream| {
                vec![Frame::new(
                    kind::HEADERS,
                    flag::END_HEADERS | flag::END_STREAM,
                    stream,
                    *b"\xff\xff\xff\xff\xff",
                )]
            });
        }),
        case("informational", |target, view| {
            ask(target, view, |stream| {
                vec![
                    Frame::head(stream, 103, &[("link", "a")], false),
                    head(stream, &[]),
                    data(stream, b"a", true),
                ]
            });
        }),
        case("informational that ends", |target, view| {
            ask(target, view, |stream| vec![Frame::head(stream, 103, &[("link", "a")], true)]);
        })
        .deviates("connections", OF_STREAM),
        case("switching protocols", |target, view| {
            ask(target, view, |stream| vec![Frame::head(stream, 101, &[], true)]);
        })
        .deviates("connections", OF_STREAM),
        case("a promise", |target, view| {
            ask(target, view, |stream| {
                let promised = [2u32.to_be_bytes().to_vec(), block(&[(":method", "GET")])];
                vec![Frame::new(kind::PUSH_PROMISE, flag::END_HEADERS, stream, promised.concat())]
            });
        }),
        case("another stream", |target, view| {
            ask(target, view, |stream| vec![Frame::head(stream + 2, 200, &[], true)]);
        }),
    ]);
}

#[test]
fn bodies() {
    compare_cases(&[
        case("data before the head", |target, view| {
            ask(target, view, |stream| vec![data(stream, b"early", true)]);
        }),
        case("data after the end", |target, view| {
            ask(target, view, |stream| {
                vec![head(stream, &[]), data(stream, b"a", true), data(stream, b"b", true)]
            });
        }),
        case("a head after the end", |target, view| {
            ask(target, view, |stream| {
                vec![Frame::head(stream, 200, &[], true), Frame::head(stream, 200, &[], true)]
            });
        }),
        case("trailers that do not end", |target, view| {
            ask(target, view, |stream| {
                vec![
                    head(stream, &[]),
                    data(stream, b"a", false),
                    Frame::head(stream, None, &[("x-a", "b")], false),
                ]
            });
        })
        .deviates("connections", OF_STREAM),
        case("a status in trailers", |target, view| {
            ask(target, view, |stream| {
                vec![head(stream, &[]), data(stream, b"a", false), Frame::head(stream, 200, &[], true)]
            });
        })
        .deviates("first", PSEUDO)
        .deviates("connections", PSEUDO)
        .deviates("default log 1", PSEUDO)
        .deviates("istio log 1", PSEUDO),
        case("too short", |target, view| {
            ask(target, view, |stream| {
                vec![head(stream, &[("content-length", "10")]), data(stream, b"half", true)]
            });
        }),
        case("too long", |target, view| {
            ask(target, view, |stream| {
                vec![head(stream, &[("content-length", "3")]), data(stream, b"too long", true)]
            });
        }),
        case("two lengths", |target, view| {
            ask(target, view, |stream| {
                vec![
                    head(stream, &[("content-length", "3"), ("content-length", "4")]),
                    data(stream, b"abc", true),
                ]
            });
        })
        .deviates("connections", OF_STREAM),
        case("a length that is none", |target, view| {
            ask(target, view, |stream| {
                vec![head(stream, &[("content-length", "x")]), data(stream, b"abc", true)]
            });
        })
        .deviates("connections", OF_STREAM),
        case("a length and no body", |target, view| {
            ask(target, view, |stream| vec![Frame::head(stream, 200, &[("content-length", "3")], true)]);
        })
        .deviates("connections", OF_STREAM),
        case("reset in the body", |target, view| {
            ask(target, view, |stream| {
                vec![
                    head(stream, &[("content-length", "10")]),
                    data(stream, b"half", false),
                    reset(stream, INTERNAL_ERROR),
                ]
            });
        }),
        case("cancelled in the body", |target, view| {
            ask(target, view, |stream| {
                vec![
                    head(stream, &[("content-length", "10")]),
                    data(stream, b"half", false),
                    reset(stream, CANCEL),
                ]
            });
        }),
        case("reset after the end", |target, view| {
            ask(target, view, |stream| {
                vec![head(stream, &[]), data(stream, b"whole", true), reset(stream, NO_ERROR)]
            });
        }),
        case("going away in the body", |target, view| {
            ask(target, view, |stream| {
                vec![
                    head(stream, &[]),
                    data(stream, b"a", false),
                    go_away(stream, NO_ERROR),
                    data(stream, b"b", true),
                ]
            });
        }),
        case("going away from the body", |target, view| {
            ask(target, view, |stream| {
                vec![
                    head(stream, &[]),
                    data(stream, b"a", false),
                    go_away(0, NO_ERROR),
                    data(stream, b"b", true),
                ]
            });
        })
        .deviates("istio log 1", CUT_BY_GOAWAY),
        case("going away with an error", |target, view| {
            ask(target, view, |stream| {
                vec![
                    head(stream, &[]),
                    data(stream, b"a", false),
                    go_away(stream, CALM),
                    data(stream, b"b", true),
                ]
            });
        }),
        case("padding that is too long", |target, view| {
            ask(target, view, |stream| {
                vec![
                    head(stream, &[]),
                    Frame::new(kind::DATA, flag::PADDED | flag::END_STREAM, stream, *b"\x09abc"),
                ]
            });
        }),
        case("a frame that is too large", |target, view| {
            ask(target, view, |stream| vec![head(stream, &[]), data(stream, &[b'a'; 16_385], true)]);
        }),
    ]);
}

#[test]
fn connections() {
    compare_cases(&[
        case("settings without end", |target, view| {
            ask(target, view, |stream| {
                let mut frames = vec![Frame::new(kind::SETTINGS, 0, 0, []); 200];
                frames.extend([head(stream, &[]), data(stream, b"a", true)]);
                frames
            });
        }),
        case("settings of a wrong size", |target, view| {
            ask(target, view, |_| vec![Frame::new(kind::SETTINGS, 0, 0, *b"12345")]);
        }),
        case("settings of a stream", |target, view| {
            ask(target, view, |stream| vec![Frame::new(kind::SETTINGS, 0, stream, [])]);
        }),
        case("a window beyond its end", |target, view| {
            ask(target, view, |_| {
                vec![Frame::new(kind::WINDOW_UPDATE, 0, 0, 0x7fff_ffff_u32.to_be_bytes()); 2]
            });
        }),
        case("a window update of nothing", |target, view| {
            ask(target, view, |_| vec![Frame::new(kind::WINDOW_UPDATE, 0, 0, 0u32.to_be_bytes())]);
        }),
        case("a ping of a wrong size", |target, view| {
            ask(target, view, |_| vec![Frame::new(kind::PING, 0, 0, *b"1234567")]);
        }),
        case("a ping without answer", |target, view| {
            ask(target, view, |stream| {
                vec![Frame::new(kind::PING, 0, 0, *b"12345678"), head(stream, &[]), data(stream, b"a", true)]
            });
        }),
        case("an unknown frame", |target, view| {
            ask(target, view, |stream| {
                vec![Frame::new(0xfa, 0, stream, *b"?"), head(stream, &[]), data(stream, b"a", true)]
            });
        }),
        case("continuation of nothing", |target, view| {
            ask(target, view, |stream| vec![Frame::new(kind::CONTINUATION, flag::END_HEADERS, stream, [])]);
        }),
        case("something inside a head", |target, view| {
            ask(target, view, |stream| {
                vec![
                    Frame::new(kind::HEADERS, 0, stream, block(&[(":status", "200")])),
                    data(stream, b"a", true),
                ]
            });
        }),
        case("going away before the head", |target, view| {
            ask(target, view, |stream| {
                vec![go_away(stream, NO_ERROR), head(stream, &[]), data(stream, b"a", true)]
            });
        }),
        sent_again(case("going away from the request", |target, view| {
            ask(target, view, |_| vec![go_away(0, NO_ERROR)]);
        })),
        case("reset", |target, view| ask(target, view, |stream| vec![reset(stream, INTERNAL_ERROR)])),
        case("reset without an error", |target, view| {
            ask(target, view, |stream| vec![reset(stream, NO_ERROR)])
        }),
        sent_again(case("refused", |target, view| {
            ask(target, view, |stream| vec![reset(stream, REFUSED_STREAM)])
        })),
    ]);
}
