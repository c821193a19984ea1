//! Our proxy under a control plane that is not ours, in the ways of go-control-plane: both variants, one stream or one a type, its two
//! caches. All that it serves comes from there; updates, removals, refusals and a restart of the server cost no request.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use outrigger_tests::bootstrap::{
    cluster, http_connection_manager, http2_upstream, listener, load_assignment, overlay, to, type_url,
};
use outrigger_tests::certs::{Leaf, Pki};
use outrigger_tests::envoy_sidecar::Variant;
use outrigger_tests::foreign_xds::{Cache, ForeignXds};
use outrigger_tests::load::Load;
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Bootstrap, Proxy, RawClient, Tls, Upstream, addr, wait};
use serde_json::{Value, json};

/// What the server calls the types.
const TYPES: [&str; 6] = ["clusters", "endpoints", "listeners", "routes", "secrets", "extensions"];

/// How the proxy and the server talk.
#[derive(Clone, Copy)]
struct Manner {
    variant: Variant,
    is_aggregated: bool,
    cache: Cache,
}

/// A configuration: what differs between one and the next.
#[derive(Clone)]
struct Config {
    /// Each cluster's upstream, by its number.
    clusters: BTreeMap<&'static str, usize>,
    /// The cluster that all requests go to.
    to: &'static str,
    /// What the TLS listener shows; `None`: there is no such listener.
    leaf: Option<Leaf>,
    /// Of both listeners: no connection ends when it changes.
    stat_prefix: String,
    /// A number for each cluster, so that it changes.
    connect_timeout_s: u32,
    /// What the listeners' first filter writes into responses.
    mark: String,
    /// Clusters that no proxy can take.
    broken: Option<Value>,
}

struct World {
    manner: Manner,
    pki: Pki,
    upstreams: Vec<Upstream>,
    plain: SocketAddr,
    tls: SocketAddr,
    server: ForeignXds,
    proxy: Proxy,
    _bootstrap: Bootstrap,
}

/// What a resource or a bootstrap says about where more comes from.
fn source(manner: Manner) -> Value {
    match manner.is_aggregated {
        true => json!({"ads": {}, "resource_api_version": "V3"}),
        false => json!({"api_config_source": api(manner), "resource_api_version": "V3"}),
    }
}

fn api(manner: Manner) -> Value {
    json!({
        "api_type": manner.variant.api_type(),
        "transport_api_version": "V3",
        "set_node_on_first_message_only": true,
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    })
}

fn resources(
    config: &Config,
    manner: Manner,
    upstreams: &[Upstream],
    plain: SocketAddr,
    tls: SocketAddr,
) -> Value {
    let names = config.clusters.keys();
    let mut clusters: Vec<Value> = names
        .map(|name| {
            json!({
                "name": name, "type": "EDS", "connect_timeout": format!("{}s", config.connect_timeout_s),
                "eds_cluster_config": {"eds_config": source(manner)},
            })
        })
        .collect();
    clusters.extend(config.broken.clone());
    let endpoints =
        config.clusters.iter().map(|(name, &upstream)| load_assignment(name, &[upstreams[upstream].addr()]));
    let manager = |stat_prefix: &str| {
        let mut manager = http_connection_manager(json!([]), json!({"stat_prefix": stat_prefix}));
        let settings = manager["typed_config"].as_object_mut().unwrap();
        settings.remove("route_config");
        settings
            .insert("rds".into(), json!({"route_config_name": "routes", "config_source": source(manner)}));
        let discovered = json!({
            "name": "mark",
            "config_discovery": {
                "config_source": source(manner),
                "type_urls": [type_url("extensions.filters.http.header_mutation.v3.HeaderMutation")],
            },
        });
        settings["http_filters"].as_array_mut().unwrap().insert(0, discovered);
        manager
    };
    let mut listeners = vec![listener("plain", plain, manager(&config.stat_prefix))];
    let mut secrets = Vec::new();
    if let Some(leaf) = &config.leaf {
        let mut with_tls = listener("tls", tls, manager(&config.stat_prefix));
        with_tls["filter_chains"][0]["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": type_url("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
                "common_tls_context": {
                    "tls_certificate_sds_secret_configs": [{"name": "server", "sds_config": source(manner)}],
                },
            },
        });
        listeners.push(with_tls);
        let pem = |file| json!({"inline_string": fs::read_to_string(file).unwrap()});
        let certificate = json!({"certificate_chain": pem(&leaf.chain), "private_key": pem(&leaf.key)});
        secrets.push(json!({"name": "server", "tls_certificate": certificate}));
    }
    let all = json!([{"name": "all", "domains": ["*"], "routes": to(config.to)}]);
    json!({
        "clusters": clusters,
        "endpoints": endpoints.collect::<Vec<_>>(),
        "listeners": listeners,
        "routes": [{"name": "routes", "virtual_hosts": all}],
        "secrets": secrets,
        "extensions": [{"name": "mark", "typed_config": {
            "@type": type_url("extensions.filters.http.header_mutation.v3.HeaderMutation"),
            "mutations": {"response_mutations": [{"append": {"header": {"key": "x-mark", "value": config.mark}}}]},
        }}],
    })
}

impl World {
    /// A proxy that has all of `config`; `None` when Python's gRPC is not installed.
    #[track_caller]
    fn start(manner: Manner) -> Option<(Self, Config)> {
        let pki = Pki::new();
        let upstreams: Vec<Upstream> = ["0", "1", "2"]
            .map(|name| {
                let upstream = Upstream::start();
                upstream.answer(Reply::status(200, name));
                upstream
            })
            .into();
        let config = Config {
            clusters: [("first", 0)].into(),
            to: "first",
            stat_prefix: "tls".into(),
            leaf: Some(pki.trusted.leaf("server")),
            connect_timeout_s: 1,
            mark: "0".into(),
            broken: None,
        };
        let (plain, tls) = (addr::free_addr(), addr::free_addr());
        let server = ForeignXds::start(manner.cache, &resources(&config, manner, &upstreams, plain, tls))?;
        let bootstrap = Bootstrap::new();
        let mut dynamic = json!({"cds_config": source(manner), "lds_config": source(manner)});
        if manner.is_aggregated {
            overlay(&mut dynamic, json!({"ads_config": api(manner)}));
        }
        bootstrap.write_value(&json!({
            "node": {"id": "foreign-1", "cluster": "foreign"},
            "dynamic_resources": dynamic,
            "static_resources": {"clusters": [cluster("xds", &[server.addr()], http2_upstream())]},
        }));
        let proxy = Proxy::outrigger(&bootstrap);
        let world = World { manner, pki, upstreams, plain, tls, server, proxy, _bootstrap: bootstrap };
        Some((world, config))
    }

    fn resources(&self, config: &Config) -> Value {
        resources(config, self.manner, &self.upstreams, self.plain, self.tls)
    }

    #[track_caller]
    fn set(&mut self, config: &Config) {
        let resources = self.resources(config);
        self.server.set(&resources);
    }

    /// Waits until a new connection is answered by this upstream.
    #[track_caller]
    fn wait_for(&self, upstream: usize) {
        let answered = wait::within(wait::PATIENCE, || {
            let response = RawClient::connect(self.plain).ok()?.get("h", "/").ok()?;
            (response.text() == upstream.to_string()).then_some(())
        });
        assert!(
            answered.is_some(),
            "not upstream {upstream}:\n{}\n{}",
            self.proxy.stderr(),
            self.server.stderr()
        );
    }

    /// What the discovered filter writes into a response.
    fn mark(&self) -> Option<String> {
        let response = RawClient::connect(self.plain).ok()?.get("h", "/").ok()?;
        response.headers.get("x-mark").map(str::to_owned)
    }

    /// Whether the TLS listener answers to whom trusts this.
    fn answers_tls(&self, authority: &outrigger_tests::certs::Authority) -> bool {
        let tls = Tls::trusting(authority, "server.default.svc.cluster.local");
        let answer = RawClient::connect_tls(self.tls, &tls).and_then(|mut client| client.get("h", "/"));
        answer.is_ok_and(|response| response.status == 200)
    }

    /// Waits until the proxy has answered everything that it was sent, and gives the errors in the answers.
    #[track_caller]
    fn wait_answered(&self) -> Vec<String> {
        let nonces = |kind: &str| -> Vec<(u64, String, String)> {
            let events = self.server.events(kind).into_iter();
            let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
            events.map(|e| (e["stream"].as_u64().unwrap(), text(&e, "type"), text(&e, "nonce"))).collect()
        };
        let answered = wait::within(wait::PATIENCE, || {
            let (sent, answered) = (nonces("response"), nonces("request"));
            sent.iter().all(|nonce| answered.contains(nonce)).then_some(())
        });
        assert!(answered.is_some(), "not all is answered:\n{}", self.proxy.stderr());
        let requests = self.server.events("request");
        requests.iter().filter_map(|request| request["error"].as_str().map(str::to_owned)).collect()
    }

    /// What was sent of a type: the names of each response.
    fn sent(&self, of: &str) -> Vec<Value> {
        let responses = self.server.events("response").into_iter();
        responses
            .filter(|response| response["type"] == of)
            .map(|response| response["resources"].clone())
            .collect()
    }
}

fn follows(manner: Manner) {
    let Some((mut world, mut config)) = World::start(manner) else { return };
    world.wait_for(0);
    wait::until("TLS", || world.answers_tls(&world.pki.trusted));
    assert!(!world.answers_tls(&world.pki.foreign));
    let load = Load::start(world.plain, "h", 2);
    takes_updates(&mut world, &mut config, &load);
    refuses_one_cluster(&mut world, &mut config);
    resumes(&mut world, &mut config, &load);
    // A listener goes, and its secret.
    config.leaf = None;
    world.set(&config);
    wait::until("the listener is gone", || RawClient::connect(world.tls).is_err());
    load.more(50);
    assert_eq!(world.wait_answered(), Vec::<String>::new());
    assert_eq!(world.server.stderr(), "");
    load.finish();
}

fn takes_updates(world: &mut World, config: &mut Config, load: &Load) {
    for round in 1..=6 {
        // Endpoints alone.
        *config.clusters.get_mut(config.to).unwrap() = round % 3;
        world.set(config);
        world.wait_for(round % 3);
        // The configuration of a filter.
        assert_eq!(world.mark(), Some(config.mark.clone()), "no filter, or another one");
        config.mark = round.to_string();
        world.set(config);
        wait::until("the filter is another one", || world.mark() == Some(config.mark.clone()));
        // A changed cluster and listener.
        config.connect_timeout_s += 1;
        config.stat_prefix = format!("tls-{round}");
        world.set(config);
        // The route goes to a new cluster, and the old one goes at the same moment.
        let (old, new) = if config.to == "first" { ("first", "second") } else { ("second", "first") };
        config.clusters = [(new, (round + 1) % 3)].into();
        config.to = new;
        world.set(config);
        world.wait_for((round + 1) % 3);
        world.wait_answered();
        // Now and then it comes back before it is gone.
        if round % 3 == 0 {
            let is_gone = || !world.proxy.admin("/clusters").text().contains(&format!("{old}::"));
            wait::until("the old cluster is gone", is_gone);
        }
        load.more(50);
    }
    assert_eq!(world.wait_answered(), Vec::<String>::new());
    // Another certificate, of another authority.
    config.leaf = Some(world.pki.foreign.leaf("server"));
    world.set(config);
    wait::until("another certificate", || world.answers_tls(&world.pki.foreign));
    assert!(!world.answers_tls(&world.pki.trusted));
}

/// The server is told which one and why, its sibling that came with it is in use, and it is not sent again before something
/// changes.
fn refuses_one_cluster(world: &mut World, config: &mut Config) {
    config.broken = Some(json!({"name": "broken", "type": "STATIC", "connect_timeout": "-1s"}));
    config.connect_timeout_s = 77;
    world.set(config);
    let errors =
        wait::eventually("a refusal", || Some(world.wait_answered()).filter(|errors| !errors.is_empty()));
    assert!(errors.iter().all(|e| e.contains("broken") && e.contains("connect_timeout")), "{errors:?}");
    let dump = world.proxy.admin("/config_dump").text();
    assert!(dump.contains("\"77s\""), "the valid sibling was refused too: {dump}");
    let sent = world.sent("clusters").len();
    *config.clusters.get_mut(config.to).unwrap() = 2;
    world.set(config);
    world.wait_for(2);
    assert_eq!(world.sent("clusters").len(), sent);
    config.broken = None;
    world.set(config);
    wait::until("it is mended", || world.sent("clusters").len() > sent);
    assert_eq!(world.wait_answered(), errors, "what was mended was refused again");
}

/// The server is away for a while, and comes back with what it had.
fn resumes(world: &mut World, config: &mut Config, load: &Load) {
    world.server.kill();
    load.more(200);
    let resources = world.resources(config);
    world.server.restart(&resources);
    let once = |names: &[&str]| vec![json!(names)];
    let listeners = &["plain", "tls"];
    let mut expected = match (world.manner.variant, world.manner.cache) {
        // Its versions are of its own process.
        (Variant::Sotw, Cache::Linear) => {
            let names: [&[&str]; 6] =
                [&[config.to], &[config.to], listeners, &["routes"], &["server"], &["mark"]];
            names.map(once)
        }
        // What a stream asks for by name for the first time is sent, whatever version the client has.
        (Variant::Sotw, Cache::Snapshot) => {
            [vec![], once(&[config.to]), vec![], once(&["routes"]), once(&["server"]), once(&["mark"])]
        }
        // A wildcard is answered, with nothing.
        (Variant::Delta, _) => [once(&[]), vec![], once(&[]), vec![], vec![], vec![]],
    };
    wait::until("the proxy is back", || TYPES.map(|of| world.sent(of)) == expected);
    *config.clusters.get_mut(config.to).unwrap() = 1;
    world.set(config);
    world.wait_for(1);
    expected[1].push(json!([config.to]));
    assert_eq!(TYPES.map(|of| world.sent(of)), expected);
}

/// The server of these tests has a rule of its own for what it serves.
#[test]
fn a_snapshot_that_does_not_fit_together_is_not_served() {
    let Some(mut server) = ForeignXds::start(Cache::Snapshot, &json!({})) else { return };
    let torn = json!({"clusters": [{"name": "first", "type": "EDS"}], "endpoints": []});
    assert!(server.try_set(&torn).unwrap_err().contains("endpoints"));
}

#[test]
fn state_of_the_world_from_a_snapshot_on_one_stream() {
    follows(Manner { variant: Variant::Sotw, is_aggregated: true, cache: Cache::Snapshot });
}

#[test]
fn state_of_the_world_from_a_snapshot_on_separate_streams() {
    follows(Manner { variant: Variant::Sotw, is_aggregated: false, cache: Cache::Snapshot });
}

#[test]
fn state_of_the_world_from_collections_on_one_stream() {
    follows(Manner { variant: Variant::Sotw, is_aggregated: true, cache: Cache::Linear });
}

#[test]
fn incremental_on_one_stream() {
    follows(Manner { variant: Variant::Delta, is_aggregated: true, cache: Cache::Snapshot });
}

#[test]
fn incremental_on_separate_streams() {
    follows(Manner { variant: Variant::Delta, is_aggregated: false, cache: Cache::Linear });
}
