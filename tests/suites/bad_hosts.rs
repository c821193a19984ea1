//! How many errors clients see of one bad host of ten: by a real Envoy, by ours with the same settings, and by ours with re-admission by
//! a probe. Figures: `cargo test -p outrigger-tests --test bad_hosts -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{any_host, cluster, http_connection_manager, listener};
use outrigger_tests::proxy::Launch;
use outrigger_tests::upstream::{Gate, Reply};
use outrigger_tests::{Bootstrap, Engine, RawClient, Upstream};
use serde_json::{Value, json};

const HOSTS: usize = 10;
const CLIENTS: usize = 6;
/// Of each client. All together are 300 requests a second, 30 of them to each host.
const PAUSE: Duration = Duration::from_millis(20);
/// Errors in a row for which the host is taken out.
const IN_A_ROW: usize = 5;
/// For a handful of ejections: each lasts as long again as the one before.
const LASTS: Duration = Duration::from_secs(4);

/// What is wrong with the bad host.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bad {
    /// It answers 500 at once.
    FailsFast,
    /// It does not answer in time.
    Slow,
    /// It answers 500 at once for half a second, and well for another half.
    Flapping,
}

impl Bad {
    fn start(self) -> Upstream {
        let (upstream, begin, never) = (Upstream::start(), Instant::now(), Gate::closed());
        upstream.answer_with(move |_| match self {
            Self::FailsFast => Reply::status(500, ""),
            Self::Slow => Reply::Hold(never.clone(), Box::new(Reply::Close)),
            Self::Flapping if begin.elapsed().as_millis() % 1000 < 500 => Reply::status(500, ""),
            Self::Flapping => Reply::status(200, ""),
        });
        upstream
    }
}

/// Errors that clients saw, of so many requests.
#[derive(Debug, Clone, Copy)]
struct Seen {
    errors: usize,
    requests: usize,
}

/// `None`: the program is not there.
fn seen(engine: Engine, bad: Bad, more: Value) -> Option<Seen> {
    let mut hosts: Vec<Upstream> = (1..HOSTS).map(|_| Upstream::start()).collect();
    hosts.push(bad.start());
    let addrs: Vec<SocketAddr> = hosts.iter().map(Upstream::addr).collect();
    let mut settings = json!({
        "connect_timeout": "1s",
        "outlier_detection": {
            "consecutive_5xx": IN_A_ROW, "interval": "0.1s", "base_ejection_time": "0.3s", "enforcing_success_rate": 0,
        },
    });
    outrigger_tests::bootstrap::overlay(&mut settings, more);
    let (addr, bootstrap) = (free_addr(), Bootstrap::new());
    let route = json!([{"match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": "0.1s"}}]);
    let manager = http_connection_manager(any_host(route), json!({}));
    bootstrap.write(&[listener("in", addr, manager)], &[cluster("c", &addrs, settings)]);
    let proxy = Launch::new(engine).start(&bootstrap)?;
    let clients: Vec<_> = (0..CLIENTS).map(|_| thread::spawn(move || client(addr))).collect();
    let all = clients.into_iter().map(|client| client.join().unwrap());
    let seen = all.reduce(|a, b| Seen { errors: a.errors + b.errors, requests: a.requests + b.requests });
    proxy.stop();
    seen
}

/// Sends requests, none before its time.
fn client(addr: SocketAddr) -> Seen {
    let (mut connection, begin) = (RawClient::connect(addr).unwrap(), Instant::now());
    let mut seen = Seen { errors: 0, requests: 0 };
    while begin.elapsed() < LASTS {
        let response = connection.get("h", "/").unwrap();
        seen.errors += usize::from(response.status >= 500);
        seen.requests += 1;
        thread::sleep((PAUSE * seen.requests as u32).saturating_sub(begin.elapsed()));
    }
    seen
}

/// Clients see no more of it than with an Envoy, and with a probe they see less.
fn no_worse(bad: Bad) {
    let probe = json!({"metadata": {"filter_metadata": {"outrigger.dev": {"readmission": "probe"}}}});
    let ways = [(Engine::Envoy, json!({})), (Engine::Outrigger, json!({})), (Engine::Outrigger, probe)];
    let at_once = ways.map(|(engine, more)| thread::spawn(move || seen(engine, bad, more)));
    let [envoy, ours, probed] = at_once.map(|one| one.join().unwrap());
    let (Some(ours), Some(probed)) = (ours, probed) else { panic!("our own program") };
    let _ = writeln!(io::stdout(), "{bad:?}: Envoy {envoy:?}, ours {ours:?}, ours with a probe {probed:?}");
    // What is on its way when the host goes, and three ejections: an Envoy's own figure goes from 40 to 81 from one run to the next.
    let more = 3 * IN_A_ROW + CLIENTS;
    if let Some(envoy) = envoy {
        assert!(ours.errors <= envoy.errors + more, "{ours:?}, Envoy {envoy:?}");
        if bad != Bad::Flapping {
            assert!(probed.errors < envoy.errors, "{probed:?}, Envoy {envoy:?}");
        }
    }
    assert!(probed.errors <= ours.errors + more, "{probed:?}, {ours:?}");
}

#[test]
fn a_host_that_fails_fast() {
    no_worse(Bad::FailsFast);
}

#[test]
fn a_slow_host() {
    no_worse(Bad::Slow);
}

#[test]
fn a_host_that_comes_and_goes() {
    no_worse(Bad::Flapping);
}
