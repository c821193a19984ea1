//! A client that goes away takes its request with it: what the upstream, the log and the counters learn of that.

use outrigger_tests::client::frames::{Frame, FrameClient, block, flag, kind};
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::{RawClient, bootstrap, wait};

const COUNTED: &str = "^http.ingress.downstream_rq_([rt]x_reset|total|completed)$|^cluster.(up|h2).upstream_rq_(total|[rt]x_reset|cancelled|completed|active)$";

/// RFC 9113 section 7.
const CANCEL: u32 = 8;

/// When the client goes.
#[derive(Clone, Copy)]
enum When {
    /// The upstream has the whole request and thinks.
    Waiting,
    /// Half of the response is here.
    Receiving,
    /// Half of the request is there.
    Sending,
}

impl When {
    fn path(self) -> &'static str {
        match self {
            When::Waiting | When::Sending => "/stall",
            When::Receiving => "/half",
        }
    }
}

/// What follows a cancelled request: nothing is in flight, and the next one is served. Its connection shows whether the upstream's was given up.
fn afterwards(target: &Target<'_>, view: &mut View, connections: usize) {
    let world = target.world;
    wait::until("nothing is in flight upstream", || {
        let active = world.admin("GET", "/stats?filter=upstream_rq_active").text();
        active.lines().all(|line| line.ends_with(": 0"))
    });
    view.add_answer("the next", &RawClient::connect(target.addr).unwrap().get("h", "/ok"));
    let opened = world.up.connections() + world.h2.connections() - connections;
    view.add("connections to the upstream", format!("{opened}\n"));
    world.take_requests();
}

fn connections(target: &Target<'_>) -> usize {
    target.world.take_requests();
    target.world.up.connections() + target.world.h2.connections()
}

fn has_arrived(target: &Target<'_>) {
    let world = target.world;
    wait::until("the request at the upstream", || world.up.recorded() + world.h2.recorded() > 0);
}

/// A request with half of its body never is a whole one to the fake upstream: its connection or stream shows it.
fn is_in_flight(target: &Target<'_>) {
    wait::until("the request in flight", || {
        let active = target.world.admin("GET", "/stats?usedonly&filter=upstream_rq_active").text();
        active.lines().any(|line| !line.ends_with(": 0"))
    });
}

fn http1(target: &Target<'_>, view: &mut View, when: When, reset: bool) {
    let before = connections(target);
    let mut client = RawClient::connect(target.addr).unwrap();
    let path = when.path();
    match when {
        When::Sending => {
            client.send(
                format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhalf").as_bytes(),
            );
            is_in_flight(target);
        }
        _ => {
            client.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
            has_arrived(target);
        }
    }
    if let When::Receiving = when {
        let head = client.read_exactly(15);
        view.add("head", format!("{:?}\n", head.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())));
    }
    if reset {
        client.reset()
    } else {
        drop(client)
    }
    afterwards(target, view, before);
}

fn http2(target: &Target<'_>, view: &mut View, when: When, reset: bool) {
    let before = connections(target);
    let mut client = FrameClient::connect(target.addr);
    let method = if let When::Sending = when { "POST" } else { "GET" };
    let fields = [(":method", method), (":scheme", "http"), (":path", when.path()), (":authority", "h")];
    let ends = if let When::Sending = when { 0 } else { flag::END_STREAM };
    client.send(&Frame::new(kind::HEADERS, flag::END_HEADERS | ends, 1, block(&fields)));
    match when {
        When::Sending => {
            client.send(&Frame::new(kind::DATA, 0, 1, *b"half"));
            is_in_flight(target);
        }
        _ => has_arrived(target),
    }
    if let When::Receiving = when {
        while client.frame().is_some_and(|frame| frame.kind != kind::DATA) {}
    }
    if reset {
        client.send(&Frame::new(kind::RESET, 0, 1, CANCEL.to_be_bytes()));
        afterwards(target, view, before);
        client.send(&Frame::new(kind::PING, 0, 0, [0; 8]));
        while client.frame().is_some_and(|frame| frame.kind != kind::PING) {}
    } else {
        drop(client);
        afterwards(target, view, before);
    }
}

fn case(name: &'static str, cluster: &str, drive: fn(&Target<'_>, &mut View)) -> Case {
    Case::routes(name, bootstrap::to(cluster)).drive(drive).statistics(COUNTED)
}

#[test]
fn http1_clients() {
    compare_cases(&[
        case("closes while it waits", "up", |t, v| http1(t, v, When::Waiting, false)),
        case("resets while it waits", "up", |t, v| http1(t, v, When::Waiting, true)),
        case("closes while it receives", "up", |t, v| http1(t, v, When::Receiving, false)),
        case("resets while it sends", "up", |t, v| http1(t, v, When::Sending, true)),
        case("closes while it waits for HTTP/2", "h2", |t, v| http1(t, v, When::Waiting, false)),
    ]);
}

#[test]
fn http2_clients() {
    compare_cases(&[
        case("closes while it waits", "up", |t, v| http2(t, v, When::Waiting, false)),
        case("resets the stream while it waits", "up", |t, v| http2(t, v, When::Waiting, true)),
        case("resets the stream while it receives", "up", |t, v| http2(t, v, When::Receiving, true)),
        case("resets the stream while it sends", "up", |t, v| http2(t, v, When::Sending, true)),
        case("resets the stream while it waits for HTTP/2", "h2", |t, v| http2(t, v, When::Waiting, true)),
    ]);
}
