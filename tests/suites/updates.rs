//! Configuration that changes under load: not one request fails and no connection is closed, in whatever order the
//! resources of a change arrive.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, SocketAddr};

use outrigger_tests::ads::FakeAds;
use outrigger_tests::load::Load;
use outrigger_tests::netns_redirect::{CAPTURE_PORT, UNOWNED, as_proxy, redirected};
use outrigger_tests::proxy::Launch;
use outrigger_tests::resources::{
    CLUSTER, ENDPOINT, LISTENER, ROUTE, ads_bootstrap, eds_cluster, endpoints, listener, routes,
};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Bootstrap, Engine, Proxy, RawClient, Upstream, addr, wait};
use outrigger_xds_api::resource::{pack, unpack};
use outrigger_xds_api::wire::listener::v3::Listener;
use outrigger_xds_api::wire::protobuf::{Any, BoolValue, Duration};

struct Mesh {
    ads: FakeAds,
    upstreams: Vec<Upstream>,
    addr: SocketAddr,
    _proxy: Proxy,
    _bootstrap: Bootstrap,
}

impl Mesh {
    /// A proxy whose route `routes` names the cluster `first` at upstream 0.
    fn start() -> Self {
        let addr = addr::free_addr();
        let mesh = Self::start_with(addr, listener("ingress", addr, "routes"), Proxy::outrigger);
        mesh.wait_for("0");
        mesh
    }

    /// The same with this listener, where connections to `addr` come to it.
    fn start_with(addr: SocketAddr, listener: Any, start: impl Fn(&Bootstrap) -> Proxy) -> Self {
        let upstreams: Vec<Upstream> = ["0", "1", "2"]
            .map(|name| {
                let upstream = Upstream::start();
                upstream.answer(Reply::status(200, name));
                upstream
            })
            .into();
        let ads = FakeAds::start();
        ads.set("first", eds_cluster("first"));
        ads.set("first", endpoints("first", &[upstreams[0].addr()]));
        ads.set("routes", routes("routes", "first"));
        ads.set("ingress", listener);
        let bootstrap = Bootstrap::new();
        bootstrap.write_value(&ads_bootstrap(ads.addr()));
        let proxy = start(&bootstrap);
        Mesh { ads, upstreams, addr, _proxy: proxy, _bootstrap: bootstrap }
    }

    fn wait_for(&self, name: &str) {
        wait::until(&format!("upstream {name} answers"), || {
            let answer = RawClient::connect(self.addr).and_then(|mut client| client.get("h", "/"));
            answer.is_ok_and(|response| response.status == 200 && response.text() == name)
        });
    }
}

#[test]
fn endpoints_change_under_load() {
    let mesh = Mesh::start();
    let load = Load::start(mesh.addr, "h", 4);
    for round in 0..300 {
        let chosen: Vec<SocketAddr> =
            mesh.upstreams.iter().filter(|_| fastrand::bool()).map(Upstream::addr).collect();
        let chosen = if chosen.is_empty() { vec![mesh.upstreams[round % 3].addr()] } else { chosen };
        mesh.ads.set("first", endpoints("first", &chosen));
        load.more(10);
    }
    mesh.ads.set("first", endpoints("first", &[mesh.upstreams[2].addr()]));
    mesh.wait_for("2");
    assert!(load.finish() > 3_000);
}

#[test]
fn a_route_moves_to_new_clusters_under_load_whatever_comes_first() {
    let mesh = Mesh::start();
    let load = Load::start(mesh.addr, "h", 4);
    let mut old = "first".to_owned();
    for round in 0..100 {
        let name = format!("cluster-{round}");
        let upstream = &mesh.upstreams[(round + 1) % 3];
        let mut steps: [(u8, &dyn Fn()); 3] = [
            (0, &|| mesh.ads.set(&name, eds_cluster(&name))),
            (1, &|| mesh.ads.set(&name, endpoints(&name, &[upstream.addr()]))),
            (2, &|| mesh.ads.set("routes", routes("routes", &name))),
        ];
        fastrand::shuffle(&mut steps);
        for (_, step) in steps {
            step();
            load.more(3);
        }
        mesh.wait_for(&((round + 1) % 3).to_string());
        // The old cluster goes; nothing names it any more.
        mesh.ads.remove(CLUSTER, &old);
        mesh.ads.remove(ENDPOINT, &old);
        old = name;
        load.more(5);
    }
    load.finish();
}

#[test]
fn a_cluster_that_a_route_still_names_serves_on_when_it_is_removed() {
    let mesh = Mesh::start();
    let load = Load::start(mesh.addr, "h", 2);
    mesh.ads.remove(CLUSTER, "first");
    load.more(200);
    mesh.ads.set("second", eds_cluster("second"));
    mesh.ads.set("second", endpoints("second", &[mesh.upstreams[1].addr()]));
    mesh.ads.set("routes", routes("routes", "second"));
    mesh.wait_for("1");
    load.more(200);
    load.finish();
}

#[test]
fn equal_resources_again_change_nothing() {
    let mesh = Mesh::start();
    let load = Load::start(mesh.addr, "h", 2);
    let connections = || mesh.upstreams[0].connections();
    load.more(50);
    let before = connections();
    for _ in 0..50 {
        mesh.ads.set("first", eds_cluster("first"));
        mesh.ads.set("first", endpoints("first", &[mesh.upstreams[0].addr()]));
        mesh.ads.set("routes", routes("routes", "first"));
        mesh.ads.set("ingress", listener("ingress", mesh.addr, "routes"));
        mesh.ads.clear_verdicts();
        load.more(5);
    }
    mesh.ads.set("routes", routes("routes", "first"));
    assert_eq!(mesh.ads.wait_verdict(ROUTE).error, None);
    load.finish();
    // Pooled connections were kept too: the same two clients need no new ones.
    assert_eq!(connections(), before);
}

/// A listener that takes captured connections: the one that hands them over, or one that is handed some.
fn captured(name: &str, ip: IpAddr, port: u16, routes: &str, change: impl FnOnce(&mut Listener)) -> Any {
    let any = listener(name, SocketAddr::new(ip, port), routes);
    let mut listener: Listener = unpack(&any).unwrap();
    change(&mut listener);
    pack(&listener)
}

#[test]
fn a_listener_that_is_not_bound_changes_and_moves_under_load() {
    redirected(|_| {
        let any = IpAddr::from([0, 0, 0, 0]);
        let here = |name: &str, ip: IpAddr, seconds: i64| {
            captured(name, ip, 80, "routes", |listener| {
                listener.bind_to_port = Some(BoolValue { value: false });
                listener.listener_filters_timeout = Some(Duration { seconds, nanos: 0 });
            })
        };
        let virtual_listener = |seconds: i64| {
            captured("virtual", any, CAPTURE_PORT, "elsewhere", |listener| {
                listener.use_original_dst = Some(BoolValue { value: true });
                listener.listener_filters_timeout = Some(Duration { seconds, nanos: 0 });
            })
        };
        let addr = SocketAddr::new(UNOWNED[0], 80);
        let mesh = Mesh::start_with(addr, here("ingress", UNOWNED[0], 15), |bootstrap| {
            as_proxy(Launch::new(Engine::Outrigger)).start(bootstrap).expect("our own program")
        });
        mesh.ads.set("second", eds_cluster("second"));
        mesh.ads.set("second", endpoints("second", &[mesh.upstreams[1].addr()]));
        mesh.ads.set("elsewhere", routes("elsewhere", "second"));
        mesh.ads.set("virtual", virtual_listener(15));
        mesh.wait_for("0");
        let load = Load::start(addr, "h", 4);
        for round in 0..60 {
            match round % 3 {
                0 => mesh.ads.set("ingress", here("ingress", UNOWNED[0], round + 1)),
                1 => mesh.ads.set("virtual", virtual_listener(round + 1)),
                _ => mesh.ads.set("ingress", here("ingress", any, round + 1)),
            }
            // No new connection is handed elsewhere meanwhile, and none is closed.
            let mut client = RawClient::connect(addr).unwrap();
            assert_eq!(client.get("h", "/").unwrap().text(), "0", "round {round}");
            load.more(10);
        }
        load.finish();
        // A renamed one takes over: each new connection finds the old or the new one.
        let names = ["ingress", "renamed"];
        for round in 0..30 {
            let (old, new) = (names[round % 2], names[(round + 1) % 2]);
            mesh.ads.clear_verdicts();
            mesh.ads.rename(old, new, here(new, UNOWNED[0], 15));
            while mesh.ads.verdicts().is_empty() {
                let mut client = RawClient::connect(addr).unwrap();
                assert_eq!(client.get("h", "/").unwrap().text(), "0", "round {round}");
            }
        }
        // Without it they go to the routes of the listener that captures them.
        mesh.ads.remove(LISTENER, "ingress");
        mesh.wait_for("1");
        mesh.ads.set("ingress", here("ingress", any, 1));
        mesh.wait_for("0");
    });
}
