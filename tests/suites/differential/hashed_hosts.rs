//! What the suites of consistent hashing share: clusters with many hosts, and requests of many users. Which host each request went
//! to is in the access log and in the response.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use outrigger_tests::Upstream;
use outrigger_tests::bootstrap::{cluster, overlay, socket_address};
use outrigger_tests::differential::Case;
use outrigger_tests::upstream::Reply;
use serde_json::{Value, json};

/// One server at every address of the loopback network: each is a host.
static SERVER: LazyLock<Upstream> = LazyLock::new(|| {
    let server = Upstream::start_at((Ipv4Addr::UNSPECIFIED, 0).into());
    server.answer_with(|request| match request.target.trim_start_matches('/') {
        "503" => Reply::status(503, "busy"),
        "stall" => {
            STALLED.fetch_add(1, Ordering::Relaxed);
            Reply::Stall
        }
        _ => Reply::status(200, "ok"),
    });
    server
});

/// How many requests for `/stall` have reached a host.
static STALLED: AtomicUsize = AtomicUsize::new(0);

pub(super) fn stalled() -> usize {
    STALLED.load(Ordering::Relaxed)
}

/// The host of this number.
pub(super) fn host(number: u8) -> SocketAddr {
    (IpAddr::from([127, 0, 100, number]), SERVER.addr().port()).into()
}

pub(super) fn hosts(count: u8) -> Vec<SocketAddr> {
    (1..=count).map(host).collect()
}

/// A cluster over `count` hosts; the object `more` is laid over it.
pub(super) fn hashed(name: &str, count: u8, more: Value) -> Value {
    cluster(name, &hosts(count), more)
}

/// A cluster over these endpoints: a host's number, and what stands beside its address in the `LbEndpoint`.
pub(super) fn hashed_endpoints(name: &str, endpoints: &[(u8, Value)], more: Value) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(number, about)| {
            let mut endpoint = json!({"endpoint": {"address": socket_address(host(*number))}});
            overlay(&mut endpoint, about.clone());
            endpoint
        })
        .collect();
    let mut assigned = json!({"load_assignment":
        {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}});
    overlay(&mut assigned, more);
    cluster(name, &[], assigned)
}

/// Everything to `cluster` by these hash policies.
pub(super) fn by(name: &'static str, cluster: &str, policies: Value) -> Case {
    let routes = json!([{
        "match": {"prefix": "/"},
        "route": {"cluster": cluster, "hash_policy": policies},
        "response_headers_to_add": [{"header": {"key": "x-host", "value": "%UPSTREAM_HOST%"}}],
    }]);
    Case::routes(name, routes)
}

/// By the header `x-user`.
pub(super) fn by_user() -> Value {
    json!([{"header": {"header_name": "x-user"}}])
}

/// A request of each of 24 users.
pub(super) fn users(mut case: Case) -> Case {
    for user in 0..24 {
        case = case.header_lines(&[&format!("x-user: user-{user}\r\n")]);
    }
    case
}
