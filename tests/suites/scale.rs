//! What a change costs when there is much that did not change: instructions of the main thread by callgrind, and memory for each
//! cluster with its endpoint and its route.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use outrigger_tests::ads::FakeAds;
use outrigger_tests::callgrind::Counted;
use outrigger_tests::proxy::{Launch, release_binary};
use outrigger_tests::resources::{
    CLUSTER, ENDPOINT, LISTENER, ROUTE, ads_bootstrap, eds_cluster, endpoints, listener, weighted_routes,
};
use outrigger_tests::tools::{require_tool, skip};
use outrigger_tests::{Bootstrap, Engine, Proxy, RawClient, Upstream, addr, wait};
use outrigger_xds_api::resource::{pack, unpack};
use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::listener::v3::{FilterChainMatch, Listener};
use outrigger_xds_api::wire::protobuf::{Any, BoolValue, UInt32Value};
use outrigger_xds_api::wire::route::v3::{RouteConfiguration, VirtualHost};

const TOTALS: [usize; 2] = [500, 5_000];
/// Each listener has so many filter chains, each with a route configuration of its own.
const CHAINS: usize = 10;
/// So much more may a change among 5,000 cost than one among 500.
const GROWTH_PERCENT: f64 = 10.0;
/// Of a cluster with its endpoint and its route. It was 8 KiB before localities, health checks, slow start and limits of hosts came, and 8.5
/// before the further addresses of a host; a run differs from the next by a tenth.
const MOST_BYTES: f64 = 8.8 * 1024.0;
const CHANGES: u16 = 100;
/// Instructions of main for an endpoint that an update leaves as it is: its bytes are compared, its host and the tables go on.
const MOST_OF_UNCHANGED: f64 = 2_300.0;

fn host(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn route(number: usize, weight: u16) -> Any {
    weighted_routes(&format!("routes-{number}"), &[(&format!("cluster-{number}"), u32::from(weight))])
}

/// A listener without a socket.
fn listener_of(number: usize, version: u16) -> Any {
    let (name, at) = (format!("listener-{number}"), (addr::pod_ip(), 80).into());
    let mut made: Listener = unpack(&listener(&name, at, "")).unwrap();
    made.bind_to_port = Some(BoolValue { value: false });
    made.stat_prefix = format!("version-{version}");
    let chains = (0..CHAINS).map(|chain| {
        let routes = format!("routes-{}", number * CHAINS + chain);
        let other: Listener = unpack(&listener("chain", at, &routes)).unwrap();
        let mut chain_of_it = other.filter_chains.into_iter().next().unwrap();
        chain_of_it.name = format!("chain-{chain}");
        chain_of_it.filter_chain_match = Some(FilterChainMatch {
            destination_port: Some(UInt32Value { value: 1_000 + chain as u32 }),
            ..Default::default()
        });
        chain_of_it
    });
    made.filter_chains = chains.collect();
    pack(&made)
}

/// A proxy with so many clusters, load assignments and route configurations, and a tenth as many listeners.
struct World {
    ads: FakeAds,
    proxy: Proxy,
    /// The address of the listener that changes stays.
    listener: Listener,
    _bootstrap: Bootstrap,
}

impl World {
    fn start(total: usize, launch: Launch) -> Self {
        let ads = FakeAds::start();
        let all = (0..total).flat_map(|number| {
            let cluster = format!("cluster-{number}");
            [
                (cluster.clone(), eds_cluster(&cluster)),
                (cluster.clone(), endpoints(&cluster, &[host(80)])),
                (format!("routes-{number}"), route(number, 1)),
            ]
        });
        let listeners =
            (0..total / CHAINS).map(|number| (format!("listener-{number}"), listener_of(number, 0)));
        let all: Vec<(String, Any)> = all.chain(listeners).collect();
        let changed = all.iter().find(|(name, _)| name == "listener-7").unwrap();
        let listener = unpack(&changed.1).unwrap();
        ads.set_all(&all);
        let bootstrap = Bootstrap::new();
        bootstrap.write_value(&ads_bootstrap(ads.addr()));
        let proxy = launch.spawn(&bootstrap).unwrap();
        let is_complete = || {
            let page = proxy.try_admin("GET", "/listeners").ok()?.text();
            let routes = ads.verdicts().iter().any(|verdict| verdict.type_url == ROUTE);
            (routes && page.lines().count() == total / CHAINS).then_some(())
        };
        // Under valgrind all of it takes a while.
        let complete = wait::within(10 * wait::PATIENCE, is_complete);
        assert!(complete.is_some(), "{}", proxy.stderr());
        Self { ads, proxy, listener, _bootstrap: bootstrap }
    }

    /// Changes one resource many times, each time after the proxy has accepted the time before.
    fn change(&self, type_url: &str, version: impl Fn(&Self, u16) -> (String, Any)) {
        for number in 1..=CHANGES {
            let (name, resource) = version(self, number);
            self.ads.clear_verdicts();
            self.ads.set(&name, resource);
            let verdict = self.ads.wait_verdict(type_url);
            assert_eq!(verdict.error, None, "{name}");
        }
    }

    fn change_endpoints(&self) {
        self.change(ENDPOINT, |_, port| ("cluster-7".into(), endpoints("cluster-7", &[host(port)])));
    }

    fn change_routes(&self) {
        self.change(ROUTE, |_, weight| ("routes-7".into(), route(7, weight + 1)));
    }

    fn change_clusters(&self) {
        self.change(CLUSTER, |_, port| {
            let mut cluster: Cluster = unpack(&eds_cluster("cluster-7")).unwrap();
            cluster.per_connection_buffer_limit_bytes =
                Some(UInt32Value { value: 1_000_000 + u32::from(port) });
            ("cluster-7".into(), pack(&cluster))
        });
    }

    fn change_listeners(&self) {
        self.change(LISTENER, |world, version| {
            let mut changed = world.listener.clone();
            changed.stat_prefix = format!("version-{version}");
            ("listener-7".into(), pack(&changed))
        });
    }
}

/// For docs/performance.md.
fn measured(line: &str) {
    let _ = writeln!(io::stderr(), "MEASURED {line}");
}

fn is_built() -> bool {
    let built = release_binary("outrigger-proxy").is_some();
    if !built {
        skip("outrigger-proxy is not built in the release profile");
    }
    built
}

fn launch() -> Launch {
    Launch::new(Engine::Outrigger).program(release_binary("outrigger-proxy").unwrap())
}

/// Instructions of main for one change of each kind.
fn instructions(valgrind: &Path, total: usize) -> [f64; 4] {
    let counted = Counted::new(valgrind.to_owned(), &[]);
    let world = World::start(total, counted.launch(launch()));
    counted.take(&world.proxy);
    let kinds =
        [World::change_endpoints, World::change_routes, World::change_clusters, World::change_listeners];
    let counts = kinds.map(|change| {
        change(&world);
        counted.take(&world.proxy).main / f64::from(CHANGES)
    });
    world.proxy.quit();
    counts
}

#[test]
fn a_change_costs_the_same_among_many() {
    let Some(valgrind) = require_tool("valgrind") else { return };
    if !is_built() {
        return;
    }
    let [few, many] = TOTALS.map(|total| instructions(&valgrind, total));
    measured(&format!(
        "instructions of a change of endpoints, routes, cluster, listener: {few:.0?}, among 10 times as many {many:.0?}"
    ));
    for (few, many) in few.into_iter().zip(many) {
        assert!(many <= few * (1.0 + GROWTH_PERCENT / 100.0), "{few:.0} among 500, {many:.0} among 5,000");
    }
}

/// Instructions of main for a change of one endpoint among so many of one cluster.
fn of_one_among(valgrind: &Path, total: usize) -> f64 {
    const TIMES: u16 = 20;
    let counted = Counted::new(valgrind.to_owned(), &[]);
    let ads = FakeAds::start();
    let with = |port: u16| {
        let others =
            (1..total as u32).map(|number| (std::net::Ipv4Addr::from(0x7f00_0001 + number), 9).into());
        let hosts: Vec<SocketAddr> = std::iter::once(host(port)).chain(others).collect();
        endpoints("big", &hosts)
    };
    ads.set("big", eds_cluster("big"));
    ads.set("big", with(1));
    let bootstrap = Bootstrap::new();
    bootstrap.write_value(&ads_bootstrap(ads.addr()));
    let proxy = counted.launch(launch()).spawn(&bootstrap).unwrap();
    let first = wait::within(10 * wait::PATIENCE, || {
        ads.verdicts().iter().any(|verdict| verdict.type_url == ENDPOINT).then_some(())
    });
    assert!(first.is_some(), "{}", proxy.stderr());
    counted.take(&proxy);
    for port in 2..2 + TIMES {
        ads.clear_verdicts();
        ads.set("big", with(port));
        assert_eq!(ads.wait_verdict(ENDPOINT).error, None);
    }
    let instructions = counted.take(&proxy).main / f64::from(TIMES);
    assert_eq!(proxy.stat("cluster.big.membership_total"), Some(total as u64));
    proxy.quit();
    instructions
}

#[test]
fn an_update_of_a_big_cluster_costs_what_is_new() {
    let Some(valgrind) = require_tool("valgrind") else { return };
    if !is_built() {
        return;
    }
    let [few, many] = [1_000, 10_000].map(|total| of_one_among(&valgrind, total));
    let each = (many - few) / 9_000.0;
    measured(&format!(
        "instructions of a change of one endpoint: {few:.0} among 1,000, {many:.0} among 10,000, {each:.0} for each unchanged"
    ));
    assert!(each <= MOST_OF_UNCHANGED, "{each:.0} for each that is unchanged");
}

#[test]
fn workers_are_not_disturbed() {
    /// One change for so many requests: at 2,000 requests a second, 100 changes a second.
    const REQUESTS: u16 = 20;
    let Some(valgrind) = require_tool("valgrind") else { return };
    if !is_built() {
        return;
    }
    let (ads, at) = (FakeAds::start(), addr::free_addr());
    let upstreams = [Upstream::start(), Upstream::start()];
    let [a, b] = [upstreams[0].addr(), upstreams[1].addr()];
    let used = |weight| weighted_routes("routes", &[("used", weight)]);
    ads.set("used", eds_cluster("used"));
    ads.set("used", endpoints("used", &[a, b]));
    ads.set("routes", used(1));
    ads.set("listener", listener("listener", at, "routes"));
    let bootstrap = Bootstrap::new();
    bootstrap.write_value(&ads_bootstrap(ads.addr()));
    let counted = Counted::new(valgrind, &[]);
    let proxy = counted.launch(launch()).start(&bootstrap).unwrap();
    wait::until("a listener", || {
        RawClient::connect(at).and_then(|mut c| c.get("h", "/")).is_ok_and(|a| a.status == 200)
    });
    let mut client = RawClient::connect(at).unwrap();
    let mut run = |change: &dyn Fn(u16)| {
        counted.take(&proxy);
        for round in 1..=CHANGES {
            change(round);
            for _ in 0..REQUESTS {
                assert_eq!(client.get("h", "/").unwrap().status, 200);
            }
        }
        counted.take(&proxy).others / f64::from(CHANGES * REQUESTS)
    };
    run(&|_| {});
    let without = run(&|_| {});
    // The hosts in another order, and the routes with another weight.
    let with = run(&|round| {
        ads.set("used", endpoints("used", &if round % 2 == 0 { [a, b] } else { [b, a] }));
        ads.set("routes", used(u32::from(round) + 1));
    });
    measured(&format!("instructions of a request on the workers: {without:.0}, with changes {with:.0}"));
    assert!(with <= without * 1.05, "{without:.0} without changes, {with:.0} with");
}

/// A proxy with so many clusters, each with an endpoint and a route, which are virtual hosts of one route configuration as a sidecar's
/// are.
fn resident_bytes(total: usize) -> f64 {
    let (ads, at) = (FakeAds::start(), addr::free_addr());
    let mut all = vec![("listener".to_owned(), listener("listener", at, "routes"))];
    let mut outbound = RouteConfiguration { name: "routes".into(), ..Default::default() };
    for number in 0..total {
        let cluster = format!("outbound|9080||service-{number}.default.svc.cluster.local");
        let routes: RouteConfiguration = unpack(&weighted_routes("", &[(&cluster, 1)])).unwrap();
        outbound.virtual_hosts.push(VirtualHost {
            name: format!("service-{number}"),
            domains: vec![format!("service-{number}"), format!("service-{number}.default.svc.cluster.local")],
            ..routes.virtual_hosts.into_iter().next().unwrap()
        });
        all.push((cluster.clone(), eds_cluster(&cluster)));
        all.push((cluster.clone(), endpoints(&cluster, &[host(80)])));
    }
    all.push(("routes".into(), pack(&outbound)));
    ads.set_all(&all);
    let bootstrap = Bootstrap::new();
    bootstrap.write_value(&ads_bootstrap(ads.addr()));
    let proxy = launch().start(&bootstrap).unwrap();
    let asked = |host: &str| RawClient::connect(at).and_then(|mut client| client.get(host, "/"));
    let last = format!("service-{}", total - 1);
    // Nobody is at the endpoints.
    wait::until("the routes", || asked(&last).is_ok_and(|answer| answer.status == 503));
    proxy.resident_bytes() as f64
}

#[test]
fn a_cluster_with_its_endpoint_and_route_is_small() {
    if !is_built() {
        return;
    }
    let [few, many] = TOTALS.map(resident_bytes);
    let each = (many - few) / (TOTALS[1] - TOTALS[0]) as f64;
    measured(&format!("{:.1} KiB for each cluster with its endpoint and its route", each / 1024.0));
    assert!(each <= MOST_BYTES, "{:.1} KiB each", each / 1024.0);
}

#[test]
fn ten_thousand_endpoints_are_one_cluster() {
    let hosts: Vec<SocketAddr> =
        (0..10_000u32).map(|number| (std::net::Ipv4Addr::from(0x7f00_0001 + number), 9).into()).collect();
    let (ads, at) = (FakeAds::start(), addr::free_addr());
    ads.set("big", eds_cluster("big"));
    ads.set("big", endpoints("big", &hosts));
    ads.set("routes", weighted_routes("routes", &[("big", 1)]));
    ads.set("listener", listener("listener", at, "routes"));
    let bootstrap = Bootstrap::new();
    bootstrap.write_value(&ads_bootstrap(ads.addr()));
    let proxy = Proxy::outrigger(&bootstrap);
    wait::until("all of them", || proxy.stat("cluster.big.membership_healthy") == Some(10_000));
    // One of them is another one: the others are what they were.
    let upstream = Upstream::start();
    let mut fewer = hosts.clone();
    fewer[5_000] = upstream.addr();
    ads.set("big", endpoints("big", &fewer));
    wait::until("the change", || proxy.admin("/clusters").text().contains(&upstream.addr().to_string()));
    assert_eq!(proxy.stat("cluster.big.membership_total"), Some(10_000));
    ads.set("big", endpoints("big", &[upstream.addr()]));
    wait::until("one is left", || proxy.stat("cluster.big.membership_total") == Some(1));
    let answer = RawClient::connect(at).unwrap().get("h", "/").unwrap();
    assert_eq!(answer.status, 200);
}
