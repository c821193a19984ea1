//! Which gRPC statuses are tried again, in the head and in trailers.

use outrigger_tests::Http2Client;
use outrigger_tests::bootstrap::{cluster, http2_upstream};
use outrigger_tests::client::frames::{Frame, FrameClient, block, flag, kind};
use outrigger_tests::differential::{Target, View, World, compare_cases};
use serde_json::{Value, json};

use super::{on, quick, retrying};

#[test]
fn grpc_statuses() {
    let paths =
        ["/grpc-1", "/grpc-4", "/grpc-8", "/grpc-13", "/grpc-14", "/grpc-5", "/grpc-0", "/recovers/grpc-14"];
    let case = |name: &'static str, word: &str| {
        paths.iter().fold(on(name, word), |case, path| {
            case.send(path, &format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n"))
        })
    };
    compare_cases(&[
        case("cancelled", "cancelled"),
        case("deadline exceeded", "deadline-exceeded"),
        case("resource exhausted", "resource-exhausted"),
        case("internal", "internal"),
        case("unavailable", "unavailable"),
        case(
            "Istio's default",
            "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        ),
    ]);
}

const TRAILERS_ARE_READ: &str =
    "while nothing but a head has come, ours holds it back and reads a status in trailers too";

/// A gRPC response of these frames behind its head; the first attempt's only, with `recovers`.
fn ask_for_grpc(target: &Target<'_>, view: &mut View, recovers: bool, rest: fn(u32) -> Vec<Frame>) {
    let world = target.world;
    world.frames.answer_with(move |number, stream| {
        let head = Frame::head(stream, 200, &[("content-type", "application/grpc")], false);
        let rest = match recovers && number > 1 {
            true => vec![Frame::head(stream, None, &[("grpc-status", "0")], true)],
            false => rest(stream),
        };
        [vec![head], rest].concat()
    });
    let client = Http2Client::connect(target.addr).unwrap();
    view.add_answer("client", &client.get("h", "/").map_err(std::io::Error::other));
    view.add("attempts", format!("  {}\n", world.frames.take_requests().len()));
}

fn status_14(stream: u32) -> Frame {
    Frame::head(stream, None, &[("grpc-status", "14")], true)
}

/// To Envoy a status in trailers comes too late: the response's head is on its way to the client by then.
#[test]
fn grpc_in_trailers() {
    let case = |name: &'static str, words: &str| {
        retrying(name, "frames", quick(json!({"retry_on": words, "num_retries": 2})))
    };
    compare_cases(&[
        case("head and trailers", "unavailable")
            .drive(|target, view| ask_for_grpc(target, view, true, |stream| vec![status_14(stream)]))
            .deviates("client", TRAILERS_ARE_READ)
            .deviates("attempts", TRAILERS_ARE_READ),
        case("to the limit", "unavailable")
            .drive(|target, view| ask_for_grpc(target, view, false, |stream| vec![status_14(stream)]))
            .statistics("cluster.frames.(retry|upstream_rq_retry)")
            .deviates("client", TRAILERS_ARE_READ)
            .deviates("attempts", TRAILERS_ARE_READ)
            .deviates("default log 1", TRAILERS_ARE_READ)
            .deviates("istio log 1", TRAILERS_ARE_READ)
            .deviates("statistics", TRAILERS_ARE_READ),
        case("another status", "cancelled")
            .drive(|target, view| ask_for_grpc(target, view, true, |stream| vec![status_14(stream)])),
        case("no word of gRPC", "5xx,reset")
            .drive(|target, view| ask_for_grpc(target, view, true, |stream| vec![status_14(stream)])),
        case("after a message", "unavailable").drive(|target, view| {
            ask_for_grpc(target, view, true, |stream| {
                vec![Frame::new(kind::DATA, 0, stream, *b"part"), status_14(stream)]
            });
        }),
        case("a reset instead", "unavailable,reset").drive(|target, view| {
            ask_for_grpc(target, view, true, |stream| {
                vec![Frame::new(kind::RESET, 0, stream, 2u32.to_be_bytes())]
            });
        }),
    ]);
}

fn status(stream: u32, code: &str) -> Vec<Frame> {
    vec![Frame::head(stream, None, &[("grpc-status", code)], true)]
}

/// Each word of gRPC stands for its own status, as in a head; and what limits other retries limits these.
#[test]
fn grpc_words_in_trailers() {
    let case = |name: &'static str, words: &str| {
        retrying(name, "frames", quick(json!({"retry_on": words, "num_retries": 2})))
            .deviates("client", TRAILERS_ARE_READ)
            .deviates("attempts", TRAILERS_ARE_READ)
    };
    let limited = |name: &'static str, cluster: &'static str, clusters: fn(&World) -> Vec<Value>| {
        retrying(name, cluster, quick(json!({"retry_on": "unavailable", "num_retries": 2})))
            .clusters(clusters)
            .drive(|target, view| ask_for_grpc(target, view, true, |stream| status(stream, "14")))
            .statistics("cluster.[a-z]+.upstream_rq_retry")
    };
    compare_cases(&[
        case("cancelled", "cancelled")
            .drive(|target, view| ask_for_grpc(target, view, true, |stream| status(stream, "1"))),
        case("deadline exceeded", "deadline-exceeded")
            .drive(|target, view| ask_for_grpc(target, view, true, |stream| status(stream, "4"))),
        case("resource exhausted", "resource-exhausted")
            .drive(|target, view| ask_for_grpc(target, view, true, |stream| status(stream, "8"))),
        case("internal", "internal")
            .drive(|target, view| ask_for_grpc(target, view, true, |stream| status(stream, "13"))),
        limited("no place for a retry", "full", |world| {
            frames_with(world, "full", json!({"max_retries": 0}))
        })
        .deviates("statistics", TRAILERS_ARE_READ)
        .deviates("default log 1", TRAILERS_ARE_READ)
        .deviates("istio log 1", TRAILERS_ARE_READ),
        limited("a budget", "budget", |world| {
            frames_with(world, "budget", json!({"retry_budget": {"min_retry_concurrency": 1}}))
        })
        .deviates("client", TRAILERS_ARE_READ)
        .deviates("attempts", TRAILERS_ARE_READ)
        .deviates("statistics", TRAILERS_ARE_READ),
    ]);
}

/// The frame by frame upstream with these thresholds.
fn frames_with(world: &World, name: &str, thresholds: Value) -> Vec<Value> {
    let mut more = http2_upstream();
    more["circuit_breakers"] = json!({"thresholds": [thresholds]});
    vec![cluster(name, &[world.frames.addr()], more)]
}

/// A server that sends its metadata first and then waits for its client is not held back for long.
#[test]
fn early_metadata() {
    compare_cases(&[retrying("head alone", "frames", quick(json!({"retry_on": "unavailable"}))).drive(
        |target, view| {
            target.world.frames.answer_with(|_, stream| {
                vec![Frame::head(stream, 200, &[("content-type", "application/grpc")], false)]
            });
            let mut client = FrameClient::connect(target.addr);
            let head = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "h")];
            client.send(&Frame::new(kind::HEADERS, flag::END_HEADERS, 1, block(&head)));
            let answered = std::iter::from_fn(|| client.frame()).find(|frame| frame.stream == 1).unwrap();
            view.add("client", format!("  {} {}\n", answered.kind == kind::HEADERS, answered.is_last()));
            view.add("attempts", format!("  {}\n", target.world.frames.take_requests().len()));
        },
    )]);
}
