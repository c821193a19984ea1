//! A rollout: ten hosts are replaced one by one under load, and no request fails, whatever is first: that a host is told to go, or that
//! the proxy hears of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::ads::FakeAds;
use outrigger_tests::bootstrap::{any_host, http_connection_manager, listener};
use outrigger_tests::load::Load;
use outrigger_tests::proxy::Launch;
use outrigger_tests::resources::{self, ads_bootstrap, eds_cluster, endpoints, http2_cluster};
use outrigger_tests::{Bootstrap, Engine, Proxy, addr, wait};
use outrigger_xds_api::resource::{pack, unpack};
use outrigger_xds_api::wire::protobuf::{Any, UInt32Value};
use outrigger_xds_api::wire::route::v3::route::Action;
use outrigger_xds_api::wire::route::v3::{RetryPolicy, RouteConfiguration};
use serde_json::json;

const HOSTS: usize = 10;
/// Requests a second, over all clients.
const RATE: u32 = 1_000;
const CLIENTS: u32 = 10;

/// A program that answers with its name, in both versions of HTTP. Told to go, it takes no new connections and ends those it has when
/// their requests are answered, within a second.
struct Host {
    program: Proxy,
    addr: SocketAddr,
    _bootstrap: Bootstrap,
}

impl Host {
    fn start(name: &str) -> Self {
        let (addr, bootstrap) = (addr::free_addr(), Bootstrap::new());
        let answer = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": name}}}]);
        let manager = http_connection_manager(any_host(answer), json!({"codec_type": "AUTO"}));
        bootstrap.write(&[listener("application", addr, manager)], &[]);
        let launch = Launch::new(Engine::Outrigger).arg("--drain-time-s").arg("1");
        Host { program: launch.start(&bootstrap).expect("our own program"), addr, _bootstrap: bootstrap }
    }
}

/// Everything to this cluster; what did not reach a host is sent to another one, as meshes do unless they are told otherwise.
fn routes(name: &str) -> Any {
    let mut routes: RouteConfiguration = unpack(&resources::routes(name, name)).unwrap();
    let Some(Action::Route(action)) = &mut routes.virtual_hosts[0].routes[0].action else {
        panic!("a route")
    };
    action.retry_policy = Some(RetryPolicy {
        retry_on: "connect-failure,refused-stream,unavailable,cancelled".into(),
        num_retries: Some(UInt32Value { value: 2 }),
        ..Default::default()
    });
    pack(&routes)
}

#[test]
fn ten_hosts_are_replaced_and_no_request_fails() {
    let ads = FakeAds::start();
    let bootstrap = Bootstrap::new();
    bootstrap.write_value(&ads_bootstrap(ads.addr()));
    let mut hosts: Vec<Host> = (0..HOSTS).map(|number| Host::start(&format!("old-{number}"))).collect();
    let publish = |hosts: &[&Host]| {
        let addrs: Vec<SocketAddr> = hosts.iter().map(|host| host.addr).collect();
        for cluster in ["http1", "http2"] {
            ads.set(cluster, endpoints(cluster, &addrs));
        }
    };
    publish(&hosts.iter().collect::<Vec<_>>());
    let [http1, http2] =
        [("http1", eds_cluster("http1")), ("http2", http2_cluster("http2"))].map(|(name, cluster)| {
            let addr = addr::free_addr();
            ads.set(name, cluster);
            ads.set(name, routes(name));
            ads.set(name, resources::listener(name, addr, name));
            addr
        });
    let proxy = Launch::new(Engine::Outrigger).workers(2).start(&bootstrap).expect("our own program");
    wait::until("both ways are open", || {
        [http1, http2].iter().all(|&addr| {
            let answer =
                outrigger_tests::RawClient::connect(addr).and_then(|mut client| client.get("h", "/"));
            answer.is_ok_and(|answer| answer.status == 200)
        })
    });
    // Each version of HTTP to hosts that speak the same.
    let pause = Duration::from_secs(1) * 2 * CLIENTS / RATE;
    let loads = [Load::paced(http1, "h", CLIENTS, pause), Load::paced_http2(http2, "h", CLIENTS, pause)];
    for load in &loads {
        load.more(100);
    }
    for number in 0..HOSTS {
        let new = Host::start(&format!("new-{number}"));
        let old = std::mem::replace(&mut hosts[number], new);
        publish(&hosts.iter().chain([&old]).collect::<Vec<_>>());
        for load in &loads {
            load.more(50);
        }
        let mut old = old;
        if number % 2 == 0 {
            old.program.terminate();
            for load in &loads {
                load.more(10);
            }
            publish(&hosts.iter().collect::<Vec<_>>());
        } else {
            publish(&hosts.iter().collect::<Vec<_>>());
            old.program.terminate();
        }
        let ended = old.program.wait_exit(wait::PATIENCE).expect("it ends");
        assert!(ended.success(), "{ended}");
    }
    for load in loads {
        load.take_bodies();
        load.more(200);
        let seen: BTreeSet<String> = load.take_bodies().into_keys().collect();
        let new: BTreeSet<String> = (0..HOSTS).map(|number| format!("new-{number}")).collect();
        assert_eq!(seen, new);
        load.finish();
    }
    drop(proxy);
}
