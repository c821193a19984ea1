//! A control plane that sends nonsense, stalls, closes, is absent: the last good state serves on.

use std::net::SocketAddr;

use outrigger_tests::ads::{Conduct, FakeAds};
use outrigger_tests::proxy::Launch;
use outrigger_tests::resources::{
    CLUSTER, ENDPOINT, LISTENER, ROUTE, ads_bootstrap, eds_cluster, endpoints, invalid_routes, listener,
    routes,
};
use outrigger_tests::upstream::{Reply, TcpBehaviour, TcpUpstream};
use outrigger_tests::{Bootstrap, Engine, Proxy, RawClient, Upstream, addr, client, wait};

struct Mesh {
    ads: FakeAds,
    proxy: Proxy,
    _bootstrap: Bootstrap,
    upstream: Upstream,
    addr: SocketAddr,
}

/// Sets a listener, its routes, a cluster and its one endpoint.
fn publish(ads: &FakeAds, at: SocketAddr, upstream: &Upstream) {
    ads.set("up", eds_cluster("up"));
    ads.set("up", endpoints("up", &[upstream.addr()]));
    ads.set("routes", routes("routes", "up"));
    ads.set("ingress", listener("ingress", at, "routes"));
}

fn named_upstream(name: &'static str) -> Upstream {
    let upstream = Upstream::start();
    upstream.answer(Reply::status(200, name));
    upstream
}

impl Mesh {
    /// A proxy that got everything from a control plane and serves.
    fn start() -> Self {
        let (ads, upstream, addr) = (FakeAds::start(), named_upstream("first"), addr::free_addr());
        publish(&ads, addr, &upstream);
        let bootstrap = Bootstrap::new();
        bootstrap.write_value(&ads_bootstrap(ads.addr()));
        let proxy = Proxy::outrigger(&bootstrap);
        let mesh = Mesh { ads, proxy, _bootstrap: bootstrap, upstream, addr };
        mesh.wait_for("first");
        mesh
    }

    fn wait_for(&self, answer: &str) {
        wait::until(&format!("{answer} answers"), || try_get(self.addr) == Some(answer.into()));
    }

    /// Many requests, all answered by `answer`.
    #[track_caller]
    fn serves(&self, answer: &str) {
        for _ in 0..50 {
            assert_eq!(client::get(self.addr, "h", "/").text(), answer);
        }
    }
}

fn try_get(addr: SocketAddr) -> Option<String> {
    let response = RawClient::connect(addr).ok()?.get("h", "/").ok()?;
    (response.status == 200).then(|| response.text())
}

#[test]
fn every_type_is_acknowledged() {
    let mesh = Mesh::start();
    for type_url in [LISTENER, ROUTE, CLUSTER, ENDPOINT] {
        assert_eq!(mesh.ads.wait_verdict(type_url).error, None, "{type_url}");
    }
    assert_eq!(mesh.ads.streams(), 1);
}

#[test]
fn an_invalid_resource_is_refused_by_name_and_the_last_good_one_serves_on() {
    let mesh = Mesh::start();
    mesh.ads.clear_verdicts();
    mesh.ads.set("routes", invalid_routes("routes"));
    let reason = mesh.ads.wait_nack(ROUTE);
    assert!(reason.contains("routes") && reason.contains("domains"), "{reason}");
    mesh.serves("first");
    // A valid sibling in the same stream still applies.
    let second = named_upstream("second");
    mesh.ads.set("up", endpoints("up", &[second.addr()]));
    mesh.wait_for("second");
    mesh.ads.clear_verdicts();
    mesh.ads.set("routes", routes("routes", "up"));
    assert_eq!(mesh.ads.wait_verdict(ROUTE).error, None);
    mesh.serves("second");
}

#[test]
fn garbage_is_refused_and_the_last_good_state_serves_on() {
    let mesh = Mesh::start();
    for (type_url, name, resource) in [
        (ROUTE, "routes", routes("routes", "up")),
        (CLUSTER, "up", eds_cluster("up")),
        (LISTENER, "ingress", listener("ingress", mesh.addr, "routes")),
    ] {
        mesh.ads.clear_verdicts();
        mesh.ads.conduct(Conduct::Garbage);
        mesh.ads.set(name, resource);
        let reason = mesh.ads.wait_nack(type_url);
        assert!(!reason.is_empty());
        mesh.serves("first");
        mesh.ads.conduct(Conduct::Serve);
    }
}

#[test]
fn a_stalled_control_plane_changes_nothing() {
    let mesh = Mesh::start();
    mesh.ads.conduct(Conduct::Stall);
    let second = named_upstream("second");
    mesh.ads.set("up", endpoints("up", &[second.addr()]));
    mesh.serves("first");
    mesh.ads.conduct(Conduct::Serve);
    mesh.wait_for("second");
}

#[test]
fn a_closed_stream_is_opened_again_and_resumes_with_what_the_proxy_has() {
    let mesh = Mesh::start();
    mesh.ads.close_streams();
    mesh.serves("first");
    wait::until("a second stream", || mesh.ads.streams() >= 2);
    wait::until("it resumes with versions", || {
        mesh.ads.first_requests().iter().any(|request| {
            request.type_url == CLUSTER && request.initial_resource_versions.contains_key("up")
        })
    });
    let second = named_upstream("second");
    mesh.ads.set("up", endpoints("up", &[second.addr()]));
    mesh.wait_for("second");
}

#[test]
fn streams_that_close_after_each_answer_still_bring_the_whole_configuration() {
    let (ads, upstream, addr) = (FakeAds::start(), named_upstream("first"), addr::free_addr());
    publish(&ads, addr, &upstream);
    let bootstrap = Bootstrap::new();
    bootstrap.write_value(&ads_bootstrap(ads.addr()));
    ads.conduct(Conduct::CloseAfterAnswer);
    let proxy = Launch::new(Engine::Outrigger).spawn(&bootstrap).unwrap();
    wait::until("several streams were cut", || ads.streams() >= 3);
    ads.conduct(Conduct::Serve);
    wait::until("it serves", || try_get(addr) == Some("first".into()));
    drop(proxy);
}

#[test]
fn an_absent_control_plane_comes_back() {
    let Mesh { ads, proxy, _bootstrap, upstream, addr } = Mesh::start();
    let ads_addr = ads.addr();
    drop(ads);
    for _ in 0..50 {
        assert_eq!(client::get(addr, "h", "/").text(), "first");
    }
    let ads = FakeAds::start_at(ads_addr);
    let second = named_upstream("second");
    publish(&ads, addr, &second);
    wait::until("the new control plane is heard", || try_get(addr) == Some("second".into()));
    drop((proxy, upstream));
}

#[test]
fn a_control_plane_that_does_not_speak_grpc_does_no_harm() {
    let stranger = TcpUpstream::start(TcpBehaviour::Greet(b"220 mail.example.com ESMTP\r\n".to_vec()));
    let bootstrap = Bootstrap::new();
    bootstrap.write_value(&ads_bootstrap(stranger.addr()));
    let mut proxy = Launch::new(Engine::Outrigger).spawn(&bootstrap).unwrap();
    wait::until("it tries more than once", || stranger.connections() >= 2);
    assert!(proxy.is_running());
    wait::until("the admin listener answers", || proxy.try_admin("GET", "/server_info").is_ok());
}

#[test]
fn a_removed_cluster_is_missed_only_by_its_routes() {
    let mesh = Mesh::start();
    mesh.ads.set("other", eds_cluster("other"));
    mesh.ads.set("other", endpoints("other", &[mesh.upstream.addr()]));
    mesh.ads.remove(CLUSTER, "other");
    mesh.serves("first");
    assert_eq!(mesh.proxy.admin("/ready").status, 200);
}
