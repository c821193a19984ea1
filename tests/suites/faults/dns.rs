//! A DNS server that is silent, or comes and goes: nothing else waits for it, and the last good answer serves on.

use std::time::{Duration, Instant};

use outrigger_tests::ads::FakeAds;
use outrigger_tests::bootstrap::socket_address;
use outrigger_tests::dns::FakeDns;
use outrigger_tests::proxy::Launch;
use outrigger_tests::resources::{ads_bootstrap, eds_cluster, endpoints, listener, routes};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Bootstrap, Engine, RawClient, Upstream, addr, client, wait};
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::{ResourceType, json as mapping};
use serde_json::{Value, json};

/// Far less than a look-up takes that nobody answers, 10 s.
const SOON: Duration = Duration::from_secs(5);

fn answer(at: std::net::SocketAddr) -> Option<String> {
    let response = RawClient::connect(at).ok()?.get("h", "/").ok()?;
    (response.status == 200).then(|| response.text())
}

fn named(text: &'static str) -> Upstream {
    let upstream = Upstream::start();
    upstream.answer(Reply::status(200, text));
    upstream
}

fn by_name(name: &str, host: &str, port: u16, dns: &FakeDns) -> Value {
    json!({
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "dns_refresh_rate": "0.05s",
        "dns_resolution_config": {
            "resolvers": [socket_address(dns.addr())],
            "dns_resolver_options": {"no_default_search_domain": true},
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}},
        ]}]},
    })
}

fn any_cluster(cluster: &Value) -> Any {
    let node = mapping::parse_one(&cluster.to_string()).unwrap();
    let kind = ResourceType::Cluster;
    let value = mapping::encode(kind.message_name(), &node, mapping::Notation::Json).unwrap();
    Any { type_url: kind.type_url().to_owned(), value }
}

#[test]
fn a_silent_server_stalls_nothing_else() {
    let (silent, good, ads) = (FakeDns::start(), FakeDns::start(), FakeAds::start());
    let (first, second, other) = (named("first"), named("second"), named("other"));
    silent.silent(true);
    good.set("other.test", &[other.addr().ip()]);
    // They are many, and come before the one that gets an answer.
    for number in 0..200 {
        let name = format!("silent{number}");
        ads.set(&name, any_cluster(&by_name(&name, &format!("{name}.test"), 80, &silent)));
    }
    let (by_eds, by_dns) = (addr::free_addr(), addr::free_addr());
    ads.set("up", eds_cluster("up"));
    ads.set("up", endpoints("up", &[first.addr()]));
    ads.set("routes", routes("routes", "up"));
    ads.set("ingress", listener("ingress", by_eds, "routes"));
    ads.set("with_answer", any_cluster(&by_name("with_answer", "other.test", other.addr().port(), &good)));
    ads.set("other_routes", routes("other_routes", "with_answer"));
    ads.set("other", listener("other", by_dns, "other_routes"));
    let bootstrap = Bootstrap::new();
    bootstrap.write_value(&ads_bootstrap(ads.addr()));
    let proxy = Launch::new(Engine::Outrigger).spawn(&bootstrap).unwrap();
    let started = Instant::now();
    wait::until("the others answer", || {
        answer(by_eds).as_deref() == Some("first") && answer(by_dns).as_deref() == Some("other")
    });
    assert!(started.elapsed() < SOON, "after {:?}", started.elapsed());
    assert!(!silent.asked().is_empty());

    let changed = Instant::now();
    ads.set("up", endpoints("up", &[second.addr()]));
    wait::until("an update passes", || answer(by_eds).as_deref() == Some("second"));
    assert!(changed.elapsed() < SOON, "after {:?}", changed.elapsed());
    drop(proxy);
}

#[test]
fn the_last_answer_serves_on_while_the_server_is_away() {
    let (dns, upstream) = (FakeDns::start(), named("up"));
    dns.set("up.test", &[upstream.addr().ip()]);
    let mut cluster = by_name("up", "up.test", upstream.addr().port(), &dns);
    cluster["dns_lookup_family"] = "V4_ONLY".into();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]);
    let fixture = super::Fixture::start(routes, &[cluster]);
    assert_eq!(client::get(fixture.addr, "h", "/").text(), "up");
    let failures = || fixture.proxy.stat("cluster.up.update_failure").unwrap_or_default();
    dns.fail("up.test");
    wait::until("look-ups fail", || failures() > 2);
    assert_eq!(client::get(fixture.addr, "h", "/").text(), "up");
    dns.unset("up.test");
    wait::until("there is no such name", || client::get(fixture.addr, "h", "/").status == 503);
    dns.set("up.test", &[upstream.addr().ip()]);
    wait::until("it is back", || answer(fixture.addr).as_deref() == Some("up"));
}
