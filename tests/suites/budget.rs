//! What a request and an idle connection cost, held against `budget.toml`: user instructions by callgrind and system calls by strace, each
//! as the difference of two run lengths, so that starting and stopping cancel out.
//!
//! Only the proxy runs under the tool. Instructions are counted with one request after the other, which repeats best.
//! System calls are counted with waves of requests on many connections, as a loaded proxy has them: with one request at
//! a time each would pay for two waits of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use outrigger_tests::bootstrap::{any_host, cluster, http_connection_manager, listener, to};
use outrigger_tests::proxy::{Launch, release_binary};
use outrigger_tests::tools::{repository, require_tool, skip};
use outrigger_tests::{Bootstrap, Engine, RawClient, Upstream, addr, wait};
use serde_json::json;

/// One table of `budget.toml`.
#[derive(Debug)]
struct Budget {
    limit: f64,
    recorded: f64,
    tolerance_percent: f64,
}

impl Budget {
    fn read(table: &str) -> Self {
        let text = fs::read_to_string(repository().join("tests/budget.toml")).unwrap();
        let (_, rest) = text.split_once(&format!("[{table}]\n")).expect("a table of budget.toml");
        let own = rest.split("\n[").next().unwrap();
        let number = |key: &str| {
            let line = own.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {key} in [{table}]")).trim().parse().unwrap()
        };
        Budget {
            limit: number("limit"),
            recorded: number("recorded"),
            tolerance_percent: number("tolerance_percent"),
        }
    }

    #[track_caller]
    fn hold(&self, what: &str, measured: f64) {
        assert!(measured <= self.limit, "{measured:.2} {what} a request: the limit is {}", self.limit);
        let off_percent = (measured / self.recorded - 1.0) * 100.0;
        assert!(
            off_percent.abs() <= self.tolerance_percent,
            "{measured:.2} {what} a request: {off_percent:+.1} % of the recorded {}; if that is meant, record it in \
             tests/budget.toml",
            self.recorded
        );
    }
}

/// How one kind of cost is measured.
struct Measure<'a> {
    tool: &'a [&'a OsStr],
    report: &'a Path,
    /// Finds the tool's total in its report.
    read: fn(&str) -> Option<f64>,
    connections: usize,
}

impl Measure<'_> {
    /// The cost of one request: two runs of different length, counted in waves of one request on each connection.
    fn per_request(&self, lengths: [usize; 2]) -> f64 {
        let [short, long] = lengths.map(|waves| self.run(waves));
        (long - short) / ((lengths[1] - lengths[0]) * self.connections) as f64
    }

    fn run(&self, waves: usize) -> f64 {
        const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: 127.0.0.1:10001\r\n\r\n";
        let (upstream, addr) = (Upstream::start(), addr::free_addr());
        let manager = http_connection_manager(any_host(to("up")), json!({}));
        let clusters = [cluster("up", &[upstream.addr()], json!({}))];
        let bootstrap = Bootstrap::of(&[listener("ingress", addr, manager)], &clusters);
        let program = release_binary("outrigger-proxy").unwrap();
        let proxy =
            Launch::new(Engine::Outrigger).program(program).under(self.tool).start(&bootstrap).unwrap();
        let mut clients: Vec<RawClient> =
            (0..self.connections).map(|_| RawClient::connect(addr).unwrap()).collect();
        for _ in 0..waves {
            clients.iter_mut().for_each(|client| client.send(REQUEST));
            for client in &mut clients {
                assert_eq!(client.response().unwrap().status, 200);
            }
        }
        proxy.quit();
        let text = fs::read_to_string(self.report).unwrap();
        (self.read)(&text).unwrap_or_else(|| panic!("no total in:\n{text:.2000}"))
    }
}

fn is_built() -> bool {
    let built = release_binary("outrigger-proxy").is_some();
    if !built {
        skip("outrigger-proxy is not built in the release profile");
    }
    built
}

#[test]
fn instructions() {
    let Some(valgrind) = require_tool("valgrind") else { return };
    if !is_built() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("callgrind");
    let output = format!("--callgrind-out-file={}", report.display());
    let tool = [valgrind.as_os_str(), "--tool=callgrind".as_ref(), output.as_ref()];
    let measure = Measure { tool: &tool, report: &report, read: callgrind_total, connections: 1 };
    let measured = measure.per_request([500, 2_500]);
    Budget::read("h1_to_h1.instructions").hold("instructions", measured);
}

/// `summary: 123456` or `totals: 123456`.
fn callgrind_total(report: &str) -> Option<f64> {
    let line = report.lines().find_map(|line| line.strip_prefix("summary:").or(line.strip_prefix("totals:")));
    line?.trim().parse().ok()
}

#[test]
fn syscalls() {
    let Some(strace) = require_tool("strace") else { return };
    if !is_built() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("strace");
    let tool = [strace.as_os_str(), "-f".as_ref(), "-c".as_ref(), "-o".as_ref(), report.as_os_str()];
    let measure = Measure { tool: &tool, report: &report, read: strace_total, connections: 64 };
    let measured = measure.per_request([20, 220]);
    Budget::read("h1_to_h1.syscalls").hold("system calls", measured);
}

/// What a client's connection holds when it has had a request and is idle, and what stays of many.
#[test]
fn idle_connections() {
    const CONNECTIONS: usize = 800;
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\nuser-agent: a client\r\n\r\n";
    if !is_built() {
        return;
    }
    let (upstream, addr) = (Upstream::start(), addr::free_addr());
    let manager = http_connection_manager(any_host(to("up")), json!({}));
    let clusters = [cluster("up", &[upstream.addr()], json!({}))];
    let bootstrap = Bootstrap::of(&[listener("ingress", addr, manager)], &clusters);
    let program = release_binary("outrigger-proxy").unwrap();
    let proxy = Launch::new(Engine::Outrigger).program(program).start(&bootstrap).unwrap();
    let ask = |client: &mut RawClient| {
        client.send(REQUEST);
        assert_eq!(client.response().unwrap().status, 200);
    };
    ask(&mut RawClient::connect(addr).unwrap());
    let before = proxy.resident_bytes();
    let mut clients: Vec<RawClient> = (0..CONNECTIONS).map(|_| RawClient::connect(addr).unwrap()).collect();
    clients.iter_mut().for_each(ask);
    let held = || proxy.resident_bytes().saturating_sub(before);
    // They do without their buffers a second or two after their last request.
    wait::until("an idle connection holds at most 8 KiB", || held() <= CONNECTIONS as u64 * 8 * 1024);
    // At rest they are connections like any other.
    clients.iter_mut().for_each(ask);
    drop(clients);
    // Half of what they held; the allocator keeps pages with a hole of its own.
    wait::until("what they held is given back", || held() <= 2 << 20);
}

/// `100.00  0.012345  1  12345  12  total`: the fourth column.
fn strace_total(report: &str) -> Option<f64> {
    let line = report.lines().find(|line| line.trim_end().ends_with("total"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[test]
fn a_budget_holds_both_ways() {
    let budget = Budget { limit: 100.0, recorded: 50.0, tolerance_percent: 3.0 };
    budget.hold("x", 51.4);
    budget.hold("x", 48.6);
    for measured in [51.6, 48.4, 101.0] {
        assert!(std::panic::catch_unwind(|| budget.hold("x", measured)).is_err(), "{measured}");
    }
    assert_eq!(
        strace_total("% time\n100.00    0.000123           1       321         4 total\n"),
        Some(321.0)
    );
    assert_eq!(callgrind_total("events: Ir\nsummary: 99\n"), Some(99.0));
}
