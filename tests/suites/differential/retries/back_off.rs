//! How long a retry waits when the response says when to come again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, Response};
use serde_json::{Value, json};

use super::{quick, with_action};

/// `retry-after` in seconds, else `x-reset` as a time; with more settings.
fn case(name: &'static str, more: Value, drive: fn(&Target<'_>, &mut View)) -> Case {
    let mut back_off = json!({"reset_headers": [
        {"name": "retry-after", "format": "SECONDS"}, {"name": "x-reset", "format": "UNIX_TIMESTAMP"}]});
    outrigger_tests::bootstrap::overlay(&mut back_off, more);
    let policy = quick(json!({"retry_on": "5xx", "rate_limited_retry_back_off": back_off}));
    with_action(name, json!({"cluster": "up", "timeout": "8s", "retry_policy": policy})).drive(drive)
}

/// Answers the first attempt with these headers, and the next one well.
fn busy_at_first(target: &Target<'_>, headers: Vec<(&'static str, String)>) {
    target.world.up.answer_with(move |request| {
        let busy = || Response::new(503, "busy");
        Reply::Respond(match request.headers.get("x-envoy-attempt-count") {
            Some("1") => headers.iter().fold(busy(), |response, (name, value)| response.header(name, value)),
            _ => Response::new(200, "ok"),
        })
    });
}

/// Shows how the time for the second attempt was found, and that it was waited for.
fn ask(target: &Target<'_>, view: &mut View, headers: Vec<(&'static str, String)>) {
    let world = target.world;
    busy_at_first(target, headers);
    let counter = |name: &str| {
        let all =
            world.admin("GET", &format!("/stats?filter=cluster.up.upstream_rq_retry_backoff_{name}")).text();
        all.trim().rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0_u64)
    };
    let (limited, exponential) = (counter("ratelimited"), counter("exponential"));
    let begin = Instant::now();
    let mut client = RawClient::connect(target.addr).unwrap();
    view.add_answer("client", &client.get("h", "/"));
    // An Envoy counts from the time that its loop woke, a little before it read the request.
    let waited = begin.elapsed() >= Duration::from_millis(980);
    let (limited, exponential) = (counter("ratelimited") - limited, counter("exponential") - exponential);
    view.add("retry", format!("  waited {waited}, as asked {limited}, exponentially {exponential}\n"));
    world.up.take_requests();
}

fn after(seconds: &str) -> (&'static str, String) {
    ("retry-after", seconds.to_owned())
}

/// So many seconds from now.
fn at(seconds: i64) -> (&'static str, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    ("x-reset", now.saturating_add_signed(seconds).to_string())
}

#[test]
fn when_to_come_again() {
    let none = || json!({});
    compare_cases(&[
        case("seconds", none(), |target, view| ask(target, view, vec![after("1")])),
        case("a time", none(), |target, view| ask(target, view, vec![at(2)])),
        case("the first header that says something", none(), |target, view| {
            ask(target, view, vec![at(200), after("1")]);
        }),
        case("the second, if the first says nothing", none(), |target, view| {
            ask(target, view, vec![after("soon"), at(2)]);
        }),
        case("a time that has passed", none(), |target, view| ask(target, view, vec![at(-5)])),
        case("a date", none(), |target, view| {
            ask(target, view, vec![after("Fri, 31 Dec 1999 23:59:59 GMT")]);
        }),
        case("at once", none(), |target, view| ask(target, view, vec![after("0")])),
        case("less than nothing", none(), |target, view| ask(target, view, vec![after("-1")])),
        case("more than the default maximum", none(), |target, view| ask(target, view, vec![after("301")])),
        case("more than the maximum", json!({"max_interval": "0.9s"}), |target, view| {
            ask(target, view, vec![after("1")]);
        }),
        case("as much as the maximum", json!({"max_interval": "1s"}), |target, view| {
            ask(target, view, vec![after("1")]);
        }),
        case("more than the maximum, then less", json!({"max_interval": "2s"}), |target, view| {
            ask(target, view, vec![after("10"), at(2)]);
        }),
        case("no such header", none(), |target, view| ask(target, view, vec![("x-other", "1".to_owned())])),
        with_action(
            "longer than the whole may take",
            json!({"cluster": "up", "timeout": "0.3s", "retry_policy": quick(json!({"retry_on": "5xx",
                "rate_limited_retry_back_off": {"reset_headers": [{"name": "retry-after", "format": "SECONDS"}]}}))}),
        )
        .drive(|target, view| {
            busy_at_first(target, vec![after("1")]);
            let mut client = RawClient::connect(target.addr).unwrap();
            view.add_answer("client", &client.get("h", "/"));
            view.add("attempts", format!("  {}\n", target.world.take_requests().len()));
        }),
    ]);
}
