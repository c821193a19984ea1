//! Memory that really runs short: requests are refused until there is some again.

use outrigger_tests::bootstrap::{any_host, cluster, http_connection_manager, listener};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Bootstrap, Proxy, RawClient, Upstream, addr, client, wait};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// More than the proxy needs by itself, less than the uploads.
const HEAP: usize = 64 * MIB;

fn overload_manager() -> Value {
    json!({
        "refresh_interval": "0.05s",
        "resource_monitors": [{
            "name": "envoy.resource_monitors.fixed_heap",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                "max_heap_size_bytes": HEAP,
            },
        }],
        "actions": [{
            "name": "envoy.overload_actions.stop_accepting_requests",
            "triggers": [{"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": 0.9}}],
        }],
    })
}

#[test]
fn requests_are_refused_while_memory_is_short() {
    let upstream = Upstream::start();
    upstream.answer(Reply::Respond(outrigger_tests::message::Response::new(200, "ok")));
    let (bootstrap, addr) = (Bootstrap::new(), addr::free_addr());
    let to = |path: &str| json!({"match": {"prefix": path}, "route": {"cluster": "up"}});
    let manager = http_connection_manager(
        any_host(json!([to("/")])),
        json!({"http_filters": [
            {"name": "buffer", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
                "max_request_bytes": 4 * HEAP,
            }},
            {"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            }},
        ]}),
    );
    bootstrap.write_value(&json!({
        "overload_manager": overload_manager(),
        "static_resources": {
            "listeners": [listener("in", addr, manager)],
            "clusters": [cluster("up", &[upstream.addr()], json!({}))],
        },
    }));
    let proxy = Proxy::outrigger(&bootstrap);
    assert_eq!(client::get(addr, "h", "/").status, 200);
    assert_eq!(proxy.admin("/ready").text(), "LIVE\n");

    // A body that the buffer filter wants whole, and that does not end.
    let mut upload = RawClient::connect(addr).unwrap();
    upload.send(format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", 2 * HEAP).as_bytes());
    let part = vec![b'x'; MIB];
    (0..HEAP / MIB).for_each(|_| upload.send(&part));
    wait::until("requests are refused", || client::get(addr, "h", "/").status == 503);
    let page = proxy.admin("/ready");
    assert_eq!(page.status, 200);
    assert_eq!(page.text(), "LIVE\noverload: envoy.overload_actions.stop_accepting_requests 100 %\n");
    let refused = proxy.stat("http.ingress.downstream_rq_overload_close");
    assert!(refused.unwrap_or_default() > 0, "{refused:?}");

    // Who leaves takes their memory along.
    upload.reset();
    wait::until("requests are served again", || client::get(addr, "h", "/").status == 200);
    assert_eq!(proxy.admin("/ready").text(), "LIVE\n");
    assert!(proxy.stderr().contains("stop_accepting_requests is over"), "{}", proxy.stderr());
}
