//! Streams that an HTTP/2 upstream has not looked at, or has reset: which word tries them again, and on which connection.

use outrigger_tests::RawClient;
use outrigger_tests::client::frames::{Frame, kind};
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::upstream::Answer;
use serde_json::json;

use super::{quick, retrying};

const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// The first attempt is answered with these frames, the next one well. Shows the connection of each attempt.
fn ask_again<A: Into<Answer> + 'static>(target: &Target<'_>, view: &mut View, first: fn(u32) -> A) {
    let upstream = &target.world.frames;
    upstream.answer_with(move |number, stream| match number {
        1 => first(stream).into(),
        _ => vec![Frame::head(stream, 200, &[], true)].into(),
    });
    let mut client = RawClient::connect(target.addr).unwrap();
    view.add_answer("client", &client.get("h", "/"));
    view.add("connections", format!("  {:?}\n", upstream.take_requests()));
}

fn refused(target: &Target<'_>, view: &mut View) {
    ask_again(target, view, |stream| vec![Frame::new(kind::RESET, 0, stream, REFUSED_STREAM.to_be_bytes())]);
}

/// The connection ends before this request, which the upstream has not looked at.
fn gone_away(target: &Target<'_>, view: &mut View) {
    ask_again(target, view, |stream| vec![go_away(stream.saturating_sub(2), 0)]);
}

/// The connection ends after this request, which the upstream may have done: nothing may say that it was refused.
fn ended(target: &Target<'_>, view: &mut View) {
    ask_again(target, view, |stream| Answer { frames: vec![go_away(stream, 0)], closes: true });
}

fn ended_in_anger(target: &Target<'_>, view: &mut View) {
    ask_again(target, view, |stream| Answer {
        frames: vec![go_away(stream, ENHANCE_YOUR_CALM)],
        closes: true,
    });
}

fn go_away(last: u32, code: u32) -> Frame {
    Frame::new(kind::GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

fn reset_by_upstream(target: &Target<'_>, view: &mut View) {
    ask_again(target, view, |stream| vec![Frame::new(kind::RESET, 0, stream, 2u32.to_be_bytes())]);
}

const NOT_SEEN: &str = "what its host has not seen is sent again at once, without a retry policy, when its connection had carried others";

/// The policy does not name it, or nobody asks it.
fn sent_again(case: Case) -> Case {
    let blocks = ["client", "connections", "default log 1", "istio log 1"];
    blocks.into_iter().fold(case, |case, block| case.deviates(block, NOT_SEEN))
}

/// The policy names it; here that is not another attempt.
fn one_attempt(case: Case) -> Case {
    case.deviates("client", NOT_SEEN)
}

/// An attempt over HTTP/2 that is given up is reset, unless its response has ended.
#[test]
fn attempts_that_are_given_up() {
    let case = |name: &'static str, policy: serde_json::Value| {
        retrying(name, "frames", quick(policy)).statistics("cluster.frames.upstream_rq_(tx|rx)_reset")
    };
    compare_cases(&[
        case("silence", json!({"retry_on": "5xx", "per_try_timeout": "0.1s"}))
            .drive(|target, view| ask_again(target, view, |_| Vec::new())),
        case("half an answer", json!({"retry_on": "5xx"})).drive(|target, view| {
            ask_again(target, view, |stream| vec![Frame::head(stream, 503, &[], false)])
        }),
        case("a whole answer", json!({"retry_on": "5xx"})).drive(|target, view| {
            ask_again(target, view, |stream| vec![Frame::head(stream, 503, &[], true)])
        }),
        case("a reset", json!({"retry_on": "reset"})).drive(reset_by_upstream),
    ]);
}

#[test]
fn streams_that_are_refused() {
    let on = |name: &'static str, words: &str| retrying(name, "frames", quick(json!({ "retry_on": words })));
    compare_cases(&[
        on("refused, refused-stream", "refused-stream").drive(refused),
        one_attempt(on("refused, reset", "reset").drive(refused)),
        sent_again(on("refused, connect-failure", "connect-failure").drive(refused)),
        sent_again(on("refused, reset-before-request", "reset-before-request").drive(refused)),
        sent_again(on("refused, HTTP/3", "http3-post-connect-failure").drive(refused)),
        one_attempt(
            on(
                "refused, Istio's default",
                "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
            )
            .drive(refused),
        ),
        one_attempt(on("gone away, refused-stream", "refused-stream").drive(gone_away)),
        one_attempt(on("gone away, reset", "reset").drive(gone_away)),
        sent_again(on("gone away, connect-failure", "connect-failure").drive(gone_away)),
        sent_again(on("gone away, reset-before-request", "reset-before-request").drive(gone_away)),
        sent_again(on("gone away, no word", "").drive(gone_away)),
        on("ended, refused-stream", "refused-stream").drive(ended),
        on("ended, reset", "reset").drive(ended),
        on("ended in anger, refused-stream", "refused-stream").drive(ended_in_anger),
        on("ended in anger, reset", "reset").drive(ended_in_anger),
        on("reset, refused-stream", "refused-stream").drive(reset_by_upstream),
        on("reset, reset", "reset").drive(reset_by_upstream),
        on("reset, reset-before-request", "reset-before-request").drive(reset_by_upstream),
    ]);
}
