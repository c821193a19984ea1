//! A whole proxy under load, and a control plane that changes everything all the time: listeners, routes, clusters, endpoints and
//! secrets, each resource of a change by itself and in random order. No request fails, and in the end the proxy is where it should be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use fastrand::Rng;
use outrigger_tests::ads::FakeAds;
use outrigger_tests::certs::{Leaf, Pki};
use outrigger_tests::proxy::{Engine, Launch};
use outrigger_tests::resources::{
    ads_bootstrap, eds_cluster, endpoints, listener, server_tls, tls_secret, weighted_routes,
};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Bootstrap, Proxy, RawClient, Tls, Upstream, addr, wait};
use outrigger_xds_api::resource::{pack, unpack};
use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::listener::v3::Listener;
use outrigger_xds_api::wire::protobuf::{Any, Duration};
use serde_json::json;

/// Resources that are set or removed in each test.
const CHANGES: usize = 10_000;
/// So often it is looked at whether the proxy is where it should be.
const CHECKED_EACH: usize = 500;
const UPSTREAMS: usize = 4;
const SERVER: &str = "server.default.svc.cluster.local";

/// What the proxy should have. Everything that is named is there, and each cluster has an endpoint.
#[derive(Clone, Default)]
struct Model {
    listeners: BTreeMap<String, ListenerModel>,
    /// Clusters with their weights.
    routes: BTreeMap<String, BTreeMap<String, u32>>,
    clusters: BTreeMap<String, ClusterModel>,
    secrets: BTreeMap<String, usize>,
    /// For new names and values.
    counter: u32,
}

#[derive(Clone)]
struct ListenerModel {
    at: SocketAddr,
    /// Clients use it, so it never goes.
    is_loaded: bool,
    routes: String,
    secret: Option<String>,
    stat_prefix: u32,
}

#[derive(Clone)]
struct ClusterModel {
    connect_timeout_s: i64,
    endpoints: BTreeSet<usize>,
}

fn any<'a, T>(rng: &mut Rng, map: &'a BTreeMap<String, T>) -> &'a String {
    map.keys().nth(rng.usize(..map.len())).unwrap()
}

fn some_endpoints(rng: &mut Rng) -> BTreeSet<usize> {
    let chosen: BTreeSet<usize> = (0..UPSTREAMS).filter(|_| rng.bool()).collect();
    if chosen.is_empty() { BTreeSet::from([rng.usize(..UPSTREAMS)]) } else { chosen }
}

impl Model {
    fn name(&mut self, kind: &str) -> String {
        self.counter += 1;
        format!("{kind}-{}", self.counter)
    }

    fn start(loaded: &[(SocketAddr, bool)], rng: &mut Rng) -> Self {
        let mut model = Self::default();
        model.secrets.insert("secret-0".into(), 0);
        model.add_cluster(rng);
        let routes = model.add_routes(rng);
        for &(at, is_tls) in loaded {
            let name = model.name("listener");
            let secret = is_tls.then(|| "secret-0".to_owned());
            let loaded =
                ListenerModel { at, is_loaded: true, routes: routes.clone(), secret, stat_prefix: 0 };
            model.listeners.insert(name, loaded);
        }
        model
    }

    fn add_cluster(&mut self, rng: &mut Rng) -> String {
        let name = self.name("cluster");
        let cluster = ClusterModel { connect_timeout_s: 5, endpoints: some_endpoints(rng) };
        self.clusters.insert(name.clone(), cluster);
        name
    }

    fn some_clusters(&self, rng: &mut Rng) -> BTreeMap<String, u32> {
        (0..rng.usize(1..4)).map(|_| (any(rng, &self.clusters).clone(), rng.u32(1..100))).collect()
    }

    fn add_routes(&mut self, rng: &mut Rng) -> String {
        let (name, clusters) = (self.name("routes"), self.some_clusters(rng));
        self.routes.insert(name.clone(), clusters);
        name
    }

    fn some_listener(&mut self, rng: &mut Rng) -> &mut ListenerModel {
        let name = any(rng, &self.listeners).clone();
        self.listeners.get_mut(&name).unwrap()
    }

    /// One thing that an operator may want.
    fn mutate(&mut self, rng: &mut Rng) {
        match rng.u32(..14) {
            0..3 => {
                let name = any(rng, &self.clusters).clone();
                self.clusters.get_mut(&name).unwrap().endpoints = some_endpoints(rng);
            }
            3 | 4 => {
                let (name, clusters) = (any(rng, &self.routes).clone(), self.some_clusters(rng));
                self.routes.insert(name, clusters);
            }
            5 => {
                let routes = any(rng, &self.routes).clone();
                self.some_listener(rng).routes = routes;
            }
            6 => {
                let cluster = self.add_cluster(rng);
                let routes = any(rng, &self.routes).clone();
                self.routes.get_mut(&routes).unwrap().insert(cluster, 50);
            }
            7 if self.clusters.len() > 2 => {
                let gone = any(rng, &self.clusters).clone();
                self.clusters.remove(&gone);
                let names: Vec<String> = self.routes.keys().cloned().collect();
                for name in names {
                    let other = any(rng, &self.clusters).clone();
                    let clusters = self.routes.get_mut(&name).unwrap();
                    if let Some(weight) = clusters.remove(&gone) {
                        clusters.insert(other, weight);
                    }
                }
            }
            8 => {
                let routes = self.add_routes(rng);
                self.some_listener(rng).routes = routes;
            }
            9 if self.routes.len() > 1 => {
                let gone = any(rng, &self.routes).clone();
                self.routes.remove(&gone);
                let other = any(rng, &self.routes).clone();
                let users = self.listeners.values_mut().filter(|listener| listener.routes == gone);
                users.for_each(|listener| listener.routes.clone_from(&other));
            }
            10 => {
                let name = any(rng, &self.clusters).clone();
                self.clusters.get_mut(&name).unwrap().connect_timeout_s = rng.i64(3..30);
            }
            11 => {
                let leaf = rng.usize(..LEAVES);
                let name = any(rng, &self.secrets).clone();
                self.secrets.insert(name, leaf);
            }
            12 => {
                // Under another name, and the old one goes.
                let (old, new) = (any(rng, &self.secrets).clone(), self.name("secret"));
                let leaf = self.secrets.remove(&old).unwrap();
                self.secrets.insert(new.clone(), leaf);
                let users =
                    self.listeners.values_mut().filter(|listener| listener.secret.as_ref() == Some(&old));
                users.for_each(|listener| listener.secret = Some(new.clone()));
            }
            _ => {
                let spare = self.listeners.iter().find(|(_, listener)| !listener.is_loaded);
                match (spare.map(|(name, _)| name.clone()), rng.bool()) {
                    (Some(name), true) => drop(self.listeners.remove(&name)),
                    (_, true) => {
                        let (name, routes) = (self.name("listener"), any(rng, &self.routes).clone());
                        let (at, stat_prefix) = (addr::free_addr(), 0);
                        let spare = ListenerModel { at, is_loaded: false, routes, secret: None, stat_prefix };
                        self.listeners.insert(name, spare);
                    }
                    (_, false) => self.some_listener(rng).stat_prefix = rng.u32(..3),
                }
            }
        }
    }

    /// All resources of it, by type and name.
    fn resources(&self, world: &World) -> BTreeMap<(String, String), Any> {
        let mut all = Vec::new();
        for (name, model) in &self.listeners {
            all.push((name, model.resource(name)));
        }
        for (name, clusters) in &self.routes {
            let clusters: Vec<_> = clusters.iter().map(|(name, weight)| (name.as_str(), *weight)).collect();
            all.push((name, weighted_routes(name, &clusters)));
        }
        for (name, model) in &self.clusters {
            let mut cluster: Cluster = unpack(&eds_cluster(name)).unwrap();
            cluster.connect_timeout = Some(Duration { seconds: model.connect_timeout_s, nanos: 0 });
            all.push((name, pack(&cluster)));
            let at: Vec<SocketAddr> =
                model.endpoints.iter().map(|&number| world.upstreams[number].addr()).collect();
            all.push((name, endpoints(name, &at)));
        }
        for (name, &leaf) in &self.secrets {
            all.push((name, tls_secret(name, &world.leaves[leaf])));
        }
        all.into_iter()
            .map(|(name, resource)| ((resource.type_url.clone(), name.clone()), resource))
            .collect()
    }

    /// Who may answer at a listener.
    fn answers(&self, listener: &ListenerModel) -> BTreeSet<String> {
        let clusters = self.routes[&listener.routes].keys();
        clusters.flat_map(|name| &self.clusters[name].endpoints).map(ToString::to_string).collect()
    }
}

impl ListenerModel {
    fn resource(&self, name: &str) -> Any {
        // The statistics' prefix is part of the filter: another one is another filter chain.
        let mut made: Listener =
            unpack(&listener(&format!("p{}", self.stat_prefix), self.at, &self.routes)).unwrap();
        made.name = name.to_owned();
        made.filter_chains[0].transport_socket = self.secret.as_deref().map(server_tls);
        pack(&made)
    }

    fn connect(&self, tls: &Tls) -> std::io::Result<RawClient> {
        match self.secret {
            Some(_) => RawClient::connect_tls(self.at, tls),
            None => RawClient::connect(self.at),
        }
    }
}

const LEAVES: usize = 3;

struct World {
    ads: FakeAds,
    upstreams: Vec<Upstream>,
    leaves: Vec<Leaf>,
    tls: Tls,
    _pki: Pki,
}

impl World {
    fn new() -> Self {
        let upstreams = (0..UPSTREAMS).map(|number| {
            let upstream = Upstream::start();
            upstream.answer(Reply::status(200, &number.to_string()));
            upstream
        });
        let pki = Pki::new();
        Self {
            ads: FakeAds::start(),
            upstreams: upstreams.collect(),
            leaves: (0..LEAVES).map(|_| pki.trusted.leaf("server")).collect(),
            tls: Tls::trusting(&pki.trusted, SERVER),
            _pki: pki,
        }
    }

    fn apply(&self, change: &Change) {
        match change {
            Change::Set(name, resource) => self.ads.set(name, resource.clone()),
            Change::Remove(type_url, name) => self.ads.remove(type_url, name),
        }
    }
}

enum Change {
    Set(String, Any),
    Remove(String, String),
}

/// What leads from one to the other, in random order.
fn difference(
    old: &BTreeMap<(String, String), Any>,
    new: &BTreeMap<(String, String), Any>,
    rng: &mut Rng,
) -> Vec<Change> {
    let set = new.iter().filter(|(key, resource)| old.get(*key) != Some(*resource));
    let set = set.map(|((_, name), resource)| Change::Set(name.clone(), resource.clone()));
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let gone = gone.map(|(type_url, name)| Change::Remove(type_url.clone(), name.clone()));
    let mut changes: Vec<Change> = set.chain(gone).collect();
    rng.shuffle(&mut changes);
    changes
}

/// Asks without a pause. A connection that is told to end is followed by a new one.
fn ask(listener: &ListenerModel, tls: &Tls, stop: &AtomicBool, answered: &AtomicUsize) -> Result<(), String> {
    while !stop.load(Ordering::Acquire) {
        let mut client = listener.connect(tls).map_err(|error| format!("connect: {error}"))?;
        while !stop.load(Ordering::Acquire) {
            let answer = client.get("h", "/").map_err(|error| format!("{}: {error}", listener.at))?;
            if answer.status != 200 {
                return Err(format!("{}: {answer:?}, {}", listener.at, answer.text()));
            }
            answered.fetch_add(1, Ordering::AcqRel);
            if answer.headers.lists("connection", "close") {
                break;
            }
        }
    }
    Ok(())
}

fn run(api_type: &str) {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut rng = Rng::with_seed(seed);
    let world = Arc::new(World::new());
    let loaded = [(addr::free_addr(), false), (addr::free_addr(), false), (addr::free_addr(), true)];
    let mut model = Model::start(&loaded, &mut rng);
    let mut resources = model.resources(&world);
    resources.iter().for_each(|((_, name), resource)| world.ads.set(name, resource.clone()));
    let mut config = ads_bootstrap(world.ads.addr());
    config["dynamic_resources"]["ads_config"]["api_type"] = json!(api_type);
    let bootstrap = Bootstrap::new();
    bootstrap.write_value(&config);
    let proxy = Launch::new(Engine::Outrigger).workers(2).start(&bootstrap).unwrap();
    let listeners: Vec<ListenerModel> = model.listeners.values().cloned().collect();
    wait::until("all listeners", || listeners.iter().all(|listener| listener.connect(&world.tls).is_ok()));

    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<JoinHandle<Result<(), String>>> = listeners
        .iter()
        .map(|listener| {
            let (world, stop, answered) = (world.clone(), stop.clone(), answered.clone());
            let listener = listener.clone();
            thread::spawn(move || ask(&listener, &world.tls, &stop, &answered))
        })
        .collect();

    let (mut done, mut checked) = (0, 0);
    while done < CHANGES && !clients.iter().any(JoinHandle::is_finished) {
        (0..rng.usize(1..4)).for_each(|_| model.mutate(&mut rng));
        let next = model.resources(&world);
        for change in difference(&resources, &next, &mut rng) {
            world.apply(&change);
            done += 1;
            // Sometimes the next comes at once, sometimes after a few requests.
            if rng.u32(..4) == 0 {
                let goal = answered.load(Ordering::Acquire) + rng.usize(..20);
                wait::until("the load goes on", || {
                    answered.load(Ordering::Acquire) >= goal || clients.iter().any(JoinHandle::is_finished)
                });
            }
        }
        resources = next;
        if done - checked >= CHECKED_EACH && !clients.iter().any(JoinHandle::is_finished) {
            checked = done;
            check(&model, &world, &proxy, seed);
        }
    }
    stop.store(true, Ordering::Release);
    let failures: Vec<String> =
        clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect();
    assert!(
        failures.is_empty(),
        "SEED={seed}, after {done} changes: {failures:#?}\n{}",
        tail(&proxy.stderr())
    );
    let refused: Vec<_> =
        world.ads.verdicts().into_iter().filter(|verdict| verdict.error.is_some()).collect();
    assert!(refused.is_empty(), "SEED={seed}: {refused:#?}");
}

/// Waits until the proxy answers as it should at every listener.
fn check(model: &Model, world: &World, proxy: &Proxy, seed: u64) {
    let is_there = |listener: &ListenerModel| {
        let answers = model.answers(listener);
        let Ok(mut client) = listener.connect(&world.tls) else { return false };
        (0..10).all(|_| {
            // One that drains ends in between.
            client.get("h", "/").is_ok_and(|answer| answer.status == 200 && answers.contains(&answer.text()))
        })
    };
    let arrived = wait::within(wait::PATIENCE, || model.listeners.values().all(is_there).then_some(()));
    assert!(arrived.is_some(), "SEED={seed}: the proxy is not where it should be\n{}", tail(&proxy.stderr()));
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

#[test]
fn incremental() {
    run("DELTA_GRPC");
}

#[test]
fn state_of_the_world() {
    run("GRPC");
}
