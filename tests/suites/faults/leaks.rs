//! Nothing leaks: after a thousand rounds of all the faults the proxy is not larger than after a hundred.

use outrigger_tests::addr::RefusingAddr;
use outrigger_tests::ads::FakeAds;
use outrigger_tests::bootstrap::{any_host, cluster, http_connection_manager, listener};
use outrigger_tests::resources::{CLUSTER, ads_bootstrap, invalid_cluster};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Bootstrap, Proxy, RawClient, Response, Upstream, addr, wait};
use serde_json::json;

const WARM_UP_ROUNDS: usize = 100;
const ROUNDS: usize = 1_000;
const ALLOWED_BYTES: u64 = 1 << 20;

#[test]
fn nothing_leaks() {
    let (upstream, nobody, ads, addr) =
        (Upstream::start(), RefusingAddr::reserve(), FakeAds::start(), addr::free_addr());
    upstream.answer_with(|request| match request.target.as_str() {
        "/reset" => Reply::Reset,
        "/close" => Reply::Close,
        "/half" => Reply::RespondThenClose(Response::new(200, "half").header("content-length", "100")),
        "/garbage" => Reply::Raw(b"this is not HTTP\r\n\r\n".into()),
        "/stall" => Reply::Stall,
        _ => Reply::status(200, "ok"),
    });
    let routes = json!([
        {"match": {"path": "/refused"}, "route": {"cluster": "nobody"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0.01s"}},
    ]);
    let mut file = ads_bootstrap(ads.addr());
    file["static_resources"]["listeners"] =
        json!([listener("ingress", addr, http_connection_manager(any_host(routes), json!({})))]);
    let clusters = file["static_resources"]["clusters"].as_array_mut().unwrap();
    clusters.push(cluster("up", &[upstream.addr()], json!({})));
    clusters.push(cluster("nobody", &[nobody.addr()], json!({})));
    let bootstrap = Bootstrap::new();
    bootstrap.write_value(&file);
    let proxy = Proxy::outrigger(&bootstrap);

    let round = |_| {
        for path in ["/ok", "/reset", "/close", "/half", "/garbage", "/stall", "/refused"] {
            let mut client = RawClient::connect(addr).unwrap();
            client.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
            // The start is enough: a cut response may be held open for the client to close first. When the cut comes at
            // once, there may be no start.
            match client.read_exactly(8) {
                Ok(start) => assert_eq!(start, b"HTTP/1.1", "{path}"),
                Err(error) => assert_eq!(path, "/half", "{error}"),
            }
        }
        for bytes in [
            &b"this is not HTTP\r\n\r\n"[..],
            b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            let mut client = RawClient::connect(addr).unwrap();
            client.send(bytes);
            let answer = client
                .response()
                .unwrap_or_else(|error| panic!("{:?}: {error}", String::from_utf8_lossy(bytes)));
            assert_eq!(answer.status, 400, "{:?}", String::from_utf8_lossy(bytes));
        }
        let mut client = RawClient::connect(addr).unwrap();
        client.send(b"POST /cut HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nonly this");
        client.reset();
        // A resource that nobody subscribed to is not sent, hence a cluster: those are all wanted.
        ads.clear_verdicts();
        ads.set("bad", invalid_cluster("bad"));
        ads.wait_nack(CLUSTER);
        let _ = upstream.take_requests();
    };
    let settled = || {
        wait::until("all requests are over", || {
            proxy.stat("http.ingress.downstream_rq_active") == Some(0)
                && proxy.stat("cluster.up.upstream_rq_active") == Some(0)
        });
        (proxy.resident_bytes(), proxy.open_files())
    };

    (0..WARM_UP_ROUNDS).for_each(round);
    ads.close_streams();
    wait::until("the stream is back", || ads.streams() == 2);
    let (bytes_before, files_before) = settled();
    (WARM_UP_ROUNDS..ROUNDS).for_each(round);
    let (bytes_after, files_after) = settled();
    assert!(
        bytes_after <= bytes_before + ALLOWED_BYTES,
        "{bytes_before} bytes after {WARM_UP_ROUNDS} rounds, {bytes_after} after {ROUNDS}"
    );
    assert!(files_after <= files_before + 4, "{files_before} descriptors, then {files_after}");
}
